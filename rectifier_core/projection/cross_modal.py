"""Stage: cross-modal. It turns one modality's features into anchors that another modality can be projected onto.

Two modalities are compared as each is with behaviour: the narrower is projected, out of fold, onto the leading principal components of
the wider. Trust reads both scores.

Source: cross-modal agreement as in noisy correspondence learning (Huang et al., NeurIPS 2021).

Differs from the paper: cross-fitted linear maps instead of trained encoders, so that a mismatched pair cannot influence its own score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from rectifier_core.base.arrays import Bool, Float32, Float64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator
from rectifier_core.projection.config import CrossModalConfig


def cross_modal_pairs(widths: Mapping[str, int], config: CrossModalConfig) -> tuple[tuple[str, str], ...]:
    """Return every two modalities once, as (projected, target). The cost grows with the width cubed, so the narrower is projected."""
    if not config.enabled:
        return ()
    names = sorted(widths, key=lambda name: (widths[name], name))
    return tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The mean unit row ``mean`` [D] and the leading principal axes ``leading`` [D, components or fewer] of one modality."""

    mean: Float32
    leading: Float32


def principal_axes(modality: str, features: Float32, present: Bool, config: CrossModalConfig, *, seed: int) -> Axes:
    """Return the principal axes of a sample of the ``present`` unit rows of ``features`` [I, D]."""
    rows = np.flatnonzero(present)
    rng = generator(seed, "cross_modal", modality, "sample")
    sample = np.sort(rng.choice(rows, min(len(rows), config.sample_rows), replace=False))
    width = features.shape[1]
    if len(sample) < width:
        return _axes_of_few(unit_rows(np.asarray(features[sample])).astype(np.float64), config.components)

    def units() -> Iterator[Float32]:
        for block in row_blocks(len(sample), config.block_rows):
            yield unit_rows(np.asarray(features[sample[block]]))

    mean = sum((x.sum(axis=0, dtype=np.float64) for x in units()), np.zeros(width)) / max(1, len(sample))
    gram = np.zeros((width, width))
    for block in units():
        # Products of centred rows may be float32: a large common mean would cost their precision.
        centred = block - mean.astype(np.float32)
        gram += centred.T @ centred
    leading = [max(0, width - config.components), width - 1]
    return _signed(mean, scipy.linalg.eigh(gram, subset_by_index=leading)[1][:, ::-1])


def _axes_of_few(rows: Float64, components: int) -> Axes:
    """The axes of fewer rows [N, D] than columns, by a singular value decomposition: the D x D matrix would take minutes."""
    mean = rows.sum(axis=0) / max(1, len(rows))
    vectors = np.linalg.svd(rows - mean, full_matrices=False)[2].T[:, :components]
    return _signed(mean, vectors)


def _signed(mean: Float64, vectors: Float64) -> Axes:
    # The sign of an eigenvector is arbitrary. Its largest entry is made positive, so that two runs agree.
    sign = np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return Axes(mean=mean.astype(np.float32), leading=np.ascontiguousarray(vectors * sign, dtype=np.float32))


def place_by_features(
    modality: str,
    features: Float32,
    present: Bool,
    config: CrossModalConfig,
    *,
    seed: int,
    axes: Axes | None = None,
    known: Float32 | None = None,
) -> Anchors:
    """Return one modality's principal coordinates as anchors: unit rows [I, components], ``trained`` where it is ``present``.

    ``features`` [I, D] may be a memory map, read by blocks. ``axes`` are computed if they are not passed. Rows of ``known``
    [I, components] that are not zero are used as they are.
    """
    axes = axes or principal_axes(modality, features, present, config, seed=seed)
    items = np.zeros((len(present), config.components), np.float32) if known is None else known * present[:, None]
    rows = np.flatnonzero(present & ~items.any(axis=1))
    for block in row_blocks(len(rows), config.block_rows):
        at = rows[block]
        centred: Float32 = unit_rows(np.asarray(features[at])) - axes.mean
        items[at, : axes.leading.shape[1]] = unit_rows(centred @ axes.leading)
    trained: Bool = np.asarray(items.any(axis=1))
    return Anchors(
        items=items,
        ego=items,
        trained=trained,
        reliability=trained.astype(np.float32),
        losses=np.zeros(0),
        recalls=np.zeros(0),
        method="cross_modal",
    )
