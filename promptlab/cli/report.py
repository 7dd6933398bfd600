"""`promptlab report RUN`: write the report of a stored run again; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptlab.cli.console import print_lines, relative


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name under results/.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the paths only.")] = False,
) -> None:
    """Write the report of a stored run again."""
    from promptlab.results import read_results

    folder = Path(run).expanduser()
    if not folder.is_dir() and (Path("results") / run).is_dir():
        folder = Path("results") / run
    results = read_results(folder)

    from promptlab.reporting.report import write_report
    from promptlab.reporting.summary import summary_lines

    paths = write_report(results)
    if not quiet:
        print_lines([*summary_lines(results), ""])
    print_lines(relative(path) for path in paths)
