"""What the commands share: splitting list options, tables for 80 columns, short paths.

No line that a command prints is longer than 80 characters, but for paths and for the sentence of a fault.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from promptlab.errors import UsageError

WIDTH = 80
_GAP = "  "
_NARROWEST = 20
_NAME_FIRST = re.compile(r"([\w*?-]+/[\w*?-]+),")


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """Names from repeated and comma-separated options; inline templates and verbalizers keep their commas.

    Raises:
        UsageError: a text stands behind a name in one value, so that the name would become a part of the text.
    """
    if not values:
        return None
    names: list[str] = []
    for value in values:
        is_inline = "{{" in value or "=" in value
        if is_inline and (name := _NAME_FIRST.match(value)):
            raise UsageError(f"'{value}': a text keeps its commas. Give '{name[1]}' and the text a flag each.")
        names += [value] if is_inline else [part.strip() for part in value.split(",") if part.strip()]
    return names


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str], wrap: bool = False, width: int = WIDTH) -> str:
    """Left-aligned columns within `width` characters; the last one is cut with an ellipsis, or wrapped."""
    *columns, last = zip(header, *rows, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    space = max(width - sum(taken + len(_GAP) for taken in widths), _NARROWEST)
    lines = []
    for *cells, text in zip(*columns, last, strict=True):
        start = "".join(cell.ljust(taken) + _GAP for cell, taken in zip(cells, widths, strict=True))
        parts = textwrap.wrap(text, space, break_long_words=False) or [""] if wrap else [_cut(text, space)]
        lines += [start + parts[0], *(" " * len(start) + part for part in parts[1:])]
    return "\n".join(line.rstrip() for line in lines)


def print_lines(lines: Iterable[str]) -> None:
    """Lines on standard output; no line prints nothing."""
    for line in lines:
        print(line)


def one_line(text: str) -> str:
    """A text on one line, in single blanks and without signs that a terminal would obey."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """A text with a blank in place of every sign that a terminal would obey instead of print, ends of lines too."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def relative(path: Path) -> str:
    """A path as short as it can be written from here."""
    resolved, here = path.resolve(), Path.cwd().resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
