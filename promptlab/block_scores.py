"""Stored parts of a block -> the scores of its prompts in memory, looked up by prompt key, fill, mask and token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from promptlab.types import Fill, FillScores, MaskScores

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int32, Int64, Shaped

    Keys = Shaped[np.ndarray, " row"]

KEY_BYTES = 32
Question = tuple[Fill, int, int]  # the fill, the position in it and the token that is asked about


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The scored prompts of one (fill, mask): sorted keys, and the row of each in the block's array."""

    keys: Keys
    rows: Int64[np.ndarray, " prompt"]

    def find(self, keys: Keys) -> Int64[np.ndarray, " key"]:
        """The row of each key, -1 where there is none."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.rows[places], -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What is known about one position of a fill: sorted keys of prompts, and a log-probability each."""

    keys: Keys
    log_probs: Float32[np.ndarray, " prompt"]

    def take(self, keys: Keys) -> Float64[np.ndarray, " key"]:
        """The log-probability at each prompt, NaN where there is none."""
        rows = _Plane(self.keys, np.arange(len(self.keys))).find(keys)
        return np.where(rows >= 0, self.log_probs[rows].astype(np.float64), np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class BlockScores:
    """All stored scores of a block; natural logarithms, float32, NaN where a token is not scored yet.

    `columns` is the column of each token id in `log_probs`; `answers` has what is known about filled prompts, by fill,
    position in it and token.
    """

    columns: Mapping[int, int] = field(default_factory=dict)
    log_probs: Float32[np.ndarray, "row token"] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    planes: Mapping[tuple[int, int], _Plane] = field(default_factory=dict)
    answers: Mapping[Question, _Answers] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[MaskScores]) -> BlockScores:
        """The scores of parts in memory."""
        return join_parts([Part.of(part) for part in parts])

    def with_fills(self, parts: Iterable[FillScores]) -> BlockScores:
        """These scores and what some answers know about filled prompts; a later one wins."""
        return self.with_answers(map(FillPart.of, parts))

    def with_answers(self, parts: Iterable[FillPart]) -> BlockScores:
        """The same, of answers as they are stored."""
        return replace(self, answers=_join_answers(self.answers, parts))

    def missing(self, keys: Keys, token_ids: Sequence[int], mask: int = 0) -> Bool[np.ndarray, " key"]:
        """Which prompts lack one of the tokens at their mask."""
        rows, columns = self._rows(keys, mask), [self.columns.get(int(token), -1) for token in token_ids]
        if -1 in columns:
            return np.ones(len(keys), dtype=bool)
        missing = rows < 0
        missing[~missing] = np.isnan(self.log_probs[rows[~missing]][:, columns]).any(axis=1)
        return missing

    def take(self, keys: Keys, token_ids: Sequence[int], mask: int = 0) -> Float64[np.ndarray, "key token"]:
        """Log-probabilities of tokens at the mask of each prompt; NaN where there is no such prompt or token."""
        taken = np.full((len(keys), len(token_ids)), np.nan)
        rows = self._rows(keys, mask)
        known = [number for number, token in enumerate(token_ids) if int(token) in self.columns]
        columns = [self.columns[int(token_ids[number])] for number in known]
        is_there = np.flatnonzero(rows >= 0)
        found = self.log_probs[rows[is_there]]
        for number, column in zip(known, columns, strict=True):
            taken[is_there, number] = found[:, column]
        return taken

    def take_fill(self, keys: Keys, question: Question) -> Float64[np.ndarray, " key"]:
        """Log-probabilities at a position of a fill of the token that is asked about there; NaN where it is unknown."""
        fill, position, token = question
        if fill.is_plain:
            return self.take(keys, [token], position)[:, 0]
        known = self.answers.get(question)
        return known.take(keys) if known is not None else np.full(len(keys), np.nan)

    def _rows(self, keys: Keys, mask: int) -> Int64[np.ndarray, " key"]:
        plane = self.planes.get((0, mask))
        return plane.find(keys) if plane is not None else np.full(len(keys), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part: what was asked about, and the numbers."""

    keys: Keys
    fills: Int32[np.ndarray, " row"]
    masks: Int32[np.ndarray, " row"]
    token_ids: Sequence[int]
    log_probs: Float32[np.ndarray, "row token"]

    @classmethod
    def of(cls, scores: MaskScores) -> Part:
        """The part that some scores make."""
        keys = np.array([key.encode() for key in scores.keys], dtype=f"S{KEY_BYTES}")
        return cls(keys, scores.fills, scores.masks, scores.token_ids.tolist(), scores.log_probs)


@dataclass(frozen=True, slots=True, eq=False)
class FillPart:
    """Answers about filled prompts: `numbers[i]` is the question that `log_probs[i]` answers about `keys[i]`."""

    keys: Keys
    questions: Sequence[Question]
    numbers: Int64[np.ndarray, " answer"]
    log_probs: Float32[np.ndarray, " answer"]

    @classmethod
    def of(cls, scores: FillScores) -> FillPart:
        """The part that some answers make."""
        asked = zip(scores.fills, scores.positions.tolist(), scores.token_ids.tolist(), strict=True)
        numbers: dict[Question, int] = {}
        of_answer = [numbers.setdefault(question, len(numbers)) for question in asked]
        keys = np.array([key.encode() for key in scores.keys], dtype=f"S{KEY_BYTES}")
        return cls(keys, tuple(numbers), np.array(of_answer, dtype=np.int64), scores.log_probs)

    def answers(self) -> Iterator[tuple[Question, _Answers]]:
        """Each question with its answers, in the order in which they were given."""
        if not len(self.numbers):
            return
        order = np.argsort(self.numbers, kind="stable")
        starts = np.searchsorted(self.numbers[order], np.arange(1, len(self.questions)))
        for question, places in zip(self.questions, np.split(order, starts), strict=True):
            yield question, _Answers(self.keys[places], self.log_probs[places])


def join_parts(parts: Sequence[Part]) -> BlockScores:
    """One array of all parts: a row a (prompt, fill, mask), a column a token."""
    columns: dict[int, int] = {}
    for part in parts:
        for token in part.token_ids:
            columns.setdefault(int(token), len(columns))
    if not parts:
        return BlockScores()
    fills, masks = (np.concatenate([getattr(part, name) for part in parts]) for name in ("fills", "masks"))
    keys = np.concatenate([part.keys for part in parts])
    rows, planes, number = np.zeros(len(keys), dtype=np.int64), {}, 0
    for fill, mask in sorted({*zip(fills.tolist(), masks.tolist(), strict=True)}):
        here = np.flatnonzero((fills == fill) & (masks == mask))
        distinct, inverse = np.unique(keys[here], return_inverse=True)
        rows[here] = number + inverse
        planes[fill, mask] = _Plane(distinct, number + np.arange(len(distinct)))
        number += len(distinct)
    log_probs, start = np.full((number, len(columns)), np.nan, dtype=np.float32), 0
    for part in parts:
        places = rows[start : start + len(part.keys)]
        for number, token in enumerate(part.token_ids):
            log_probs[places, columns[int(token)]] = part.log_probs[:, number]
        start += len(part.keys)
    return BlockScores(columns, log_probs, planes)


def _join_answers(known: Mapping[Question, _Answers], parts: Iterable[FillPart]) -> dict[Question, _Answers]:
    """Answers by question; those of a later part take the place of earlier ones about the same prompt."""
    found: dict[Question, list[_Answers]] = {question: [one] for question, one in known.items()}
    for part in parts:
        for question, new in part.answers():
            found.setdefault(question, []).append(new)
    return {question: _last_of_each(several) for question, several in found.items()}


def _last_of_each(several: Sequence[_Answers]) -> _Answers:
    if len(several) == 1 and (several[0].keys[1:] > several[0].keys[:-1]).all():
        return several[0]
    keys = np.concatenate([one.keys for one in several])[::-1]
    log_probs = np.concatenate([one.log_probs for one in several])[::-1]
    distinct, last = np.unique(keys, return_index=True)
    return _Answers(distinct, log_probs[last])
