"""Fitted soft tokens -> what they became: nearest words, drift, and the accuracy when they are words again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptlab.learning import Curve, CurvePoint, Learning, Projection
from promptlab.reporting.document import Paragraph, Part, Subheading, Table, make_table
from promptlab.reporting.formats import MISSING, count, model_names, percent, plural, signed, signed_span, three_digits
from promptlab.results import Result

_INTRO = (
    "What the trained vectors became. "
    "The drift of a soft token is how far its vector went, over the length of the vector that it started from. "
    "Nearest are the words of the vocabulary whose embeddings have the highest cosine with it; the cosine stands in "
    "brackets. "
)
_PROJECTED = (
    "Projected is the accuracy when every soft token is put back to its nearest word, which makes the prompt a hard "
    "one again; the difference is projected minus fitted on the same rows and examples."
)


def soft_token_parts(learning: Learning, names: Mapping[tuple[object, ...], str]) -> Iterable[Part]:
    """A summary by number of shots, and folded every token of every draw; nothing where no soft token was fitted."""
    curves = [curve for curve in learning.curves if any(_tokens(one) for one in curve.points[-1].results)]
    if not curves:
        return
    yield Subheading("Soft tokens")
    yield Paragraph(_INTRO + (_PROJECTED if learning.projections else ""))
    yield _summary(curves, names, learning.projections)
    yield _whole(curves, names)


def _tokens(result: Result) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (result.fit.get("facts") or {}).get("soft_tokens") or ()
    return found


def _summary(
    curves: Sequence[Curve], names: Mapping[tuple[object, ...], str], projections: Sequence[Projection]
) -> Table:
    models = model_names(curve.model for curve in curves)
    projected = {(one.fitted.key, one.num_shots): one for one in projections}
    rows = [
        [
            models[curve.model] if len(models) > 1 else "",
            curve.task,
            names[curve.key],
            count(point.num_shots),
            *_drift(point),
            three_digits(point.accuracy.value),
            *_difference(projected.get((curve.key, point.num_shots))),
        ]
        for curve in curves
        for point in curve.points
    ]
    heads = ["~model", "~task", "~method", "#shots", "#tokens", "#mean drift", "#nearest is the start"]
    return make_table([*heads, "#accuracy", "#projected", "#difference", "#95 % interval"], rows)


def _drift(point: CurvePoint) -> list[str]:
    """How many tokens a draw has, their mean drift, and the share whose nearest word is the one they started from."""
    tokens = [token for result in point.results for token in _tokens(result)]
    drifts = [token["drift"] for token in tokens if token["drift"] is not None]
    drift = three_digits(sum(drifts) / len(drifts)) if drifts else MISSING
    at_start = sum(_nearest(token)[0][0] == token["word"] for token in tokens) / len(tokens)
    return [count(len(tokens) // len(point.results)), drift, percent(at_start)]


def _difference(projection: Projection | None) -> list[str]:
    """Left empty where nothing was projected, so that the columns go."""
    if projection is None:
        return ["", "", ""]
    ends = projection.difference.interval
    values = [three_digits(projection.accuracy.value), signed(projection.difference.value)]
    return [*values, signed_span(ends.low, ends.high)]


def _whole(curves: Sequence[Curve], names: Mapping[tuple[object, ...], str]) -> Table:
    """Every token at the largest number of shots; results.json has those of the others."""
    rows = [
        [
            curve.task,
            names[curve.key],
            count(result.draw),
            str(place),
            token["word"],
            ", ".join(f"{word} ({three_digits(cosine)})" for word, cosine in _nearest(token)),
            three_digits(token["drift"]),
        ]
        for curve in curves
        for result in curve.points[-1].results
        for place, token in enumerate(_tokens(result), start=1)
    ]
    heads = ["~task", "~method", "#draw", "#token", "`started from", "nearest words (cosine)", "#drift"]
    number = max(curve.points[-1].num_shots for curve in curves)
    return make_table(heads, rows, fold=f"{plural(len(rows), 'soft token')} at {number} shots, draw by draw")


def _nearest(token: Mapping[str, Any]) -> Sequence[tuple[str, float]]:
    found: Sequence[tuple[str, float]] = token["nearest"]
    return found
