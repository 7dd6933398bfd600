"""What the commands share: splitting list options, tables for 80 columns, short paths.

No line that a command prints is longer than 80 characters, but for paths and for the sentence of a fault.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from promptlab.errors import UsageError, did_you_mean

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


def split_pairs(values: Sequence[str] | None) -> list[str] | None:
    """`raw=label` pairs from repeated and comma-separated options."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()] if values else None


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str], wrap: bool = False, width: int = WIDTH) -> str:
    """Left-aligned columns within `width` characters; the last one is cut with an ellipsis, or wrapped.

    A word that is longer than the column is broken where it is wrapped, but for a path, which somebody may copy.
    """
    *columns, last = zip(header, *rows, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    space = max(width - sum(taken + len(_GAP) for taken in widths), _NARROWEST)
    lines = []
    for *cells, text in zip(*columns, last, strict=True):
        start = "".join(cell.ljust(taken) + _GAP for cell, taken in zip(cells, widths, strict=True))
        parts = _wrap(text, space) if wrap else [_cut(text, space)]
        lines += [start + parts[0], *(" " * len(start) + part for part in parts[1:])]
    return "\n".join(line.rstrip() for line in lines)


def check_form(output: str, forms: Sequence[str] = ("text", "json")) -> None:
    """Refuse a form of output that a command does not have.

    Raises:
        UsageError: the form is unknown.
    """
    if output not in forms:
        listed = f"{', '.join(forms[:-1])} or {forms[-1]}"
        raise UsageError(f"--output {output}: write {listed}.{did_you_mean(output, forms)}")


def print_json(value: Any) -> None:
    """A value as JSON on standard output, for scripts; null where there is no number."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


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


def find_run(run: str) -> Path:
    """The folder that a run's path or its name under `results/` means; it need not be there."""
    folder = Path(run).expanduser()
    named = Path("results") / run
    return named if not folder.is_dir() and named.is_dir() else folder


def relative(path: Path) -> str:
    """A path as short as it can be written from here."""
    resolved, here = path.resolve(), Path.cwd().resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)


def _wrap(text: str, width: int) -> list[str]:
    """The lines of a text; a path is never broken, any other word where it is too long."""
    lines = textwrap.wrap(text, width, break_long_words=False) or [""]
    return [part for line in lines for part in ([line] if "/" in line else textwrap.wrap(line, width) or [""])]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
