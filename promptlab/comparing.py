"""Two stored runs -> paired differences on the rows that both decided: difference, interval, p-value.

Cells are paired that agree in everything but what is compared. Differences are second minus first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.metrics import check_metric, measure
from promptlab.metrics import compare as paired_metric
from promptlab.results import Result, RunResults
from promptlab.shared_rows import Decided, shared_decisions
from promptlab.statistics.crossed import crossed_mean
from promptlab.statistics.paired import holm

AXES = ("model", "template", "verbalizer", "calibration")
FIT_AXES = ("model", "template", "verbalizer", "method")


@dataclass(frozen=True, slots=True)
class PairedCells:
    """One cell of each run on the rows that both have.

    `difference` is second minus first; `p_adjusted` is Holm's over all pairs of the comparison. Without gold labels
    there are no metrics, and `agreement` alone says how often the two predict the same label.
    """

    task: str
    first: Mapping[str, str]
    second: Mapping[str, str]
    num_rows: int
    num_rows_first: int
    num_rows_second: int
    agreement: float
    metric: str | None = None
    value_first: float | None = None
    value_second: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    confidence: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    test: str | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True, slots=True)
class PairedDraws:
    """What both runs have with so many shots a label, over the draws and rows that both have.

    Values are accuracies; the interval is for other rows and other draws. `p_adjusted` is Holm's over all of these.
    """

    task: str
    first: Mapping[str, str]
    second: Mapping[str, str]
    num_shots: int
    num_draws: int
    num_rows: int
    value_first: float
    value_second: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    interval: str = "t, crossed"
    metric: str = "accuracy"


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All pairs of two runs, what told the two sides apart, and what a reader must know.

    `draws` compares what was had with labelled examples, which `unpaired_first` and `unpaired_second` do not count.
    """

    first: str
    second: str
    differs_in: tuple[str, ...]
    pairs: tuple[PairedCells, ...]
    unpaired_first: int
    unpaired_second: int
    cautions: tuple[str, ...] = field(default=())
    draws: tuple[PairedDraws, ...] = field(default=())


def compare_runs(
    first: RunResults,
    second: RunResults,
    *,
    only: Mapping[str, tuple[str | None, str | None]] | None = None,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> RunComparison:
    """Pair the cells of two runs and compare each pair on its shared rows.

    Args:
        first: a stored run; the same one twice compares its own cells.
        second: another one.
        only: by axis (`model`, `template`, `verbalizer`, `calibration`) the value of the first and of the second
            side, None where every value is meant.
        tasks: names of tasks; all that both have by default.
        metrics: what is compared; the first metric of each task by default.
        seed: for resampling.

    Raises:
        UsageError: nothing can be paired, or several cells of one side fit one of the other.
        DataError: a pair has no row in common, or the same row with another gold label.
    """
    sides = [_choose(run, only or {}, tasks, number) for number, run in enumerate((first, second))]
    axes = _axes(sides[0], sides[1], only or {})
    pairs = _pair(sides[0], sides[1], axes)
    draws = _compare_draws(first, second, only or {}, tasks)
    if not pairs and not draws:
        raise UsageError(_no_pairs(first, second, sides))
    compared = [one for ours, theirs in pairs for one in _compare(first, second, ours, theirs, metrics, seed)]
    adjusted = holm([one.p_value for one in compared if one.p_value is not None])
    values = iter(adjusted)
    compared = [one if one.p_value is None else replace(one, p_adjusted=next(values)) for one in compared]
    return RunComparison(
        first=first.name,
        second=second.name,
        differs_in=axes,
        pairs=tuple(compared),
        unpaired_first=len(sides[0]) - len(pairs),
        unpaired_second=len(sides[1]) - len(pairs),
        cautions=(*_cautions(first, second, compared), *_shot_cautions(first, second, draws)),
        draws=tuple(draws),
    )


def _choose(
    run: RunResults, only: Mapping[str, tuple[str | None, str | None]], tasks: Sequence[str], side: int
) -> list[Result]:
    """The decided cells of one side."""
    cells = [result for result in run.results if result.skipped is None]
    wanted: list[tuple[str, Sequence[str]]] = [("task", tasks)] if tasks else []
    wanted += [(axis, (str(values[side]),)) for axis, values in only.items() if values[side] is not None]
    for axis, names in wanted:
        known = list(dict.fromkeys(getattr(cell, axis) for cell in cells))
        for name in names:
            if not any(_is_named(value, name) for value in known):
                hint = did_you_mean(name, [*known, *(value.rpartition("/")[2] for value in known)])
                raise UsageError(f"run '{run.name}' has no {axis} '{name}'.{hint} It has: {', '.join(known)}.")
        cells = [cell for cell in cells if any(_is_named(getattr(cell, axis), name) for name in names)]
    return cells


def _is_named(value: str, name: str) -> bool:
    return name in (value, value.rpartition("/")[2])


def _axes(
    first: Sequence[Result], second: Sequence[Result], only: Mapping[str, tuple[str | None, str | None]]
) -> tuple[str, ...]:
    """What may differ within a pair: axes that were named two ways, and those on which the sides share no value."""
    found = []
    for axis in AXES:
        ours, theirs = ({getattr(cell, axis) for cell in side} for side in (first, second))
        is_named = axis in only and only[axis][0] != only[axis][1]
        if is_named or (len(ours) == len(theirs) == 1 and ours != theirs):
            found.append(axis)
    return tuple(found)


def _pair(first: Sequence[Result], second: Sequence[Result], axes: Sequence[str]) -> list[tuple[Result, Result]]:
    """Cells that agree in task, split and every axis but those.

    Raises:
        UsageError: several cells of one side would fit.
    """
    kept = [axis for axis in AXES if axis not in axes]

    def key(cell: Result) -> tuple[str, ...]:
        return (cell.task, cell.split, *(getattr(cell, axis) for axis in kept))

    sides = []
    for cells in (first, second):
        by_key: dict[tuple[str, ...], list[Result]] = {}
        for cell in cells:
            by_key.setdefault(key(cell), []).append(cell)
        sides.append(by_key)
    shared = [name for name in sides[0] if name in sides[1]]
    for name in shared:
        for by_key in sides:
            if len(by_key[name]) > 1:
                axis = next(axis for axis in axes if len({getattr(cell, axis) for cell in by_key[name]}) > 1)
                raise UsageError(
                    f"several {axis}s fit ({', '.join(getattr(cell, axis) for cell in by_key[name])}): name one for "
                    f"each run by --{axis}, given twice."
                )
    return [(sides[0][name][0], sides[1][name][0]) for name in shared]


def _no_pairs(first: RunResults, second: RunResults, sides: Sequence[Sequence[Result]]) -> str:
    """Why nothing can be paired: the first axis on which the two share nothing although there are several values."""
    for axis in ("task", "split", *AXES):
        ours, theirs = (list(dict.fromkeys(getattr(cell, axis) for cell in side)) for side in sides)
        if not set(ours) & set(theirs) and (len(ours) != 1 or len(theirs) != 1 or axis in ("task", "split")):
            hint = f" Name one for each run by --{axis}, given twice." if axis in AXES else ""
            return (
                f"runs '{first.name}' and '{second.name}' have no {axis} in common ({', '.join(ours)}; "
                f"{', '.join(theirs)}).{hint}"
            )
    return f"runs '{first.name}' and '{second.name}' have no cells that can be paired."


def _compare_draws(
    first: RunResults, second: RunResults, only: Mapping[str, tuple[str | None, str | None]], tasks: Sequence[str]
) -> list[PairedDraws]:
    """Few-shot results that agree in all but what is compared, each over the draws that both runs have."""
    sides = [_measured_draws(run, only, tasks, side) for side, run in enumerate((first, second))]
    differing = {axis for axis in FIT_AXES if axis in only and only[axis][0] != only[axis][1]}
    for axis in FIT_AXES:
        ours, theirs = ({_fit_name(one, axis) for one in side} for side in sides)
        differing |= {axis} if len(ours) == len(theirs) == 1 and ours != theirs else set()
    kept = [axis for axis in FIT_AXES if axis not in differing]
    groups = [dict[tuple[Any, ...], dict[int | None, Result]](), dict[tuple[Any, ...], dict[int | None, Result]]()]
    for group, results in zip(groups, sides, strict=True):
        for one in results:
            key = (one.task, one.split, one.num_shots, *(_fit_name(one, axis) for axis in kept))
            group.setdefault(key, {})[one.draw] = one
    shared = [key for key in groups[0] if key in groups[1] and groups[0][key].keys() & groups[1][key].keys()]
    found = [_over_draws(first, second, groups[0][key], groups[1][key]) for key in shared]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, p_adjusted=p_value) for one, p_value in zip(found, adjusted, strict=True)]


def _measured_draws(
    run: RunResults, only: Mapping[str, tuple[str | None, str | None]], tasks: Sequence[str], side: int
) -> list[Result]:
    """The few-shot results of one side that have gold labels; a fit has no calibration to be named by."""
    found = [one for one in run.few_shot if one.metrics and (not tasks or one.task in tasks)]
    for axis, values in only.items():
        wanted = values[side]
        if wanted is not None and axis in FIT_AXES:
            found = [one for one in found if _is_named(getattr(one, axis), wanted)]
    return found


def _fit_name(result: Result, axis: str) -> str:
    """What a result has on an axis; a hard prompt that the shots chose has no template or words of its own."""
    is_chosen = bool(result.num_candidates) and axis in ("template", "verbalizer")
    return "chosen" if is_chosen else str(getattr(result, axis))


def _over_draws(
    first: RunResults, second: RunResults, ours: Mapping[int | None, Result], theirs: Mapping[int | None, Result]
) -> PairedDraws:
    """The crossed mean of second minus first, right or wrong, over shared rows and draws."""
    draws = [draw for draw in ours if draw in theirs]
    tables = []
    for draw in draws:
        one, other = shared_decisions(first, second, ours[draw], theirs[draw])
        tables.append(np.stack([one.predicted == one.gold, other.predicted == other.gold]).astype(np.float64))
    right = np.stack(tables, axis=2)
    found = crossed_mean(right[1] - right[0], lowest=-1, highest=1)
    mine, other_side = ours[draws[0]], theirs[draws[0]]
    return PairedDraws(
        task=mine.task,
        first={axis: _fit_name(mine, axis) for axis in FIT_AXES},
        second={axis: _fit_name(other_side, axis) for axis in FIT_AXES},
        num_shots=mine.num_shots or 0,
        num_draws=len(draws),
        num_rows=right.shape[1],
        value_first=float(right[0].mean()),
        value_second=float(right[1].mean()),
        difference=found.value,
        low=found.interval.low,
        high=found.interval.high,
        p_value=found.p_value,
        p_adjusted=found.p_value,
    )


def _shot_cautions(first: RunResults, second: RunResults, draws: Sequence[PairedDraws]) -> list[str]:
    """Tasks whose draws are of other examples in one run than in the other."""
    found = []
    for task in dict.fromkeys(one.task for one in draws):
        drawn = []
        for run in (first, second):
            stored = run.manifest.get("tasks", {}).get(task, {}).get("shots", ())
            drawn.append({(one["num_shots"], one["draw"]): one["rows"] for one in stored})
        if any(drawn[0][key] != drawn[1][key] for key in drawn[0].keys() & drawn[1].keys()):
            found.append(f"{task}: the two runs drew other examples, so that draws are paired by their number alone.")
    return found


def _compare(
    first: RunResults, second: RunResults, ours: Result, theirs: Result, metrics: Sequence[str], seed: int
) -> list[PairedCells]:
    """One entry a metric, or one without metrics where a row has no gold label."""
    if set(ours.labels) != set(theirs.labels):
        raise DataError(f"task '{ours.task}' has other labels in run '{first.name}' than in '{second.name}'.")
    for name in metrics:
        check_metric(name, ours.labels)
    one, other = shared_decisions(first, second, ours, theirs)
    named = PairedCells(
        task=ours.task,
        first={axis: getattr(ours, axis) for axis in AXES},
        second={axis: getattr(theirs, axis) for axis in AXES},
        num_rows=len(one.ids),
        num_rows_first=ours.num_rows,
        num_rows_second=theirs.num_rows,
        agreement=float(((one.predicted == other.predicted) & (one.predicted >= 0)).mean()),
    )
    if (one.gold < 0).any():
        return [named]
    chosen = metrics or [_headline(first, ours)]
    return [_with_metric(named, name, one, other, ours.labels, seed) for name in chosen]


def _with_metric(
    named: PairedCells, name: str, one: Decided, other: Decided, labels: tuple[str, ...], seed: int
) -> PairedCells:
    ours, theirs = one.outcome(labels), other.outcome(labels)
    found = paired_metric(name, theirs, ours, seed=seed)
    values = [measure(name, outcome, seed=seed) for outcome in (ours, theirs)]
    return replace(
        named,
        metric=name,
        value_first=values[0].value,
        value_second=values[1].value,
        difference=found.difference,
        low=found.interval.low,
        high=found.interval.high,
        interval=found.interval.kind,
        confidence=found.interval.confidence,
        p_value=found.p_value,
        test=found.test,
        higher_is_better=values[0].higher_is_better,
    )


def _headline(run: RunResults, cell: Result) -> str:
    facts: Mapping[str, Any] = run.manifest.get("tasks", {}).get(cell.task, {})
    wanted: list[str] = [*facts.get("metrics", ()), "accuracy"]
    return next(name for name in wanted if name in cell.metrics or name == "accuracy")


def _cautions(first: RunResults, second: RunResults, pairs: Sequence[PairedCells]) -> list[str]:
    """Rows that only one side has, and tasks that were read from another place."""
    found = []
    for task in dict.fromkeys(pair.task for pair in pairs):
        pair = next(pair for pair in pairs if pair.task == task)
        if not pair.num_rows == pair.num_rows_first == pair.num_rows_second:
            found.append(
                f"{task}: compared on the {pair.num_rows} rows that both have; the first has {pair.num_rows_first}, "
                f"the second {pair.num_rows_second}."
            )
        ours, theirs = (run.manifest.get("tasks", {}).get(task, {}).get("source") for run in (first, second))
        if ours != theirs:
            found.append(f"{task}: the rows come from different sources ({_source(ours)}; {_source(theirs)}).")
    return found


def _source(source: Mapping[str, Any] | None) -> str:
    if not source:
        return "not stored"
    name = source.get("path") or source.get("folder") or ", ".join((source.get("files") or {}).values())
    return f"{source.get('kind')} {name}"
