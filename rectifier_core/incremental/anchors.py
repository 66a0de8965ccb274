"""Anchors of a log that grew by little: the ego rows of an earlier run kept, newcomers folded in, the layers run over the log of today.

Source: folding-in (Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 1990): a new node goes where its neighbours are. The
layer mean (He et al., "LightGCN", SIGIR 2020, equation 8) then moves every item by what is new around it. Nothing is trained, so the space
keeps its axes, and maps into it that were fitted earlier stay good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import hold_out
from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph, layer_mean, layer_mean_rows
from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.base.seeding import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRows:
    """Ego rows of an earlier run in this run's order, NaN for nodes it did not know: ``users`` [U, A] and ``items`` [I, A]; and
    ``reliability`` [I], NaN where it had none."""

    users: Float32
    items: Float32
    reliability: Float32


def refold_anchors(interactions: Interactions, earlier: EarlierRows, config: AnchorsConfig, *, seed: int) -> Anchors:
    """One unit row an item, from earlier ego rows.

    A newcomer's ego row points where its neighbours' do and is as long as those of known nodes with as many pairs; its reliability is
    theirs too. ``recalls`` holds the held-out Recall@20 alone. Most pairs held out now were trained on earlier, so it is no measure of
    quality: it serves to see a fall from one such run to the next.
    """
    ego, layers = _ego(InteractionGraph.of(interactions), earlier, interactions), config.num_layers
    training, held_out = hold_out(interactions, config.held_out, generator(seed, "anchors", "hold-out"))
    judge = HeldOutRecall(training, held_out, generator(seed, "anchors", "judge"))
    recall = judge(layer_mean(InteractionGraph.of(training), torch.from_numpy(ego), layers))
    del judge, training, held_out
    num_users, degree = interactions.num_users, np.bincount(interactions.items, minlength=interactions.num_items)
    items = unit_rows(layer_mean_rows(InteractionGraph.of(interactions), ego, layers)[num_users:])
    items[degree == 0] = 0
    trained = (degree > 0) & (np.abs(items).sum(axis=1) > 0)
    own = ego[num_users:].copy()
    own[degree == 0] = 0
    known = trained & ~np.isnan(earlier.reliability)
    return Anchors(
        items=items,
        ego=own,
        user_ego=ego[:num_users].copy(),
        trained=trained,
        reliability=np.where(trained, _as_alike(np.nan_to_num(earlier.reliability), known, degree), 0).astype(
            np.float32
        ),
        losses=np.zeros(0),
        recalls=np.array([recall]),
        method=config.method,
    )


def _ego(graph: InteractionGraph, earlier: EarlierRows, interactions: Interactions) -> Float32:
    ego: Float32 = np.nan_to_num(np.concatenate([earlier.users, earlier.items]))
    users, items = np.split(ego, [graph.num_users])
    # Users first: a new item is met by users who are known, far more often than the other way about.
    for side, rows, given, nodes in (
        (USERS, users, earlier.users, interactions.users),
        (ITEMS, items, earlier.items, interactions.items),
    ):
        known = ~np.isnan(given[:, 0]) & given.any(axis=1)
        degree = np.bincount(nodes, minlength=len(rows))
        lengths = _as_alike(np.linalg.norm(rows, axis=1), known, degree)
        new = np.flatnonzero(~known & (degree > 0))
        neighbours = torch.from_numpy((users, items)[1 - side])
        folded = (graph.towards[side] @ neighbours).numpy() if len(new) else rows
        rows[new] = unit_rows(folded[new]) * lengths[new, None].astype(np.float32)
    return ego


def _as_alike(values: Float32, known: Bool, degree: Int64) -> Float32:
    """``values`` [N] where ``known``, else the mean of the known ones whose number of pairs has as many binary digits."""
    digits = np.frexp(degree.astype(np.float64))[1]
    counts = np.bincount(digits[known], minlength=65)
    sums = np.bincount(digits[known], weights=values[known].astype(np.float64), minlength=65)
    overall = sums.sum() / max(1, counts.sum())
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    return np.where(known, values, usual[digits]).astype(np.float32)
