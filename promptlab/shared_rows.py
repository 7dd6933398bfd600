"""Stored decisions of two cells -> those of both on the rows that both have, in one order and with the same labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.errors import DataError
from promptlab.metrics import Outcome
from promptlab.results import Result, RunResults
from promptlab.store import RunStore

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """The stored decisions of a cell: label indices, -1 for none, and log p(y | x), uniform where unscored."""

    ids: list[str]
    gold: Int64[np.ndarray, " row"]
    predicted: Int64[np.ndarray, " row"]
    log_probabilities: Float64[np.ndarray, "row label"]

    def at(self, places: Sequence[int]) -> Decided:
        """Some of the rows."""
        index = np.array(places, dtype=np.int64)
        ids = [self.ids[place] for place in places]
        return Decided(ids, self.gold[index], self.predicted[index], self.log_probabilities[index])

    def outcome(self, labels: tuple[str, ...]) -> Outcome:
        """What metrics look at."""
        return Outcome(self.gold, self.predicted, np.exp(self.log_probabilities), labels)


def shared_decisions(first: RunResults, second: RunResults, ours: Result, theirs: Result) -> tuple[Decided, Decided]:
    """The decisions of both on the rows that both have, in the order of the first."""
    one, other = _read(first, ours), _relabelled(_read(second, theirs), theirs.labels, ours.labels)
    places = {row: number for number, row in enumerate(other.ids)}
    shared = [(number, places[row]) for number, row in enumerate(one.ids) if row in places]
    if not shared:
        raise DataError(
            f"task '{ours.task}': runs '{first.name}' and '{second.name}' have no row in common: compare runs of the "
            "same split and --limit."
        )
    one, other = one.at([pair[0] for pair in shared]), other.at([pair[1] for pair in shared])
    differing = np.flatnonzero((one.gold != other.gold) & (one.gold >= 0) & (other.gold >= 0))
    if len(differing):
        row = one.ids[int(differing[0])]
        raise DataError(
            f"task '{ours.task}': {len(differing)} shared rows have another gold label in run '{first.name}' than in "
            f"'{second.name}' (row {row} first): the two are not of the same data."
        )
    gold = np.maximum(one.gold, other.gold)  # a run of the same rows without labels learns them from the other
    return replace(one, gold=gold), replace(other, gold=gold)


def _read(run: RunResults, cell: Result) -> Decided:
    table = RunStore(run.folder).read_samples(cell.samples, cell.cell)
    index = {label: number for number, label in enumerate(cell.labels)}

    def codes(name: str) -> Any:
        return np.array([index.get(value, -1) for value in table[name].to_pylist()], dtype=np.int64)

    uniform = [-np.log(len(cell.labels))] * len(cell.labels)
    values = [row if row is not None else uniform for row in table["log_probabilities"].to_pylist()]
    return Decided(table["row_id"].to_pylist(), codes("gold"), codes("predicted"), np.array(values, dtype=np.float64))


def _relabelled(found: Decided, theirs: tuple[str, ...], ours: tuple[str, ...]) -> Decided:
    """Decisions with their labels in another order."""
    if theirs == ours:
        return found
    place = np.array([ours.index(label) for label in theirs] + [-1])
    order = [theirs.index(label) for label in ours]
    return Decided(found.ids, place[found.gold], place[found.predicted], found.log_probabilities[:, order])
