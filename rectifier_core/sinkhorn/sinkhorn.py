"""Stage: plan, the sparse affinity balanced to about doubly stochastic, so that no feature serves as everyone's donor.

Source: Sinkhorn and Knopp, 1967; sparse and without gradients as in "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730.
Anderson mixing (``anderson``) of the logarithm of the column scaling; stabilised scaling (``scaling``) over blocks (``support``).

Differs from the paper:
- ``method = "anderson"`` mixes the last iterates: clustered graphs stall plain scaling (``method = "knopp"``, the paper's) for hundreds
  of iterations.
- Rectangular problems: rows sum to 1, and the columns that any row reaches share the mass evenly; a column nobody reaches has no target.
- It stops at a marginal tolerance and says why it stopped; the last half step is over rows, so rows sum to 1 and the error is the columns'.
- A graph that no plan can balance is told by a set of columns that more rows depend on than its share can serve (Hall, J. London Math.
  Soc. 10, 1935), found among those that scaling pushes down.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, check_array
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import Affinity, BalanceOutcome, Plan
from rectifier_core.base.threads import even_bounds, in_shards, num_shards
from rectifier_core.sinkhorn.anderson import Anderson
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.scaling import (
    REACH,
    Run,
    in_order,
    kernel_sums,
    lowest_of_rows,
    make_columns,
    make_rows,
    weigh_rows,
)
from rectifier_core.sinkhorn.sparse_graph import Allocate, Support, build_support, in_memory

PATIENCE, FALL = 30, 0.99
"""Iterations within which the error must fall to this share of what it was."""
HOPELESS, HARDLY, LOOK_EVERY = 5, 0.95, 5
"""The same two, once no plan can be within tolerance; after how many iterations to look for a proof of that, which costs two or three."""
CHUNK = 1 << 14
FINE = 1e-5
"""Down to this tolerance vectors are gathered, and sent, as float32: the columns' sums are then good to about 1e-7 of themselves."""


def balance(
    affinity: Affinity,
    config: SinkhornConfig,
    *,
    potential: Float64 | None = None,
    memory: int | None = None,
    allocate: Allocate = in_memory,
    run: Run = in_order,
    progress: Progress = silent,
) -> Plan:
    """Balance exp(scores) on the affinity's support. Iterations stop at the tolerance, at the limit, when the error no longer
    falls, or within tolerance of what any plan leaves.

    ``potential`` [I] float64 starts from an earlier plan's, NaN where an item had none. ``memory`` bounds, in bytes, what is held beside
    vectors [I] and the graph's arrays, ``support.ENTRY`` bytes a neighbour, which lie where ``allocate`` says; the result's ``indices`` and
    ``weights`` are the ones named ``rows-indices`` and ``rows-kernel``. ``run`` does the work on blocks. None of the three changes a bit.
    """
    support = build_support(affinity, memory=memory, allocate=allocate)
    if not support.num_entries:
        return _empty(affinity.modality, support)
    scaling = Scaling(support, run, exact=config.tolerance < FINE)
    here = best = scaling.start(potential)
    if config.balance == "row":
        scaling.column_step(here)
        return _plan(affinity.modality, scaling, here, [], BalanceOutcome.ROW_ONLY)
    mixing = Anderson(config.memory, support.num_items) if config.method == "anderson" else None
    errors: list[float] = []
    outcome, lowest, mark, marked, least = BalanceOutcome.MAX_ITERATIONS, np.inf, np.inf, 0, 0.0
    for iteration in range(config.max_iterations + 1):
        step, error = scaling.column_step(here)
        errors.append(error)
        progress(f"plan of {affinity.modality}: column error {error:.2e}", iteration, config.max_iterations)
        if error < lowest:
            lowest, best = error, here
        if error < FALL * mark:
            mark, marked = error, iteration
        if error <= config.tolerance:
            outcome = BalanceOutcome.CONVERGED
            break
        if iteration and iteration % LOOK_EVERY == 0:
            least = max(least, scaling.least_error(best))
        if iteration - marked >= PATIENCE or (least > config.tolerance and _as_near_as_matters(errors, least, config)):
            outcome = BalanceOutcome.STALLED
            break
        if mixing is not None and error > 2 * lowest:
            mixing.forget()
        here = here + step if mixing is None else mixing.next(here, step)
    if outcome is not BalanceOutcome.CONVERGED and max(least, scaling.least_error(best)) > config.tolerance:
        outcome = BalanceOutcome.INFEASIBLE
    return _plan(affinity.modality, scaling, best, errors, outcome)


def _as_near_as_matters(errors: list[float], least: float, config: SinkhornConfig) -> bool:
    """Whether to leave a graph that no plan balances: its error is within tolerance of the ``least`` that any has, or hardly falls."""
    before, lately = errors[:-HOPELESS], errors[-HOPELESS:]
    return errors[-1] <= least + config.tolerance or (len(before) > 0 and min(lately) > HARDLY * min(before))


class Scaling:
    """Sums of the scaled graph, and what follows from them for the columns; vectors are float64 [I].

    ``exact`` gathers them as they are, else as float32, which is half of what a step waits for.
    """

    def __init__(self, support: Support, run: Run, *, exact: bool = False) -> None:
        self.support, self._run, self._exact = support, run, exact
        self.unreached = np.flatnonzero(~support.reached)
        self.idle = np.flatnonzero(~support.asking)
        self.num_reached, self.num_asking = support.num_items - len(self.unreached), support.num_items - len(self.idle)
        self.share = self.num_asking / self.num_reached
        self.scaled, self.inverse, self.ratio, self._relative = (np.empty(support.num_items) for _ in range(4))
        self._chunks = list(row_blocks(support.num_items, CHUNK))
        self._bounds = even_bounds(len(self._chunks), num_shards(64 * support.num_items))
        self._reference: Float64 | None = None
        self._last: Float64 | None = None

    def start(self, potential: Float64 | None) -> Float64:
        """A potential to start from: 0 where the one given says nothing, and off the support."""
        if potential is None:
            return np.zeros(self.support.num_items)
        check_array("potential", potential, (self.support.num_items,), np.float64)
        start = np.where(np.isfinite(potential), potential, 0.0)
        start[self.unreached] = 0
        return start

    def column_step(self, potential: Float64) -> tuple[Float64, float]:
        """The Sinkhorn-Knopp step of the log column scaling (zero off the support), and the error before taking it.

        ``scaled``, ``inverse`` and ``ratio`` are those of this potential until the next step.
        """
        self._last = potential
        self._refer(potential)
        self.inverse = self._run(kernel_sums, self.support.row_blocks, (self._sent(self.scaled),))
        self.inverse[self.idle] = np.inf
        np.divide(1.0, self.inverse, out=self.inverse)
        sums = self._run(kernel_sums, self.support.column_blocks, (self._sent(self.inverse),))
        sums[self.unreached] = 1
        errors, steps = np.empty(len(self._chunks)), np.empty_like(sums)

        def advance(first: int, last: int) -> None:
            for at in range(first, last):
                part = self._chunks[at]
                ratio = np.multiply(sums[part], self._factor[part], out=self.ratio[part])
                ratio *= self.scaled[part]
                errors[at] = np.abs(ratio - 1).sum()
                step = np.log(sums[part], out=steps[part])
                np.subtract(self._offset[part], step, out=step)
                step -= self._relative[part]

        in_shards(advance, self._bounds)
        return steps, float(errors.sum() / self.num_reached)

    def settle(self, potential: Float64) -> None:
        """Have ``scaled``, ``inverse`` and ``ratio`` be those of this potential."""
        if self._last is not potential:
            self.column_step(potential)

    def weigh(self) -> Float64:
        """Make the rows' kernel the weights of the last potential; what each row keeps of its own feature."""
        return self._run(weigh_rows, self.support.row_blocks, (self.scaled, self.inverse))

    def least_error(self, potential: Float64) -> float:
        """A bound from below on the error of any plan on this support.

        Rows that reach columns of a set S only, n of them, put n on S, whose fair share is less: the mean error is at least twice the
        excess. Sets tried are those of the most wanted columns, by their sums and by how far scaling has pushed them down: where there is
        no balance these are the ones that keep being pushed.
        """
        self.settle(potential)
        return max(self._excess(wanted) for wanted in (self.ratio, -potential))

    def _excess(self, wanted: Float64) -> float:
        wanted = wanted.copy()
        wanted[self.unreached] = np.inf
        inside = np.sort(self._run(lowest_of_rows, self.support.row_blocks, (wanted,))[self.support.asking])
        levels, held = np.unique(wanted[self.support.reached], return_counts=True)
        columns = np.cumsum(held[::-1])[::-1]
        rows = len(inside) - np.searchsorted(inside, levels, side="left")
        return float(2 * np.max(rows / self.share - columns) / self.num_reached)

    def _sent(self, vector: Float64) -> Float32 | Float64:
        return vector if self._exact else vector.astype(np.float32)

    def _refer(self, potential: Float64) -> None:
        """How far the potential is from the reference, and the exponential of that; a new reference where it has moved too far."""
        if self._reference is None or self._moved(potential) > REACH:
            self._reference = potential
            top = self._run(make_rows, self.support.row_blocks, (potential,))
            scale = self._run(make_columns, self.support.column_blocks, (potential, top))
            self._offset, self._factor = np.log(self.share) - scale, np.exp(scale) / self.share
            self._offset[self.unreached], self._factor[self.unreached] = 0, 1
            self._moved(potential)

    def _moved(self, potential: Float64) -> float:
        furthest, reference = np.empty(len(self._chunks)), self._reference

        def move(first: int, last: int) -> None:
            for at in range(first, last):
                part = self._chunks[at]
                relative = np.subtract(potential[part], reference[part], out=self._relative[part])  # type: ignore[index]
                furthest[at] = np.abs(relative).max()
                np.exp(np.minimum(relative, REACH), out=self.scaled[part])

        in_shards(move, self._bounds)
        return float(furthest.max())


def _plan(modality: str, scaling: Scaling, potential: Float64, errors: list[float], outcome: BalanceOutcome) -> Plan:
    scaling.settle(potential)
    own, reached, rows = scaling.weigh(), scaling.support.reached, scaling.support.rows
    own = own[~np.isnan(own)]
    sums = np.where(reached, scaling.ratio, 0)
    return Plan(
        modality=modality,
        indptr=rows.indptr,
        indices=rows.indices,
        weights=rows.kernel,
        potential=np.where(reached, potential - potential[reached].mean(), 0),
        marginal_errors=np.asarray(errors, dtype=np.float64),
        iterations=max(0, len(errors) - 1),
        column_sums=sums.astype(np.float32),
        column_error=float(np.abs(sums[reached] - 1).mean()),
        diagonal_mass=float(own.mean()) if len(own) else 0.0,
        outcome=outcome,
    )


def _empty(modality: str, support: Support) -> Plan:
    nothing = np.zeros(support.num_items)
    return Plan(
        modality=modality,
        indptr=support.rows.indptr,
        indices=support.rows.indices,
        weights=support.rows.kernel,
        potential=nothing,
        marginal_errors=np.empty(0),
        iterations=0,
        column_sums=nothing.astype(np.float32),
        column_error=0.0,
        diagonal_mass=0.0,
        outcome=BalanceOutcome.EMPTY,
    )
