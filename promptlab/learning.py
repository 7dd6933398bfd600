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
from promptlab.specs.run import ZERO_SHOT
from promptlab.statistics.crossed import CrossedMean, crossed_mean
from promptlab.statistics.paired import holm
from promptlab.store import RunStore

if TYPE_CHECKING:
    from jaxtyping import Bool

Against = Literal["chosen hard prompt", "own start"]


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
class Learning:
    """All curves of a run and all contrasts, in the order of its results."""

    curves: tuple[Curve, ...]
    contrasts: tuple[Contrast, ...]


def learn(run: RunResults) -> Learning:
    """The curves and contrasts of a run; empty where it had no shots or its rows have no gold labels."""
    reader = _Reader(run)
    measured = [one for one in run.few_shot if one.metrics]
    groups: dict[tuple[str | None, ...], list[Result]] = {}
    for one in measured:
        groups.setdefault(_key(one), []).append(one)
    curves = [_curve(key, several, reader) for key, several in groups.items()]
    contrasts = [contrast for curve in curves for contrast in _contrasts(curve, curves, run, reader)]
    adjusted = holm([one.difference.p_value for one in contrasts])
    return Learning(tuple(curves), tuple(replace(one, adjusted=p) for one, p in zip(contrasts, adjusted, strict=True)))


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

    def table(self, results: Iterable[Result]) -> np.ndarray:
        """Right or wrong, a row a row and a column a result."""
        return np.stack([self.right(one) for one in results], axis=1).astype(np.float64)


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
        chosen = _chosen(curve, curves, point.num_shots)
        if all(one.draw in chosen for one in point.results):
            theirs["chosen hard prompt"] = [chosen[one.draw] for one in point.results]
        if start is not None:
            theirs["own start"] = [start] * len(point.results)
        for against, results in theirs.items():
            difference = crossed_mean(mine - reader.table(results), lowest=-1, highest=1)
            names = (curve.model, curve.task, curve.method, curve.template, curve.verbalizer)
            yield Contrast(*names, point.num_shots, against, difference, difference.p_value)


def _chosen(curve: Curve, curves: Sequence[Curve], num_shots: int) -> dict[int | None, Result]:
    """The hard prompts of the same model and task with so many shots, by draw."""
    hard = [one for one in curves if (one.model, one.task, one.method) == (curve.model, curve.task, ZERO_SHOT)]
    points = (point for one in hard for point in one.points if point.num_shots == num_shots)
    return {one.draw: one for point in points for one in point.results}


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


def by_task(curves: Iterable[Curve]) -> Mapping[tuple[str, str], list[Curve]]:
    """The curves of each model and task."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        found.setdefault((curve.model, curve.task), []).append(curve)
    return found
