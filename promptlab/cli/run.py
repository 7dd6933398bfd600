"""`promptlab run`: score a grid of tasks x templates x verbalizers x models and write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, split_names

_LISTS = "names or globs, by comma or repeated"


def run(
    model: Annotated[list[str] | None, typer.Option(help="A folder or a hub name; default: the bundled mini.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    tasks: Annotated[list[str] | None, typer.Option(help=f"Tasks: {_LISTS}, or paths.")] = None,
    templates: Annotated[list[str] | None, typer.Option(help=f"Templates: {_LISTS}, paths, or the text.")] = None,
    verbalizers: Annotated[
        list[str] | None, typer.Option(help=f"Verbalizers: {_LISTS}, paths, or label=word|word,label=word.")
    ] = None,
    calibrations: Annotated[list[str] | None, typer.Option(help="Calibrations: none, contextual.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder that local rows lie in.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Folder with tasks/, templates/, verbalizers/.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to score; default: test.")] = None,
    limit: Annotated[str | None, typer.Option(help="N rows, seeded and stratified, or first:N.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a prompt; default: up to 512.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float16.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="auto (a token budget) or a number of prompts.")] = None,
    seed: Annotated[int | None, typer.Option(help="The one seed; default: 0.")] = None,
    output_path: Annotated[
        str | None, typer.Option("--output-path", "-o", help="Where runs go; default: results.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: made of models and plan.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")] = False,
    config: Annotated[str | None, typer.Option(help="A run.yaml; flags go on top of it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Keep the text of rows out of the report.")] = False,
) -> None:
    """Score tasks x templates x verbalizers x models; report."""
    from promptlab.specs.run import make_run_spec

    given: dict[str, Any] = {
        "models": split_names(model),
        "revision": revision,
        "tasks": split_names(tasks),
        "templates": split_names(templates),
        "verbalizers": split_names(verbalizers),
        "calibrations": split_names(calibrations),
        "data": data,
        "include": include or None,
        "split": split,
        "limit": limit,
        "max_length": max_length,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "seed": seed,
        "output_path": output_path,
        "name": name,
        "no_text": no_text or None,
    }
    spec = make_run_spec({key: value for key, value in given.items() if value is not None}, config=config)
    if dry_run:
        _print_plan(spec)
        return
    _run(spec, quiet=quiet)


def _run(spec: Any, *, quiet: bool) -> None:
    from promptlab.harness import execute
    from promptlab.progress import ConsoleProgress
    from promptlab.reporting.report import write_report
    from promptlab.reporting.summary import summary_lines

    progress = ConsoleProgress(quiet=quiet)
    command = shlex.join(["promptlab", *sys.argv[1:]])
    try:
        results = execute(spec, progress=progress, command=command)
    finally:
        progress.finish()
    paths = write_report(results)
    if not quiet:
        print_lines([*summary_lines(results), ""])
    print_lines(_relative(path) for path in [results.folder / "results.json", *paths])


def _print_plan(spec: Any) -> None:
    from promptlab.harness import plan_run

    _, rows, planned, name = plan_run(spec)
    lines = [f"run {name}, nothing is scored"]
    for backend, blocks in planned:
        prompts = sum(len(block.rows.examples) for block in blocks)
        cells = sum(len(block.cells) for block in blocks)
        lines.append(f"{backend.scorer.model}: {len(blocks)} blocks, {cells} cells, at most {prompts} prompts of rows")
        for task in dict.fromkeys(block.task.name for block in blocks):
            of_task = [block for block in blocks if block.task.name == task]
            names = dict.fromkeys(block.template.template.name for block in of_task)
            words = dict.fromkeys(cell.verbalizer.name for block in of_task for cell in block.cells)
            lines.append(f"  {task}: {len(rows[task].examples)} rows")
            lines += [f"    template {template}" for template in names]
            lines += [f"    verbalizer {verbalizer}" for verbalizer in words]
    print_lines(lines)


def _relative(path: Path) -> str:
    """A path as short as it can be written from here."""
    resolved, here = path.resolve(), Path.cwd().resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)
