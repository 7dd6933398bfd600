"""A run of a model and of what it became by adaptation to a domain -> what that changed, on the same rows.

The rule guarded here: a cell is compared with the cell of the same template, verbalizer and calibration, by the tests
that `promptlab compare` makes of the two models, and what was forgotten stands beside what was gained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from promptlab.adaptations import DOMAIN, GENERAL, Adaptation, Losses, find_adaptations
from promptlab.comparing import PairedCells, RunComparison, compare_runs
from promptlab.errors import PromptlabError
from promptlab.reporting.columns import cut
from promptlab.reporting.compared import SIGNIFICANT, direction, method_sentence, show_p_value
from promptlab.reporting.document import Figure, Paragraph, Part, Section, Subheading, Table, make_table
from promptlab.reporting.formats import (
    count,
    listing,
    model_names,
    percent,
    plural,
    signed,
    three_digits,
)
from promptlab.reporting.naming import CHART_WIDTH
from promptlab.reporting.panels import Line, Point, SpreadPanel
from promptlab.reporting.spreads import Grid, kind_of
from promptlab.results import RunResults

_READ = (
    "Both models answered the same rows. A cell before is compared with the cell of the same template, verbalizer and "
    "calibration after. Medians, and better and worse, count the cells with an instructive template; a cell is told "
    "apart where its adjusted p is below 0.05. A change is after minus before."
)
_CAPTION = "Change by verbalizer: median (dot) and range (line) over instructive templates; right of 0 it rose."
_TEXTS = {DOMAIN: "held-out text of the domain", GENERAL: "general text"}
_ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Change:
    """What adaptation changed on a task under one calibration, over cells with an instructive template."""

    task: str
    calibration: str
    metric: str
    before: float
    after: float
    difference: float
    better: tuple[int, int]
    worse: tuple[int, int]
    num_cells: int


def adaptation_section(results: RunResults, grids: Sequence[Grid]) -> Section:
    """What each adaptation in the run changed; a section without parts where there is none."""
    found = find_adaptations(results.manifest)
    names = model_names(name for one in found for name in (one.base, one.adapted))
    parts: list[Part] = [Paragraph(_READ)] if found else []
    for one in found:
        parts += [Subheading(f"{names[one.adapted]}, from {names[one.base]}")] if len(found) > 1 else []
        parts += [Paragraph(_what_was_done(one, names)), _loss_table(one), Paragraph(_what_was_forgotten(one))]
        parts += _compared_parts(results, grids, one)
    return Section("What adaptation changed", "adaptation", tuple(parts))


def adaptation_sentences(results: RunResults, grids: Sequence[Grid]) -> list[str]:
    """A sentence an adaptation for the screen: perplexities before and after, and how many cells are better."""
    names = model_names(grid.model for grid in grids)
    sentences = []
    for one in find_adaptations(results.manifest):
        parts = [
            f"perplexity of {_TEXTS[text]} {_perplexities(one.losses[text])}" for text in _TEXTS if text in one.losses
        ]
        parts += [_counted(*pair) for pair in _grid_pairs(grids, one)]
        sentences.append(f"{names[one.adapted]}, adapted from {names[one.base]}: {'; '.join(parts)}")
    return sentences


def _what_was_done(one: Adaptation, names: Mapping[str, str]) -> str:
    corpora = listing(name if weight == 1 else f"{name} (weight {weight:g})" for name, weight in one.corpora.items())
    kept = "" if one.kept_step == one.steps else f" The weights are those after step {count(one.kept_step)}."
    return (
        f"{names[one.adapted]} is {names[one.base]} after more masked-language-model pretraining on {corpora}: "
        f"{plural(one.tokens, 'token')} in {plural(one.steps, 'step')}.{kept}"
    )


def _loss_table(one: Adaptation) -> Table:
    rows = [
        [shown, *(three_digits(math.exp(loss)) for loss in (found.before, found.after)), _factor(found)]
        for text, shown in _TEXTS.items()
        if (found := one.losses.get(text)) is not None
    ]
    return make_table(["~text", "#masked perplexity before", "#after", "#factor"], rows)


def _factor(losses: Losses) -> str:
    return three_digits(math.exp(losses.after - losses.before))


def _perplexities(losses: Losses) -> str:
    return " to ".join(three_digits(math.exp(loss)) for loss in (losses.before, losses.after))


def _what_was_forgotten(one: Adaptation) -> str:
    general = one.losses.get(GENERAL)
    if general is None:
        return (
            "No general text was measured, so the tasks alone show what was forgotten; "
            "promptlab pretrain --general FILE measures one."
        )
    if general.after <= general.before:
        return "General text is predicted no worse than before: no forgetting is seen in it."
    return f"General text is predicted worse than before, by a factor of {_factor(general)}: that much was forgotten."


def _compared_parts(results: RunResults, grids: Sequence[Grid], one: Adaptation) -> Iterable[Part]:
    try:
        found = compare_runs(_only(results, one.base), _only(results, one.adapted))
    except PromptlabError as fault:
        yield Paragraph(f"The cells of the two cannot be compared: {fault}")
        return
    of_base = {grid.task: grid for grid in grids if grid.model == one.base}
    changes = list(find_changes(found, of_base))
    pairs = [pair for pair in found.pairs if pair.metric is not None]
    if pairs:
        yield Paragraph(f"Changes are {method_sentence(pairs)}.")
        yield from [_change_table(changes)] if changes else []
        yield from _figure(pairs, of_base)
        yield _pair_table(pairs, of_base)
    unlabelled = [pair for pair in found.pairs if pair.metric is None]
    if unlabelled:
        yield Paragraph(_agreement(unlabelled))


def _only(results: RunResults, model: str) -> RunResults:
    """The cells of one model."""
    return replace(results, results=tuple(cell for cell in results.results if cell.model == model))


def find_changes(found: RunComparison, grids: Mapping[str, Grid]) -> Iterable[Change]:
    """Sum up the pairs of every task, calibration and metric; `grids` has those of the base by task."""
    groups: dict[tuple[str, str, str], list[PairedCells]] = {}
    for pair in found.pairs:
        if pair.metric is not None and _kind(pair, grids[pair.task]) == "instructive":
            groups.setdefault((pair.task, pair.first["calibration"], pair.metric), []).append(pair)
    for (task, calibration, metric), pairs in groups.items():
        yield Change(
            task=task,
            calibration=calibration,
            metric=metric,
            before=median(_numbers(pair.value_first for pair in pairs)),
            after=median(_numbers(pair.value_second for pair in pairs)),
            difference=median(_numbers(pair.difference for pair in pairs)),
            better=_count(pairs, 1),
            worse=_count(pairs, -1),
            num_cells=len(pairs),
        )


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _count(pairs: Sequence[PairedCells], sign: int) -> tuple[int, int]:
    """How many pairs went that way, and how many of them are told apart."""
    chosen = [pair for pair in pairs if direction(pair) == sign]
    return len(chosen), sum(pair.p_adjusted is not None and pair.p_adjusted < SIGNIFICANT for pair in chosen)


def _kind(pair: PairedCells, grid: Grid) -> str:
    kinds = {cell.template: kind_of(cell) for cell in grid.cells}
    return kinds.get(pair.first["template"], _ENSEMBLE)


def _change_table(changes: Sequence[Change]) -> Table:
    has_one_metric = len({change.metric for change in changes}) == 1
    rows = [
        [
            change.task,
            change.calibration,
            "" if has_one_metric else change.metric,
            three_digits(change.before),
            three_digits(change.after),
            signed(change.difference),
            count(change.num_cells),
            *(count(number) for number in (*change.better, *change.worse)),
        ]
        for change in changes
    ]
    heads = ["~task", "~calibration", "metric", "#median before", "#median after", "#median paired change", "#cells"]
    return make_table([*heads, "#better", "#of these told apart", "#worse", "#of these told apart"], rows)


def _pair_table(pairs: Sequence[PairedCells], grids: Mapping[str, Grid]) -> Table:
    has_one_metric = len({pair.metric for pair in pairs}) == 1
    rows = []
    for pair in pairs:
        grid = grids[pair.task]
        template, verbalizer = pair.first["template"], pair.first["verbalizer"]
        rows.append(
            [
                pair.task,
                grid.templates().get(template, template.partition(":")[2] or template),
                _kind(pair, grid),
                grid.verbalizers().get(verbalizer, verbalizer),
                pair.first["calibration"],
                "" if has_one_metric else str(pair.metric),
                three_digits(pair.value_first),
                three_digits(pair.value_second),
                signed(pair.difference),
                f"{signed(pair.low)} to {signed(pair.high)}",
                show_p_value(pair.p_adjusted),
            ]
        )
    heads = ["~task", "~template", "~kind", "~verbalizer", "~calibration", "metric", "#before", "#after", "#change"]
    fold = f"{plural(len(rows), 'cell')} before and after"
    return make_table([*heads, "#95 % interval", "#p (Holm)"], rows, fold=fold)


def _figure(pairs: Sequence[PairedCells], grids: Mapping[str, Grid]) -> Iterable[Figure]:
    """The changes of every task on one axis, a row a verbalizer, dodged by calibration."""
    drawn = {task: points for task, grid in grids.items() if (points := _points(grid, pairs))}
    ends = [0.0, *(end for points in drawn.values() for point in points for end in (point.low, point.high))]
    domain = (math.floor(min(ends) * 20 - 0.1) / 20, math.ceil(max(ends) * 20 + 0.1) / 20)
    panels = [
        SpreadPanel(
            task,
            f"change of {grids[task].metric}",
            points,
            (Line(0.0, "no change"),),
            domain,
            f"Change of {grids[task].metric} on {task} by adaptation: " + "; ".join(point.text for point in points),
        )
        for task, points in drawn.items()
    ]
    if panels:
        yield Figure(tuple(panels), _CAPTION)


def _points(grid: Grid, pairs: Sequence[PairedCells]) -> tuple[Point, ...]:
    groups: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        is_shown = (pair.task, pair.metric) == (grid.task, grid.metric) and _kind(pair, grid) == "instructive"
        if is_shown and pair.difference is not None:
            groups.setdefault((pair.first["verbalizer"], pair.first["calibration"]), []).append(pair.difference)
    names = grid.verbalizers(CHART_WIDTH)
    short = {name: cut(shown, CHART_WIDTH) for name, shown in names.items()}
    names = short if len(set(short.values())) == len(short) else names
    return tuple(_point(names[key[0]], key[1], values) for key, values in groups.items())


def _point(verbalizer: str, calibration: str, values: Sequence[float]) -> Point:
    middle, low, high = median(values), min(values), max(values)
    text = (
        f"{verbalizer}, {calibration}: median {signed(middle)}, {signed(low)} to {signed(high)} over "
        f"{plural(len(values), 'template')}"
    )
    return Point(verbalizer, "instructive", calibration, middle, low, high, text)


def _agreement(pairs: Sequence[PairedCells]) -> str:
    tasks = listing(dict.fromkeys(pair.task for pair in pairs))
    values = [pair.agreement for pair in pairs]
    spread = f"{percent(min(values))} to {percent(max(values))}"
    return (
        f"Without gold labels on {tasks}, nobody can say which is better: both models predict the same label for "
        f"{percent(median(values))} of the rows (median over {plural(len(pairs), 'cell')}, {spread})."
    )


def _grid_pairs(grids: Sequence[Grid], one: Adaptation) -> Iterable[tuple[Grid, Grid]]:
    after = {(grid.task, grid.split): grid for grid in grids if grid.model == one.adapted}
    for grid in grids:
        if grid.model == one.base and grid.metric and (grid.task, grid.split) in after:
            yield grid, after[grid.task, grid.split]


def _counted(before: Grid, after: Grid) -> str:
    """In how many cells with an instructive template the metric rose and fell."""
    old, new = (
        {
            (cell.template, cell.verbalizer, cell.calibration): value.value
            for cell in grid.decided
            if kind_of(cell) == "instructive" and (value := grid.value(cell)) is not None
        }
        for grid in (before, after)
    )
    sign = 1 if before.higher_is_better else -1
    moves = [sign * (new[key] - old[key]) for key in old if key in new]
    better, worse = sum(move > 0 for move in moves), sum(move < 0 for move in moves)
    return f"{before.task} better in {better} and worse in {worse} of {plural(len(moves), 'cell')}"
