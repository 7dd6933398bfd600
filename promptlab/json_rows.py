"""JSON text -> (place, row) pairs: one object a line, or one list of objects that is read piece by piece.

NaN is read as the missing value that other tools write it for; a name that stands twice in an object is a fault.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from promptlab.errors import DataError
from promptlab.lines import MAX_CHARACTERS, LineCount, TooLong, split_lines, too_long

A_LINE = "each line holds one object {...}"
A_LINE_OR_LIST = "the file holds one object {...} a line, or one list of them"
_BLANKS = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}\[\]:]', re.DOTALL)
_CUT_LITERAL = 12  # characters at the end of a text that may be the half of a number, a word or an escape


def read_json_lines(
    pieces: Iterator[str], shown: str, *, expected: str = A_LINE
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One object a line; the place is `file:line`, and blank lines do not count.

    Args:
        pieces: the text, cut anywhere.
        shown: the name of the file in messages.
        expected: what the file should hold, in messages.

    Raises:
        DataError: a line that is no JSON object, or too long.
    """
    number = 0
    try:
        for number, line in enumerate(split_lines(pieces), start=1):
            if not line.isspace():
                yield f"{shown}:{number}", _row_of(line, f"{shown}:{number}", expected)
    except TooLong as long:
        raise too_long(f"{shown}:{number + 1}", _last_column(long.head), f"{long.size():,}") from None


def read_json(pieces: Iterator[str], shown: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON lines or one list of objects, which the first character tells apart.

    Raises:
        DataError: the text is neither of the two.
    """
    head = ""
    for piece in pieces:
        head += piece
        if not head.isspace():
            break
    whole = itertools.chain([head] if head else [], pieces)
    if head.lstrip().startswith("["):
        return _read_list(_Window(whole), shown)
    return read_json_lines(whole, shown, expected=A_LINE_OR_LIST)


def _row_of(line: str, place: str, expected: str) -> dict[str, Any]:
    try:
        row = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not valid JSON: {error.msg} (column {error.pos + 1}); {expected}.") from None
    except (RecursionError, ValueError) as error:
        raise _value_fault(place, error) from None
    return _checked(row, place)


def _checked(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{place}: must be an object {{...}}, found {type(row).__name__}.")
    return row


def _value_fault(place: str, error: Exception) -> DataError:
    """What is wrong with JSON that follows the grammar; any ValueError but ours is a number of thousands of digits."""
    if isinstance(error, _Twice):
        return DataError(f"{place}: the name '{error}' stands twice in one object: keep one of the two values.")
    return DataError(f"{place}: is nested too deeply or holds too long a number.")


class _Twice(ValueError):
    """A name that stands twice in one object."""


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in made if names.count(name) > 1))
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object_once)


class _Window:
    """The part of a long text that is looked at: it is read on as far as the next value needs."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text, self._at = "", 0
        self._lines = LineCount()

    @property
    def line(self) -> int:
        """The number of the line that is looked at."""
        return self._lines.number

    def peek(self) -> str:
        """The next character that is no blank, "" at the end of the text."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._walk_to(blanks.end() if blanks else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on(1):
                return ""

    def skip(self) -> None:
        """Walk over one character."""
        self._walk_to(self._at + 1)

    def value(self, place: str) -> Any:
        """The JSON value that starts here.

        Raises:
            DataError: it is none, or too long.
        """
        while True:
            size = len(self._text) - self._at
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    raise self._fault(place, error) from None
                if size > MAX_CHARACTERS:
                    column = _last_column(self._text[self._at :])
                    raise too_long(place, column, f"at least {size:,}") from None
                if not self._read_on(min(size, MAX_CHARACTERS + 1 - size)):
                    raise self._fault(place, error) from None
                continue
            except (RecursionError, ValueError) as error:
                raise _value_fault(place, error) from None
            if end - self._at > MAX_CHARACTERS:
                raise too_long(place, _last_column(self._text[self._at : end]), f"{end - self._at:,}")
            self._walk_to(end)
            return value

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the value may be valid with the text that follows."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _CUT_LITERAL

    def _fault(self, place: str, error: json.JSONDecodeError) -> DataError:
        if error.msg.startswith("Unterminated string") or not self._text[error.pos :].strip():
            return DataError(f"{place}: the file ends inside of this object: it is not whole.")
        self._walk_to(error.pos)
        return DataError(f"{place}: is not valid JSON: {error.msg} (line {self.line}); {A_LINE_OR_LIST}.")

    def _walk_to(self, position: int) -> None:
        self._lines.add(self._text[self._at : position])
        self._at = position

    def _read_on(self, at_least: int) -> bool:
        """Read so many characters more; False where nothing is left."""
        parts, size = list[str](), 0
        for piece in self._pieces:
            parts.append(piece)
            size += len(piece)
            if size >= at_least:
                break
        if parts:
            self._text, self._at = "".join([self._text[self._at :], *parts]), 0
        return bool(parts)


def _read_list(window: _Window, shown: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one list; the place is `file:line item N`."""
    window.peek()
    opened = f"{shown}:{window.line}"
    window.skip()
    for number in itertools.count(1):
        following = window.peek()
        if following == "]" and number == 1:
            break
        place = f"{shown}:{window.line} item {number}"
        yield place, _checked(window.value(place), place)
        following = window.peek()
        if following == "]":
            break
        if following != ",":
            raise _list_fault(following, f"{shown}:{window.line}", opened, number)
        window.skip()
    window.skip()
    if window.peek():
        raise DataError(f"{shown}:{window.line}: text stands behind the list that ends before it: remove it.")


def _list_fault(following: str, place: str, opened: str, number: int) -> DataError:
    if following:
        return DataError(f"{place}: {following!r} stands behind item {number}, where ',' or ']' must be.")
    return DataError(f"{opened}: the list that opens here is not closed: the file ends behind item {number}.")


def _last_column(head: str) -> str:
    """The last name of the outer object in the head of a row."""
    depth, name, last = 0, (0, 0), (0, 0)
    for token in _TOKEN.finditer(head):
        mark = head[token.start()]
        if mark == '"':
            last = token.span()
        elif mark == ":":
            name = last if depth == 1 else name
        else:
            depth += 1 if mark in "{[" else -1
    return head[name[0] + 1 : name[1] - 1]
