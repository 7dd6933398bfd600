"""`promptlab report RUN`: write the report of a stored run again; needs no model."""

from __future__ import annotations

from typing import Annotated

import typer

from promptlab.cli.console import find_run, print_lines, relative


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name under results/.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
) -> None:
    """Write the report of a stored run again."""
    from promptlab.results import read_results

    results = read_results(find_run(run))

    from promptlab.reporting.report import write_report
    from promptlab.reporting.summary import summary_lines

    paths = write_report(results)
    if not quiet:
        print_lines([*summary_lines(results), ""])
    print_lines(relative(path) for path in paths)
