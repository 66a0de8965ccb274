"""Steps of LightGCN's training, BPR and Adam over all nodes, in place; a leaf.

Sources: He et al., "LightGCN", SIGIR 2020, equation 15; Rendle et al., "BPR", UAI 2009; Kingma and Ba, "Adam", ICLR 2015, with torch's
bias correction. The gradient is written out instead of recorded: it is never whole in memory (a block of its rows is propagated, goes into
Adam and is gone), and every row of it is summed by one thread in the batch's order. Beside the rows themselves a step needs Adam's two
moments and two buffers of the same size.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph, inner_layers, layer_mean
from rectifier_core.anchors.row_products import empty_rows, multiply_some
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.threads import even_bounds, in_shards, kernel, num_shards, read_only

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8
BLOCK = 2048

_F32, _INDEX = read_only(numba.float32, 1), read_only(numba.int32, 1)
_OUT, _SIZE, _REAL = numba.float32[::1], numba.intp, numba.float32


@kernel(numba.void(_F32, _INDEX, _INDEX, _INDEX, _OUT, _OUT, _SIZE, _SIZE, _SIZE), fastmath={"reassoc", "contract"})
def _judge_triples(
    final: Any, users: Any, positives: Any, negatives: Any, losses: Any, slopes: Any, width: Any, first: Any, last: Any
) -> None:
    """-log sigmoid(s_up - s_un) of each triple, and its derivative by the gap."""
    for at in range(first, last):
        user, positive, negative = (
            np.intp(users[at]) * width,
            np.intp(positives[at]) * width,
            np.intp(negatives[at]) * width,
        )
        gap = _REAL(0)
        for k in range(width):
            gap += final[user + k] * (final[positive + k] - final[negative + k])
        shrunk = math.exp(-abs(gap))
        losses[at] = max(-gap, _REAL(0)) + math.log1p(shrunk)
        slopes[at] = -(shrunk if gap > 0 else _REAL(1)) / (1 + shrunk)


@kernel(numba.void(_F32, _INDEX, _INDEX, _INDEX, _F32, _OUT, _OUT, _SIZE, _SIZE, _SIZE))
def _add_slopes(
    final: Any,
    users: Any,
    positives: Any,
    negatives: Any,
    slopes: Any,
    gradient: Any,
    counts: Any,
    width: Any,
    first: Any,
    last: Any,
) -> None:
    """The loss's gradient by ``final``, and how often a row occurs, for the nodes from ``first`` to ``last`` alone."""
    gradient[first * width : last * width] = 0
    counts[first:last] = 0
    for at in range(len(users)):
        slope = slopes[at]
        user, positive, negative = users[at], positives[at], negatives[at]
        u, p, n = np.intp(user) * width, np.intp(positive) * width, np.intp(negative) * width
        if first <= user < last:
            counts[user] += 1
            for k in range(width):
                gradient[u + k] += slope * (final[p + k] - final[n + k])
        if first <= positive < last:
            counts[positive] += 1
            for k in range(width):
                gradient[p + k] += slope * final[u + k]
        if first <= negative < last:
            counts[negative] += 1
            for k in range(width):
                gradient[n + k] -= slope * final[u + k]


@kernel(numba.void(_F32, _F32, _REAL, _REAL, _REAL, _OUT, _OUT, _OUT, numba.float64[::1], _SIZE))
def _adam(
    gradient: Any,
    counts: Any,
    decay: Any,
    step: Any,
    root: Any,
    ego: Any,
    mean: Any,
    square: Any,
    penalty: Any,
    width: Any,
) -> None:
    """One step of Adam on a block of rows; ``penalty[0]`` is their squared length before it, each row as often as it occurred."""
    penalty[0] = 0
    for row in range(len(counts)):
        pull, length = decay * counts[row], _REAL(0)
        for k in range(row * width, (row + 1) * width):
            if counts[row] > 0:
                length += ego[k] * ego[k]
            slope = gradient[k] + pull * ego[k]
            mean[k] += _REAL(1 - FIRST_DECAY) * (slope - mean[k])
            square[k] = _REAL(SECOND_DECAY) * square[k] + _REAL(1 - SECOND_DECAY) * slope * slope
            ego[k] -= step * mean[k] / (math.sqrt(square[k]) * root + _REAL(EPSILON))
        penalty[0] += counts[row] * length


class LightGCNTraining:
    """LightGCN under training: ``ego`` [U + I, A] float32, moved in place by ``step``; ``learning_rate`` may be changed between steps."""

    def __init__(
        self, graph: InteractionGraph, ego: Float32, num_layers: int, *, learning_rate: float, weight_decay: float
    ) -> None:
        self.ego, self.learning_rate = ego, learning_rate
        self._graph, self._num_layers, self._weight_decay = graph, num_layers, weight_decay
        self._mean, self._square = np.zeros_like(ego), np.zeros_like(ego)
        self._final, self._gradient = (empty_rows(*ego.shape) for _ in range(2))
        self._counts = np.empty(len(ego), np.float32)
        self._steps = 0

    def final(self) -> Float32:
        """The layer mean [U + I, A] of the rows as they are; good until the next call of anything."""
        return layer_mean(self._graph, self.ego, self._num_layers, out=self._final, scratch=self._gradient)

    def step(self, users: Int32, positives: Int32, negatives: Int32) -> float:
        """One step on a batch of triples [B], items counted from 0: mean of -log sigmoid(s_up - s_un) plus half ``weight_decay`` times the
        squared length of the batch's ego rows a triple. Returns that loss."""
        size, width = len(users), self.ego.shape[1]
        num_users = self._graph.towards[USERS].shape[0]
        triples = (users, positives + np.int32(num_users), negatives + np.int32(num_users))
        final, losses, slopes = self.final().reshape(-1), np.empty(size, np.float32), np.empty(size, np.float32)
        shards = num_shards(3 * size * width)
        in_shards(
            lambda first, last: _judge_triples(final, *triples, losses, slopes, width, first, last),
            even_bounds(size, shards),
        )
        slopes /= size
        gradient = self._gradient.reshape(-1)
        in_shards(
            lambda first, last: _add_slopes(final, *triples, slopes, gradient, self._counts, width, first, last),
            even_bounds(len(self.ego), shards),
        )
        self._steps += 1
        length = sum(self._move(side, size) for side in (USERS, ITEMS))
        return float(losses.mean(dtype=np.float64)) + self._weight_decay * 0.5 * length / size

    def _move(self, side: int, size: int) -> float:
        """Propagate the gradient back to one side, a block of rows at a time, and take Adam's step there.

        Returns the squared lengths of the batch's rows before it, each as often as it occurred.
        """
        decay, width, scale = self._weight_decay / size, self.ego.shape[1], 1 / (self._num_layers + 1)
        step = self.learning_rate / (1 - FIRST_DECAY**self._steps)
        root = 1 / math.sqrt(1 - SECOND_DECAY**self._steps)
        base, *moved = (self._graph.rows(x, side) for x in (self._gradient, self.ego, self._mean, self._square))
        counts = self._graph.rows(self._counts, side)
        inner = (
            inner_layers(self._graph, self._gradient, self._num_layers, side, self._final) if self._num_layers else None
        )
        # The blocks are the same whatever the number of threads, and so is the sum over them.
        bounds = [*range(0, len(base), BLOCK), len(base)]
        lengths = np.zeros(len(bounds) - 1)

        def move(first: int, last: int) -> None:
            gradient = base[first:last]
            if inner is not None:
                gradient = empty_rows(last - first, width)
                multiply_some(self._graph.towards[side], first, last, inner, base=base, scale=scale, out=gradient)
            rows = (x[first:last].reshape(-1) for x in moved)
            block = first // BLOCK
            _adam(gradient.reshape(-1), counts[first:last], decay, step, root, *rows, lengths[block : block + 1], width)

        in_shards(move, bounds)
        return float(lengths.sum())
