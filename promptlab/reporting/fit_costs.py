"""Fits of a run -> what was fitted and what it took: parameters, passes, seconds, memory, settings and losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptlab.learning import Curve, CurvePoint
from promptlab.reporting.document import Paragraph, Part, Subheading, Table, make_table
from promptlab.reporting.formats import MISSING, count, model_names, percent, size, three_digits
from promptlab.results import RunResults
from promptlab.specs.run import ZERO_SHOT

_INTRO = (
    "Numbers are means over draws of the examples, at the largest number of shots. "
    "A pass is one example through the model once, whether weights are changed by it or not; those of the search "
    "choose the setting, or the hard prompt, those of the fit are on all shots with the setting that was chosen. "
    "Seconds are of the call in which a method was fitted."
)
_MEMORY = {
    "device": "Peak memory is the most that tensors took on the device during search and fit, the model included.",
    "process": (
        "Peak memory is the most that the whole process had resident during search and fit, looked at every 20 ms: "
        "the interpreter, its libraries and the model are in it."
    ),
}


def cost_parts(curves: Sequence[Curve], names: Mapping[tuple[object, ...], str], results: RunResults) -> Iterable[Part]:
    """One open table of costs, and one folded with every setting and loss."""
    timings = results.timings.get("fits") or {}
    sizes = {str(one["model"]): (one.get("ran") or {}).get("num_parameters") for one in results.manifest["models"]}
    kinds = {str(one["memory"]) for one in timings.values() if one.get("peak_memory_bytes")}
    yield Subheading("What was fitted, and what it took")
    yield Paragraph(" ".join([_INTRO, *(text for kind, text in _MEMORY.items() if kind in kinds)]))
    yield _cost_table(curves, names, timings, sizes)
    yield _fit_table(curves, names)


def _cost_table(
    curves: Sequence[Curve],
    names: Mapping[tuple[object, ...], str],
    timings: Mapping[str, Any],
    sizes: Mapping[str, int | None],
) -> Table:
    models = model_names(curve.model for curve in curves)
    rows = []
    for curve in curves:
        point, whole = curve.points[-1], sizes.get(curve.model)
        fits = [one.fit for one in point.results]
        parameters = None if curve.method == ZERO_SHOT else int(fits[0]["num_parameters"])
        took = [timings[one.block] for one in point.results if one.block in timings and curve.method != ZERO_SHOT]
        peaks = [one["peak_memory_bytes"] for one in took if one.get("peak_memory_bytes")]
        rows.append(
            [
                models[curve.model] if len(models) > 1 else "",
                curve.task,
                names[curve.key],
                count(point.num_shots),
                count(parameters or 0),
                percent(parameters / whole) if parameters is not None and whole else percent(0.0),
                _mean(one.get("steps") for one in fits),
                _mean(one.get("selection_passes") for one in fits),
                _mean(one.get("example_passes") for one in fits),
                _seconds(one["search_s"] for one in took),
                _seconds(one["fit_s"] for one in took),
                size(max(peaks)) if peaks else MISSING,
            ]
        )
    heads = ["~model", "~task", "~method", "#shots", "#parameters", "#of the model's", "#steps", "#passes, search"]
    return make_table([*heads, "#passes, fit", "#s, search", "#s, fit", "#peak memory"], rows)


def _mean(numbers: Iterable[Any]) -> str:
    """A mean of counts, rounded; a dash where there are none."""
    known = [int(one) for one in numbers if one is not None]
    return count(round(sum(known) / len(known))) if known else MISSING


def _seconds(numbers: Iterable[float]) -> str:
    known = list(numbers)
    return three_digits(sum(known) / len(known)) if known else MISSING


def _fit_table(curves: Sequence[Curve], names: Mapping[tuple[object, ...], str]) -> Table:
    rows = [
        [
            curve.task,
            names[curve.key],
            count(point.num_shots),
            _searched(curve, point),
            _chosen(curve, point),
            _losses([one.fit for one in point.results]),
        ]
        for curve in curves
        for point in curve.points
    ]
    heads = ["~task", "~method", "#shots", "searched", "chosen (draws)", "#loss, first to last"]
    return make_table(heads, rows, fold="Settings, search and losses of every method and number of shots")


def _searched(curve: Curve, point: CurvePoint) -> str:
    if curve.method == ZERO_SHOT:
        return f"{point.results[0].num_candidates} cells"
    return f"{len(point.results[0].fit['grid'])} settings"


def _chosen(curve: Curve, point: CurvePoint) -> str:
    """What the draws chose, most often chosen first, with the number of draws that did."""
    if curve.method == ZERO_SHOT:
        shown = [_prompt(one.template, one.verbalizer, one.calibration) for one in point.results]
    else:
        shown = [_setting(one.fit) for one in point.results]
    distinct = sorted(dict.fromkeys(shown), key=lambda text: -shown.count(text))
    return "; ".join(f"{text} ({shown.count(text)})" if len(distinct) > 1 else text for text in distinct)


def _prompt(template: str, verbalizer: str, calibration: str) -> str:
    return " × ".join([template.rpartition("/")[2], verbalizer.rpartition("/")[2], calibration])


def _setting(fit: Mapping[str, Any]) -> str:
    """What tells the chosen setting from the others of its grid; `default` where nothing was searched."""
    grid, mine = fit["grid"], fit["setting"]
    flat = [{**one, **one["options"]} for one in grid]
    own = {**mine, **mine["options"]}
    told = [key for key in own if key != "options" and len({str(one.get(key)) for one in flat}) > 1]
    shown = ", ".join(f"{key.replace('_', ' ')} {own[key]}" for key in told) or "the only one"
    return shown if fit["rule"] != "default" or len(grid) == 1 else f"{shown} (default, not searched)"


def _losses(fits: Sequence[Mapping[str, Any]]) -> str:
    """Mean over draws of the loss of the first pass over the shots and of the last one."""
    losses = [fit["losses"] for fit in fits if fit.get("losses")]
    if not losses:
        return MISSING
    first, last = (sum(one[place] for one in losses) / len(losses) for place in (0, -1))
    return f"{three_digits(first)} to {three_digits(last)}"
