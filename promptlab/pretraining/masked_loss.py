"""Rows with hidden tokens + a masked language model -> the cross-entropy at the hidden tokens alone.

The rule guarded here: value and gradients are those of the model's own loss with the label -100 everywhere else,
whether the head runs on the hidden places only or, where the probe at load found that it cannot, on all of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from promptlab.backends.mlm import MaskedBackend
from promptlab.pretraining.masking import HiddenPlaces
from promptlab.pretraining.processes import ALONE, Processes

_SCORES_AT_ONCE = 1 << 27  # of a measurement, half a gigabyte of float32


def summed_loss(backend: MaskedBackend, places: HiddenPlaces, *, precision: torch.dtype = torch.float32) -> Tensor:
    """The sum of the cross-entropies in nats, a scalar; products are computed in the given precision."""
    device = backend.device
    rows = (places.rows.to(device), places.positions.to(device))
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = backend.logits_at({"input_ids": places.ids.to(device)}, rows)
    return F.cross_entropy(logits, places.targets.to(device), reduction="sum")


@torch.no_grad()
def measure_loss(backend: MaskedBackend, places: HiddenPlaces, processes: Processes = ALONE) -> float:
    """The mean cross-entropy in nats a hidden token, in float32 without dropout; its exponential is the perplexity.

    The processes share the work and have the same result.
    """
    was_training = backend.model.training
    backend.model.eval()
    num_rows, length = places.ids.shape
    at_once = max(1, min(32, _SCORES_AT_ONCE // (length * len(backend.model.get_input_embeddings().weight))))
    firsts = range(0, num_rows, at_once)[processes.index :: processes.number]
    parts = (places.part(first, first + at_once) for first in firsts)
    mine = sum(float(summed_loss(backend, part)) for part in parts if len(part.targets))
    backend.model.train(was_training)
    return processes.sum_numbers(mine)[0] / max(1, len(places.targets))
