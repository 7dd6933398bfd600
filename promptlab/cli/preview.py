"""`promptlab preview`: what a template says to a tokenizer, row by row, and what the model fills in."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, split_names


def preview(
    tasks: Annotated[list[str] | None, typer.Option(help="Tasks; default: review_sentiment.")] = None,
    templates: Annotated[list[str] | None, typer.Option(help="Templates, or the text itself; default: all.")] = None,
    verbalizers: Annotated[list[str] | None, typer.Option(help="Verbalizers whose words are shown.")] = None,
    model: Annotated[str, typer.Option(help="A folder or a hub name.")] = "mini",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder that local rows lie in.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Folder with tasks/, templates/, verbalizers/.")] = None,
    split: Annotated[str, typer.Option(help="Split to show.")] = "test",
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many rows to show.")] = 1,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a prompt.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="The one seed.")] = 0,
) -> None:
    """Show prompts, tokens, label words and what is filled in."""
    from promptlab.previewing import preview_task
    from promptlab.specs.run import make_run_spec

    given: dict[str, Any] = {
        "models": [model],
        "revision": revision,
        "tasks": split_names(tasks) or ["review_sentiment"],
        "templates": split_names(templates) or ["*"],
        "verbalizers": split_names(verbalizers) or ["*"],
        "data": data,
        "include": include or [],
        "split": split,
        "limit": f"{rows}",
        "max_length": max_length,
        "device": device,
        "seed": seed,
    }
    spec = make_run_spec({key: value for key, value in given.items() if value is not None})
    for lines in preview_task(spec):
        print_lines(lines)
