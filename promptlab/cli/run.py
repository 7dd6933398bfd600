"""`promptlab run`: score a grid of tasks x templates x verbalizers x models and write the report."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from promptlab.cli.console import WIDTH, check_form, print_json, print_lines, relative, split_names, split_pairs
from promptlab.cli.options import Include, Revision
from promptlab.errors import CellsFailed

_LISTS = "names or globs, by comma or repeated"


def run(
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Folders or hub names; default: the bundled mini.")
    ] = None,
    revision: Revision = None,
    tasks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help=f"Tasks: {_LISTS}, or paths.")] = None,
    templates: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help=f"Templates: {_LISTS}, paths, or the text.")
    ] = None,
    verbalizers: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help=f"Verbalizers: {_LISTS}, paths, or label=word|word,label=word."),
    ] = None,
    calibrations: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help=f"Calibrations: {_LISTS}; default: none,contextual."),
    ] = None,
    prepare: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Calibrations whose prompts are scored too, for a later rescore."),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Mean over templates: a glob, or name=template|template; repeatable."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Metrics beside those of the tasks, such as brier,ece.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="zero_shot (default), soft_prompt, lora ...; the others need --shots."),
    ] = None,
    shots: Annotated[
        list[str] | None, typer.Option(metavar="NUMBERS", help="Labelled train rows a label, such as 4,16,64.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="N", help="Draws of the shots; default: 5.")] = None,
    shots_short: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Where a label has fewer rows: refuse (default), or all it has.")
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="cross_validation (default), mdl or default: how the shots choose."),
    ] = None,
    folds: Annotated[str | None, typer.Option(metavar="N", help="Parts of the shots; default: 4.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="Hyper-parameters, such as steps=50 or lora.rank=4|8; repeatable."),
    ] = None,
    fit_templates: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="What methods are fitted with; default: the first instructive one."),
    ] = None,
    fit_verbalizers: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="What methods are fitted with; default: the first one.")
    ] = None,
    artefact: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Score what was fitted and saved, inside its own model; repeatable."),
    ] = None,
    save_fits: Annotated[
        bool,
        typer.Option("--save-fits", help="Keep each fit below fits/ in the run; whole models are large, so off."),
    ] = False,
    no_projection: Annotated[
        bool, typer.Option("--no-projection", help="Do not score soft prompts once more as their nearest words.")
    ] = False,
    rows: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows that no task describes: csv, tsv, jsonl, parquet, txt.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --rows: the column that templates call text.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=COLUMN", help="With --rows: a field and its column; repeatable.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --rows: the column of gold labels, if there is one.")
    ] = None,
    label_values: Annotated[
        list[str] | None, typer.Option(metavar="RAW=LABEL", help="With --rows: what raw labels mean; repeatable.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="With --rows: the labels; default: the verbalizers'.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --rows: the family whose templates fit.")
    ] = None,
    train_rows: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --rows: train rows, for domain and support.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that local rows lie in.")] = None,
    include: Include = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Split to score; default: test.")] = None,
    limit: Annotated[str | None, typer.Option(metavar="N", help="N rows, seeded and stratified, or first:N.")] = None,
    max_length: Annotated[
        str | None, typer.Option(metavar="N", help="Most tokens of a prompt; default: up to 512.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 (default), bfloat16 or float16.")] = None,
    scoring: Annotated[
        str | None, typer.Option(metavar="NAME", help="mask (default), or replaced_token for ELECTRA, DeBERTa-v3.")
    ] = None,
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
    store_states: Annotated[
        bool, typer.Option("--store-states", help="Keep the states at masks, for words that come later.")
    ] = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Score a model without checking it first.")
    ] = False,
    amend: Annotated[bool, typer.Option("--amend", help="Change the run that --name names.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")] = False,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A run.yaml; flags go on top of it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Note in the manifest that no text of rows may be shown.")
    ] = False,
    output: Annotated[str, typer.Option(metavar="FORM", help="text or json, on standard output.")] = "text",
) -> None:
    """Score tasks x templates x verbalizers x models; report."""
    from promptlab.specs.run import make_run_spec

    check_form(output)
    given: dict[str, Any] = {
        "models": split_names(model),
        "revision": revision,
        "tasks": split_names(tasks),
        "templates": split_names(templates),
        "verbalizers": split_names(verbalizers),
        "calibrations": split_names(calibrations),
        "prepare": split_names(prepare),
        "ensembles": ensemble or None,
        "metrics": split_names(metrics),
        "methods": split_names(methods),
        "shots": split_names(shots),
        "seeds": seeds,
        "shots_short": shots_short,
        "selection": selection,
        "folds": folds,
        "settings": split_pairs(setting),
        "fit_templates": split_names(fit_templates),
        "fit_verbalizers": split_names(fit_verbalizers),
        "artefacts": artefact or None,
        "save_fits": save_fits or None,
        "rows": rows,
        "text_column": text_column,
        "fields": field or None,
        "label_column": label_column,
        "label_values": split_pairs(label_values),
        "labels": split_names(labels),
        "family": family,
        "train_rows": train_rows,
        "data": data,
        "include": include or None,
        "split": split,
        "limit": limit,
        "max_length": max_length,
        "device": device,
        "dtype": dtype,
        "scoring": scoring,
        "batch_size": batch_size,
        "seed": seed,
        "output_path": output_path,
        "name": name,
        "no_projection": no_projection or None,
        "no_text": no_text or None,
        "store_states": store_states or None,
        "skip_preflight": skip_preflight or None,
    }
    spec = make_run_spec({key: value for key, value in given.items() if value is not None}, config=config)
    if dry_run:
        _print_plan(spec, output)
        return
    _run(spec, quiet=quiet, amend=amend, output=output)


def _run(spec: Any, *, quiet: bool, amend: bool, output: str) -> None:
    from promptlab.harness import execute
    from promptlab.progress import ConsoleProgress

    progress = ConsoleProgress(quiet=quiet)
    command = shlex.join(["promptlab", *sys.argv[1:]])
    try:
        results = execute(spec, progress=progress, command=command, amend=amend)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was scored is stored. The same command continues: {command}") from None
    finally:
        progress.finish()

    from promptlab.reporting.report import write_report

    paths = write_report(results)
    print_run(results, paths, quiet=quiet, output=output)
    _tell_failures(results.manifest["failures"], num_done=len(results.manifest["tasks"]), done="stored")


def print_run(results: Any, paths: Sequence[Path], *, quiet: bool, output: str) -> None:
    """What a run found: the summary and the files, the files alone, or all of it as JSON."""
    from promptlab.reporting.summary import summary_lines
    from promptlab.results import as_json

    if output == "json":
        print_json(as_json(results))
        return
    if not quiet:
        print_lines([*summary_lines(results), ""])
    print_lines(relative(path) for path in [results.folder / "results.json", *paths])


def _tell_failures(failures: dict[str, str], *, num_done: int, done: str) -> None:
    """Raise what was left out, after everything else is done.

    Raises:
        CellsFailed: the rows of some tasks could not be read.
    """
    if failures:
        head = f"{len(failures)} of {num_done + len(failures)} tasks cannot be scored, the others are {done}:"
        raise CellsFailed("\n".join([head, *failures.values()]))


def _print_plan(spec: Any, output: str) -> None:
    """The plan of a run: what applies to what, and how much there is to score."""
    from promptlab.harness import plan_run

    plan = plan_run(spec)
    if output == "json":
        print_json(plan.describe())
    else:
        print_lines(_plan_lines(plan))
    _tell_failures(plan.loaded.failures, num_done=len(plan.loaded.rows), done="planned")


def _plan_lines(plan: Any) -> list[str]:
    described = plan.describe()
    lines = [f"run {plan.name}, nothing is scored"]
    for model in described["models"]:
        counts = f"{model['blocks']} blocks, {model['cells']} cells, at most {_count_prompts(model)}"
        lines += _wrapped(f"{model['model']}: {counts}", "")
        if model["fits"]:
            searched = f"{model['fits']:,} fits, those of searches counted"
            lines += _wrapped(f"{searched}, take at most {model['example_passes']:,} example passes", "  ")
        for task, facts in model["tasks"].items():
            lines.append(f"  {task}: {facts['rows']} rows")
            for kind in ("template", "verbalizer", "ensemble"):
                lines += [line for name, text in facts[f"{kind}s"].items() for line in _named(kind, name, text)]
            for name, reason in facts["faults"].items():
                lines += _wrapped(f"calibration {name}: {reason}", "    ")
    return lines


def _count_prompts(model: Mapping[str, Any]) -> str:
    """How many prompts of each kind there are to score: 840 prompts of rows, 52 of calibrations ..."""
    kinds = {
        "prompts": "of rows",
        "calibration_prompts": "of calibrations",
        "filled_prompts": "with words in their slots",
    }
    parts = [f"{model[key]} {kind}" for key, kind in kinds.items() if model[key]] or ["0 of rows"]
    number, _, kind = parts[0].partition(" ")
    *first, last = [f"{number} prompts {kind}", *parts[1:]]
    return f"{', '.join(first)} and {last}" if first else last


def _named(kind: str, name: str, text: str) -> list[str]:
    """A line of the plan; what was given inline shows its text, because its name is a hash."""
    shown = f": {' '.join(text.split())}" if name.startswith("inline-") else ""
    return _wrapped(f"{kind} {name}{shown}", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    further = f"{indent}  "
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=further, break_long_words=False)
