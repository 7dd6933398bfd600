"""Stored run or comparison -> the HTML that a notebook shows: the headline, and every cell folded below it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptlab.reporting.formats import model_names, percent, plural, three_digits
from promptlab.reporting.spreads import Grid, headlines, make_grids
from promptlab.results import Result, RunResults

if TYPE_CHECKING:
    import pandas

MAX_ROWS = 60


def run_html(results: RunResults) -> str:
    """The headline of every task, what could not be scored, and a folded table of all cells."""
    grids = make_grids(results)
    cells = [(grid, cell) for grid in grids for cell in (*grid.cells, *grid.ensembles)]
    failures = results.manifest.get("failures") or {}
    parts = [f"<p><b>Run {html.escape(results.name)}</b>, {plural(len(results.results), 'cell')}</p>"]
    parts.append(_table(_headline_frame(grids)))
    parts += [f"<p>not scored: {html.escape(str(reason))}</p>" for reason in failures.values()]
    parts.append(
        f"<details><summary>{plural(len(cells), 'cell')}</summary>{_table(_cell_frame(grids, cells))}</details>"
    )
    return "\n".join(parts)


def frame_html(lines: Sequence[str], frame: pandas.DataFrame) -> str:
    """Some sentences above a table."""
    return "\n".join([*(f"<p>{html.escape(line)}</p>" for line in lines), _table(frame)])


def _headline_frame(grids: Sequence[Grid]) -> pandas.DataFrame:
    import pandas

    models = model_names(grid.model for grid in grids)
    rows = []
    for grid in grids:
        for headline in headlines(grid):
            spread = headline.instructive
            rows.append(
                {
                    "model": models[grid.model],
                    "task": grid.task,
                    "calibration": headline.calibration,
                    "metric": grid.metric or "no gold labels",
                    "median": three_digits(spread.median if spread else None),
                    "min": three_digits(spread.low if spread else None),
                    "max": three_digits(spread.high if spread else None),
                    "majority of train": three_digits(grid.baselines.get("majority_train")),
                    "cells": spread.num_cells if spread else 0,
                }
            )
    return pandas.DataFrame(rows)


def _cell_frame(grids: Sequence[Grid], cells: Sequence[tuple[Grid, Result]]) -> pandas.DataFrame:
    import pandas

    models = model_names(grid.model for grid in grids)
    rows = []
    for grid, cell in cells:
        value = grid.value(cell)
        rows.append(
            {
                "model": models[grid.model],
                "task": cell.task,
                "template": cell.template,
                "verbalizer": cell.verbalizer,
                "calibration": cell.calibration,
                grid.metric or "metric": three_digits(value.value if value else None),
                "95 % interval": f"{three_digits(value.low)} to {three_digits(value.high)}" if value else "",
                "mass": percent(cell.mass),
                "skipped": cell.skipped or "",
            }
        )
    return pandas.DataFrame(rows)


def _table(frame: pandas.DataFrame) -> str:
    return str(frame.to_html(index=False, max_rows=MAX_ROWS, na_rep="", border=0))
