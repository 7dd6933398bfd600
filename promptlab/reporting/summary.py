"""Stored run -> the lines that the command line prints when it is done; they fit a terminal of 80 columns.

A small run is shown cell by cell, a grid by its median over instructive templates.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from promptlab.reporting.cautions import LOW_MASS, low_mass_pairs, skipped_groups
from promptlab.reporting.formats import MISSING, model_names, percent, plural, round_percent, three_digits
from promptlab.reporting.naming import TERMINAL_WIDTHS
from promptlab.reporting.spreads import Grid, Headline, headlines, kind_of, make_grids, most_predicted
from promptlab.results import Result, RunResults

MAX_SINGLE_CELLS = 12
_GAP = "  "
_MIN_COLUMN = 8


def summary_lines(results: RunResults, width: int = 80) -> list[str]:
    """What a run found, as lines of at most `width` characters.

    At most 12 decided cells are shown one by one; more are shown one line a task x calibration.
    """
    grids = make_grids(results)
    decided = [cell for grid in grids for cell in grid.decided]
    table: list[str] = []
    if 0 < len(decided) <= MAX_SINGLE_CELLS:
        table = _cell_lines(grids, width)
    elif decided:
        table = _grid_lines(grids, width)
    return [*table, *_notes(grids, num_decided=len(decided), width=width)]


def _grid_lines(grids: Sequence[Grid], width: int) -> list[str]:
    """One line a model x task x calibration; a column that would say the same on every line is left out."""
    models = model_names(grid.model for grid in grids)
    metrics = dict.fromkeys(grid.metric or "no gold labels" for grid in grids)
    head = ["model", "task", "calibration", "metric", "median", "min-max", "majority", "cells"]
    rows = [
        [models[grid.model], grid.task, *_headline_cells(grid, headline)]
        for grid in grids
        for headline in headlines(grid)
    ]
    said = {"model": len(models) > 1, "metric": len(metrics) > 1}
    kept = [index for index, name in enumerate(head) if said.get(name, True)]
    lines = _fit([head[i] for i in kept], [[row[i] for i in kept] for row in rows], width, num_left=len(kept) - 4)
    if not any(grid.metric for grid in grids):
        return [*lines, "the rows have no gold labels"]
    note = "median and min-max over instructive templates; majority of train"
    return [*lines, note if said["metric"] else f"{next(iter(metrics))}: {note}"]


def _headline_cells(grid: Grid, headline: Headline) -> list[str]:
    spread = headline.instructive
    num_cells = sum(
        kind_of(cell) == "instructive" and cell.calibration == headline.calibration for cell in grid.decided
    )
    return [
        headline.calibration,
        grid.metric or "no gold labels",
        three_digits(spread.median if spread else None),
        f"{three_digits(spread.low)}-{three_digits(spread.high)}" if spread else MISSING,
        three_digits(grid.baselines.get("majority_train")),
        str(num_cells),
    ]


def _cell_lines(grids: Sequence[Grid], width: int) -> list[str]:
    """One line a cell, under one line a model x task."""
    models = model_names(grid.model for grid in grids)
    lines = []
    for grid in grids:
        if not grid.decided:
            continue
        title = f"{models[grid.model]} on {grid.task}, {plural(grid.num_rows, 'row')} of {grid.split}"
        majority = grid.baselines.get("majority_train")
        title += f", majority of train {three_digits(majority)}" if majority is not None else ""
        lines += [_cut(title, width), *_cell_table(grid, width), ""]
    return lines[:-1]


def _cell_table(grid: Grid, width: int) -> list[str]:
    """One line a cell; texts that were given inline take the room that is there."""
    what = grid.metric or "most predicted"
    head = ["template", "verbalizer", "calibration", what, "interval" if grid.metric else "share", "mass"]
    for room in TERMINAL_WIDTHS:
        templates, verbalizers = grid.templates(room), grid.verbalizers(room)
        rows = [
            [templates[cell.template], verbalizers[cell.verbalizer], cell.calibration, *_cell_numbers(grid, cell)]
            for cell in grid.decided
        ]
        if _natural_width([head, *rows]) <= width:
            break
    return _fit(head, rows, width, num_left=3)


def _cell_numbers(grid: Grid, cell: Result) -> list[str]:
    value = grid.value(cell)
    if value is not None:
        return [three_digits(value.value), f"{three_digits(value.low)}-{three_digits(value.high)}", percent(cell.mass)]
    found = most_predicted(cell)
    return [found[0] if found else MISSING, percent(found[1] if found else None), percent(cell.mass)]


def _notes(grids: Sequence[Grid], *, num_decided: int, width: int) -> list[str]:
    """Low mass and skipped cells, in words."""
    sentences = []
    low = sum(len(low_mass_pairs(grid)) for grid in grids)
    if low:
        of = plural(sum(len(grid.pairs()) for grid in grids), "template x verbalizer pair")
        sentences.append(f"mass on label words below {round_percent(LOW_MASS)} in {low} of {of}")
    groups = [group for grid in grids for group in skipped_groups(grid)]
    if groups:
        number = sum(group.num_cells for group in groups)
        total = plural(num_decided + number, "cell")
        sentences.append(f"skipped {number} of {total}, first reason: {' '.join(groups[0].reason.split())}")
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width, subsequent_indent=_GAP)]


def _fit(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, num_left: int) -> list[str]:
    """A table whose first columns are text, cut where the whole would be wider than the terminal."""
    table = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = max(range(num_left), key=lambda index: widths[index])
        if widths[widest] <= _MIN_COLUMN:
            break
        widths[widest] -= 1
    return [_line(row, widths, num_left).rstrip() for row in table]


def _natural_width(table: Sequence[Sequence[str]]) -> int:
    columns = list(zip(*table, strict=True))
    return sum(max(map(len, column)) for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(row: Sequence[str], widths: Sequence[int], num_left: int) -> str:
    cells = [_cut(text, width) for text, width in zip(row, widths, strict=True)]
    padded = [
        text.ljust(width) if index < num_left else text.rjust(width)
        for index, (text, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(padded)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
