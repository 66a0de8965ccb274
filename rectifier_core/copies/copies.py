"""Stage: copies. Groups of items with the same or nearly the same feature, and which of them are placeholders.

Many items may share a feature because they are variants of one product. Or the feature is a placeholder: a "no image" picture, a mean
vector, boilerplate text. Behaviour separates the two: the members of a placeholder have anchors as unlike as items drawn at random.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int64
from rectifier_core.base.numerics import Progress, silent, unit_rows
from rectifier_core.base.records import Anchors, Copies
from rectifier_core.base.seeding import generator
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.near_copies import Sketch, label_copies, sketch_rows

LEVEL = 0.95
DRAWS = 20_000
STRATA = 10
STRATUM_ITEMS = 200


def find_copies(
    modality: str,
    features: Float32,
    present: np.ndarray[tuple[int], np.dtype[np.bool_]],
    anchors: Anchors,
    config: CopiesConfig,
    *,
    seed: int,
    sketch: Sketch | None = None,
    progress: Progress = silent,
) -> Copies:
    """Groups of near-identical rows of ``features`` [I, D] (float32, may be a memory map) among the ``present`` [I] ones, and which are placeholders.

    Groups do not depend on the order of items or on ``config.block_rows``. Groups of equal size are numbered by their first item.
    ``sketch`` is the sketch of these features, computed here if None.
    """
    if sketch is None:
        sketch = sketch_rows(features, present, config, seed=seed, name=modality, progress=progress)
    labels = label_copies(features, sketch, config, seed=seed, name=modality, progress=progress)
    return judge_groups(modality, sketch.rows, labels, anchors, config, seed=seed)


def judge_groups(
    modality: str, rows: Int64, labels: Int64, anchors: Anchors, config: CopiesConfig, *, seed: int
) -> Copies:
    """The groups that ``labels`` [P] of the items ``rows`` [P] make, and which of them are placeholders."""
    group = np.full(len(anchors.trained), -1, np.int32)
    group[rows] = _numbered(labels)
    likeness, expected, anchored = _likeness(group, anchors)
    return Copies(
        modality=modality,
        group=group,
        unlike=_unlike(
            np.bincount(group[group >= 0]), likeness, expected, anchored, _chance(anchors, seed, modality), config
        ),
        likeness=likeness.astype(np.float32),
    )


def _numbered(labels: Int64) -> Int64:
    """Labels as numbers of groups from 0, the largest first and then the one that starts first; -1 for rows that are alone."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    order = order[counts[order] > 1]
    number = np.full(len(counts), -1)
    number[order] = np.arange(len(order))
    return number[inverse]


def _places(anchors: Anchors) -> Float32:
    """Anchors minus the mean of items of similar popularity, at unit length: [I, A], zero where untrained.

    Popular items lie close together whatever they are, and so do rare ones. The length of the ego row measures popularity.
    """
    trained = np.flatnonzero(anchors.trained)
    places = np.zeros_like(anchors.items)
    if not len(trained):
        return places
    lengths = np.linalg.norm(anchors.ego[trained], axis=1)
    strata = int(np.clip(len(trained) // STRATUM_ITEMS, 1, STRATA))
    stratum = np.searchsorted(np.quantile(lengths, np.arange(1, strata) / strata), lengths, side="right")
    for number in range(strata):
        rows = trained[stratum == number]
        if len(rows):
            places[rows] = unit_rows(anchors.items[rows] - anchors.items[rows].mean(axis=0))
    return places


def _likeness(group: np.ndarray[tuple[int], np.dtype[np.int32]], anchors: Anchors) -> tuple[Float64, Float64, Int64]:
    """Per group: mean cosine between its members' places, its expected value if they were one item, and how many have an anchor.

    Items in one place have a cosine of about the geometric mean of their anchors' reliabilities, which Spearman and Brown's formula takes
    from half the log to the whole.
    """
    members = np.flatnonzero((group >= 0) & anchors.trained)
    of, size = group[members], int(group.max(initial=-1)) + 1
    places, half = (
        _places(anchors)[members],
        np.clip(np.nan_to_num(anchors.reliability[members]), 0, 1).astype(np.float64),
    )
    reliability = 2 * half / (1 + half)
    count = np.bincount(of, minlength=size)
    pairs = np.where(count > 1, count * (count - 1.0), np.nan)
    sums = np.stack([np.bincount(of, weights=column, minlength=size) for column in places.T], axis=1)
    own = np.bincount(of, weights=np.einsum("ij,ij->i", places, places, dtype=np.float64), minlength=size)
    roots = np.bincount(of, weights=np.sqrt(reliability), minlength=size)
    expected = (roots**2 - np.bincount(of, weights=reliability, minlength=size)) / pairs
    return (np.einsum("ij,ij->i", sums, sums) - own) / pairs, expected, count


def _chance(anchors: Anchors, seed: int, modality: str) -> float:
    """The upper quantile of (sum of s_k z_k^2) - 1, z normal and s the spectrum of the places' covariance.

    Over sqrt(m (m - 1)) it is that of the mean cosine among m random items: a degenerate U-statistic's law (Serfling, 1980, 5.5.2),
    scaled to the variance that it has at m.
    """
    places = _places(anchors)[anchors.trained].astype(np.float64)
    if len(places) < 2:
        return np.inf
    spectrum = np.clip(np.linalg.eigvalsh(places.T @ places / len(places)), 0, None)
    draws = generator(seed, "copies", modality, "law").chisquare(1, (DRAWS, len(spectrum)))
    return float(np.quantile(draws @ spectrum - 1, LEVEL))


def _unlike(
    sizes: Int64, likeness: Float64, expected: Float64, anchored: Int64, chance: float, config: CopiesConfig
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    highest = chance / np.sqrt(np.maximum(anchored * (anchored - 1.0), 1))
    # Where chance alone reaches half of what items in one place would show, the anchors cannot decide.
    decidable = (anchored > 1) & (highest < expected / 2)
    apart = likeness <= np.maximum(highest, config.min_likeness * expected)
    unlike: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.where(decidable, apart, sizes >= config.large_group) & (
        sizes >= config.min_group
    )
    return unlike
