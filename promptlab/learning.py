"""Results with labelled examples -> learning curves, and fitted methods against the hard prompt, paired.

A curve is the accuracy over the numbers of shots, the mean over draws; a contrast is a difference on the same rows and
draws. The hard prompt that a method is held against was chosen by the same shots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptlab.results import Result, RunResults
from promptlab.specs.run import PROJECTED, ZERO_SHOT
from promptlab.statistics.crossed import CrossedMean, PooledMean, crossed_mean, pooled_mean
from promptlab.statistics.data_advantage import DataAdvantage, DrawnCurve, data_advantage, resample_curves
from promptlab.statistics.paired import holm
from promptlab.store import RunStore

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

Against = Literal["chosen hard prompt", "own start"]
CHOSEN: Against = "chosen hard prompt"
SOFT, PROMPT_TUNED, HEAD_TUNED = "soft_prompt", "prompt_fine_tune", "head_fine_tune"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy with so many shots a label: the mean over draws, its standard deviation, and each draw's results."""

    num_shots: int
    accuracy: CrossedMean
    std: float | None
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A method on a task; `template` and `verbalizer` are None for the hard prompt, which the shots choose anew."""

    model: str
    task: str
    method: str
    template: str | None
    verbalizer: str | None
    points: tuple[CurvePoint, ...]

    @property
    def key(self) -> tuple[str, str, str, str | None, str | None]:
        """What names it."""
        return (self.model, self.task, self.method, self.template, self.verbalizer)


@dataclass(frozen=True, slots=True)
class Contrast:
    """A method minus something else, in accuracy; `adjusted` is the p-value by Holm over all contrasts of a run."""

    model: str
    task: str
    method: str
    template: str | None
    verbalizer: str | None
    num_shots: int
    against: Against
    difference: CrossedMean
    adjusted: float


@dataclass(frozen=True, slots=True)
class Pooled:
    """A method minus the chosen hard prompt, the mean over tasks, each with the same weight.

    Tasks are fixed: rows and draws vary within them. Where a method was fitted with several templates or words, a task
    counts with their mean. `adjusted` is by Holm together with the contrasts of single tasks.
    """

    model: str
    method: str
    num_shots: int
    tasks: tuple[str, ...]
    difference: PooledMean
    adjusted: float


@dataclass(frozen=True, slots=True)
class Worth:
    """How many labelled examples a curve is worth over another one of its task.

    `factor` is on the logarithmic axis and `examples` on the plain one, both of the mean over draws; `highest` is that
    of the paper, on the plain axis from the highest of the draws.
    """

    first: Curve
    second: Curve
    factor: DataAdvantage
    examples: DataAdvantage
    highest: DataAdvantage


@dataclass(frozen=True, slots=True)
class HardSide:
    """Hard prompts of a task, by accuracy on the scored rows: what a choice could have come to.

    `default` is the first instructive template with the first words, uncalibrated. `oracle` is the best of the cells
    that the shots choose among and `average` their mean; the oracle has seen the gold labels of the scored rows.
    """

    model: str
    task: str
    default: tuple[Result, float]
    average: float
    oracle: tuple[Result, float]
    num_cells: int


@dataclass(frozen=True, slots=True)
class Projection:
    """Fitted soft tokens of which each is put back to its nearest word; `difference` is that minus the fitted ones."""

    fitted: Curve
    num_shots: int
    accuracy: CrossedMean
    difference: CrossedMean


@dataclass(frozen=True, slots=True)
class Learning:
    """What a run says about labelled examples: task by task, the hard prompt before the methods."""

    curves: tuple[Curve, ...]
    contrasts: tuple[Contrast, ...]
    pooled: tuple[Pooled, ...] = ()
    worths: tuple[Worth, ...] = ()
    hard: tuple[HardSide, ...] = ()
    projections: tuple[Projection, ...] = ()


def learn(run: RunResults, *, with_worths: bool = True) -> Learning:
    """The curves and contrasts of a run; empty where it had no shots or its rows have no gold labels.

    Args:
        run: a stored run.
        with_worths: whether to resample what a method is worth in examples, which takes a moment.
    """
    reader = _Reader(run)
    groups: dict[tuple[str | None, ...], list[Result]] = {}
    for one in (one for one in run.few_shot if one.metrics):
        groups.setdefault(_key(one), []).append(one)
    whole = [_curve(key, several, reader) for key, several in groups.items()]
    grouped = by_task(one for one in whole if one.method != PROJECTED).values()
    curves = [one for of_task in grouped for one in sorted(of_task, key=lambda one: one.method != ZERO_SHOT)]
    contrasts = [contrast for curve in curves for contrast in _contrasts(curve, curves, run, reader)]
    pooled = list(_pool(curves, reader))
    p_values = [one.difference.p_value for one in contrasts] + [one.difference.p_value for one in pooled]
    adjusted = iter(holm(p_values))
    return Learning(
        curves=tuple(curves),
        contrasts=tuple(replace(one, adjusted=next(adjusted)) for one in contrasts),
        pooled=tuple(replace(one, adjusted=next(adjusted)) for one in pooled),
        worths=tuple(_worths(curves, reader, int(run.manifest.get("seed") or 0))) if with_worths else (),
        hard=tuple(_hard_sides(curves, run, reader)),
        projections=tuple(_projections(whole, reader)),
    )


def by_task(curves: Iterable[Curve]) -> Mapping[tuple[str, str], list[Curve]]:
    """The curves of each model and task."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        found.setdefault((curve.model, curve.task), []).append(curve)
    return found


class _Reader:
    """Which rows each result gets right, read once."""

    def __init__(self, run: RunResults) -> None:
        self._store = RunStore(run.folder)
        self._known: dict[str, Bool[np.ndarray, " row"]] = {}

    def right(self, result: Result) -> Bool[np.ndarray, " row"]:
        """In the order of the rows; a row that could not be scored is wrong."""
        if result.cell not in self._known:
            table = self._store.read_samples(result.samples, result.cell)
            gold, predicted = table["gold"].to_pylist(), table["predicted"].to_pylist()
            pairs = zip(gold, predicted, strict=True)
            self._known[result.cell] = np.array([mine == theirs for mine, theirs in pairs], dtype=bool)
        return self._known[result.cell]

    def table(self, results: Iterable[Result]) -> Float64[np.ndarray, "row draw"]:
        """Right or wrong, a row a row and a column a result."""
        return np.stack([self.right(one) for one in results], axis=1).astype(np.float64)

    def accuracy(self, result: Result) -> float:
        """The share of rows that a cell gets right, without reading them where it is stored."""
        known = result.metrics.get("accuracy")
        return known.value if known is not None else float(self.right(result).mean())


def _key(result: Result) -> tuple[str | None, ...]:
    """What results of one curve share; a hard prompt is chosen anew by every draw."""
    named = (None, None) if result.method == ZERO_SHOT else (result.template, result.verbalizer)
    return (result.model, result.task, result.method, *named)


def _curve(key: tuple[str | None, ...], results: Sequence[Result], reader: _Reader) -> Curve:
    by_number: dict[int, list[Result]] = {}
    for one in results:
        by_number.setdefault(one.num_shots or 0, []).append(one)
    points = []
    for number, several in sorted(by_number.items()):
        several.sort(key=lambda one: one.draw or 0)
        scores = reader.table(several)
        std = float(scores.mean(axis=0).std(ddof=1)) if len(several) > 1 else None
        points.append(CurvePoint(number, crossed_mean(scores, lowest=0, highest=1), std, tuple(several)))
    model, task, method, template, verbalizer = key
    return Curve(str(model), str(task), str(method), template, verbalizer, tuple(points))


def _contrasts(curve: Curve, curves: Sequence[Curve], run: RunResults, reader: _Reader) -> Iterable[Contrast]:
    """A fitted method against the hard prompt of the same draws, and against what it starts from."""
    if curve.method == ZERO_SHOT:
        return
    start = _own_start(curve, run)
    for point in curve.points:
        mine, theirs = reader.table(point.results), dict[Against, Sequence[Result]]()
        chosen = _chosen(point, _hard_curve(curve, curves))
        if chosen is not None:
            theirs[CHOSEN] = chosen
        if start is not None:
            theirs["own start"] = [start] * len(point.results)
        for against, results in theirs.items():
            difference = crossed_mean(mine - reader.table(results), lowest=-1, highest=1)
            yield Contrast(*curve.key, point.num_shots, against, difference, difference.p_value)


def _hard_curve(curve: Curve, curves: Sequence[Curve]) -> Curve | None:
    """The chosen hard prompt of the same model and task."""
    wanted = (curve.model, curve.task, ZERO_SHOT)
    return next((one for one in curves if one.key[:3] == wanted), None)


def _chosen(point: CurvePoint, hard: Curve | None) -> list[Result] | None:
    """The hard prompts that the shots of a point choose, draw by draw; None where one was not chosen."""
    points = hard.points if hard is not None else ()
    found = {one.draw: one for other in points if other.num_shots == point.num_shots for one in other.results}
    return [found[one.draw] for one in point.results] if all(one.draw in found for one in point.results) else None


def _own_start(curve: Curve, run: RunResults) -> Result | None:
    """The zero-shot cell of the template and words that a method was fitted with, where the run has it."""
    wanted = (curve.model, curve.task, str(curve.template), _words(curve), "none")
    cells = run.scored()
    return next(
        (one for one in cells if (one.model, one.task, one.template, one.verbalizer, one.calibration) == wanted), None
    )


def _words(curve: Curve) -> str:
    """The verbalizer that a curve starts from."""
    return str(curve.verbalizer).removesuffix("+learned")


def _pool(curves: Sequence[Curve], reader: _Reader) -> Iterable[Pooled]:
    """The mean over tasks of what a method has over the chosen hard prompt; nothing for a single task."""
    tables: dict[tuple[str, str, int], dict[str, list[Float64[np.ndarray, "row draw"]]]] = {}
    for curve in (one for one in curves if one.method != ZERO_SHOT):
        for point in curve.points:
            chosen = _chosen(point, _hard_curve(curve, curves))
            if chosen is not None:
                of_tasks = tables.setdefault((curve.model, curve.method, point.num_shots), {})
                table = reader.table(point.results) - reader.table(chosen)
                of_tasks.setdefault(curve.task, []).append(table)
    for (model, method, number), of_tasks in tables.items():
        if len(of_tasks) > 1:
            means = [crossed_mean(np.mean(several, axis=0), lowest=-1, highest=1) for several in of_tasks.values()]
            difference = pooled_mean(means, lowest=-1, highest=1)
            yield Pooled(model, method, number, tuple(of_tasks), difference, difference.p_value)


def _worths(curves: Sequence[Curve], reader: _Reader, seed: int) -> Iterable[Worth]:
    """Each fitted method over the chosen hard prompt, and fine-tuning at the mask over a classifier head."""
    for of_task in by_task(curves).values():
        several = [one for one in of_task if len(one.points) > 1]
        drawn = dict(zip((one.key for one in several), _drawn_curves(several, reader, seed), strict=False))
        for first in (one for one in several if one.method != ZERO_SHOT):
            others = [ZERO_SHOT, *([HEAD_TUNED] if first.method == PROMPT_TUNED else [])]
            for second in (one for one in several if one.method in others and {first.key, one.key} <= drawn.keys()):
                pair = drawn[first.key], drawn[second.key]
                yield Worth(
                    first=first,
                    second=second,
                    factor=data_advantage(*pair, seed=seed),
                    examples=data_advantage(*pair, seed=seed, axis="linear"),
                    highest=data_advantage(*pair, seed=seed, axis="linear", draws="max"),
                )


def _drawn_curves(curves: Sequence[Curve], reader: _Reader, seed: int) -> list[DrawnCurve]:
    """The curves of a task resampled alike, over the draws that all of their points have."""
    draws = [{one.draw for one in point.results} for curve in curves for point in curve.points]
    common = set.intersection(*draws) if draws else set()
    if not common:
        return []
    tables = [
        np.stack([reader.table(one for one in point.results if one.draw in common) for point in curve.points])
        for curve in curves
    ]
    return resample_curves([[point.num_shots for point in curve.points] for curve in curves], tables, seed=seed)


def _hard_sides(curves: Sequence[Curve], run: RunResults, reader: _Reader) -> Iterable[HardSide]:
    """What the shots of each task chose among."""
    for model, task in by_task(curves):
        cells = [
            one
            for one in run.scored()
            if (one.model, one.task) == (model, task) and "instructive" in one.template_tags and not one.members
        ]
        default = next((one for one in cells if one.calibration == "none"), None)
        if default is not None:
            values = [reader.accuracy(one) for one in cells]
            best = int(np.argmax(values))
            start = (default, reader.accuracy(default))
            yield HardSide(model, task, start, float(np.mean(values)), (cells[best], values[best]), len(cells))


def _projections(curves: Sequence[Curve], reader: _Reader) -> Iterable[Projection]:
    """Projected soft tokens against the same ones as they were fitted, on the same rows and draws."""
    known = {one.key: one for one in curves}
    for curve in (one for one in curves if one.method == PROJECTED):
        fitted = known.get((curve.model, curve.task, SOFT, curve.template, curve.verbalizer))
        points = {point.num_shots: point for point in fitted.points} if fitted is not None else {}
        for point in (one for one in curve.points if one.num_shots in points):
            theirs = {one.draw: one for one in points[point.num_shots].results}
            if fitted is not None and all(one.draw in theirs for one in point.results):
                before = reader.table(theirs[one.draw] for one in point.results)
                difference = crossed_mean(reader.table(point.results) - before, lowest=-1, highest=1)
                yield Projection(fitted, point.num_shots, point.accuracy, difference)
