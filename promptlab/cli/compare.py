"""`promptlab compare RUN RUN`: paired differences on the rows that both runs decided."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from promptlab.cli.console import check_form, find_run, print_json, print_lines, split_names
from promptlab.errors import UsageError

FORMS = ("text", "json", "csv")
_TWICE = "given twice: one for each run"


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name under results/.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another one, or the same again.")],
    tasks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="Only these tasks.")] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"Only this model; {_TWICE}.")] = None,
    template: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"Only this template; {_TWICE}.")] = None,
    verbalizer: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Only this verbalizer; {_TWICE}.")
    ] = None,
    calibration: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Only this calibration; {_TWICE}.")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Metrics; default: the first of each task.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="For resampling.")] = 0,
    output: Annotated[str, typer.Option(metavar="FORM", help="text, json or csv.")] = "text",
) -> None:
    """Compare two runs on their shared rows; needs no model."""
    from promptlab.comparing import compare_runs
    from promptlab.reporting.compared import comparison_csv, comparison_lines
    from promptlab.results import read_results

    check_form(output, FORMS)
    named = {"model": model, "template": template, "verbalizer": verbalizer, "calibration": calibration}
    only = {axis: _sides(axis, values) for axis, values in named.items() if values}
    found = compare_runs(
        read_results(find_run(first)),
        read_results(find_run(second)),
        only=only,
        tasks=split_names(tasks) or [],
        metrics=split_names(metrics) or [],
        seed=seed,
    )
    if output == "json":
        print_json(dataclasses.asdict(found))
    elif output == "csv":
        print(comparison_csv(found), end="")
    else:
        print_lines(comparison_lines(found))


def _sides(axis: str, values: list[str]) -> tuple[str, str]:
    """One value for both runs, or one for each."""
    if len(values) > 2:
        raise UsageError(f"--{axis}: give it once, or twice, once for each run; found {len(values)} values.")
    return values[0], values[-1]
