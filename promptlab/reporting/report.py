"""Stored run -> report.html, report.md and results.csv in its folder, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptlab.errors import UsageError
from promptlab.files import write_bytes
from promptlab.reporting.content import make_document
from promptlab.reporting.document import Document
from promptlab.reporting.html import to_html
from promptlab.reporting.markdown import to_markdown
from promptlab.reporting.tables import to_csv
from promptlab.results import RunResults

FILES = {"html": "report.html", "md": "report.md", "csv": "results.csv"}


def write_report(results: RunResults, *, formats: Sequence[str] = tuple(FILES)) -> list[Path]:
    """Write the report into the run's folder.

    Args:
        results: the stored run.
        formats: some of `html`, `md` and `csv`, in the order in which the paths are given back.

    Raises:
        UsageError: another format.
        StoreError: the folder cannot be written.
    """
    paths = {name: results.folder / _file_name(name) for name in formats}
    document = make_document(results) if {"html", "md"} & set(formats) else None
    return [_write(path, _render(results, document, name)) for name, path in paths.items()]


def write_report_to(results: RunResults, path: Path) -> Path:
    """Write the report to one file, in the form that its ending names.

    Raises:
        UsageError: the ending is none of .html, .md and .csv.
        StoreError: the file cannot be written.
    """
    name = path.suffix.lstrip(".").lower()
    _file_name(name)
    return _write(path, render_report(results, name))


def render_report(results: RunResults, name: str) -> str:
    """The report in one format, as text.

    Raises:
        UsageError: another format.
    """
    _file_name(name)
    return _render(results, None if name == "csv" else make_document(results), name)


def _render(results: RunResults, document: Document | None, name: str) -> str:
    if document is None or name == "csv":
        return to_csv(results)
    return to_html(document) if name == "html" else to_markdown(document)


def _write(path: Path, text: str) -> Path:
    write_bytes(path, text.encode("utf-8"))
    return path


def _file_name(name: str) -> str:
    if name not in FILES:
        raise UsageError(f"a report is written as {', '.join(f'.{known}' for known in FILES)}, found '.{name}'.")
    return FILES[name]
