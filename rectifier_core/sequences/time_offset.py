"""Stage: time offset. The lag in segments of one sequence modality behind another, from their common time course.

Source: the lag of the highest cross-correlation (Knapp and Carter, IEEE TASSP 1976) after a linear map between the modalities (temporal
canonical correlation: Bießmann et al., Machine Learning 2010). Differs from the paper: the map is an out-of-fold ridge regression. At each
lag it is fitted on other items, so no lag wins by fitting noise. Segments are centred within their item, because a constant has no time.

The null pairs every item with another item's sequence. A lag is returned only if all of these hold:

- Its correlation clearly exceeds the null.
- It wins in nearly all resamples of the items.
- It does not lie at the end of the range searched.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.seeding import generator
from rectifier_core.base.sequence_records import NO_LAG, TimeOffset
from rectifier_core.projection.crossfit import NormalEquations
from rectifier_core.sequences.config import TimeOffsetConfig
from rectifier_core.sequences.time_grid import (
    Grid,
    Track,
    lagged_pairs,
    leading_directions,
    reduced_rows,
    time_grid,
    trusted_counts,
)

__all__ = ["TimeOffsetConfig", "Track", "recover_time_offset"]


def recover_time_offset(
    first: Track, second: Track, config: TimeOffsetConfig, *, seed: int, progress: Progress = silent
) -> TimeOffset:
    """The lag of ``second`` behind ``first`` in segments, for all items together and for each item where it is clear.

    Raises ValueError where the tracks have different items.
    """
    if len(first.offsets) != len(second.offsets):
        raise ValueError(
            f"offsets: wanted tracks of the same items, got {len(first.offsets) - 1} and {len(second.offsets) - 1} items"
        )
    lags = np.arange(-config.max_lag, config.max_lag + 1, dtype=np.int32)
    name = (first.modality, second.modality)
    both = np.flatnonzero((trusted_counts(first) >= 2) & (trusted_counts(second) >= 2))
    if len(both) < max(config.min_items, 2 * config.folds):
        return _unknown(
            name,
            lags,
            len(first.offsets) - 1,
            f"only {len(both)} items have both sequences, fewer than {config.min_items}",
        )
    rng = generator(seed, "time-offset", *name)
    chosen = _sampled(first, second, both, config, rng)
    maps = [leading_directions(track, chosen, config.width, config.block_rows) for track in (first, second)]
    reduced = [reduced_rows(track, chosen, directions) for track, directions in zip((first, second), maps, strict=True)]
    folds = (rng.permutation(len(chosen)) % config.folds).astype(np.int32)
    order = np.arange(len(chosen))
    sums = _lag_sums(time_grid(reduced, order, config.max_lag), folds, lags, config)
    progress(f"time offset of {name[1]} against {name[0]}: lags", 1, 1 + config.controls)
    null = []
    for control in range(config.controls):
        # A cycle through all items pairs no item with its own sequence.
        cycle, other = rng.permutation(len(chosen)), np.zeros(len(chosen), np.int64)
        other[cycle] = np.roll(cycle, 1)
        null.append(_correlation(_lag_sums(time_grid(reduced, other, config.max_lag), folds, lags, config).sum(axis=0)))
        progress(f"time offset of {name[1]} against {name[0]}: controls", 2 + control, 1 + config.controls)
    return _judged(name, lags, sums, np.concatenate(null), reduced, folds, chosen, len(first.offsets) - 1, config, rng)


def _judged(
    name: tuple[str, str],
    lags: Int32,
    sums: Float64,
    null: Float64,
    reduced: list[tuple[Float32, Int64, Int64]],
    folds: Int32,
    chosen: Int64,
    num_items: int,
    config: TimeOffsetConfig,
    rng: np.random.Generator,
) -> TimeOffset:
    correlation = _correlation(sums.sum(axis=0))
    best = int(np.argmax(correlation))
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=config.resamples).astype(np.float64)
    again = _correlation(np.einsum("bi,ilk->blk", drawn, sums, optimize=True))
    support = float((again.argmax(axis=1) == best).mean())
    bound = max(float(null.max()), float(null.mean() + config.clearance * null.std()))
    best_lag = f"the best held-out correlation is {correlation[best]:.3f} at lag {lags[best]}"
    if correlation[best] <= bound:
        reason = f"no common time course: {best_lag}, where items paired with another's sequence reach {bound:.3f}"
    elif abs(int(lags[best])) == config.max_lag:
        reason = f"{best_lag}, the end of the range searched: raise max_lag = {config.max_lag}"
    elif support < config.min_support:
        reason = f"{best_lag}, which wins in {support:.0%} of resamples only: neighbouring lags do as well"
    else:
        reason = ""
    known = not reason
    item_lags = np.full(num_items, NO_LAG, np.int32)
    if known:
        item_lags[chosen] = _item_lags(reduced, folds, lags, best, config, rng)
    return TimeOffset(
        first=name[0],
        second=name[1],
        lag=int(lags[best]) if known else None,
        identifiable=known,
        lags=lags,
        correlation=correlation,
        null_correlation=null,
        support=support,
        item_lags=item_lags,
        reason=reason or f"{best_lag}, against {bound:.3f} by chance, and wins in {support:.0%} of resamples",
    )


def _sampled(first: Track, second: Track, both: Int64, config: TimeOffsetConfig, rng: np.random.Generator) -> Int64:
    """As many items as give ``sample`` segments of either modality at most, ascending."""
    order = rng.permutation(both)
    size = np.maximum(trusted_counts(first), trusted_counts(second))[order].cumsum()
    return np.sort(order[: max(config.min_items, int(np.searchsorted(size, config.sample, side="right")))])


def _fitted(grid: Grid, folds: Int32, lag: int, config: TimeOffsetConfig) -> NormalEquations:
    rows = lagged_pairs(grid, lag)
    sums = NormalEquations(
        num_folds=config.folds, origin=np.zeros(grid.first.shape[1], np.float32), target_width=grid.second.shape[1]
    )
    if len(rows):
        sums.add(grid.first[rows], grid.second[rows + lag], folds[grid.owner[rows]])
    return sums


def _predicted(grid: Grid, folds: Int32, rows: Int64, sums: NormalEquations, config: TimeOffsetConfig) -> Float32:
    """The second modality at these rows, predicted by the map fitted without the item."""
    made, fold = np.zeros((len(rows), grid.second.shape[1]), np.float32), folds[grid.owner[rows]]
    maps = sums.solve_folds(config.ridge)
    for f in np.unique(fold):
        inside = fold == f
        made[inside] = (grid.first[rows[inside]] - maps.feature_means[f]) @ maps.weights[f]
    return made


def _lag_sums(grid: Grid, folds: Int32, lags: Int32, config: TimeOffsetConfig) -> Float64:
    """Sums behind the held-out correlation, per item and lag: [N, lags, 3] prediction times target, and each squared."""
    sums = np.zeros((grid.num_items, len(lags), 3))
    for column, lag in enumerate(lags.tolist()):
        rows = lagged_pairs(grid, lag)
        if len(rows) < 2 * config.folds:
            continue
        made, target = _predicted(grid, folds, rows, _fitted(grid, folds, lag, config), config), grid.second[rows + lag]
        _gather(sums[:, column], grid.owner[rows], made, target)
    return sums


def _gather(out: Float64, owner: Int64, made: Float32, target: Float32) -> None:
    for place, (left, right) in enumerate(((made, target), (made, made), (target, target))):
        out[:, place] += np.bincount(owner, np.einsum("ij,ij->i", left, right), minlength=len(out))


def _correlation(sums: Float64) -> Float64:
    """Correlation of prediction and target from sums [..., 3], 0 where there are none."""
    square = sums[..., 1] * sums[..., 2]
    return np.divide(sums[..., 0], np.sqrt(square), out=np.zeros(square.shape), where=square > 0)


def _item_lags(
    reduced: list[tuple[Float32, Int64, Int64]],
    folds: Int32,
    lags: Int32,
    best: int,
    config: TimeOffsetConfig,
    rng: np.random.Generator,
) -> Int32:
    """The best lag of each item under the common map, where its correlation exceeds 95 % of those with a foreign sequence."""
    grid = time_grid(reduced, np.arange(len(folds)), config.max_lag)
    sums = _fitted(grid, folds, int(lags[best]), config)
    own = _item_correlations(grid, folds, lags, sums, config)
    cycle, other = rng.permutation(len(folds)), np.zeros(len(folds), np.int64)
    other[cycle] = np.roll(cycle, 1)
    foreign = _item_correlations(time_grid(reduced, other, config.max_lag), folds, lags, sums, config).max(axis=1)
    foreign = foreign[np.isfinite(foreign)]
    found = lags[own.argmax(axis=1)]
    bound = float(np.quantile(foreign, 0.95)) if len(foreign) else np.inf
    return np.where(own.max(axis=1) > bound, found, np.int32(NO_LAG)).astype(np.int32)


def _item_correlations(
    grid: Grid, folds: Int32, lags: Int32, sums: NormalEquations, config: TimeOffsetConfig
) -> Float64:
    """Correlation per item and lag, -inf with fewer than ``min_overlap`` common segments: [N, lags]."""
    rows = np.flatnonzero(grid.has_first)
    made = np.zeros((len(grid.first), grid.second.shape[1]), np.float32)
    made[rows] = _predicted(grid, folds, rows, sums, config)
    found = np.full((grid.num_items, len(lags)), -np.inf)
    for column, lag in enumerate(lags.tolist()):
        pairs = lagged_pairs(grid, lag)
        parts = np.zeros((grid.num_items, 3))
        _gather(parts, grid.owner[pairs], made[pairs], grid.second[pairs + lag])
        enough = np.bincount(grid.owner[pairs], minlength=grid.num_items) >= config.min_overlap
        found[enough, column] = _correlation(parts)[enough]
    return found


def _unknown(name: tuple[str, str], lags: Int32, num_items: int, reason: str) -> TimeOffset:
    return TimeOffset(
        first=name[0],
        second=name[1],
        lag=None,
        identifiable=False,
        lags=lags,
        correlation=np.zeros(len(lags)),
        null_correlation=np.zeros(0),
        support=0.0,
        item_lags=np.full(num_items, NO_LAG, np.int32),
        reason=reason,
    )
