"""`promptlab run`: score a grid of tasks x templates x verbalizers x models and write the report."""

from __future__ import annotations

import shlex
import sys
import textwrap
from typing import Annotated, Any

import typer

from promptlab.cli.console import WIDTH, print_lines, relative, split_names
from promptlab.errors import CellsFailed

_LISTS = "names or globs, by comma or repeated"


def run(
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Folders or hub names; default: the bundled mini.")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.")] = None,
    tasks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help=f"Tasks: {_LISTS}, or paths.")] = None,
    templates: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help=f"Templates: {_LISTS}, paths, or the text.")
    ] = None,
    verbalizers: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help=f"Verbalizers: {_LISTS}, paths, or label=word|word,label=word."),
    ] = None,
    calibrations: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Calibrations: none, contextual; default: both.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that local rows lie in.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Folder with tasks/, templates/, verbalizers/; repeatable.")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Split to score; default: test.")] = None,
    limit: Annotated[str | None, typer.Option(metavar="N", help="N rows, seeded and stratified, or first:N.")] = None,
    max_length: Annotated[
        str | None, typer.Option(metavar="N", help="Most tokens of a prompt; default: up to 512.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 (default), bfloat16 or float16.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N", help="auto (a token budget) or a number of prompts.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="The one seed; default: 0.")] = None,
    output_path: Annotated[
        str | None, typer.Option("--output-path", "-o", metavar="DIR", help="Where runs go; default: results.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run; default: made of models and plan.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")] = False,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A run.yaml; flags go on top of it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Note in the manifest that no text of rows may be shown.")
    ] = False,
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

    progress = ConsoleProgress(quiet=quiet)
    command = shlex.join(["promptlab", *sys.argv[1:]])
    try:
        results = execute(spec, progress=progress, command=command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was scored is stored. The same command continues: {command}") from None
    finally:
        progress.finish()

    from promptlab.reporting.report import write_report
    from promptlab.reporting.summary import summary_lines

    paths = write_report(results)
    if not quiet:
        print_lines([*summary_lines(results), ""])
    print_lines(relative(path) for path in [results.folder / "results.json", *paths])
    _tell_failures(results.manifest["failures"], num_done=len(results.manifest["tasks"]), done="stored")


def _tell_failures(failures: dict[str, str], *, num_done: int, done: str) -> None:
    """Raise what was left out, after everything else is done.

    Raises:
        CellsFailed: the rows of some tasks could not be read.
    """
    if failures:
        head = f"{len(failures)} of {num_done + len(failures)} tasks cannot be scored, the others are {done}:"
        raise CellsFailed("\n".join([head, *failures.values()]))


def _print_plan(spec: Any) -> None:
    """The plan of a run: what applies to what, and how much there is to score."""
    from promptlab.harness import plan_run

    plan = plan_run(spec)
    lines = [f"run {plan.name}, nothing is scored"]
    for backend, blocks in plan.models:
        prompts = sum(len(block.rows.examples) for block in blocks)
        cells = sum(len(block.cells) for block in blocks)
        counts = f"{len(blocks)} blocks, {cells} cells, at most {prompts} prompts of rows"
        lines += _wrapped(f"{backend.scorer.model}: {counts}", "")
        for task in plan.rows:
            of_task = [block for block in blocks if block.task.name == task]
            templates = {block.template.template.name: block.template.template.text for block in of_task}
            verbalizers = {cell.verbalizer.name: cell.verbalizer.labels for block in of_task for cell in block.cells}
            lines.append(f"  {task}: {len(plan.rows[task].examples)} rows")
            lines += [line for name, text in templates.items() for line in _named("template", name, text)]
            for name, labels in verbalizers.items():
                words = ", ".join(f"{label}={'|'.join(w.word for w in labels[label])}" for label in labels)
                lines += _named("verbalizer", name, words)
    print_lines(lines)
    _tell_failures(plan.failures, num_done=len(plan.rows), done="planned")


def _named(kind: str, name: str, text: str) -> list[str]:
    """A line of the plan; what was given inline shows its text, because its name is a hash."""
    shown = f": {' '.join(text.split())}" if name.startswith("inline-") else ""
    return _wrapped(f"{kind} {name}{shown}", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    further = f"{indent}  "
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=further, break_long_words=False)
