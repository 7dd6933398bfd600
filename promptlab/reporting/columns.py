"""Rows of text -> aligned columns that fit a terminal: text on the left is cut, numbers on the right are not."""

from __future__ import annotations

from collections.abc import Sequence

_GAP = "  "
_MIN_COLUMN = 8


def fit_columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, num_left: int) -> list[str]:
    """A table whose first columns are text, cut where the whole would be wider than the terminal."""
    table = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = max(range(num_left), key=lambda index: widths[index])
        if widths[widest] <= _MIN_COLUMN:
            break
        widths[widest] -= 1
    return [_line(row, widths, num_left).rstrip() for row in table]


def natural_width(table: Sequence[Sequence[str]]) -> int:
    """How wide a table is where nothing is cut."""
    columns = list(zip(*table, strict=True))
    return sum(max(map(len, column)) for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(row: Sequence[str], widths: Sequence[int], num_left: int) -> str:
    cells = [cut(text, width) for text, width in zip(row, widths, strict=True)]
    padded = [
        text.ljust(width) if index < num_left else text.rjust(width)
        for index, (text, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(padded)


def cut(text: str, width: int) -> str:
    """A text in at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
