"""States at masked positions + the decoder -> the mean cross-entropy, without the whole table of scores in memory.

The rule guarded here: the value and the gradients are those of `cross_entropy(decoder(states), targets)`. Rows are
taken in chunks whose scores stay in the processor's cache, and the gradients are made in the same sweep.
"""

from typing import Any

import torch
from torch import Tensor

_CHUNK_ROWS = 256


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over rows; the gradients wait in the context for the backward pass."""

    @staticmethod
    def forward(
        context: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, precision: torch.dtype
    ) -> Tensor:
        low_states, low_weight = states.to(precision), weight.to(precision)
        state_gradient = torch.empty_like(states)
        weight_gradient = torch.zeros_like(weight)
        bias_gradient = torch.zeros_like(bias)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, len(states), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            scores = torch.addmm(bias.to(precision), low_states[part], low_weight.T).float()
            gold = targets[part, None]
            log_sums = scores.logsumexp(dim=1, keepdim=True)
            total += (log_sums - scores.gather(1, gold)).sum()
            gradient = (scores - log_sums).exp_()
            gradient.scatter_add_(1, gold, torch.full_like(log_sums, -1.0))
            bias_gradient += gradient.sum(0)
            low_gradient = gradient.to(precision)
            state_gradient[part] = (low_gradient @ low_weight).to(states.dtype)
            weight_gradient += (low_gradient.T @ low_states[part]).to(weight.dtype)
        context.save_for_backward(state_gradient, weight_gradient, bias_gradient)
        context.count = len(states)
        return total / len(states)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        scale = gradients[0] / context.count
        return *(saved.mul_(scale) for saved in context.saved_tensors), None, None


def masked_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, *, precision: torch.dtype = torch.float32
) -> Tensor:
    """Mean cross-entropy of the targets, a scalar in nats.

    Args:
        states: What the decoder reads, shape (row, width).
        weight: The decoder's weight, shape (vocabulary, width).
        bias: The decoder's bias, shape (vocabulary,).
        targets: Gold ids, shape (row,).
        precision: Type in which the products are computed.
    """
    with torch.autocast(states.device.type, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(states, weight, bias, targets, precision)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return loss
