"""Stored cells -> what a table says of them: median, min and max over templates, baselines, what calibration changed.

The headline of a grid is the median over cells with an instructive template; the best cell is an oracle, kept as a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Any

from promptlab.reporting.formats import model_names
from promptlab.reporting.naming import TABLE_WIDTH, shown_names, template_texts, verbalizer_texts
from promptlab.results import Agreement, MetricValue, Result, RunResults

CONTROLS = ("irrelevant", "misleading", "null")
KINDS = ("instructive", *CONTROLS)
FALLBACK_METRIC = "accuracy"
UNCALIBRATED = "none"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, min and max over cells."""

    median: float
    low: float
    high: float
    num_cells: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of some values, None where there are none."""
        return cls(median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of one model on one task, and what they are measured by.

    `metric` is None where the rows have no gold labels; `gold_counts` is None where the run does not tell them.
    `texts` has the words of inline templates and verbalizers, by name. `ensembles` are cells too, skipped ones among
    them, and stand apart: they are no templates. `agreements` says how often two instructive templates predict the
    same label.
    """

    model: str
    task: str
    split: str
    family: str
    num_rows: int
    labels: tuple[str, ...]
    metric: str | None
    cells: tuple[Result, ...]
    baselines: Mapping[str, float]
    baseline_notes: Mapping[str, str]
    gold_counts: Mapping[str, int] | None
    texts: Mapping[str, str] = field(default_factory=dict)
    ensembles: tuple[Result, ...] = ()
    agreements: tuple[Agreement, ...] = ()

    @property
    def decided(self) -> list[Result]:
        """The cells that were not skipped."""
        return [cell for cell in self.cells if cell.skipped is None]

    @property
    def calibrations(self) -> list[str]:
        """Calibrations of the run, in the order of its cells."""
        return list(dict.fromkeys(cell.calibration for cell in self.cells))

    @property
    def higher_is_better(self) -> bool:
        """Which way the headline metric is good."""
        return all(value.higher_is_better for value in map(self.value, self.decided) if value is not None)

    def templates(self, width: int = TABLE_WIDTH) -> Mapping[str, str]:
        """What each template is called where there is room for so many characters."""
        return shown_names((cell.template for cell in self.cells), self.texts, width)

    def verbalizers(self, width: int = TABLE_WIDTH) -> Mapping[str, str]:
        """What each verbalizer is called where there is room for so many characters."""
        return shown_names((cell.verbalizer for cell in self.cells), self.texts, width)

    def value(self, cell: Result) -> MetricValue | None:
        """The headline metric of a cell, of an ensemble too."""
        return cell.metrics.get(self.metric) if self.metric else None

    def numbers(self, cells: Iterable[Result]) -> list[float]:
        """The headline metric of every cell that has it."""
        return [value.value for value in map(self.value, cells) if value is not None]

    def pairs(self) -> list[Result]:
        """One decided cell a template x verbalizer: what does not depend on the calibration is read from these."""
        found: dict[tuple[str, str, str], Result] = {}
        for cell in self.decided:
            found.setdefault((cell.block, cell.template, cell.verbalizer), cell)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Headline:
    """One calibration of a grid: its spread over instructive templates, controls, and how it stands to the baselines.

    `num_above` counts instructive cells whose interval lies wholly on the good side of the majority of train;
    `half_width` is the median half width of their intervals; `oracle_gap` is how far the best cell is from the median.
    """

    calibration: str
    kinds: Mapping[str, Spread]
    num_above: int | None
    half_width: float | None
    oracle_gap: float | None

    @property
    def instructive(self) -> Spread | None:
        """The headline itself."""
        return self.kinds.get("instructive")


@dataclass(frozen=True, slots=True)
class Change:
    """What a calibration did to the same template x verbalizer pairs: medians before and after, paired differences."""

    verbalizer: str
    calibration: str
    before: Spread
    after: Spread
    difference: float
    num_better: int
    num_worse: int
    prior: Spread


def make_grids(results: RunResults) -> list[Grid]:
    """Every model x task of a run, in the order of its cells."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for cell in results.results:
        groups.setdefault((cell.model, cell.task), []).append(cell)
    return [_make_grid(results, cells) for cells in groups.values()]


def grid_titles(grids: Sequence[Grid]) -> dict[tuple[str, str], str]:
    """What each model x task is called: its task alone where there is one model."""
    models = model_names(grid.model for grid in grids)
    alone = len(models) == 1
    return {(g.model, g.task): g.task if alone else f"{g.task}, {models[g.model]}" for g in grids}


def kind_of(cell: Result) -> str:
    """Whether a cell's template is instructive or which control it is; a template without a tag is instructive."""
    return next((tag for tag in CONTROLS if tag in cell.template_tags), "instructive")


def headlines(grid: Grid) -> list[Headline]:
    """One headline a calibration."""
    return [_headline(grid, calibration) for calibration in grid.calibrations]


def changes(grid: Grid) -> list[Change]:
    """What each calibration changed with each verbalizer, over all instructive templates."""
    found = []
    for verbalizer in dict.fromkeys(cell.verbalizer for cell in grid.cells):
        for calibration in grid.calibrations:
            if calibration != UNCALIBRATED and (change := _change(grid, verbalizer, calibration)):
                found.append(change)
    return found


def before_and_after(grid: Grid, calibration: str) -> list[tuple[Result, Result]]:
    """Instructive cells without calibration, each with its calibrated twin."""

    def key(cell: Result) -> tuple[str, str, str]:
        return cell.block, cell.template, cell.verbalizer

    cells = [cell for cell in grid.decided if kind_of(cell) == "instructive" and grid.value(cell)]
    after = {key(cell): cell for cell in cells if cell.calibration == calibration}
    return [(cell, after[key(cell)]) for cell in cells if cell.calibration == UNCALIBRATED and key(cell) in after]


def pairs_apart(grid: Grid, cells: Iterable[Result]) -> tuple[int, int]:
    """How many pairs of instructive cells have intervals that do not meet, and how many pairs there are."""
    values = [value for cell in cells if kind_of(cell) == "instructive" and (value := grid.value(cell))]
    pairs = list(combinations(values, 2))
    return sum(one.high < other.low or other.high < one.low for one, other in pairs), len(pairs)


def content_free(grid: Grid) -> Spread | None:
    """Spread over instructive pairs of always predicting the label that the content-free texts make likeliest."""
    constants = (constant_score(grid, cell) for cell in grid.pairs() if kind_of(cell) == "instructive")
    return Spread.of([value for value in constants if value is not None])


def constant_score(grid: Grid, cell: Result) -> float | None:
    """The headline metric of always predicting argmax of a cell's prior; None where it cannot be told."""
    counts = grid.gold_counts
    if not counts or not cell.prior or not sum(counts.values()):
        return None
    label, total = most_likely(cell)[0], sum(counts.values())
    number = counts.get(label, 0)
    f1 = 2 * number / (number + total)
    scores = {"accuracy": number / total, "macro_f1": f1 / len(cell.labels), "matthews": 0.0}
    scores |= {f"f1({other})": f1 if other == label else 0.0 for other in cell.labels}
    return scores.get(grid.metric or "")


def most_likely(cell: Result) -> tuple[str, float]:
    """The label that the content-free texts make likeliest, and its prior probability."""
    label = max(cell.labels, key=lambda label: cell.prior.get(label, 0.0))
    return label, cell.prior.get(label, 0.0)


def most_predicted(cell: Result) -> tuple[str, float] | None:
    """The label that is predicted most, and the share of rows that get it."""
    if not cell.predicted or not cell.num_rows:
        return None
    label = max(cell.labels, key=lambda label: cell.predicted.get(label, 0))
    return label, cell.predicted.get(label, 0) / cell.num_rows


def template_order(grid: Grid) -> list[str]:
    """Templates, instructive before controls, each kind by its median over verbalizers and calibrations, best first."""
    kinds = {cell.template: kind_of(cell) for cell in grid.decided}
    sign = -1 if grid.higher_is_better else 1

    def rank(template: str) -> tuple[int, float, str]:
        numbers = grid.numbers(cell for cell in grid.decided if cell.template == template)
        return KINDS.index(kinds[template]), sign * median(numbers) if numbers else 0.0, template

    return sorted(kinds, key=rank)


def _make_grid(results: RunResults, found: Sequence[Result]) -> Grid:
    first, cells = found[0], [cell for cell in found if not cell.members]
    of_grid = (first.model, first.task, first.split)
    facts: Mapping[str, Any] = results.manifest.get("tasks", {}).get(first.task, {})
    metric = _headline_metric(facts, cells)
    of_task = [item for item in results.baselines if (item.task, item.split) == (first.task, first.split)]
    return Grid(
        model=first.model,
        task=first.task,
        split=first.split,
        family=first.family,
        num_rows=first.num_rows,
        labels=first.labels,
        metric=metric,
        cells=tuple(cells),
        baselines={item.name: item.metrics[metric] for item in of_task if metric in item.metrics} if metric else {},
        baseline_notes={item.name: item.note for item in of_task},
        gold_counts=facts.get("gold_counts"),
        texts={**template_texts(results.manifest), **verbalizer_texts(results.manifest, first.labels)},
        ensembles=tuple(cell for cell in found if cell.members),
        agreements=tuple(one for one in results.agreements if (one.model, one.task, one.split) == of_grid),
    )


def _headline_metric(facts: Mapping[str, Any], cells: Sequence[Result]) -> str | None:
    """The task's first metric that the cells have; accuracy where the run does not tell."""
    known = {name for cell in cells for name in cell.metrics}
    wanted = [*facts.get("metrics", ()), FALLBACK_METRIC, *sorted(known)]
    return next((name for name in wanted if name in known), None)


def _headline(grid: Grid, calibration: str) -> Headline:
    cells = [cell for cell in grid.decided if cell.calibration == calibration]
    spreads = {kind: Spread.of(grid.numbers(cell for cell in cells if kind_of(cell) == kind)) for kind in KINDS}
    kinds = {kind: spread for kind, spread in spreads.items() if spread}
    values = [value for cell in cells if kind_of(cell) == "instructive" and (value := grid.value(cell))]
    whole = kinds.get("instructive")
    return Headline(
        calibration=calibration,
        kinds=kinds,
        num_above=_num_above(grid, values),
        half_width=median((value.high - value.low) / 2 for value in values) if values else None,
        oracle_gap=_gap(whole, grid.higher_is_better) if whole else None,
    )


def _num_above(grid: Grid, values: Sequence[MetricValue]) -> int | None:
    baseline = grid.baselines.get("majority_train")
    if baseline is None:
        return None
    if grid.higher_is_better:
        return sum(value.low > baseline for value in values)
    return sum(value.high < baseline for value in values)


def _gap(spread: Spread, higher_is_better: bool) -> float:
    return spread.high - spread.median if higher_is_better else spread.median - spread.low


def _change(grid: Grid, verbalizer: str, calibration: str) -> Change | None:
    twins = [pair for pair in before_and_after(grid, calibration) if pair[0].verbalizer == verbalizer]
    before = Spread.of(grid.numbers(cell for cell, _ in twins))
    after = Spread.of(grid.numbers(cell for _, cell in twins))
    prior = Spread.of([most_likely(cell)[1] for cell, _ in twins])
    if before is None or after is None or prior is None:
        return None
    sign = 1 if grid.higher_is_better else -1
    moves = [new - old for old, new in zip(*(grid.numbers(side) for side in zip(*twins, strict=True)), strict=True)]
    num_better, num_worse = sum(sign * move > 0 for move in moves), sum(sign * move < 0 for move in moves)
    return Change(verbalizer, calibration, before, after, median(moves), num_better, num_worse, prior)
