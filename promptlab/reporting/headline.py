"""Grids -> the headline of the report: the median over instructive templates beside every baseline.

The best cell appears as a gap and is called an oracle; rows without gold labels give prediction shares instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promptlab.reporting.document import Figure, Paragraph, Part, Subheading, Table, make_table
from promptlab.reporting.formats import count, listing, model_names, percent, plural, span, three_digits
from promptlab.reporting.panels import spread_panel
from promptlab.reporting.spreads import Grid, Headline, Spread, content_free, grid_titles, headlines

_HEADLINE = (
    "The median goes over all decided cells with an instructive template, every verbalizer counted: no row was used to "
    "choose among them. "
    "'Above' counts the cells whose 95 % interval lies wholly on the good side of the majority of train. "
    "The null template has the fields and the mask alone. "
    "The content-free constant always predicts the label that the template makes likeliest on content-free text "
    "(median over the same templates and verbalizers). "
    "The gap to the oracle is how far the best of these cells lies from the median: that cell is known only after "
    "looking at the gold labels, so it is an oracle and no result."
)

_AGREEMENT = (
    "Agreement is the mean over rows of the share of pairs of instructive templates that predict the same label; its "
    "interval is about the rows. It needs no gold labels, and templates can agree on what is wrong."
)
_ENSEMBLE = (
    "An ensemble predicts by the mean over its templates of p(label | row), each calibrated on its own, without "
    "weights. It is one cell, and is not counted among the templates."
)
_LONGEST_OPEN = 12


def headline_parts(grids: Sequence[Grid]) -> Iterable[Part]:
    """The headline table, its charts and how to read them; prediction shares where there are no gold labels."""
    measured = [grid for grid in grids if grid.metric]
    if measured:
        yield Paragraph(_headline_lead(measured))
        yield _headline_table(measured)
        titles = grid_titles(grids)
        panels = [panel for grid in measured if (panel := spread_panel(grid, titles[grid.model, grid.task]))]
        caption = "Median (dot) and range (line) over cells; filled dots are the headline, hollow diamonds controls."
        yield Figure(tuple(panels), caption)
        yield Paragraph(_HEADLINE)
        yield Paragraph(" ".join(_certainty(measured)))
    unmeasured = [grid for grid in grids if grid.decided and not grid.metric]
    if unmeasured:
        yield Paragraph(
            "Rows without gold labels cannot be measured; these are the shares of rows that got each label."
        )
        yield _share_table(unmeasured)
    yield from _agreement_parts(grids)
    yield from _ensemble_parts(grids)
    empty = [grid.task for grid in grids if not grid.decided]
    if empty:
        yield Paragraph(f"No cell was decided on {listing(dict.fromkeys(empty))}; the reasons stand under warnings.")


def _headline_table(grids: Sequence[Grid]) -> Table:
    heads = [
        "~model",
        "~task",
        "~calibration",
        "metric",
        "#median",
        "#min to max",
        "#cells",
        "#above majority of train",
    ]
    heads += ["#null template", "#content-free constant", "#uniform", "#majority of train"]
    heads += ["#majority of test (oracle)", "#gap to the oracle"]
    has_one_metric = len({grid.metric for grid in grids}) == 1
    models = model_names(grid.model for grid in grids)
    rows = []
    for grid in grids:
        constant = content_free(grid)
        for headline in headlines(grid):
            rows.append(
                [
                    models[grid.model] if len(models) > 1 else "",
                    grid.task,
                    headline.calibration,
                    "" if has_one_metric else str(grid.metric),
                    *_headline_numbers(headline),
                    show_median(headline.kinds.get("null")),
                    "not computed" if grid.gold_counts is None else show_median(constant),
                    *(three_digits(grid.baselines.get(name)) for name in ("uniform", "majority_train")),
                    three_digits(grid.baselines.get("majority_test")),
                    three_digits(headline.oracle_gap),
                ]
            )
    return make_table(heads, rows)


def _headline_numbers(headline: Headline) -> list[str]:
    spread = headline.instructive
    return [
        show_median(spread),
        span(spread.low, spread.high) if spread else span(None, None),
        count(spread.num_cells if spread else 0),
        count(headline.num_above),
    ]


def _headline_lead(grids: Sequence[Grid]) -> str:
    metrics = listing(dict.fromkeys(str(grid.metric) for grid in grids))
    return f"The headline of a task is the median of its metric ({metrics}) over instructive templates, with the range."


def _certainty(grids: Sequence[Grid]) -> Iterable[str]:
    """How far the interval of one cell reaches, and which label the majority of train is."""
    widths = []
    for grid in grids:
        found = [headline.half_width for headline in headlines(grid) if headline.half_width is not None]
        if found:
            widths.append(f"{three_digits(max(found))} on {grid.task} ({plural(grid.num_rows, 'row')})")
    if widths:
        yield (
            f"The 95 % interval of one cell reaches about {listing(dict.fromkeys(widths))} to each side: cells that "
            "are closer than that are not told apart by their own intervals."
        )
    notes = {grid.task: grid.baseline_notes.get("majority_train") for grid in grids}
    known = [f"{note.partition(',')[0]} on {task}" for task, note in notes.items() if note]
    if known:
        yield f"The majority of train predicts {listing(known)}."


def _share_table(grids: Sequence[Grid]) -> Table:
    models = model_names(grid.model for grid in grids)
    rows = []
    for grid in grids:
        for calibration in grid.calibrations:
            cells = [cell for cell in grid.decided if cell.calibration == calibration and cell.num_rows]
            for label in grid.labels:
                shares = Spread.of([cell.predicted.get(label, 0) / cell.num_rows for cell in cells])
                if shares is None:
                    continue
                model = models[grid.model] if len(models) > 1 else ""
                spread = f"{percent(shares.low)} to {percent(shares.high)}"
                rows.append([model, grid.task, calibration, label, percent(shares.median), spread, count(len(cells))])
    heads = ["~model", "~task", "~calibration", "~label", "#median share", "#min to max", "#cells"]
    return make_table(heads, rows)


def _agreement_parts(grids: Sequence[Grid]) -> Iterable[Part]:
    """How far the templates agree, which needs no gold labels."""
    models = model_names(grid.model for grid in grids)
    rows = [
        [
            models[grid.model] if len(models) > 1 else "",
            grid.task,
            grid.verbalizers().get(one.verbalizer, one.verbalizer),
            one.calibration,
            percent(one.value),
            f"{percent(one.low)} to {percent(one.high)}",
            count(one.num_templates),
        ]
        for grid in grids
        for one in grid.agreements
    ]
    if rows:
        yield Subheading("How far templates agree")
        yield Paragraph(_AGREEMENT)
        heads = ["~model", "~task", "~verbalizer", "~calibration", "#agreement", "#95 % interval", "#templates"]
        folded = plural(len(rows), "verbalizer x calibration") if len(rows) > _LONGEST_OPEN else None
        yield make_table(heads, rows, fold=folded)


def _ensemble_parts(grids: Sequence[Grid]) -> Iterable[Part]:
    """Ensembles of templates: cells that average probabilities."""
    models = model_names(grid.model for grid in grids)
    rows = []
    for grid in grids:
        for cell in grid.ensembles:
            value = grid.value(cell)
            rows.append(
                [
                    models[grid.model] if len(models) > 1 else "",
                    grid.task,
                    cell.template.partition(":")[2],
                    grid.verbalizers().get(cell.verbalizer, cell.verbalizer),
                    cell.calibration,
                    count(len(cell.members)),
                    three_digits(value.value if value else None),
                    span(value.low, value.high) if value else span(None, None),
                ]
            )
    if rows:
        yield Subheading("Ensembles of templates")
        yield Paragraph(_ENSEMBLE)
        heads = [
            "~model",
            "~task",
            "~ensemble",
            "~verbalizer",
            "~calibration",
            "#templates",
            "#metric",
            "#95 % interval",
        ]
        folded = plural(len(rows), "ensemble cell") if len(rows) > _LONGEST_OPEN else None
        yield make_table(heads, rows, fold=folded)


def show_median(spread: Spread | None) -> str:
    """The median of a spread, as tables show it."""
    return three_digits(spread.median if spread else None)
