"""Report -> Markdown: the same sections and tables as the page, without its charts.

What comes from data files is escaped, so that a template's text is shown and never becomes markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from promptlab.reporting.document import Code, Column, Document, Figure, Paragraph, Part, Section, Subheading, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")
_TICKS = re.compile(r"`+")


def to_markdown(document: Document) -> str:
    """The whole report as Markdown."""
    lines = [f"# {_escape(document.title)}", "", _escape(document.lead), "", "The charts are in report.html.", ""]
    for section in document.sections:
        lines += _section_lines(section)
    return "\n".join(lines).rstrip("\n") + "\n"


def _section_lines(section: Section) -> Iterable[str]:
    yield from (f"## {_escape(section.title)}", "")
    for part in section.parts:
        yield from _part_lines(part)


def _part_lines(part: Part) -> list[str]:
    if isinstance(part, Paragraph):
        return [_escape(part.text), ""]
    if isinstance(part, Subheading):
        return [f"### {_escape(part.text)}", ""]
    if isinstance(part, Code):
        fence = "`" * max(3, _longest_ticks(part.text) + 1)
        return [fence, part.text, fence, ""]
    if isinstance(part, Figure):
        return []
    return _table_lines(part)


def _table_lines(table: Table) -> list[str]:
    head = "| " + " | ".join(_escape(column.title) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.kind == "number" else "---" for column in table.columns) + "|"
    rows = [
        "| " + " | ".join(_cell(text, column) for text, column in zip(row, table.columns, strict=True)) + " |"
        for row in table.rows
    ]
    lines = [head, rule, *rows, ""]
    if table.fold is None:
        return lines
    return ["<details>", f"<summary>{_escape(table.fold)}</summary>", "", *lines, "</details>", ""]


def _cell(text: str, column: Column) -> str:
    return _code(text) if column.kind == "code" and text else _escape(text).replace("\n", "<br>")


def _code(text: str) -> str:
    """Code in a table cell: it stays on one line and its bars do not end the cell."""
    ticks = "`" * (_longest_ticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    shown = text.replace("\n", " ⏎ ").replace("|", r"\|")
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _longest_ticks(text: str) -> int:
    return max(map(len, _TICKS.findall(text)), default=0)


def _escape(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", escaped)
