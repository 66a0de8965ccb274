"""Train LightGCN on one torch device: BPR loss, gradient and Adam step over all nodes.

Sources: He et al., "LightGCN", SIGIR 2020, equation 15 (BPR with L2 on the rows before propagation); Rendle et al., "BPR", UAI 2009; Kingma
and Ba, "Adam", ICLR 2015, algorithm 1. Adam is written out: torch's own loads its compiler first, a second of a small night.

Differs from the paper:
- The gradient is written out. Propagation is symmetric, so its gradient is one more layer mean. Autograd would keep every layer.
"""

from __future__ import annotations

import numpy as np
import torch

from rectifier_core.anchors.propagation import InteractionGraph, layer_mean
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.devices import full_float32, to_device

FIRST_DECAY, SECOND_DECAY = 0.9, 0.999


class LightGCNTraining:
    """LightGCN under training on the graph's device. It holds six arrays of the size of the rows [U + I, A]."""

    def __init__(
        self, graph: InteractionGraph, start: Float32, num_layers: int, *, learning_rate: float, weight_decay: float
    ) -> None:
        self._graph, self._num_layers, self._weight_decay = graph, num_layers, weight_decay
        self._ego = to_device(start, graph.device).clone()
        # Reused every step: a fresh array of this size costs as much as a quarter of a product.
        self._buffers = [torch.empty_like(self._ego) for _ in range(3)]
        self._learning_rate, self._steps = learning_rate, 0
        self._first, self._second = torch.zeros_like(self._ego), torch.zeros_like(self._ego)

    @property
    def ego(self) -> Float32:
        """A copy of the rows before propagation [U + I, A], on the host."""
        rows: Float32 = self._ego.cpu().numpy()
        return rows.copy() if self._ego.device.type == "cpu" else rows

    def final(self) -> torch.Tensor:
        """The layer mean [U + I, A] of the current rows, on the device; valid until the next call of ``final`` or ``step``."""
        with full_float32():
            out, scratch, _ = self._buffers
            return layer_mean(self._graph, self._ego, self._num_layers, out=out, scratch=scratch)

    @torch.no_grad()
    def step(self, users: Int32, positives: Int32, negatives: Int32) -> torch.Tensor:
        """Take one Adam step on a batch of triples [B], with items counted from 0.

        Returns the loss, float64 []: the mean of -log sigmoid(s_up - s_un), plus half ``weight_decay`` times the squared length of the
        batch's rows a triple. It stays on the device, so that the next batch is drawn while this one is computed.
        """
        offset, size = np.int32(self._graph.num_users), len(users)
        nodes = np.concatenate([users, positives + offset, negatives + offset])
        at = to_device(nodes, self._graph.device).long()
        counts = to_device(np.bincount(nodes, minlength=len(self._ego)).astype(np.float32), self._graph.device)
        final, scratch, mean = self.final(), *self._buffers[1:]
        user, difference, negative = (final.index_select(0, part) for part in at.chunk(3))
        difference -= negative
        gaps = torch.linalg.vecdot(user, difference)
        loss = torch.nn.functional.softplus(-gaps).mean(dtype=torch.float64)
        slope = (torch.sigmoid(-gaps) / -size)[:, None]
        user *= slope
        gradient = final.zero_().index_add_(0, at, torch.cat([difference.mul_(slope), user, -user]))
        with full_float32():
            gradient = layer_mean(self._graph, gradient, self._num_layers, out=mean, scratch=scratch)
        squares = torch.linalg.vector_norm(self._ego, dim=1).square_()
        penalty = (counts * squares).sum(dtype=torch.float64) / (2 * size)
        self._descend(gradient.addcmul_(counts[:, None], self._ego, value=self._weight_decay / size))
        total: torch.Tensor = loss + self._weight_decay * penalty
        return total

    def _descend(self, gradient: torch.Tensor) -> None:
        """Take one step of Adam at its usual decay rates."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - FIRST_DECAY)
        self._second.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
        root = torch.sqrt(self._second, out=gradient).div_((1 - SECOND_DECAY**self._steps) ** 0.5).add_(1e-8)
        self._ego.addcdiv_(self._first, root, value=-self._learning_rate / (1 - FIRST_DECAY**self._steps))
