"""Comparison of two runs -> lines for a terminal, and rows for CSV; differences are second minus first."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING

from promptlab.comparing import AXES, FIT_AXES, PairedCells, PairedDraws, RunComparison
from promptlab.reporting.columns import cut, fit_columns
from promptlab.reporting.formats import model_names, percent, plural, signed, three_digits

if TYPE_CHECKING:
    import pandas

MAX_SINGLE_PAIRS = 12
SIGNIFICANT = 0.05
_GAP = "  "


def comparison_lines(found: RunComparison, width: int = 80) -> list[str]:
    """A comparison as lines of at most `width` characters; many pairs are summed up by task and calibration."""
    pairs = [pair for pair in found.pairs if pair.metric is not None]
    lines = _wrapped(_head(found), width)
    if pairs and len(pairs) <= MAX_SINGLE_PAIRS:
        lines += ["", *_pair_table(pairs, width)]
    elif pairs:
        lines += ["", *_group_table(pairs, width)]
    unlabelled = [pair for pair in found.pairs if pair.metric is None]
    if unlabelled:
        values = [pair.agreement for pair in unlabelled]
        lines += _wrapped(
            f"without gold labels: the two predict the same label for {percent(median(values))} of the rows (median "
            f"over {plural(len(values), 'pair')})",
            width,
        )
    if found.draws:
        lines += ["", *_draw_table(found.draws, width)]
    notes = [line for sentence in _notes(found, pairs) for line in _wrapped(sentence, width)]
    return [*lines, "", *notes] if notes else lines


def comparison_csv(found: RunComparison) -> str:
    """One row a pair."""
    rows = _rows_of(found)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def comparison_frame(found: RunComparison) -> pandas.DataFrame:
    """One row a pair."""
    import pandas

    return pandas.DataFrame(_rows_of(found))


def _rows_of(found: RunComparison) -> list[dict[str, object]]:
    """Pairs of cells, and behind them those of few-shot results, which have columns of their own."""
    return [*(_flat(pair, AXES) for pair in found.pairs), *(_flat(one, FIT_AXES) for one in found.draws)]


def _flat(pair: PairedCells | PairedDraws, axes: Sequence[str]) -> dict[str, object]:
    values = asdict(pair)
    first, second = values.pop("first"), values.pop("second")
    sides = {f"{axis}_{name}": side[axis] for axis in axes for name, side in (("first", first), ("second", second))}
    return {"task": values.pop("task"), **sides, **values}


def _head(found: RunComparison) -> str:
    what = f"they differ in {', '.join(found.differs_in)}" if found.differs_in else "their cells have the same names"
    return f"first: {found.first}, second: {found.second}; {what}; differences are second minus first"


def _pair_table(pairs: Sequence[PairedCells], width: int) -> list[str]:
    """One line a pair; an axis on which all pairs are alike is left out."""
    named = [_names(pair) for pair in pairs]
    columns = [name for name in named[0] if len({names[name] for names in named}) > 1] or ["task"]
    head = [*columns, "first", "second", "difference", "95 % interval", "p (Holm)"]
    rows = [
        [
            *(names[column] for column in columns),
            three_digits(pair.value_first),
            three_digits(pair.value_second),
            signed(pair.difference),
            f"{signed(pair.low)} to {signed(pair.high)}",
            show_p_value(pair.p_adjusted),
        ]
        for pair, names in zip(pairs, named, strict=True)
    ]
    lines = fit_columns(head, rows, width, num_left=len(columns))
    return lines if max(map(len, lines)) <= width else _stacked(head, rows, width, num_left=len(columns))


def _draw_table(draws: Sequence[PairedDraws], width: int) -> list[str]:
    """One line a task, method and number of shots; an axis on which all are alike is left out."""
    named = [{"task": one.task, **_fit_names(one)} for one in draws]
    columns = [name for name in named[0] if len({names[name] for names in named}) > 1] or ["method"]
    head = [*columns, "shots", "first", "second", "difference", "95 % interval", "p (Holm)"]
    rows = [
        [
            *(names[column] for column in columns),
            str(one.num_shots),
            three_digits(one.value_first),
            three_digits(one.value_second),
            signed(one.difference),
            f"{signed(one.low)} to {signed(one.high)}",
            show_p_value(one.p_adjusted),
        ]
        for one, names in zip(draws, named, strict=True)
    ]
    lines = fit_columns(head, rows, width, num_left=len(columns))
    return lines if max(map(len, lines)) <= width else _stacked(head, rows, width, num_left=len(columns))


def _fit_names(one: PairedDraws) -> dict[str, str]:
    """What names few-shot results: both values of an axis that differs, one of any other."""
    names = {}
    for axis in ("method", "model", "template", "verbalizer"):
        values = [one.first[axis], one.second[axis]]
        shown = model_names(values) if axis == "model" else {value: value.rpartition("/")[2] for value in values}
        names[axis] = shown[values[0]] if values[0] == values[1] else f"{shown[values[0]]} / {shown[values[1]]}"
    return names


def _stacked(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, num_left: int) -> list[str]:
    """A table whose names do not fit beside its numbers: a line of names above each line of numbers."""
    named, *numbers = fit_columns(head[num_left:], [row[num_left:] for row in rows], width - len(_GAP), num_left=0)
    lines = [cut(", ".join(head[:num_left]), width), _GAP + named]
    for row, line in zip(rows, numbers, strict=True):
        lines += [cut(", ".join(row[:num_left]), width), _GAP + line]
    return lines


def _names(pair: PairedCells) -> dict[str, str]:
    """What names a pair: both values of an axis that differs, one of any other."""
    names = {"task": pair.task}
    for axis in AXES:
        values = [pair.first[axis], pair.second[axis]]
        shown = model_names(values) if axis == "model" else {value: value.rpartition("/")[2] for value in values}
        names[axis] = shown[values[0]] if values[0] == values[1] else f"{shown[values[0]]} / {shown[values[1]]}"
    return {**names, "metric": str(pair.metric)}


def _group_table(pairs: Sequence[PairedCells], width: int) -> list[str]:
    """One line a task, calibration and metric: the median difference, and how many pairs are better, worse and sure."""
    groups: dict[tuple[str, str, str], list[PairedCells]] = {}
    for pair in pairs:
        names = _names(pair)
        groups.setdefault((pair.task, names["calibration"], names["metric"]), []).append(pair)
    head = ["task", "calibration", "metric", "median", "better", "worse", "p<0.05", "pairs"]
    rows = []
    for group, members in groups.items():
        signs = [direction(pair) for pair in members]
        differences = [pair.difference for pair in members if pair.difference is not None]
        sure = sum(pair.p_adjusted is not None and pair.p_adjusted < SIGNIFICANT for pair in members)
        numbers = [signs.count(1), signs.count(-1), sure, len(members)]
        rows.append([*group, signed(median(differences)), *map(str, numbers)])
    return fit_columns(head, rows, width, num_left=3)


def direction(pair: PairedCells) -> int:
    """Whether the second is better (1), worse (-1) or the same (0)."""
    difference = (pair.difference or 0.0) * (1 if pair.higher_is_better else -1)
    return (difference > 0) - (difference < 0)


def _notes(found: RunComparison, pairs: Sequence[PairedCells]) -> list[str]:
    notes = list(found.cautions)
    if pairs:
        if len(pairs) > MAX_SINGLE_PAIRS:
            notes.append("median of the differences; better and worse pairs of the second run; --output csv has all")
        notes.append(method_sentence(pairs))
    if found.draws:
        numbers = sorted({one.num_draws for one in found.draws})
        shown = plural(numbers[-1], "draw") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} draws"
        notes.append(
            f"with labelled examples: accuracy over {shown}, interval for other rows and other draws; p adjusted by "
            f"Holm over {plural(len(found.draws), 'difference')}"
        )
    for side, number in (("first", found.unpaired_first), ("second", found.unpaired_second)):
        if number:
            verb = "has" if number == 1 else "have"
            notes.append(f"{plural(number, 'cell')} of the {side} run {verb} no partner")
    return notes


def method_sentence(pairs: Sequence[PairedCells]) -> str:
    """On how many rows pairs were compared, by which interval and test, and over how many p is adjusted."""
    tests = ", ".join(dict.fromkeys(f"{pair.metric} by {pair.interval} and {pair.test}" for pair in pairs))
    return f"paired on {_rows(pairs)}; {tests}; p adjusted by Holm over {plural(len(pairs), 'comparison')}"


def _rows(pairs: Sequence[PairedCells]) -> str:
    numbers = sorted({pair.num_rows for pair in pairs})
    return f"{numbers[0]} rows" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} rows"


def show_p_value(value: float | None) -> str:
    """A p-value, with three decimals."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=_GAP)
