"""What the commands share: splitting list options, and tables for 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """Names from repeated and comma-separated options; inline templates and verbalizers keep their commas."""
    if not values:
        return None
    names: list[str] = []
    for value in values:
        is_inline = "{{" in value or "=" in value
        names += [value] if is_inline else [part.strip() for part in value.split(",") if part.strip()]
    return names


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str], width: int = 80) -> str:
    """Left-aligned columns; the last one is cut with an ellipsis where the line would be longer than the width."""
    columns = list(zip(header, *rows, strict=True)) if rows else [(name,) for name in header]
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = []
    for row in [header, *rows]:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return "\n".join(lines)


def print_lines(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    print("\n".join(lines))
