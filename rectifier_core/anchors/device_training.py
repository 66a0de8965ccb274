"""LightGCN's training as in ``bpr``, and its layer mean as in ``propagation``, on a torch device; a leaf.

The same batches give the same losses within rounding. The gradient is written out here too: it costs one layer mean of the rows' slopes,
and autograd would keep every layer for it. Rows of the gradient are summed in a fixed order (an accumulating ``index_put_`` sorts first);
the sparse product is the device library's.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from rectifier_core.anchors.bpr import EPSILON, FIRST_DECAY, SECOND_DECAY
from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.devices import full_float32, sparse_to_device, to_device


class DeviceGraph:
    """An ``InteractionGraph`` on ``device``: 16 bytes a pair."""

    def __init__(self, graph: InteractionGraph, device: str) -> None:
        self.num_users, self.device = graph.towards[USERS].shape[0], device
        self._towards = [sparse_to_device(graph.towards[side], device) for side in (USERS, ITEMS)]

    def layer_mean(self, ego: torch.Tensor, num_layers: int) -> torch.Tensor:
        """Mean of ``ego``, ``A ego``, ..., ``A^L ego``: [U + I, A] -> a new [U + I, A], by Horner's rule, E + A (E + A (E + ...))."""
        if not num_layers:
            return ego.clone()
        base, partial = ego.tensor_split([self.num_users]), ego.tensor_split([self.num_users])
        for _ in range(num_layers):
            partial = tuple(torch.addmm(base[side], self._towards[side], partial[1 - side]) for side in (USERS, ITEMS))
        return torch.cat(partial).div_(num_layers + 1)


def layer_mean_on_device(graph: InteractionGraph, ego: Float32, num_layers: int, device: str) -> Float32:
    """``propagation.layer_mean`` by ``device``: there and back."""
    with torch.inference_mode(), full_float32():
        mean: Float32 = DeviceGraph(graph, device).layer_mean(to_device(ego, device), num_layers).cpu().numpy()
    return mean


class DeviceTraining:
    """``bpr.LightGCNTraining`` on ``device``, which holds about eight arrays of the rows' size at a time; ``ego`` is left as it is."""

    def __init__(
        self,
        graph: InteractionGraph,
        ego: Float32,
        num_layers: int,
        *,
        learning_rate: float,
        weight_decay: float,
        device: str,
    ) -> None:
        self.learning_rate = learning_rate
        self._graph, self._num_layers, self._weight_decay = DeviceGraph(graph, device), num_layers, weight_decay
        self._ego = to_device(ego, device).clone()
        self._mean, self._square = torch.zeros_like(self._ego), torch.zeros_like(self._ego)
        self._steps = 0

    @property
    def ego(self) -> Float32:
        """A copy of the rows [U + I, A] as they are, on the host."""
        rows: Float32 = self._ego.cpu().numpy()
        return rows.copy() if self._ego.device.type == "cpu" else rows

    def final(self) -> torch.Tensor:
        """The layer mean [U + I, A] of the rows as they are, on the device."""
        with torch.no_grad(), full_float32():
            return self._graph.layer_mean(self._ego, self._num_layers)

    def step(self, users: Int32, positives: Int32, negatives: Int32) -> torch.Tensor:
        """``LightGCNTraining.step``. The loss, float64 [], stays on the device: the next batch is drawn while this one is learned."""
        offset, size = np.int32(self._graph.num_users), len(users)
        nodes = to_device(np.concatenate([users, positives + offset, negatives + offset]), self._graph.device).long()
        with torch.no_grad(), full_float32():
            final = self._graph.layer_mean(self._ego, self._num_layers)
            user, positive, negative = (final.index_select(0, at) for at in nodes.chunk(3))
            apart = positive - negative
            gaps = (user * apart).sum(dim=1)
            loss = torch.nn.functional.softplus(-gaps).mean(dtype=torch.float64)
            slope = (torch.sigmoid(-gaps) / -size)[:, None]
            slopes = torch.zeros_like(final).index_put_(
                (nodes,), torch.cat([slope * apart, slope * user, -slope * user]), accumulate=True
            )
            gradient = self._graph.layer_mean(slopes, self._num_layers)
            counts = torch.bincount(nodes, minlength=len(self._ego)).float()
            penalty = (counts * self._ego.square().sum(dim=1)).sum(dtype=torch.float64) / (2 * size)
            self._adam(gradient.addcmul_(counts[:, None], self._ego, value=self._weight_decay / size))
        return loss + self._weight_decay * penalty

    def _adam(self, gradient: torch.Tensor) -> None:
        self._steps += 1
        step = self.learning_rate / (1 - FIRST_DECAY**self._steps)
        self._mean.lerp_(gradient, 1 - FIRST_DECAY)
        self._square.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
        spread = self._square.sqrt().div_(math.sqrt(1 - SECOND_DECAY**self._steps)).add_(EPSILON)
        self._ego.addcdiv_(self._mean, spread, value=-step)
