"""`promptlab preview`: what a template says to a tokenizer, row by row, and what the model fills in."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from promptlab.cli.console import check_form, print_json, print_lines, split_names
from promptlab.cli.options import Device, Form, Include, Model, Revision, Scoring


def preview(
    tasks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="Tasks; default: review_sentiment.")] = None,
    templates: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Templates, or the text itself; default: all.")
    ] = None,
    verbalizers: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Verbalizers whose words are shown; default: all.")
    ] = None,
    model: Model = "mini",
    revision: Revision = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that local rows lie in.")] = None,
    include: Include = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split to show.")] = "test",
    rows: Annotated[int, typer.Option("--rows", "-n", metavar="N", min=1, help="How many rows to show.")] = 1,
    max_length: Annotated[str | None, typer.Option(metavar="N", help="Most tokens of a prompt.")] = None,
    device: Device = "auto",
    scoring: Scoring = "mask",
    seed: Annotated[str, typer.Option(metavar="N", help="The one seed.")] = "0",
    output: Form = "text",
) -> None:
    """Show prompts, tokens, label words and what is filled in."""
    check_form(output)

    from promptlab.previewing import preview_task
    from promptlab.specs.run import make_run_spec

    given: dict[str, Any] = {
        "models": [model],
        "revision": revision,
        "tasks": split_names(tasks) or ["review_sentiment"],
        "templates": split_names(templates),
        "verbalizers": split_names(verbalizers),
        "data": data,
        "include": include,
        "split": split,
        "limit": rows,
        "max_length": max_length,
        "device": device,
        "scoring": scoring,
        "seed": seed,
    }
    spec = make_run_spec({key: value for key, value in given.items() if value is not None})
    found = preview_task(spec)
    if output == "json":
        print_json([dataclasses.asdict(one) for one in found])
        return
    for one in found:
        print_lines(one.lines())
