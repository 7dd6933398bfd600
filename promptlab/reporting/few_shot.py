"""Learning curves and contrasts -> the section "Hard against fitted" of a report, and the lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promptlab.learning import Contrast, Curve, CurvePoint, Learning, by_task
from promptlab.reporting.columns import fit_columns
from promptlab.reporting.document import Figure, Paragraph, Part, Subheading, make_table
from promptlab.reporting.formats import MISSING, count, model_names, plural, signed, span, three_digits
from promptlab.reporting.panels import CurvePanel, Point
from promptlab.specs.run import ZERO_SHOT

HARD = "hard prompt, chosen"
SIGNIFICANT = 0.05
_AIR = 0.02
_INTRO = (
    "Each line is the accuracy on the scored rows over the number of labelled examples a label, the mean over draws of "
    "the examples, with its 95 % interval for other rows and other draws. "
    "The examples of a draw are the same for every method. "
    "The hard prompt, too, is chosen by these examples alone: template, verbalizer and calibration, by the rule by "
    "which a method's setting is chosen. "
    "No choice has seen a gold label of a scored row."
)
_CONTRASTS = (
    "A difference is the method minus the other, on the same rows and the same examples, with an interval for other "
    "rows and other draws. "
    "The p-value is adjusted by Holm for all differences of this table. "
    "The own start is the hard prompt with the template and words that the method was fitted with, as it scores "
    "uncalibrated and unfitted."
)


def few_shot_parts(learning: Learning) -> Iterable[Part]:
    """The whole section; nothing where there are no curves."""
    if not learning.curves:
        return
    yield Paragraph(_INTRO)
    models = model_names(curve.model for curve in learning.curves)
    for (model, task), curves in by_task(learning.curves).items():
        yield Subheading(f"{task}, {models[model]}" if len(models) > 1 else task)
        panel = _panel(task, curves)
        yield Figure((panel,), f"Accuracy on {task} over labelled examples a label.")
        yield _table(curves)
    if learning.contrasts:
        yield Subheading("Differences")
        yield Paragraph(_CONTRASTS)
        yield _contrast_table(learning.contrasts)
    yield Subheading("What was fitted, and what it took")
    yield _fit_table(learning.curves)


def few_shot_lines(learning: Learning, width: int) -> list[str]:
    """One line a method and number of shots, for a terminal."""
    rows = []
    models = model_names(curve.model for curve in learning.curves)
    for curve in learning.curves:
        for point in curve.points:
            contrast = _against_hard(learning.contrasts, curve, point)
            rows.append(
                [
                    models[curve.model],
                    curve.task,
                    _name(curve),
                    count(point.num_shots),
                    three_digits(point.accuracy.value),
                    span(point.accuracy.interval.low, point.accuracy.interval.high),
                    _shown(contrast),
                ]
            )
    head = ["model", "task", "method", "shots", "accuracy", "interval", "vs hard"]
    kept = range(0 if len(models) > 1 else 1, len(head))
    if not rows:
        return []
    num_left = 3 if len(models) > 1 else 2
    lines = fit_columns([head[i] for i in kept], [[row[i] for i in kept] for row in rows], width, num_left=num_left)
    draws = max(len(point.results) for curve in learning.curves for point in curve.points)
    return [*lines, f"shots a label, mean over {plural(draws, 'draw')}; * differs from the chosen hard prompt (Holm)"]


def _name(curve: Curve) -> str:
    return HARD if curve.method == ZERO_SHOT else curve.method


def _against_hard(contrasts: Sequence[Contrast], curve: Curve, point: CurvePoint) -> Contrast | None:
    wanted = (curve.model, curve.task, curve.method, curve.template, curve.verbalizer, point.num_shots)
    return next(
        (
            one
            for one in contrasts
            if (one.model, one.task, one.method, one.template, one.verbalizer, one.num_shots) == wanted
            and one.against == "chosen hard prompt"
        ),
        None,
    )


def _shown(contrast: Contrast | None) -> str:
    if contrast is None:
        return ""
    return signed(contrast.difference.value) + ("*" if contrast.adjusted < SIGNIFICANT else "")


def _panel(task: str, curves: Sequence[Curve]) -> CurvePanel:
    points = [
        Point(
            name=str(point.num_shots),
            kind="instructive",
            series=_name(curve),
            value=point.accuracy.value,
            low=point.accuracy.interval.low,
            high=point.accuracy.interval.high,
            text=f"{_name(curve)}, {point.num_shots} shots a label: {three_digits(point.accuracy.value)} "
            f"({span(point.accuracy.interval.low, point.accuracy.interval.high)})",
        )
        for curve in curves
        for point in curve.points
    ]
    domain = max(0.0, min(one.low for one in points) - _AIR), min(1.0, max(one.high for one in points) + _AIR)
    series = tuple(dict.fromkeys(one.series for one in points))
    alt = f"Accuracy on {task} over labelled examples a label, for {', '.join(series)}."
    return CurvePanel(task, "accuracy", tuple(points), series, domain, alt)


def _table(curves: Sequence[Curve]) -> Part:
    numbers = sorted({point.num_shots for curve in curves for point in curve.points})
    rows = []
    for curve in curves:
        points = {point.num_shots: point for point in curve.points}
        rows.append(
            [
                _name(curve),
                curve.template or "by the shots",
                curve.verbalizer or "by the shots",
                *(_mean_and_std(points.get(number)) for number in numbers),
            ]
        )
    heads = ["~method", "~template", "~words", *(f"#{number} shots" for number in numbers)]
    return make_table(heads, rows)


def _mean_and_std(point: CurvePoint | None) -> str:
    if point is None:
        return MISSING
    std = f" ± {three_digits(point.std)}" if point.std is not None else ""
    return f"{three_digits(point.accuracy.value)}{std}"


def _contrast_table(contrasts: Sequence[Contrast]) -> Part:
    models = model_names(one.model for one in contrasts)
    rows = [
        [
            models[one.model] if len(models) > 1 else "",
            one.task,
            one.method,
            count(one.num_shots),
            one.against,
            signed(one.difference.value),
            span(one.difference.interval.low, one.difference.interval.high),
            _p(one.adjusted),
        ]
        for one in contrasts
    ]
    heads = ["~model", "~task", "~method", "#shots", "minus", "#difference", "#95 % interval", "#p (Holm)"]
    return make_table(heads, rows)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else three_digits(value)


def _fit_table(curves: Sequence[Curve]) -> Part:
    rows = []
    for curve in curves:
        for point in curve.points:
            fits = [one.fit for one in point.results]
            is_hard = curve.method == ZERO_SHOT
            chosen = sorted({_setting(one) for one in fits}) if not is_hard else []
            candidates = point.results[0].num_candidates
            rows.append(
                [
                    curve.task,
                    _name(curve),
                    count(point.num_shots),
                    "0" if is_hard else count(fits[0]["num_parameters"]),
                    f"{candidates} cells" if is_hard else f"{len(fits[0]['grid'])} settings",
                    "; ".join(chosen) if chosen else MISSING,
                    count(sum(int(one.get("selection_passes", 0)) for one in fits) // len(fits)),
                    count(sum(int(one.get("example_passes", 0)) for one in fits) // len(fits)),
                    MISSING if is_hard else _losses(fits),
                ]
            )
    heads = ["~task", "~method", "#shots", "#parameters", "searched", "chosen", "#passes, search", "#passes, fit"]
    return make_table([*heads, "#loss, first to last"], rows, fold="Settings, search and losses of every method")


def _setting(fit: object) -> str:
    """What tells the chosen setting from the others of its grid; `default` where nothing was searched."""
    assert isinstance(fit, dict)
    grid, mine = fit["grid"], fit["setting"]
    flat = [{**one, **one["options"]} for one in grid]
    own = {**mine, **mine["options"]}
    told = [key for key in own if key != "options" and len({str(one.get(key)) for one in flat}) > 1]
    shown = ", ".join(f"{key.replace('_', ' ')} {own[key]}" for key in told) or "the only one"
    return shown if fit["rule"] != "default" or len(grid) == 1 else f"{shown} (default, not searched)"


def _losses(fits: Sequence[object]) -> str:
    """Mean over draws of the loss of the first pass over the shots and of the last one."""
    losses = [fit["losses"] for fit in fits if isinstance(fit, dict) and fit["losses"]]
    if not losses:
        return MISSING
    first, last = (sum(one[place] for one in losses) / len(losses) for place in (0, -1))
    return f"{three_digits(first)} to {three_digits(last)}"
