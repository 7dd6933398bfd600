"""A row's prompt and shots whose mask is filled -> one longer prompt (LM-BFF, Gao et al. 2021, section 6).

The row comes first, then each demonstration behind the separator that the tokenizer puts between two texts. The row,
its mask and the template are never cut; the text of a demonstration is, from its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.encoding import Encoder, Frame, encoded_prompt, probe_frame
from promptlab.types import EncodedPrompt, Role

if TYPE_CHECKING:
    from jaxtyping import Int32, Int64

_SECOND = 3  # the place of the second text's segment id in a frame


@dataclass(frozen=True, slots=True, eq=False)
class Demonstration:
    """The inside of a shot's prompt, without its frame, with a label word in the place of its mask."""

    ids: Int32[np.ndarray, " token"]
    roles: Int32[np.ndarray, " token"]

    @property
    def num_text(self) -> int:
        """How many tokens are text of the row, which may be cut."""
        return int((self.roles == Role.FIELD).sum())

    def cut(self, num_text: int) -> Demonstration:
        """The demonstration with the first tokens of its text only."""
        is_text = self.roles == Role.FIELD
        is_kept = ~is_text | (np.cumsum(is_text) <= num_text)
        return Demonstration(self.ids[is_kept], self.roles[is_kept])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A prompt with demonstrations: how many tokens of theirs were cut, and how many of them did not fit at all."""

    prompt: EncodedPrompt
    num_cut: int
    num_left_out: int


class Joiner:
    """Joins prompts for one tokenizer.

    Where the model tells two texts apart by segment ids, every demonstration belongs to the second text.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._frame: Frame = probe_frame(encoder.tokenizer, 2)
        self._max_length = encoder.max_length
        self._segment_id = self._frame.segment_ids[_SECOND][0] if encoder.uses_segment_ids else 0

    def demonstrate(self, shot: EncodedPrompt, word: int) -> Demonstration:
        """A shot with a label word in the place of every mask."""
        inside = slice(len(self._frame.prefix), len(shot) - len(self._frame.suffix))
        is_mask = shot.roles == Role.MASK
        ids, roles = np.where(is_mask, word, shot.input_ids), np.where(is_mask, Role.LITERAL, shot.roles)
        return Demonstration(ids[inside].astype(np.int32), roles[inside].astype(np.int32))

    def join(self, row: EncodedPrompt, shown: Sequence[Demonstration]) -> Joined:
        """The prompt of a row with demonstrations behind it, which are cut and left out until they fit."""
        between, suffix = self._frame.between, self._frame.suffix
        fitting = self._fit(shown, self._max_length - len(row))
        end = len(row) - len(suffix)
        ids, roles, segments = (array[:end].tolist() for array in (row.input_ids, row.roles, row.segment_ids))
        segment_id = int(row.segment_ids[-1])
        for one in fitting:
            ids += [*between, *one.ids.tolist()]
            roles += [*[int(Role.SPECIAL)] * len(between), *one.roles.tolist()]
            segments += [*[segment_id] * len(between), *[self._segment_id] * len(one)]
            segment_id = self._segment_id
        prompt = encoded_prompt(
            [*ids, *suffix],
            [*segments, *[segment_id] * len(suffix)],
            [*roles, *[int(Role.SPECIAL)] * len(suffix)],
            row.num_truncated,
        )
        num_cut = sum(map(len, shown[: len(fitting)])) - sum(map(len, fitting))
        return Joined(prompt, num_cut, len(shown) - len(fitting))

    def _fit(self, shown: Sequence[Demonstration], room: int) -> list[Demonstration]:
        """The demonstrations that fit without their text, the longest texts cut until all fit."""
        cost, kept = len(self._frame.between), list(shown)
        while kept and sum(len(one) - one.num_text + cost for one in kept) > room:
            kept.pop()
        excess = sum(len(one) + cost for one in kept) - room
        return [one.cut(size) for one, size in zip(kept, _cut_longest(kept, excess), strict=True)]


def _cut_longest(shown: Sequence[Demonstration], excess: int) -> Int64[np.ndarray, " shown"]:
    """The tokens of text that each keeps, where one after the other is taken from the longest (the first of equals)."""
    sizes = np.array([one.num_text for one in shown], dtype=np.int64)
    for _ in range(excess):
        sizes[sizes.argmax()] -= 1
    return sizes
