"""`promptlab rescore RUN`: more verbalizers, calibrations, metrics or ensembles for a stored run, without its model."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from promptlab.cli.console import check_form, find_run, split_names
from promptlab.errors import UsageError

_LISTS = "names or globs, by comma or repeated"


def rescore(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name under results/.")],
    verbalizers: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help=f"Verbalizers: {_LISTS}, paths, or label=word|word,label=word."),
    ] = None,
    calibrations: Annotated[list[str] | None, typer.Option(metavar="NAMES", help=f"Calibrations: {_LISTS}.")] = None,
    metrics: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="Metrics, such as brier,ece.")] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Mean over templates: a glob, or name=template|template; repeatable."),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Folder with verbalizers/; repeatable.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Whether the report is drawn again.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
    output: Annotated[str, typer.Option(metavar="FORM", help="text or json, on standard output.")] = "text",
) -> None:
    """Decide a stored run by more rules; needs no model."""
    from promptlab.rescoring import rescore as decide

    check_form(output)
    if not (verbalizers or calibrations or metrics or ensemble):
        raise UsageError(
            "rescore: name what is to be added with --verbalizers, --calibrations, --metrics or --ensemble."
        )
    results = decide(
        find_run(run),
        verbalizers=split_names(verbalizers) or [],
        calibrations=split_names(calibrations) or [],
        metrics=split_names(metrics) or [],
        ensembles=ensemble,
        include=include or [],
        command=shlex.join(["promptlab", *sys.argv[1:]]),
    )

    from promptlab.cli.run import print_run
    from promptlab.reporting.report import FILES, write_report

    paths = write_report(results, formats=tuple(FILES) if report else ("csv",))
    print_run(results, paths, quiet=quiet, output=output)
