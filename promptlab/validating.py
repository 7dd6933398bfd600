"""Raw rows -> examples: every field and the gold label looked up, checked and named, with an id that says what is held.

A broken row names file, line and field; labels that the task does not know are named all at once.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from promptlab import sandbox
from promptlab.errors import DataError, PromptlabError
from promptlab.examples import Occurrences
from promptlab.hashing import content_hash
from promptlab.library import shown_path
from promptlab.reading import RawRow, missing_column
from promptlab.specs.task import Source, Task
from promptlab.types import Example

MOST_NAMED = 10  # unknown labels in one message
_MOST_CHARACTERS = 60  # of an unknown label in a message
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def validate_rows(
    task: Task, source: Source, rows: Iterable[tuple[str, RawRow]], *, counts_unknown: bool = False
) -> Iterator[tuple[RawRow, Example]]:
    """Each raw row with its example, one after the other.

    Args:
        task: what the rows are examples of.
        source: which columns are its fields and its label.
        rows: (place, raw row) pairs.
        counts_unknown: read on behind an unknown label, to name all of them and say how many rows have each.

    Raises:
        DataError: a broken row, or an unknown label.
    """
    fields, label, seen = _Fields(task, source), _Label(task, source), Occurrences()
    remaining = iter(rows)
    for index, (place, row) in enumerate(remaining):
        values = fields.read(row, place)
        gold = label.read(row, place)
        if gold is None and source.label is not None:
            others = _until_broken(remaining) if counts_unknown else ()
            raise label.fault(itertools.chain([(place, row)], others))
        digest = content_hash(values)
        yield row, Example(f"{digest[:16]}-{seen.add(digest)}", index, values, gold)


def as_field(value: Any, name: str, place: str) -> Any:
    """A value that a template may see: text, number, list or mapping; a missing value is an empty text.

    Raises:
        DataError: any other value.
    """
    if is_missing(value):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{place} field '{name}': an infinite number cannot stand in a prompt.")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise DataError(f"{place} field '{name}': holds half of a surrogate pair, which is no character.")
    if isinstance(value, str | int | bool | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_field(item, name, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_field(item, name, place) for item in value]
    kind = "binary value" if isinstance(value, bytes) else type(value).__name__
    raise DataError(f"{place} field '{name}': a {kind} cannot stand in a prompt: store the column as text.")


def is_missing(value: Any) -> bool:
    """Whether a raw value is none: null, or the NaN that other tools write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


class _Fields:
    """Fills the fields of a source from raw rows: from a column, or by a Jinja expression over the row."""

    def __init__(self, task: Task, source: Source) -> None:
        self._shown = shown_path(Path(task.path))
        self._wanted = source.fields
        self._columns: set[str] = set()
        self._expressions: dict[str, Any] = {}

    def read(self, row: RawRow, place: str) -> dict[str, Any]:
        """The value of every field."""
        return {name: self._value(name, wanted, row, place) for name, wanted in self._wanted.items()}

    def _value(self, name: str, wanted: str, row: RawRow, place: str) -> Any:
        if wanted in row:
            self._columns.add(wanted)
            return as_field(row[wanted], name, place)
        if wanted.isidentifier() or wanted in self._columns:
            raise DataError(missing_column(f"{place} field '{name}':", wanted, row))
        if wanted not in self._expressions:
            self._expressions[wanted] = sandbox.compile_expression(wanted, shown=f"{self._shown} fields.{name}")
        try:
            filled = {column: "" if is_missing(value) else value for column, value in row.items()}
            return as_field(self._expressions[wanted](filled), name, place)
        except PromptlabError as error:
            raise DataError(f"{place} {error}") from None


class _Label:
    """Finds our name of the gold label of raw rows."""

    def __init__(self, task: Task, source: Source) -> None:
        self._task = task
        self._column = source.label.column if source.label else None
        self._values = source.label.values if source.label else None
        named: Mapping[Any, str] = {label: label for label in task.labels} if self._values is None else self._values
        self._by_value = {(type(key), str(key)): label for key, label in named.items()}
        self._by_text = {str(key): label for key, label in named.items()}

    def read(self, row: RawRow, place: str) -> str | None:
        """The label, None where its raw value is unknown or the source has no labels.

        Raises:
            DataError: the row has no such column.
        """
        if self._column is None:
            return None
        if self._column not in row:
            raise DataError(missing_column(f"{place}: label", self._column, row))
        raw = _raw_label(row[self._column])
        return self._by_value.get((type(raw), str(raw)), self._by_text.get(str(raw)))

    def fault(self, rows: Iterable[tuple[str, RawRow]]) -> DataError:
        """The unknown values of some rows, of which the first has one: in how many rows each is, and where first."""
        found, others = self._count_unknown(rows)
        start = next(iter(found.values()))[1]
        listed = [
            f"{value} ({_counted(number)}{_where(number, place, start)})" for value, (number, place) in found.items()
        ]
        listed += [f"other values ({_counted(others)})"] if others else []
        names = f"{', '.join(listed[:-1])} and {listed[-1]} are" if len(listed) > 1 else f"{listed[0]} is"
        known = ", ".join(map(str, self._values or self._task.labels))
        return DataError(
            f"{start}: label {names} unknown to task '{self._task.name}'. Known: {known}. "
            f"Map {'them' if len(listed) > 1 else 'it'} with label.values in the task or --label-values."
        )

    def _count_unknown(self, rows: Iterable[tuple[str, RawRow]]) -> tuple[dict[str, tuple[int, str]], int]:
        """Unknown value to number of rows and first place, for the first values; and the rows with any other."""
        found: dict[str, tuple[int, str]] = {}
        others = 0
        column = str(self._column)
        for place, row in rows:
            if column not in row or self.read(row, place) is not None:
                continue
            value = repr(_raw_label(row[column]))
            value = value if len(value) <= _MOST_CHARACTERS else f"{value[: _MOST_CHARACTERS - 1]}…"
            if value in found or len(found) < MOST_NAMED:
                number, first = found.get(value, (0, place))
                found[value] = (number + 1, first)
            else:
                others += 1
        return found, others


def _raw_label(value: Any) -> Any:
    """A raw label; an empty cell counts as the value ''."""
    return "" if is_missing(value) else value


def _counted(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _where(number: int, place: str, start: str) -> str:
    """Where the first of some rows is, for a message that begins with the place `start`."""
    if place != start:
        return f", {place}"
    return ", first here" if number > 1 else ""


def _until_broken(rows: Iterable[tuple[str, RawRow]]) -> Iterator[tuple[str, RawRow]]:
    """The rows before the first that cannot be read, which is a fault for another day."""
    with contextlib.suppress(DataError):
        yield from rows
