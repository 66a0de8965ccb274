"""Two sequence modalities of the same items on one time axis, so that a lag is a shift of row numbers.

Source: principal components of the variation within items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.sequences.consensus import item_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One sequence modality: ``segments`` [S, D] float32 (may be a memory map), item i's from ``offsets[i]`` up to ``offsets[i + 1]``.

    ``positions`` [S] int32 is the time of a segment in its item, rising within the item. Only ``trusted`` [S] segments are used.
    """

    modality: str
    segments: Float32
    offsets: Int64
    positions: Int32
    trusted: Bool

    def __post_init__(self) -> None:
        count = len(self.segments)
        if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 0).any():
            raise ValueError(
                f"offsets: wanted to rise from 0 to the {count} segments, got {self.offsets[0]} to {self.offsets[-1]}"
            )
        if self.positions.shape != (count,) or self.trusted.shape != (count,):
            raise ValueError(
                f"positions, trusted: wanted one value a segment, got {self.positions.shape} and {self.trusted.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Both modalities' segments of N items on one time axis: row ``start[n] + t`` is time t of item n, gaps of ``max_lag`` rows between."""

    first: Float32
    second: Float32
    has_first: Bool
    has_second: Bool
    owner: Int64
    num_items: int


def trusted_counts(track: Track) -> Int64:
    """The number of trusted segments of each item: [I]."""
    return np.diff(np.concatenate([[0], np.cumsum(track.trusted, dtype=np.int64)])[track.offsets])


def _centred(track: Track, item: int) -> tuple[Float32, Int64]:
    at = track.offsets[item] + np.flatnonzero(track.trusted[track.offsets[item] : track.offsets[item + 1]])
    rows = unit_rows(np.asarray(track.segments[at], dtype=np.float32))
    return rows - rows.mean(axis=0), track.positions[at].astype(np.int64)


def leading_directions(track: Track, chosen: Int64, most: int, block_rows: int) -> Float32:
    """The at most ``most`` strongest directions in which segments vary within an item, scaled to unit variance: [D, width]."""
    width = track.segments.shape[1]
    scatter, counts = np.zeros((width, width)), trusted_counts(track)[chosen]
    for items in item_blocks(np.concatenate([[0], np.cumsum(counts)]), block_rows):
        rows = np.concatenate([_centred(track, int(item))[0] for item in chosen[items]])
        scatter += rows.T @ rows
    values, vectors = scipy.linalg.eigh(scatter / counts.sum(), subset_by_index=[max(0, width - most), width - 1])
    used = values > 1e-6 * max(float(values[-1]), float(np.finfo(np.float64).tiny))
    directions: Float32 = (vectors[:, used] / np.sqrt(values[used])).astype(np.float32)
    return directions


def reduced_rows(track: Track, chosen: Int64, directions: Float32) -> tuple[Float32, Int64, Int64]:
    """The items' segments along the directions, their times, and the items' bounds in both."""
    parts = [_centred(track, int(item)) for item in chosen]
    rows = np.concatenate([x @ directions for x, _ in parts])
    bounds = np.concatenate([[0], np.cumsum([len(times) for _, times in parts])]).astype(np.int64)
    return rows, np.concatenate([times for _, times in parts]), bounds


def time_grid(reduced: list[tuple[Float32, Int64, Int64]], order: Int64, max_lag: int) -> Grid:
    """The first sequence of item n beside the second one of item ``order[n]``."""
    (rows, times, bounds), (other_rows, other_times, other_bounds) = reduced
    count = len(order)
    lasts, other_lasts = times[bounds[1:] - 1], other_times[other_bounds[1:] - 1][order]
    spans = np.maximum(lasts, other_lasts) + 1 + max_lag
    start = max_lag + np.cumsum(spans) - spans
    height = max_lag + int(spans.sum())
    counts, other_counts = np.diff(bounds), np.diff(other_bounds)[order]
    at = np.repeat(start, counts) + times
    taken = np.repeat(other_bounds[:-1][order], other_counts) + _running(other_counts)
    other_at = np.repeat(start, other_counts) + other_times[taken]
    first, second = np.zeros((height, rows.shape[1]), np.float32), np.zeros((height, other_rows.shape[1]), np.float32)
    has_first, has_second = np.zeros(height, np.bool_), np.zeros(height, np.bool_)
    first[at], second[other_at], has_first[at], has_second[other_at] = rows, other_rows[taken], True, True
    owner = np.zeros(height, np.int64)
    owner[at] = np.repeat(np.arange(count), counts)
    return Grid(first=first, second=second, has_first=has_first, has_second=has_second, owner=owner, num_items=count)


def _running(counts: Int64) -> Int64:
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def lagged_pairs(grid: Grid, lag: int) -> Int64:
    """Rows of the grid whose first segment has a second one ``lag`` later in the same item."""
    height = len(grid.has_first)
    rows = np.flatnonzero(grid.has_first)
    rows = rows[(rows + lag >= 0) & (rows + lag < height)]
    return rows[grid.has_second[rows + lag]]
