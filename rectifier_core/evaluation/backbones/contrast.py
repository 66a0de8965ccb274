"""InfoNCE between two views of the same rows, in blocks that stay in the processor's cache.

Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748, equation 4, with the cosine
as the score, one direction only, as MGCN and SMORE use it.

Rows that occur several times in a batch are scored once and counted as often as they occur, which is the same sum: half of a batch's
positives are repetitions, and the cost is quadratic. The gradient is gathered while a block of exponentials is at hand, so that no
[P, P] array is ever held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize

from rectifier_core.base.numerics import row_blocks

BLOCK_ROWS = 128


def info_nce(first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean of -log(exp(cos(a_r, b_r) / t) / sum_s exp(cos(a_r, b_s) / t)) over a batch whose row r occurs ``counts[r]`` times.

    ``first`` and ``second`` [P, R] are the two views of the distinct rows, ``counts`` [P] float32; s runs over the batch, repetitions
    included. A scalar, differentiable once in both views.
    """
    loss: torch.Tensor = _InfoNCE.apply(normalize(first), normalize(second), counts, temperature)  # type: ignore[no-untyped-call]
    return loss


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        share = counts / counts.sum()
        counted, columns = second * counts[:, None], second.T.contiguous()
        pulls, pushes = torch.empty_like(first), torch.zeros_like(second)
        buffer = first.new_empty(min(BLOCK_ROWS, len(first)), len(first))
        log_totals = torch.empty_like(counts)
        for rows in row_blocks(len(first), BLOCK_ROWS):
            block = first[rows]
            # Cosines over a temperature of 0.2 lie within 5 of 0: no maximum need be taken off before the exponential.
            scores = torch.mm(block / temperature, columns, out=buffer[: len(block)]).exp_()
            totals = scores @ counts
            log_totals[rows] = totals.log()
            pulls[rows] = (scores @ counted) / totals[:, None]
            pushes.addmm_(scores.T, block * (share[rows] / totals)[:, None])
        scale = share[:, None] / temperature
        agreed = (first * second).sum(dim=1) / temperature
        ctx.save_for_backward((pulls - second) * scale, pushes * counts[:, None] / temperature - first * scale)
        return ((log_totals - agreed) * share).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        of_first, of_second = ctx.saved_tensors
        return gradients[0] * of_first, gradients[0] * of_second, None, None
