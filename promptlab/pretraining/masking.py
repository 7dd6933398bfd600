"""Rows of token ids -> which positions are hidden and what stands there.

The rules guarded here: a special token is never hidden, and the choice depends on the seed and the step alone. Training
from scratch hides the same number of positions in every row, so that batches are dense; words that are hidden whole,
and the rows of any tokenizer, have as many as come nearest to the share.
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


@dataclass(frozen=True)
class HiddenPlaces:
    """A batch whose rows hide different numbers of tokens.

    Args:
        ids: Token ids with the hidden ones replaced, shape (row, token).
        rows: The row of each hidden token, shape (mask,).
        positions: Its position in the row, shape (mask,).
        targets: Token ids that stood there, shape (mask,).
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor

    def part(self, first: int, last: int) -> "HiddenPlaces":
        """The rows from `first` up to and without `last`."""
        chosen = (self.rows >= first) & (self.rows < last)
        return HiddenPlaces(
            self.ids[first:last], self.rows[chosen] - first, self.positions[chosen], self.targets[chosen]
        )


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
    shown = _show(targets, weights, masking, mask_id=MASK, generator=generator)
    return MaskedRows(rows.scatter(1, positions, shown), positions, targets)


def hide_words(
    rows: Tensor, starts: Tensor | None, can_hide: Tensor, masking: Masking, *, mask_id: int, seed: int
) -> HiddenPlaces:
    """Hide about the share of each row's tokens, words whole where their starts are given.

    Words are taken in random order as long as the middle of the next one lies within the share, give or take half a
    token at random, and one at least: the number of hidden tokens is then right on average, and where a word is a
    token it is one of the two whole numbers about the share.

    Args:
        rows: Token ids, shape (row, token).
        starts: Whether a token begins a word, shape (row, token); None takes each token as a word.
        can_hide: Whether a token id may be hidden or stand for another, shape (vocabulary,).
        masking: The share, and what is shown.
        mask_id: The id of the mask token.
        seed: Everything random derives from it.
    """
    generator = torch.Generator().manual_seed(seed)
    word = _words(rows, starts, can_hide[rows])
    sizes = torch.zeros_like(rows).scatter_add_(1, word, can_hide[rows].long())
    clocks = torch.empty(rows.shape).exponential_(generator=generator).masked_fill(sizes == 0, torch.inf)
    order = clocks.argsort(dim=1)
    ordered = sizes.gather(1, order)
    middle = ordered.cumsum(1) - ordered / 2
    wanted = masking.rate * sizes.sum(1, keepdim=True) + torch.rand(len(rows), 1, generator=generator) - 0.5
    chosen = (middle <= wanted) & (ordered > 0)
    chosen[:, 0] = ordered[:, 0] > 0
    is_chosen = torch.zeros_like(chosen).scatter(1, order, chosen)
    batch, positions = (is_chosen.gather(1, word) & can_hide[rows]).nonzero(as_tuple=True)
    targets = rows[batch, positions]
    shown = _show(targets, can_hide.float(), masking, mask_id=mask_id, generator=generator)
    ids = rows.clone()
    ids[batch, positions] = shown
    return HiddenPlaces(ids, batch, positions, targets)


def _words(rows: Tensor, starts: Tensor | None, can_hide: Tensor) -> Tensor:
    """The number of the word that each token is of, from 0 in each row; a token that stays is a word of its own."""
    if starts is None:
        return torch.arange(rows.shape[1]).expand_as(rows)
    after_one_that_stays = torch.cat([torch.ones_like(can_hide[:, :1]), ~can_hide[:, :-1]], dim=1)
    return (starts.bool() | ~can_hide | after_one_that_stays).long().cumsum(1) - 1


def _show(targets: Tensor, weights: Tensor, masking: Masking, *, mask_id: int, generator: torch.Generator) -> Tensor:
    """What stands in the place of each hidden token: the mask, a stranger that could be hidden itself, or the token."""
    draw = torch.rand(targets.shape, generator=generator)
    allowed = weights.nonzero().flatten()
    strangers = allowed[torch.randint(len(allowed), targets.shape, generator=generator)]
    shown = torch.where(draw < masking.random_share, strangers, torch.full_like(targets, mask_id))
    return torch.where(draw >= 1.0 - masking.keep_share, targets, shown)
