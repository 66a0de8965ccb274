"""Stage: plan, the sparse affinity balanced to about doubly stochastic, so that no feature serves as everyone's donor.

Source: Sinkhorn and Knopp, 1967; sparse and without gradients as in "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730.
Anderson mixing:
Walker and Ni, SIAM J. Numer. Anal. 49 (2011), applied to the logarithm of the column scaling. Stabilised scaling: Schmitzer, SIAM J. Sci.
Comput. 41 (2019), section 3.

Differs from the paper:
- ``method = "anderson"`` mixes the last iterates: clustered graphs stall plain scaling (``method = "knopp"``, the paper's) for hundreds
  of iterations.
- Rectangular problems: rows sum to 1, and the columns that any row reaches share the mass evenly; a column nobody reaches has no target.
- It stops at a marginal tolerance and says why it stopped; the last half step is over rows, so rows sum to 1 exactly and the error is
  the columns'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from rectifier_core.numerics import Progress, row_blocks, silent
from rectifier_core.records import NO_NEIGHBOUR, Affinity, BalanceOutcome, Float64, Int32, Int64, Plan

ABSORB = 50.0
PATIENCE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkhornConfig:
    """Hyperparameters of the balancing.

    ``tolerance`` bounds the mean absolute relative error of the column sums; ``balance = "row"`` is the ablation that leaves columns alone;
    ``memory`` is the number of earlier iterates that Anderson mixing combines.
    """

    balance: Literal["sinkhorn", "row"] = "sinkhorn"
    method: Literal["anderson", "knopp"] = "anderson"
    max_iterations: int = 200
    tolerance: float = 1e-3
    memory: int = 5
    block_rows: int = 65536

    def __post_init__(self) -> None:
        for name in ("max_iterations", "memory", "block_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if self.tolerance <= 0:
            raise ValueError(f"tolerance: wanted above 0, got {self.tolerance}")


def balance(affinity: Affinity, config: SinkhornConfig, *, progress: Progress = silent) -> Plan:
    """Balance exp(scores) on the affinity's support. Iterations stop at the tolerance, at the limit, or when the error no longer falls."""
    graph = _Graph(affinity, config.block_rows)
    if not graph.num_entries:
        return _plan(affinity.modality, graph, np.zeros(graph.num_items), [], 0, BalanceOutcome.EMPTY)
    if config.balance == "row":
        return _plan(affinity.modality, graph, np.zeros(graph.num_items), [], 0, BalanceOutcome.ROW_ONLY)
    potential = best = np.zeros(graph.num_items)
    mixing = _Anderson(config.memory) if config.method == "anderson" else None
    errors: list[float] = []
    outcome, lowest, lowest_at = BalanceOutcome.MAX_ITERATIONS, np.inf, 0
    for iteration in range(config.max_iterations + 1):
        step, error = graph.column_step(potential)
        errors.append(error)
        progress(f"plan of {affinity.modality}: column error {error:.2e}", iteration, config.max_iterations)
        if error < lowest:
            lowest_at = iteration if error < 0.99 * lowest else lowest_at
            lowest, best = error, potential
        if error <= config.tolerance:
            outcome = BalanceOutcome.CONVERGED
            break
        if iteration - lowest_at >= PATIENCE:
            outcome = BalanceOutcome.STALLED
            break
        if mixing is not None and error > 2 * lowest:
            mixing.forget()
        potential = potential + step if mixing is None else mixing.next(potential, step)
    return _plan(affinity.modality, graph, best, errors, len(errors) - 1, outcome)


class _Graph:
    """The support in both orders. Every sum runs within one row or one column, in index order, so block size cannot change a bit of it."""

    def __init__(self, affinity: Affinity, block_rows: int) -> None:
        valid = affinity.neighbours != NO_NEIGHBOUR
        self.num_items, self.block_rows = len(valid), block_rows
        self.indptr = np.concatenate([[0], np.cumsum(valid.sum(axis=1))]).astype(np.int64)
        by_row = sp.csr_array(
            (affinity.scores[valid].astype(np.float64), affinity.neighbours[valid].astype(np.int32), self.indptr),
            (self.num_items, self.num_items),
        )
        by_row.sort_indices()
        by_column = sp.csr_array(by_row.T)
        self.indices, self.logits = by_row.indices.astype(np.int32), by_row.data
        self._column_indptr, self._column_indices = by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32)
        self._column_logits = by_column.data
        self.num_entries = len(self.indices)
        self.reached = np.diff(by_column.indptr) > 0
        self.asking = np.diff(self.indptr) > 0
        self.share = self.asking.sum() / max(1, self.reached.sum())
        self._reference: Float64 | None = None

    def column_step(self, potential: Float64) -> tuple[Float64, float]:
        """The Sinkhorn-Knopp step of the log column scaling (zero off the support), and the error before taking it."""
        relative = self._relative(potential)
        scaled = np.exp(relative)
        rows = self._product(self.indptr, self.indices, self._kernel, scaled)
        inverse = np.divide(1.0, rows, out=np.zeros_like(rows), where=rows > 0)
        columns = self._product(self._column_indptr, self._column_indices, self._column_kernel, inverse) * scaled
        ratio = np.maximum(columns[self.reached] / self.share, np.finfo(np.float64).tiny)
        step = np.zeros(self.num_items)
        step[self.reached] = -np.log(ratio)
        return step, float(np.abs(ratio - 1).mean())

    def weights(self, potential: Float64) -> Float64:
        """Row-stochastic weights in row order."""
        scaled = np.exp(self._relative(potential))
        rows = self._product(self.indptr, self.indices, self._kernel, scaled)
        inverse = np.divide(1.0, rows, out=np.zeros_like(rows), where=rows > 0)
        weights: Float64 = self._kernel * scaled[self.indices] * np.repeat(inverse, np.diff(self.indptr))
        return weights

    def _relative(self, potential: Float64) -> Float64:
        if self._reference is None or np.abs(potential - self._reference).max() > ABSORB:
            self._reference = potential
            shifted = self.logits + potential[self.indices]
            top = np.zeros(self.num_items)
            top[self.asking] = np.maximum.reduceat(shifted, self.indptr[:-1][self.asking])
            self._kernel = np.exp(shifted - np.repeat(top, np.diff(self.indptr)))
            own = np.repeat(potential, np.diff(self._column_indptr))
            self._column_kernel = np.exp(self._column_logits + own - top[self._column_indices])
        return potential - self._reference

    def _product(self, indptr: Int64, indices: Int32, data: Float64, vector: Float64) -> Float64:
        result = np.zeros(self.num_items)
        for block in row_blocks(self.num_items, self.block_rows):
            first, last = int(indptr[block.start]), int(indptr[block.stop])
            part = sp.csr_array(
                (data[first:last], indices[first:last], indptr[block.start : block.stop + 1] - first),
                (block.stop - block.start, self.num_items),
            )
            result[block] = part @ vector
        return result


class _Anderson:
    """Anderson mixing of type II with restart: the combination of recent iterates whose residual is least."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self.forget()

    def forget(self) -> None:
        self._points: list[Float64] = []
        self._residuals: list[Float64] = []

    def next(self, point: Float64, residual: Float64) -> Float64:
        self._points = [*self._points, point][-self._memory - 1 :]
        self._residuals = [*self._residuals, residual][-self._memory - 1 :]
        if len(self._points) == 1:
            return point + residual
        points = np.diff(np.stack(self._points), axis=0)
        residuals = np.diff(np.stack(self._residuals), axis=0)
        gram = residuals @ residuals.T
        gram[np.diag_indices_from(gram)] += 1e-10 * max(float(np.trace(gram)), np.finfo(np.float64).tiny)
        mixture = np.linalg.solve(gram, residuals @ residual)
        return point + residual - mixture @ (points + residuals)


def _plan(modality: str, graph: _Graph, potential: Float64, errors: list[float], iterations: int, outcome: BalanceOutcome) -> Plan:
    weights = graph.weights(potential) if graph.num_entries else np.zeros(0)
    rows = np.repeat(np.arange(graph.num_items), np.diff(graph.indptr))
    own = rows == graph.indices
    sums = np.bincount(graph.indices, weights=weights, minlength=graph.num_items)
    return Plan(
        modality=modality,
        indptr=graph.indptr,
        indices=graph.indices.astype(np.int32),
        weights=weights.astype(np.float32),
        marginal_errors=np.asarray(errors, dtype=np.float64),
        iterations=iterations,
        column_sums=(sums / graph.share if graph.share else sums).astype(np.float32),
        column_error=float(np.abs(sums[graph.reached] / graph.share - 1).mean()) if graph.num_entries else 0.0,
        diagonal_mass=float(weights[own].mean()) if own.any() else 0.0,
        outcome=outcome,
    )
