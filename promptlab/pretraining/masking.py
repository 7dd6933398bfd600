"""Rows of token ids -> which positions are hidden and what stands there.

The rules guarded here: every row hides the same number of positions (so that batches are dense), a special token is
never hidden, and the choice depends on the seed and the step alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from promptlab.pretraining.recipe import Masking
from promptlab.pretraining.vocabulary import MASK, SPECIAL_TOKENS


@dataclass(frozen=True)
class MaskedRows:
    """A batch as the net sees it.

    Args:
        ids: Token ids with the hidden ones replaced, shape (row, token).
        positions: Hidden positions in rising order, shape (row, mask).
        targets: Token ids that stood there, shape (row, mask).
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor


def masking_weights(frequencies: Tensor, masking: Masking) -> Tensor:
    """Give each token id its weight to be hidden, shape (vocabulary,).

    The content part is word2vec's rate of keeping a word of relative frequency f, min(1, sqrt(t / f)) (Mikolov et al.
    2013), so function words are seldom hidden; the rest hides every token alike.
    """
    relative = frequencies / frequencies.sum()
    content = (masking.subsample / relative.clamp_min(1e-12)).sqrt().clamp_max(1.0)
    weights = masking.content_share * content + (1.0 - masking.content_share)
    weights[: len(SPECIAL_TOKENS)] = 0.0
    return weights


def mask_rows(rows: Tensor, weights: Tensor, masking: Masking, *, seed: int) -> MaskedRows:
    """Hide a fixed share of each row, drawn without replacement in proportion to the weights.

    The draw is a race of exponential clocks: the smallest -log(u) / weight win (Efraimidis and Spirakis 2006).
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(masking.rate * rows.shape[1]))
    clocks = torch.empty(rows.shape).exponential_(generator=generator) / weights[rows]
    positions = clocks.topk(count, dim=1, largest=False).indices.sort(dim=1).values
    targets = rows.gather(1, positions)
    draw = torch.rand(positions.shape, generator=generator)
    strangers = torch.randint(len(SPECIAL_TOKENS), len(weights), positions.shape, generator=generator)
    shown = torch.where(draw < masking.random_share, strangers, torch.full_like(targets, MASK))
    shown = torch.where(draw >= 1.0 - masking.keep_share, targets, shown)
    return MaskedRows(rows.scatter(1, positions, shown), positions, targets)
