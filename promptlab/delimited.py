"""Lines of a CSV or TSV file -> (place, row) pairs; a fault names the line on which it begins, not the end of the file.

Both are read by the rules of RFC 4180: a cell that starts with a quote ends with one, may hold line ends, and writes a
quote as two. The first line names the columns.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

from promptlab.errors import DataError
from promptlab.lines import MAX_CHARACTERS, LineCount, TooLong, read_lines, too_long


def read_delimited(stream: BinaryIO, shown: str, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, row) pairs; the place is `file:line` with the line on which the row starts.

    Raises:
        DataError: no header or a wrong one, a row of more or fewer cells, a quote that is not closed, no text.
    """
    if csv.field_size_limit() < MAX_CHARACTERS:  # the bound on rows stands in for the module's own of 131,072
        csv.field_size_limit(MAX_CHARACTERS)
    header: list[str] | None = None
    for place, cells in _records(stream, shown, delimiter):
        if header is None:
            header = _checked_header(cells, place)
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{place}: has {_number(len(cells))}, the header names {len(header)} ({_listed(header)}): "
                f"a delimiter or a quote is {'missing' if len(cells) < len(header) else 'too many'}."
            )
        yield place, dict(zip(header, cells, strict=True))
    if header is None:
        raise DataError(f"{shown}: is empty: the first line names the columns, each further one is a row.")


def _records(stream: BinaryIO, shown: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of every record that is not an empty line."""
    record = _Record(delimiter)
    reader = csv.reader(record.take(read_lines(stream, shown)), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        record.begin(reader.line_num + 1)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            walk = record.walked()
            fault = DataError(f"{shown}:{record.line}: is not valid CSV: {error}.")
            raise _open_quote(walk, shown, header) or fault from None
        except TooLong as long:
            raise _size_fault(record, long, shown, header) from None
        if cells:
            header = header or cells
            yield f"{shown}:{record.line}", cells


def _checked_header(cells: list[str], place: str) -> list[str]:
    """The names of the columns, none of them empty or twice."""
    for number, name in enumerate(cells, start=1):
        if not name.strip():
            raise DataError(
                f"{place}: the header has no name for column {number} of {len(cells)}: the first line must name every "
                "column."
            )
        if name in cells[: number - 1]:
            raise DataError(f"{place}: the header names column '{name}' twice: every column needs a name of its own.")
    return cells


class _Walk:
    """Where a walk over the text of one record stands: column from 0, and the line on which its last quote opened."""

    def __init__(self, line: int, delimiter: str) -> None:
        self.state: Literal["start", "plain", "quoted", "closing", "broken", "done"] = "start"
        self.column, self.size, self.opened_on = 0, 0, line
        self.lines = LineCount()
        self.lines.number = line
        self._delimiter = delimiter
        self._plain_end = re.compile(f"[{re.escape(delimiter)}\r\n]")

    def feed(self, text: str) -> None:
        """Walk on until the record ends or a closing quote has text behind it."""
        position = 0
        while position < len(text) and self.state not in ("broken", "done"):
            end = self._step(text, position)
            self.lines.add(text[position:end])
            position = end
        self.size += position

    def _step(self, text: str, position: int) -> int:
        """The position behind what one state reads."""
        if self.state == "quoted":
            end = text.find('"', position)
            self.state = "quoted" if end < 0 else "closing"
            return len(text) if end < 0 else end + 1
        if self.state == "closing" and text[position] == '"':
            self.state = "quoted"
            return position + 1
        if self.state == "closing" and text[position] not in (self._delimiter, "\r", "\n"):
            self.state = "broken"
            return position
        if self.state == "start" and text[position] == '"':
            self.state, self.opened_on = "quoted", self.lines.number
            return position + 1
        return self._plain(text, position)

    def _plain(self, text: str, position: int) -> int:
        found = self._plain_end.search(text, position)
        if found is None:
            self.state = "plain"
            return len(text)
        is_delimiter = found[0] == self._delimiter
        self.state = "start" if is_delimiter else "done"
        self.column += is_delimiter
        return found.end() if is_delimiter else found.start()


class _Record:
    """The record that the csv module is reading: the line it starts on, its size, and a walk over it for a fault."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self.begin(1)

    def begin(self, line: int) -> None:
        """A new record starts."""
        self.line = line
        self._size, self._last = 0, ""
        self._walk: _Walk | None = None

    def take(self, lines: Iterator[str]) -> Iterator[str]:
        """The lines of a file; of a record that goes on nothing but the last line is held here.

        Raises:
            TooLong: a record has more than MAX_CHARACTERS.
        """
        while (line := next(lines, None)) is not None:
            if self._last:
                self.walked()
            self._size += len(line)
            if self._size > MAX_CHARACTERS:
                raise TooLong(line, lines)
            self._last = line
            yield line

    def walked(self) -> _Walk:
        """The walk over all lines that were taken."""
        self._walk = self._walk or _Walk(self.line, self._delimiter)
        self._walk.feed(self._last)
        self._last = ""
        return self._walk


def _size_fault(record: _Record, long: TooLong, shown: str, header: list[str]) -> DataError:
    """Which column holds too much text, or which quote is never closed and so holds the rest of the file."""
    walk = record.walked()
    walk.feed(long.head)
    column = _column(walk, header)
    for text in itertools.takewhile(lambda _: walk.state not in ("broken", "done"), long.rest):
        walk.feed(text)
    return _open_quote(walk, shown, header) or too_long(f"{shown}:{record.line}", column, f"{walk.size:,}")


def _open_quote(walk: _Walk, shown: str, header: list[str]) -> DataError | None:
    """The fault of a quote that is not closed where its cell ends, or None."""
    if walk.state not in ("quoted", "broken"):
        return None
    end = "is never closed"
    if walk.state == "broken":
        end = "closes with text behind it"
        end += f" on line {walk.lines.number}" if walk.lines.number > walk.opened_on else ""
    return DataError(
        f"{shown}:{walk.opened_on}: the quote that opens column '{_column(walk, header)}' {end}: close it at the end "
        "of the cell, and write each quote inside the cell twice."
    )


def _column(walk: _Walk, header: list[str]) -> str:
    """The name of the column, its number where the header has none for it."""
    return header[walk.column] if walk.column < len(header) else str(walk.column + 1)


def _number(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"


def _listed(names: Iterable[str], at_most: int = 10) -> str:
    shown = list(names)
    return ", ".join(shown[:at_most]) + (" ..." if len(shown) > at_most else "")
