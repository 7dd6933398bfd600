"""What a report says, apart from how it is marked up: sections of paragraphs, tables, figures and code.

Markdown and HTML are written from the same value, so that they cannot say different things.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from promptlab.reporting.panels import Panel

ColumnKind = Literal["text", "name", "number", "code"]


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column; numbers are set right, names stay on one line, code is shown as it was written."""

    title: str
    kind: ColumnKind = "text"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Subheading:
    """The head of a part of a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; `fold` is the line that opens a table which starts closed."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    fold: str | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """Charts that belong together, and what they show."""

    panels: tuple[Panel, ...]
    caption: str


Part = Paragraph | Subheading | Code | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the report; `anchor` is its address within the page."""

    title: str
    anchor: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    lead: str
    sections: tuple[Section, ...]


def make_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, fold: str | None = None) -> Table:
    """A table from heads such as `source`, `~task`, `#rows` and `` `hash``; columns without content are left out.

    Args:
        heads: one a column; `~` marks names, `#` numbers and a backtick code.
        rows: as many texts as heads.
        fold: the line that opens the table, where it starts closed.
    """
    table = [tuple(row) for row in rows]
    kinds: dict[str, ColumnKind] = {"~": "name", "#": "number", "`": "code"}
    columns = [Column(head.lstrip("~#`"), kinds.get(head[0], "text")) for head in heads]
    kept = [index for index in range(len(columns)) if not table or any(row[index] for row in table)]
    return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in table), fold)
