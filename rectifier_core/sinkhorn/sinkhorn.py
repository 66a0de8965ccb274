"""Stage: sinkhorn. Balance the sparse affinity to an about doubly stochastic plan, so that no feature is everyone's donor.

Source: Sinkhorn and Knopp, 1967; sparse and without gradients as in "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730.
One iteration normalises the rows of ``exp(scores + potential)``, then lowers each column's potential by the logarithm of its sum.

Differs from the paper:
- ``method = "anderson"`` mixes the last iterates. Clustered graphs stall the paper's plain iteration (``method = "knopp"``) for hundreds
  of iterations.
- Rows sum to 1. The columns that some row reaches share the mass evenly; a column that no row reaches gets nothing.
- The iteration stops at a tolerance of the column sums, and the outcome says why it stopped.
- A lower bound on the error of any plan tells a graph without a balance (INFEASIBLE) from one that converges slowly.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float64, check_array
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, BalanceOutcome, Plan
from rectifier_core.sinkhorn.anderson import Anderson
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sparse_graph import Scaling, SparseGraph, least_column_error

STALLED = 30, 0.99
"""The iteration is stalled if the best error of so many iterations is above this share of the best error before them."""
INFEASIBLE_STALLED = 5, 0.95
"""The same, once no plan can be within tolerance."""
BOUND_EVERY = 5
"""Iterations between two computations of the lower bound, which takes about as long as two or three iterations."""


def balance(
    affinity: Affinity, config: SinkhornConfig, *, potential: Float64 | None = None, progress: Progress = silent
) -> Plan:
    """Return exp(scores) on the affinity's support, scaled so that rows sum to 1 and columns to about the same.

    ``potential`` [I] float64 starts from an earlier plan's potential, NaN for an item that had none. The iteration ends at the tolerance,
    at ``max_iterations``, when the error no longer falls, or near the least error that any plan has: see ``BalanceOutcome``.
    """
    graph = SparseGraph(affinity)
    if not len(graph.indices):
        return _empty_plan(affinity.modality, graph.num_items)
    scaling, start = Scaling(graph), _start(graph, potential)
    if config.balance == "row":
        return _plan(affinity.modality, scaling, start, [], BalanceOutcome.ROW_ONLY)
    best, errors, outcome = _iterate(scaling, start, config, affinity.modality, progress)
    return _plan(affinity.modality, scaling, best, errors, outcome)


def _iterate(
    scaling: Scaling, start: Float64, config: SinkhornConfig, modality: str, progress: Progress
) -> tuple[Float64, list[float], BalanceOutcome]:
    """Return the best log column scaling [C], the error before each iteration, and why the iteration ended."""
    mixing = Anderson(config.memory) if config.method == "anderson" else None
    potential, best, best_sums, errors, least = start, start, start, list[float](), 0.0
    outcome = BalanceOutcome.MAX_ITERATIONS
    for iteration in range(config.max_iterations + 1):
        column_sums = scaling.column_sums(potential)
        errors.append(float(np.abs(column_sums - 1).mean()))
        progress(f"matching {modality}: column error {errors[-1]:.2e}", iteration, config.max_iterations)
        if errors[-1] == min(errors):
            best, best_sums = potential, column_sums
        if errors[-1] <= config.tolerance:
            return best, errors, BalanceOutcome.CONVERGED
        if iteration and iteration % BOUND_EVERY == 0:
            least = max(least, least_column_error(scaling.graph, best, best_sums))
        if _is_stalled(errors, least, config.tolerance):
            outcome = BalanceOutcome.STALLED
            break
        step = -np.log(column_sums)  # the Sinkhorn-Knopp step, in logarithms
        if mixing is None:
            potential = potential + step
        else:
            if errors[-1] > 2 * min(errors):
                mixing.restart()
            potential = mixing.next_point(potential, step)
    if max(least, least_column_error(scaling.graph, best, best_sums)) > config.tolerance:
        outcome = BalanceOutcome.INFEASIBLE
    return best, errors, outcome


def _is_stalled(errors: list[float], least: float, tolerance: float) -> bool:
    """Return whether more iterations are of no use; ``least`` is a lower bound on the error."""
    if least <= tolerance:
        return _is_flat(errors, *STALLED)
    return errors[-1] <= least + tolerance or _is_flat(errors, *INFEASIBLE_STALLED)


def _is_flat(errors: list[float], iterations: int, share: float) -> bool:
    earlier, recent = errors[:-iterations], errors[-iterations:]
    return bool(earlier) and min(recent) > share * min(earlier)


def _start(graph: SparseGraph, potential: Float64 | None) -> Float64:
    """Return the potential [C] to start from, 0 where none is known."""
    if potential is None:
        return np.zeros(graph.shape[1])
    check_array("potential", potential, (graph.num_items,), np.float64)
    return np.nan_to_num(potential[graph.columns], nan=0.0, posinf=0.0, neginf=0.0)


def _plan(modality: str, scaling: Scaling, potential: Float64, errors: list[float], outcome: BalanceOutcome) -> Plan:
    graph, column_sums = scaling.graph, scaling.column_sums(potential)
    weights, counts = scaling.weights(), np.zeros(graph.num_items, np.int64)
    counts[graph.rows] = np.diff(graph.indptr)
    indices = graph.columns.astype(np.int32)[graph.indices]
    own = weights[indices == np.repeat(np.arange(graph.num_items, dtype=np.int32), counts)]
    item_potential, item_sums = np.zeros(graph.num_items), np.zeros(graph.num_items, np.float32)
    item_potential[graph.columns] = potential - potential.mean()
    item_sums[graph.columns] = column_sums
    return Plan(
        modality=modality,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=indices,
        weights=weights,
        potential=item_potential,
        marginal_errors=np.asarray(errors, dtype=np.float64),
        iterations=max(0, len(errors) - 1),
        column_sums=item_sums,
        column_error=float(np.abs(column_sums - 1).mean()),
        diagonal_mass=float(own.mean(dtype=np.float64)) if len(own) else 0.0,
        outcome=outcome,
    )


def _empty_plan(modality: str, num_items: int) -> Plan:
    return Plan(
        modality=modality,
        indptr=np.zeros(num_items + 1, np.int64),
        indices=np.empty(0, np.int32),
        weights=np.empty(0, np.float32),
        potential=np.zeros(num_items),
        marginal_errors=np.empty(0),
        iterations=0,
        column_sums=np.zeros(num_items, np.float32),
        column_error=0.0,
        diagonal_mass=0.0,
        outcome=BalanceOutcome.EMPTY,
    )
