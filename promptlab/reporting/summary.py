"""Stored run -> the lines that the command line prints when it is done; they fit a terminal of 80 columns.

A small run is shown cell by cell, a grid by its median over instructive templates.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from promptlab.learning import learn
from promptlab.reporting.adapted import adaptation_sentences
from promptlab.reporting.cautions import LOW_MASS, low_mass_pairs, shortened_cells, skipped_groups
from promptlab.reporting.columns import cut, fit_columns, natural_width
from promptlab.reporting.few_shot import few_shot_lines
from promptlab.reporting.formats import MISSING, model_names, percent, plural, round_percent, three_digits
from promptlab.reporting.naming import TERMINAL_WIDTHS
from promptlab.reporting.spreads import Grid, Headline, Spread, headlines, kind_of, make_grids, most_predicted
from promptlab.results import Result, RunResults

MAX_SINGLE_CELLS = 12
_GAP = "  "


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
    fitted = few_shot_lines(learn(results, with_worths=False), results, width) if results.few_shot else []
    between = [""] if table and fitted else []
    said = [*adaptation_sentences(results, grids), *_notes(grids, num_decided=len(decided))]
    notes = [line for one in said for line in textwrap.wrap(one, width, subsequent_indent=_GAP)]
    return [*table, *notes, *between, *fitted]


def _grid_lines(grids: Sequence[Grid], width: int) -> list[str]:
    """One line a model x task x calibration: the headline where there are gold labels, shares of labels elsewhere."""
    models = model_names(grid.model for grid in grids)
    measured, unmeasured = ([grid for grid in grids if bool(grid.metric) is wanted] for wanted in (True, False))
    lines = _measured_lines(measured, models, width) if measured else []
    shares = _share_lines([grid for grid in unmeasured if grid.decided], models, width)
    return [*lines, *([""] if lines and shares else []), *shares]


def _measured_lines(grids: Sequence[Grid], models: Mapping[str, str], width: int) -> list[str]:
    """Medians; a column that would say the same on every line, or nothing, is left out."""
    metrics = dict.fromkeys(str(grid.metric) for grid in grids)
    head = ["model", "task", "calibration", "metric", "median", "min-max", "majority", "cells"]
    rows = [
        [models[grid.model], grid.task, *_headline_cells(grid, headline)]
        for grid in grids
        for headline in headlines(grid)
    ]
    has_majority = any("majority_train" in grid.baselines for grid in grids)
    said = {"model": len(models) > 1, "metric": len(metrics) > 1, "majority": has_majority}
    kept = [index for index, name in enumerate(head) if said.get(name, True)]
    num_left = sum(head[index] in ("model", "task", "calibration", "metric") for index in kept)
    lines = fit_columns([head[i] for i in kept], [[row[i] for i in kept] for row in rows], width, num_left=num_left)
    note = "median and min-max over instructive templates" + ("; majority of train" if has_majority else "")
    return [*lines, note if said["metric"] else f"{next(iter(metrics))}: {note}"]


def _share_lines(grids: Sequence[Grid], models: Mapping[str, str], width: int) -> list[str]:
    """What is predicted where nothing can be measured: the median share of rows that get each label."""
    rows = []
    for grid in grids:
        for calibration in grid.calibrations:
            cells = [c for c in grid.decided if c.calibration == calibration and kind_of(c) == "instructive"]
            shares = {
                label: Spread.of([c.predicted.get(label, 0) / c.num_rows for c in cells]) for label in grid.labels
            }
            shown = [f"{label} {percent(share.median)}" for label, share in shares.items() if share is not None]
            if shown:
                rows.append([models[grid.model], grid.task, calibration, str(len(cells)), ", ".join(shown)])
    if not rows:
        return []
    first = 0 if len(models) > 1 else 1
    head = ["model", "task", "calibration", "cells", "predicted"][first:]
    lines = fit_columns(head, [row[first:] for row in rows], width, num_left=len(head))
    return [*lines, "no gold labels: median share of rows over instructive templates"]


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
        lines += [cut(title, width), *_cell_table(grid, width), ""]
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
        if natural_width([head, *rows]) <= width:
            break
    return fit_columns(head, rows, width, num_left=3)


def _cell_numbers(grid: Grid, cell: Result) -> list[str]:
    value = grid.value(cell)
    if value is not None:
        return [three_digits(value.value), f"{three_digits(value.low)}-{three_digits(value.high)}", percent(cell.mass)]
    found = most_predicted(cell)
    return [found[0] if found else MISSING, percent(found[1] if found else None), percent(cell.mass)]


def _notes(grids: Sequence[Grid], *, num_decided: int) -> list[str]:
    """Ensembles, agreement, low mass, rows that were cut and skipped cells, in words."""
    sentences = [*_ensemble_sentences(grids), *_agreement_sentences(grids)]
    low = sum(len(low_mass_pairs(grid)) for grid in grids)
    if low:
        of = plural(sum(len(grid.pairs()) for grid in grids), "template x verbalizer pair")
        sentences.append(f"mass on label words below {round_percent(LOW_MASS)} in {low} of {of}")
    shares = [cell.num_truncated / grid.num_rows for grid in grids for cell in shortened_cells(grid)]
    if shares:
        of = plural(sum(len({cell.template for cell in grid.decided}) for grid in grids), "task x template pair")
        sentences.append(f"rows shortened to fit in {len(shares)} of {of}, at most {percent(max(shares))} of rows")
    groups = [group for grid in grids for group in skipped_groups(grid)]
    if groups:
        number = sum(group.num_cells for group in groups)
        total = plural(num_decided + number, "cell")
        sentences.append(f"skipped {number} of {total}, first reason: {' '.join(groups[0].reason.split())}")
    return sentences


def _ensemble_sentences(grids: Sequence[Grid]) -> list[str]:
    """What each ensemble of a model on a task came to: its metric by calibration, the median over verbalizers."""
    models = model_names(grid.model for grid in grids)
    sentences = []
    for grid in grids:
        where = f"{models[grid.model]} on {grid.task}" if len(models) > 1 else grid.task
        for name in dict.fromkeys(cell.template for cell in grid.ensembles):
            parts = []
            for calibration in grid.calibrations:
                cells = [c for c in grid.ensembles if (c.template, c.calibration) == (name, calibration)]
                spread = Spread.of(grid.numbers(cells))
                if spread is not None:
                    parts.append(f"{calibration} {three_digits(spread.median)}")
            if parts:
                sentences.append(f"{name} on {where}, median over verbalizers: {', '.join(parts)}")
            lost = [cell for cell in grid.ensembles if cell.template == name and cell.skipped is not None]
            if lost:
                sentences.append(f"{name} on {where} skipped in {plural(len(lost), 'cell')}: {lost[0].skipped}")
    return sentences


def _agreement_sentences(grids: Sequence[Grid]) -> list[str]:
    """How far the templates agree where nothing else can be measured."""
    models = model_names(grid.model for grid in grids)
    sentences = []
    for grid in grids:
        if grid.metric is None and grid.agreements:
            where = f"{models[grid.model]} on {grid.task}" if len(models) > 1 else grid.task
            values = [one.value for one in grid.agreements]
            span = (
                percent(min(values))
                if min(values) == max(values)
                else f"{percent(min(values))} to {percent(max(values))}"
            )
            sentences.append(f"two templates predict the same label for {span} of the rows of {where}")
    return sentences
