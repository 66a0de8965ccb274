"""Stage: cross-modal. It places items by another modality's features, in the form of anchors that a projection can be fitted to.

With several modalities, one is held against another as it is against behaviour: the narrower of the two is projected (by the projection
stage, out of fold) onto the leading principal components of the wider, and trust reads both scores.

Source: cross-modal agreement as in noisy correspondence learning (Huang et al., NeurIPS 2021), here by cross-fitted linear maps instead of
trained encoders, so that a mismatched pair cannot teach the map its own mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator
from rectifier_core.projection.config import CrossModalConfig


def cross_modal_pairs(widths: Mapping[str, int], config: CrossModalConfig) -> tuple[tuple[str, str], ...]:
    """Every two modalities once, (projected, target): the narrower is projected, for the map's cost grows with its width cubed."""
    if not config.enabled:
        return ()
    names = sorted(widths, key=lambda name: (widths[name], name))
    return tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What places are read off: ``mean`` [D], the mean unit row, and ``leading`` [D, components or D], the leading principal axes."""

    mean: Float32
    leading: Float32


def principal_axes(modality: str, features: Float32, present: Bool, config: CrossModalConfig, *, seed: int) -> Axes:
    """The axes of the ``present`` unit rows of ``features`` [I, D], found on a sample of them."""
    rows = np.flatnonzero(present)
    sample = np.sort(
        generator(seed, "cross_modal", modality, "sample").choice(
            rows, min(len(rows), config.sample_rows), replace=False
        )
    )
    mean, leading = _principal_axes(features, sample, config)
    return Axes(mean=mean, leading=leading)


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
    """Unit rows [I, components] of the leading principal components of one modality's unit rows; ``trained`` where it is ``present``.

    ``features`` [I, D] may be a memory map, read by blocks. ``axes`` are those to place by, where they are at hand; rows of ``known``
    [I, components] that are not zero are taken as they are.
    """
    axes = axes or principal_axes(modality, features, present, config, seed=seed)
    items = np.zeros((len(present), config.components), np.float32) if known is None else known * present[:, None]
    rows = np.flatnonzero(present & ~items.any(axis=1))
    for block in row_blocks(len(rows), config.block_rows):
        at = rows[block]
        centred: Float32 = unit_rows(np.asarray(features[at])) - axes.mean
        items[at, : axes.leading.shape[1]] = unit_rows(centred @ axes.leading)
    return places_of(items)


def places_of(items: Float32) -> Anchors:
    """Unit rows [I, components], zero where there is none, in the form of anchors."""
    known: Bool = np.asarray(items.any(axis=1))
    nothing = np.zeros(0)
    reliability = np.asarray(known, np.float32)
    return Anchors(
        items=items,
        ego=items,
        trained=known,
        reliability=reliability,
        losses=nothing,
        recalls=nothing,
        method="cross_modal",
    )


def _principal_axes(
    features: Float32, sample: np.ndarray[tuple[int], np.dtype[np.int64]], config: CrossModalConfig
) -> tuple[Float32, Float32]:
    """Mean unit row [D] and the leading eigenvectors [D, components or D] of the covariance over ``sample``."""
    width = features.shape[1]
    total, gram = np.zeros(width), np.zeros((width, width))
    for block in row_blocks(len(sample), config.block_rows):
        x = unit_rows(np.asarray(features[sample[block]])).astype(np.float64)
        total += x.sum(axis=0)
        gram += x.T @ x
    count = max(1, len(sample))
    mean = total / count
    vectors = np.linalg.eigh(gram / count - np.outer(mean, mean))[1][:, ::-1][:, : min(config.components, width)]
    sign = np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return mean.astype(np.float32), np.ascontiguousarray(vectors * sign, dtype=np.float32)
