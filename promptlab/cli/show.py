"""`promptlab show`: one thing whole: where it lies, what it says, what applies to it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from promptlab.cli.console import WIDTH, check_form, one_line, print_json, print_lines, printable, table
from promptlab.cli.options import Form, Include

_INDENT = "  "
_SAID_ABOVE = ("type", "name", "title", "text", "docstring", "what")


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name, the path of a file, or the text itself.")],
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="task, template, verbalizer, model, metric, calibration or method."),
    ] = None,
    include: Include = None,
    output: Form = "text",
) -> None:
    """Show one task, template, verbalizer, metric ... whole."""
    from promptlab.showing import find_thing

    check_form(output)
    thing = find_thing(name, kind, include or [])
    if output == "json":
        print_json(thing)
    else:
        print_lines(_lines(thing))


def _lines(thing: Mapping[str, Any]) -> Iterator[str]:
    """What it is called, what it says first of all, and the rest as a table."""
    yield one_line(f"{thing['type']} {thing['name']}")
    yield ""
    yield from _words(thing["labels"]) if thing["type"] == "verbalizer" else _text(thing)
    said_above = {*_SAID_ABOVE, "path", *(["labels"] if thing["type"] == "verbalizer" else [])}
    facts = [("path", thing.get("path")), *((key, value) for key, value in thing.items() if key not in said_above)]
    rows = [row for key, value in facts if value is not None for row in _rows(key, value)]
    yield ""
    yield table(rows[1:], header=rows[0], wrap=True)


def _text(thing: Mapping[str, Any]) -> Iterator[str]:
    """The text of a template as it stands, a title or a docstring, within the width of a page."""
    text = next((thing[key] for key in ("text", "title", "docstring") if thing.get(key)), "")
    for line in text.split("\n"):
        parts = textwrap.wrap(printable(line), WIDTH - len(_INDENT), drop_whitespace=False, break_long_words=False)
        yield from (f"{_INDENT}{part}".rstrip() for part in parts or [""])


def _words(labels: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A line a label with its words, and their weights where they are not 1."""
    rows = [
        [label, one_line(", ".join(word if weight == 1 else f"{word} ({weight:g})" for word, weight in words.items()))]
        for label, words in labels.items()
    ]
    yield textwrap.indent(table(rows[1:], header=rows[0], wrap=True, width=WIDTH - len(_INDENT)), _INDENT)


def _rows(key: str, value: Any) -> Iterator[list[str]]:
    """The rows of one fact; each source of a task has a row a key."""
    if key == "sources":
        for number, source in enumerate(value, start=1):
            said = [f"{name}: {_flat(held)}" for name, held in source.items() if held is not None]
            yield from ([f"source {number}" if not place else "", one] for place, one in enumerate(said))
    elif key == "weights_bytes":
        yield ["weights", f"{value / 1e6:.1f} MB"]
    else:
        yield [key, _flat(value)]


def _flat(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_flat(one) for one in value) or "none"
    if isinstance(value, Mapping):
        pairs = [(key, _flat(one) if not isinstance(one, Mapping) else f"({_flat(one)})") for key, one in value.items()]
        return ", ".join(key if key == one else f"{key} = {one}" for key, one in pairs if value[key] is not None)
    return one_line(str(value))
