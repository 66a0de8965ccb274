"""Known damage to the log: false clicks added to the training pairs, with the injected pairs as truth.

Users are drawn evenly among those with a training pair. Items are drawn evenly ("random": misclicks, crawlers) or in proportion to their
training pairs ("popular": clicks on what is shown most). An injected pair is never a training pair. It may be a validation or test pair, as
a real misclick may, and is then masked when items are ranked, for every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from rectifier_core.base.arrays import Bool, Float64, Int64
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.config import ClickKind
from rectifier_core.evaluation.splits import pair_keys

CLICK_KINDS: tuple[ClickKind, ...] = get_args(ClickKind)
MAX_ROUNDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyLog:
    """The training pairs, then the injected ones; ``injected`` [E] marks the latter."""

    interactions: Interactions
    injected: Bool


def inject_clicks(training: Interactions, kind: ClickKind, share: float, *, seed: int) -> NoisyLog:
    """Add ``share`` times as many pairs as ``training`` has different ones, none twice; their times are drawn from those of the log.

    Raises ValueError when the users and items of the log leave fewer than twice as many pairs to choose from.
    """
    if kind not in CLICK_KINDS:
        raise ValueError(f"kind: wanted one of {', '.join(CLICK_KINDS)}, got {kind!r}")
    if not share >= 0:
        raise ValueError(f"share: wanted at least 0, got {share}")
    rng = generator(seed, "interaction noise", kind)
    keys = _fresh_keys(training, kind, share, rng)
    users, items = (keys // training.num_items).astype(np.int32), (keys % training.num_items).astype(np.int32)
    times = None if training.times is None else np.concatenate([training.times, rng.choice(training.times, len(keys))])
    noisy = Interactions(
        users=np.concatenate([training.users, users]),
        items=np.concatenate([training.items, items]),
        times=times,
        num_users=training.num_users,
        num_items=training.num_items,
    )
    return NoisyLog(interactions=noisy, injected=np.arange(len(noisy.users)) >= len(training.users))


def _fresh_keys(training: Interactions, kind: ClickKind, share: float, rng: np.random.Generator) -> Int64:
    """The injected pairs as ``user * num_items + item``, in the order they were drawn."""
    taken = np.unique(pair_keys(training))
    count = round(share * len(taken))
    users, counts = np.unique(training.users), np.bincount(training.items, minlength=training.num_items)
    free = len(users) * np.count_nonzero(counts) - len(taken)
    if 2 * count > free:
        raise ValueError(
            f"share: wanted at most half of the {free} pairs that are not in the log, got {share} of {len(taken)} = {count}"
        )
    weight: Float64 = (counts > 0) / np.count_nonzero(counts) if kind == "random" else counts / counts.sum()
    fresh = np.empty(0, np.int64)
    for _ in range(MAX_ROUNDS):
        if len(fresh) >= count:
            break
        size = 2 * (count - len(fresh)) + 8
        drawn = rng.choice(users, size).astype(np.int64) * training.num_items + rng.choice(len(weight), size, p=weight)
        together = np.concatenate([fresh, drawn[~np.isin(drawn, taken)]])
        fresh = together[np.sort(np.unique(together, return_index=True)[1])]
    if len(fresh) < count:
        raise ValueError(
            f"share: wanted a share that the popular items have room for, got {share}: {len(fresh)} of {count} pairs found"
        )
    return fresh[:count]
