"""Learning curves and contrasts -> the section "Hard against fitted" of a report, and the lines of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from promptlab.learning import CHOSEN, Contrast, Curve, CurvePoint, HardSide, Learning, by_task
from promptlab.reporting.columns import fit_columns, natural_width
from promptlab.reporting.contrasted import SIGNIFICANT, contrast_parts, show_difference
from promptlab.reporting.document import Figure, Paragraph, Part, Subheading, Table, make_table
from promptlab.reporting.fit_costs import cost_parts
from promptlab.reporting.formats import MISSING, count, model_names, plural, signed, span, three_digits
from promptlab.reporting.naming import TABLE_WIDTH, shown_names, template_texts
from promptlab.reporting.panels import CurvePanel, Point
from promptlab.reporting.soft_tokens import soft_token_parts
from promptlab.reporting.worth import worth_parts
from promptlab.results import Result, RunResults
from promptlab.specs.run import ZERO_SHOT

HARD = "hard prompt, chosen"
_AIR = 0.02
_MAX_NUMBERS = 5  # of shots, on a line of a terminal
_INTRO = (
    "Each line is the accuracy on the scored rows over the number of labelled examples a label, the mean over draws of "
    "the examples, with its 95 % interval for other rows and other draws. "
    "The examples of a draw are the same for every method. "
    "The hard prompt, too, is chosen by these examples alone: template, verbalizer and calibration, by the rule by "
    "which a method's setting is chosen. "
    "No choice has seen a gold label of a scored row. "
    "Tables have the mean over draws and, behind ±, its standard deviation."
)
_HARD = (
    "Three more rows say what the choice of a hard prompt could have come to. "
    "The default is the first instructive template with the first words, uncalibrated. "
    "The average is over all cells that were chosen among. "
    "The oracle is the best of them on the scored rows themselves: no result, but the most that choosing can gain."
)


def few_shot_parts(learning: Learning, results: RunResults) -> Iterable[Part]:
    """The whole section; nothing where there are no curves."""
    if not learning.curves:
        return
    names, texts = curve_names(learning.curves, results), template_texts(results.manifest)
    yield Paragraph(_INTRO + (f" {_HARD}" if learning.hard else ""))
    models = model_names(curve.model for curve in learning.curves)
    for (model, task), curves in by_task(learning.curves).items():
        hard = next((one for one in learning.hard if (one.model, one.task) == (model, task)), None)
        yield Subheading(f"{task}, {models[model]}" if len(models) > 1 else task)
        yield Figure((_panel(task, curves, names),), f"Accuracy on {task} over labelled examples a label.")
        yield _table(curves, hard, texts)
    yield from contrast_parts(learning, names)
    yield from worth_parts(learning.worths, names)
    yield from _spread_parts(learning.curves)
    yield from soft_token_parts(learning, names)
    yield from cost_parts(learning.curves, names, results)


def few_shot_lines(learning: Learning, results: RunResults, width: int) -> list[str]:
    """One line a task and method, for a terminal: its curve, and the difference at the largest number of shots."""
    if not learning.curves:
        return []
    names, models = curve_names(learning.curves, results), model_names(curve.model for curve in learning.curves)
    numbers = _some(sorted({point.num_shots for curve in learning.curves for point in curve.points}))
    first = 0 if len(models) > 1 else 1
    rows = []
    for curve in learning.curves:
        points = {point.num_shots: point for point in curve.points}
        contrast = _against_hard(learning.contrasts, curve, numbers[-1])
        values = [three_digits(points[n].accuracy.value) if n in points else MISSING for n in numbers]
        last = "" if curve.method == ZERO_SHOT else show_difference(contrast)
        name = "hard prompt" if curve.method == ZERO_SHOT else names[curve.key]
        rows.append([models[curve.model], curve.task, name, *values, last][first:])
    head = ["model", "task", "method", *map(str, numbers), "vs hard"][first:]
    head[-1] = head[-1] if natural_width([head, *rows]) <= width else "vs"
    draws = max(len(point.results) for curve in learning.curves for point in curve.points)
    note = f"accuracy by shots a label, mean over {plural(draws, 'draw')}"
    if learning.contrasts:
        family = len(learning.contrasts) + len(learning.pooled)
        note += (
            f"; vs hard at {numbers[-1]} shots: minus the prompt that the same shots choose, "
            f"* p < {SIGNIFICANT} (Holm over {count(family)})"
        )
    pooled = [one for one in learning.pooled if one.num_shots == numbers[-1]]
    shown = ", ".join(f"{one.method} {show_difference(one)}" for one in pooled)
    said = [note, *([f"mean over {plural(len(pooled[0].tasks), 'task')} vs hard: {shown}"] if pooled else [])]
    wrapped = [line for one in said for line in textwrap.wrap(one, width, subsequent_indent="  ")]
    return [*fit_columns(head, rows, width, num_left=3 - first), *wrapped]


def curve_names(curves: Sequence[Curve], results: RunResults) -> Mapping[tuple[object, ...], str]:
    """What each curve is called: its method, with template and words where a task has several curves of it."""
    texts, several = template_texts(results.manifest), [curve.key[:3] for curve in curves]
    templates = shown_names((str(one.template) for one in curves), texts, TABLE_WIDTH)
    found: dict[tuple[object, ...], str] = {}
    for curve in curves:
        alike = [one for one in curves if one.key[:3] == curve.key[:3]]
        told = [
            name
            for name, values in (
                (templates[str(curve.template)], {one.template for one in alike}),
                (str(curve.verbalizer).rpartition("/")[2], {one.verbalizer for one in alike}),
            )
            if len(values) > 1
        ]
        method = HARD if curve.method == ZERO_SHOT else curve.method
        found[curve.key] = ", ".join([method, *told]) if several.count(curve.key[:3]) > 1 else method
    return found


def _some(numbers: Sequence[int]) -> list[int]:
    """At most five numbers of shots, the smallest and the largest among them."""
    last, most = len(numbers) - 1, min(len(numbers), _MAX_NUMBERS)
    places = [round(last * step / (most - 1)) for step in range(most)] if most > 1 else [0]
    return [numbers[place] for place in places]


def _against_hard(contrasts: Sequence[Contrast], curve: Curve, number: int) -> Contrast | None:
    wanted = (*curve.key, number, CHOSEN)
    return next(
        (
            one
            for one in contrasts
            if (one.model, one.task, one.method, one.template, one.verbalizer, one.num_shots, one.against) == wanted
        ),
        None,
    )


def _panel(task: str, curves: Sequence[Curve], names: Mapping[tuple[object, ...], str]) -> CurvePanel:
    points = [
        Point(
            name=str(point.num_shots),
            kind="instructive",
            series=names[curve.key],
            value=point.accuracy.value,
            low=point.accuracy.interval.low,
            high=point.accuracy.interval.high,
            text=f"{names[curve.key]}, {point.num_shots} shots a label: {three_digits(point.accuracy.value)} "
            f"({span(point.accuracy.interval.low, point.accuracy.interval.high)})",
        )
        for curve in curves
        for point in curve.points
    ]
    domain = max(0.0, min(one.low for one in points) - _AIR), min(1.0, max(one.high for one in points) + _AIR)
    series = tuple(dict.fromkeys(one.series for one in points))
    alt = f"Accuracy on {task} over labelled examples a label, for {', '.join(series)}."
    return CurvePanel(task, "accuracy", tuple(points), series, domain, alt)


def _table(curves: Sequence[Curve], hard: HardSide | None, texts: Mapping[str, str]) -> Table:
    """The hard side first: default, average, chosen and oracle, and how far the choice stays below the oracle."""
    numbers = sorted({point.num_shots for curve in curves for point in curve.points})
    named = [one.template for one in curves if one.template] + ([hard.oracle[0].template] if hard else [])
    named += [hard.default[0].template] if hard else []
    templates = shown_names(named, texts, TABLE_WIDTH)
    before, after = _hard_rows(curves, hard, numbers, templates)
    rows = list[list[str]]()
    for curve in curves:
        points = {point.num_shots: point for point in curve.points}
        values = [_mean_and_std(points.get(number)) for number in numbers]
        if curve.method == ZERO_SHOT:
            rows[:0] = [*before, [HARD, "by the shots", "by the shots", *values], *after]
        else:
            words = str(curve.verbalizer).rpartition("/")[2]
            rows.append([curve.method, templates[str(curve.template)], words, *values])
    heads = ["~method", "~template", "~words", *(f"#{number} shots" for number in numbers)]
    return make_table(heads, rows)


def _hard_rows(
    curves: Sequence[Curve], hard: HardSide | None, numbers: Sequence[int], templates: Mapping[str, str]
) -> tuple[list[list[str]], list[list[str]]]:
    """What stands above the chosen hard prompt, and what stands below it."""
    chosen = next((curve for curve in curves if curve.method == ZERO_SHOT), None)
    if hard is None or chosen is None:
        return [], []
    points = {point.num_shots: point for point in chosen.points}
    gaps = [signed(points[n].accuracy.value - hard.oracle[1]) if n in points else MISSING for n in numbers]
    (default, start), (oracle, best) = hard.default, hard.oracle
    before = [
        ["hard prompt, default", *_named(default, templates), *[three_digits(start)] * len(numbers)],
        ["hard prompt, average", "", f"{plural(hard.num_cells, 'cell')}", *[three_digits(hard.average)] * len(numbers)],
    ]
    after = [
        ["hard prompt, oracle", *_named(oracle, templates), *[three_digits(best)] * len(numbers)],
        ["chosen minus oracle", "", "", *gaps],
    ]
    return before, after


def _named(cell: Result, templates: Mapping[str, str]) -> list[str]:
    """Template, and words with the calibration where there is one."""
    words = cell.verbalizer.rpartition("/")[2]
    return [templates[cell.template], words if cell.calibration == "none" else f"{words}, {cell.calibration}"]


def _mean_and_std(point: CurvePoint | None) -> str:
    if point is None:
        return MISSING
    std = f" ± {three_digits(point.std)}" if point.std is not None else ""
    return f"{three_digits(point.accuracy.value)}{std}"


def _spread_parts(curves: Sequence[Curve]) -> Iterable[Part]:
    """For methods that were fitted with several templates or words of a task: how far these lie apart."""
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.key[:3], []).append(curve)
    several = {key: found for key, found in groups.items() if len(found) > 1}
    if not several:
        return
    yield Subheading("Spread over templates and words")
    yield Paragraph("Lowest to highest accuracy over what a method was fitted with; none of them was chosen.")
    models = model_names(key[0] for key in several)
    numbers = sorted({point.num_shots for found in several.values() for one in found for point in one.points})
    rows = []
    for (model, task, method), found in several.items():
        spreads = []
        for number in numbers:
            values = [point.accuracy.value for one in found for point in one.points if point.num_shots == number]
            spreads.append(span(min(values), max(values)) if values else MISSING)
        rows.append([models[model] if len(models) > 1 else "", task, method, count(len(found)), *spreads])
    heads = ["~model", "~task", "~method", "#templates x words", *(f"#{number} shots" for number in numbers)]
    yield make_table(heads, rows)
