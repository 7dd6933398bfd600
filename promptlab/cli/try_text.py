"""`promptlab try`: what a template and some label words make of one text."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, Any

import typer

from promptlab.cli.console import check_form, print_json, print_lines
from promptlab.cli.options import Device, DrawSeed, Dtype, Form, IncludePrompts, MaxLength, Model, Revision, Scoring
from promptlab.errors import UsageError


def try_text(
    template: Annotated[list[str], typer.Option(metavar="TEXT", help="A template's text, or its name; repeatable.")],
    labels: Annotated[
        list[str], typer.Option(metavar="LABEL=WORD,...", help="Label words, or a verbalizer's name; repeatable.")
    ],
    text: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="The field text; repeatable.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=TEXT", help="Another field of the template; repeatable.")
    ] = None,
    model: Model = "mini",
    revision: Revision = None,
    include: IncludePrompts = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    scoring: Scoring = "mask",
    seed: DrawSeed = 0,
    output: Form = "text",
) -> None:
    """Ask a model about one text: probabilities, mass, fills."""
    from promptlab.specs.template import load_templates
    from promptlab.specs.verbalizer import load_verbalizers

    check_form(output)
    rows = _rows(text or [], field or [])
    templates = load_templates(template, include=include or [])
    verbalizers = load_verbalizers(labels, include=include or [])

    from promptlab.backends.base import make_backend
    from promptlab.previewing import try_text as ask

    backend = make_backend(model, scoring=scoring, revision=revision, device=device, dtype=dtype)

    found = [
        ask(row, one, verbalizers, backend, max_length=max_length, seed=seed)
        for one, row in itertools.product(templates, rows)
    ]
    if output == "json":
        print_json([dataclasses.asdict(one) for one in found])
    else:
        print_lines([line for one in found for line in one.lines()][:-1])


def _rows(texts: list[str], pairs: list[str]) -> list[dict[str, Any]]:
    """One mapping of fields a text; a template without a field `text` has one from the other fields."""
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"--field {pair}: write field=text.")
        if name.strip() in fields or (name.strip() == "text" and texts):
            raise UsageError(f"--field {pair}: the field '{name.strip()}' is given twice.")
        fields[name.strip()] = value
    if not texts and not fields:
        raise UsageError("try: give the text by --text TEXT, or the template's fields by --field name=text.")
    return [{"text": one, **fields} for one in texts] or [fields]
