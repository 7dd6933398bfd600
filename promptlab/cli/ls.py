"""`promptlab ls`: what there is to name: tasks, templates, verbalizers, models, metrics, calibrations, methods."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from promptlab.cli.console import check_form, one_line, print_lines, split_names, table
from promptlab.cli.options import Include
from promptlab.errors import FileFault, UsageError, did_you_mean

if TYPE_CHECKING:
    from promptlab.listing import Listing, Record

FORMS = ("text", "json", "names")
_COLUMNS = {
    "tasks": ("name", "family", "title"),
    "templates": ("name", "tags", "text"),
    "verbalizers": ("name", "words"),
    "methods": ("name", "looks at", "what"),
}


def ls(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="tasks, templates, verbalizers, models, metrics, calibrations, methods; all counted without it.",
        ),
    ] = None,
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="PATTERN", help="Only these names or globs, as in 'nli/*'.")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this family.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only what applies to this task.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "--labels", metavar="NAMES", help="Only what has these labels.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only tasks in it, such as en.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only templates with it.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Only tasks and templates with these fields.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only where name, title, text, words or reference say it.")
    ] = None,
    include: Include = None,
    output: Annotated[str, typer.Option(metavar="FORM", help="text, json, or names: one a line.")] = "text",
) -> None:
    """List tasks, templates, verbalizers, models, metrics ..."""
    from promptlab.listing import list_things
    from promptlab.narrowing import Filters, kinds_for, narrow

    _check(kind, output)
    given = {"family": family, "label": label, "language": language, "tag": tag, "field": field}
    having = {name: tuple(values) for name, value in given.items() if (values := split_names(value))}
    kinds = kinds_for([*having, *(["task"] if task is not None else [])], kind)
    folders = include or []
    applied_to = None if task is None else _task(task, folders)
    filters = Filters(tuple(split_names(patterns) or ()), having, applied_to, search)
    listings = {name: list_things(name, folders) for name in kinds}
    print_lines(_lines(kind, narrow(listings, filters), output))
    sys.stdout.flush()
    _tell_faults(listings, "counted" if kind is None else "listed")


def _check(kind: str | None, output: str) -> None:
    """Refuse a kind and a form that there is not."""
    from promptlab.listing import KINDS

    check_form(output, FORMS)
    if kind is not None and kind not in KINDS:
        raise UsageError(f"ls {kind}: there is no such kind.{did_you_mean(kind, KINDS)} Known: {', '.join(KINDS)}.")
    if kind is None and output == "names":
        raise UsageError("--output names: say of which kind, as in `promptlab ls templates --output names`.")


def _task(name: str, include: Sequence[str]) -> Record:
    """The record of the task that a listing is narrowed to.

    Raises:
        UsageError: there is no such task.
        FileFault: its file is broken.
    """
    from promptlab.listing import list_things, task_record

    for record in list_things("tasks", include).records:
        if record["name"] == name:
            return record
    from promptlab.specs.task import Task

    return task_record(Task.load(name, include=include))


def _lines(kind: str | None, found: Mapping[str, Sequence[Record]], output: str) -> list[str]:
    """What is printed: counts without a kind, else the records in the form that was asked for."""
    if kind is None:
        counts = {name: len(records) for name, records in found.items()}
        if output == "json":
            return [json.dumps(counts, indent=1)]
        rows = [[name, str(count)] for name, count in counts.items()]
        return [table(rows, header=["kind", "number"]), "promptlab ls KIND lists them, promptlab show NAME shows one."]
    records = found[kind]
    if output == "json":
        return [json.dumps(list(records), indent=1, ensure_ascii=False)]
    if output == "names":
        return [record["name"] for record in records]
    if not records:
        return [f"No {kind} fit."]
    columns = _COLUMNS.get(kind, ("name", "what"))
    rows = [[_cell(record, column) for column in columns] for record in records]
    return [table(rows, header=columns, wrap=kind != "templates")]


def _cell(record: Record, column: str) -> str:
    if column == "tags":
        return ", ".join(record["tags"])
    if column == "looks at":
        return ", ".join(name for name in ("template", "words") if record[f"uses_{name}"]) or "the row alone"
    if column == "words":
        return one_line("; ".join(f"{label}: {', '.join(words)}" for label, words in record["labels"].items()))
    return one_line(str(record[column]))


def _tell_faults(listings: Mapping[str, Listing], done: str) -> None:
    """Raise what could not be read, after everything else is printed.

    Raises:
        FileFault: some files are broken.
    """
    faults = [fault for listing in listings.values() for fault in listing.faults.values()]
    if faults:
        number = len(faults) + sum(len(listing.records) for listing in listings.values())
        raise FileFault([f"{len(faults)} of {number} cannot be read, the others are {done}:", *faults])
