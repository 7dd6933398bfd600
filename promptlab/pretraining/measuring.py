"""A net + held-out rows -> its loss on words of any kind and on content words.

The rule guarded here: the masked positions are drawn once from the seed, so the numbers of two checkpoints, or of two
recipes with the same vocabulary and corpora, are about the same answers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import ModernBertForMaskedLM

from promptlab.pretraining.architecture import masked_states
from promptlab.pretraining.losses import masked_cross_entropy
from promptlab.pretraining.masking import MaskedRows, mask_rows, masking_weights
from promptlab.pretraining.recipe import Masking
from promptlab.seeding import derive_seed

_ANY_WORD = Masking(rate=0.15)
_CONTENT_WORDS = Masking(rate=0.15, content_share=1.0)
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows, masked twice."""

    any_word: MaskedRows
    content_words: MaskedRows


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean cross-entropy in nats a masked token; its exponential is the perplexity."""

    any_word: float
    content_words: float
    num_masks: int


def mask_held_out(rows: Tensor, frequencies: Tensor, *, seed: int) -> HeldOut:
    """Mask held-out rows: 15 % of all tokens alike, and 15 % with content words preferred."""
    masked = (
        mask_rows(rows, masking_weights(frequencies, rule), rule, seed=derive_seed(seed, "held_out_masks", name))
        for name, rule in (("any_word", _ANY_WORD), ("content_words", _CONTENT_WORDS))
    )
    return HeldOut(*masked)


@torch.no_grad()
def measure_loss(model: ModernBertForMaskedLM, held_out: HeldOut, *, awake: int) -> HeldOutLoss:
    """Compute both held-out losses in float32."""
    device = model.decoder.weight.device
    losses = [
        _mean_loss(model, rows, awake=awake, device=device) for rows in (held_out.any_word, held_out.content_words)
    ]
    return HeldOutLoss(losses[0], losses[1], held_out.any_word.targets.numel())


def _mean_loss(model: ModernBertForMaskedLM, rows: MaskedRows, *, awake: int, device: torch.device) -> float:
    total = 0.0
    for start in range(0, len(rows.ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        ids, positions, targets = (whole[part].to(device) for whole in (rows.ids, rows.positions, rows.targets))
        states = masked_states(model, ids, positions, awake=awake).flatten(0, 1)
        loss = masked_cross_entropy(states, model.decoder.weight, model.decoder.bias, targets.flatten())
        total += float(loss) * targets.numel()
    return total / max(1, rows.targets.numel())
