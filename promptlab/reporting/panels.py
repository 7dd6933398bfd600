"""Stored cells -> the points and lines of each chart, before anything is drawn.

A panel is narrow, so that it reads on a small screen, and panels of one task share their axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptlab.reporting.cautions import LOW_MASS
from promptlab.reporting.formats import percent, plural, span, three_digits
from promptlab.reporting.naming import CHART_WIDTH
from promptlab.reporting.spreads import UNCALIBRATED, Grid, Headline, before_and_after, headlines, kind_of, most_likely
from promptlab.reporting.spreads import template_order as order_templates
from promptlab.results import Result

SMALLEST_MASS = 1e-9
_AIR = 0.005
_CONSTANTS = ("uniform", "majority_train", "majority_test")


@dataclass(frozen=True, slots=True)
class Line:
    """A labelled line at a value of the axis."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval; `series` gives the colour, `text` is what is shown when one points at it."""

    name: str
    kind: str
    series: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class SpreadPanel:
    """Median and range a calibration, for instructive templates and for each control."""

    title: str
    metric: str
    points: tuple[Point, ...]
    lines: tuple[Line, ...]
    domain: tuple[float, float]
    alt: str


@dataclass(frozen=True, slots=True)
class ForestPanel:
    """Every template with one verbalizer, a dot with its interval a calibration."""

    title: str
    metric: str
    points: tuple[Point, ...]
    order: tuple[str, ...]
    series: tuple[str, ...]
    lines: tuple[Line, ...]
    domain: tuple[float, float]
    alt: str


@dataclass(frozen=True, slots=True)
class Move:
    """One template x verbalizer before and after calibration; `prior` is its largest content-free probability."""

    series: str
    prior: float
    before: float
    after: float
    text: str


@dataclass(frozen=True, slots=True)
class ChangePanel:
    """What one calibration changed, by how one-sided the content-free prior is."""

    title: str
    metric: str
    calibration: str
    moves: tuple[Move, ...]
    series: tuple[str, ...]
    lines: tuple[Line, ...]
    domain: tuple[float, float]
    num_labels: int
    alt: str


@dataclass(frozen=True, slots=True)
class MassPanel:
    """The probability that the label words have together, a dot a template x verbalizer."""

    title: str
    points: tuple[Point, ...]
    order: tuple[str, ...]
    series: tuple[str, ...]
    limit: float
    alt: str


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """A measure over the number of labelled examples, which is the name of each point; a line a series."""

    title: str
    metric: str
    points: tuple[Point, ...]
    series: tuple[str, ...]
    domain: tuple[float, float]
    alt: str


Panel = SpreadPanel | ForestPanel | ChangePanel | MassPanel | CurvePanel


def spread_panel(grid: Grid, title: str) -> SpreadPanel | None:
    """The headline of a grid with its controls."""
    points = tuple(point for headline in headlines(grid) for point in _spread_points(headline))
    if grid.metric is None or not points:
        return None
    lines = _lines(grid)
    alt = f"Median and range of {grid.metric} on {grid.task}: " + "; ".join(point.text for point in points)
    return SpreadPanel(title, grid.metric, points, lines, _domain(_ends(points), lines), _with_lines(alt, lines))


def forest_panels(grid: Grid) -> list[ForestPanel]:
    """One forest a verbalizer, with the same templates in the same order on the same axis."""
    names = grid.templates(CHART_WIDTH)
    verbalizers = grid.verbalizers()
    lines = _lines(grid)
    points = {
        verbalizer: tuple(
            point
            for cell in grid.decided
            if cell.verbalizer == verbalizer and (point := _forest_point(grid, cell, names[cell.template]))
        )
        for verbalizer in verbalizers
    }
    domain = _domain([end for some in points.values() for end in _ends(some)], lines)
    order = [names[template] for template in order_templates(grid)]
    return [
        ForestPanel(
            title=verbalizers[verbalizer],
            metric=str(grid.metric),
            points=some,
            order=tuple(name for name in order if any(point.name == name for point in some)),
            series=tuple(grid.calibrations),
            lines=lines,
            domain=domain,
            alt=_with_lines(_forest_alt(grid, verbalizers[verbalizer], some), lines),
        )
        for verbalizer, some in points.items()
        if some
    ]


def change_panels(grid: Grid, title: str) -> list[ChangePanel]:
    """One panel a calibration that the grid can be compared without."""
    panels = []
    names = grid.templates(CHART_WIDTH)
    verbalizers = grid.verbalizers()
    for calibration in grid.calibrations:
        twins = before_and_after(grid, calibration)
        if calibration == UNCALIBRATED or not twins:
            continue
        moves = tuple(_move(grid, pair, names, verbalizers) for pair in twins)
        risen = sum(move.after > move.before for move in moves)
        alt = (
            f"{grid.metric} on {grid.task} before and after {calibration} calibration, by the largest content-free "
            f"prior: it rose in {risen} of {plural(len(moves), 'template x verbalizer pair')}."
        )
        panels.append(
            ChangePanel(
                title=title,
                metric=str(grid.metric),
                calibration=calibration,
                moves=moves,
                series=tuple(dict.fromkeys(move.series for move in moves)),
                lines=_lines(grid),
                domain=_domain([end for move in moves for end in (move.before, move.after)], _lines(grid)),
                num_labels=len(grid.labels),
                alt=alt,
            )
        )
    return panels


def mass_panel(grid: Grid, title: str) -> MassPanel | None:
    """Mass of every template x verbalizer pair, in the order of the forest."""
    names = grid.templates(CHART_WIDTH)
    verbalizers = grid.verbalizers()
    points = tuple(
        _mass_point(cell, cell.mass, names[cell.template], verbalizers[cell.verbalizer])
        for cell in grid.pairs()
        if cell.mass is not None
    )
    if not points:
        return None
    low = sum(point.value < LOW_MASS for point in points)
    return MassPanel(
        title=title,
        points=points,
        order=tuple(names[template] for template in order_templates(grid)),
        series=tuple(dict.fromkeys(point.series for point in points)),
        limit=LOW_MASS,
        alt=f"Mass on label words on {grid.task}, log scale: {low} of {len(points)} pairs lie below 1 %.",
    )


def _spread_points(headline: Headline) -> list[Point]:
    return [
        Point(
            name=kind,
            kind=kind,
            series=headline.calibration,
            value=spread.median,
            low=spread.low,
            high=spread.high,
            text=f"{kind}, {headline.calibration}: median {three_digits(spread.median)}, "
            f"{span(spread.low, spread.high)} over {plural(spread.num_cells, 'cell')}",
        )
        for kind, spread in headline.kinds.items()
    ]


def _forest_point(grid: Grid, cell: Result, name: str) -> Point | None:
    value = grid.value(cell)
    if value is None:
        return None
    text = f"{name}, {cell.calibration}: {three_digits(value.value)} ({span(value.low, value.high)})"
    return Point(name, kind_of(cell), cell.calibration, value.value, value.low, value.high, text)


def _forest_alt(grid: Grid, verbalizer: str, points: Sequence[Point]) -> str:
    values = [point.value for point in points]
    num_templates = plural(len({point.name for point in points}), "template")
    return (
        f"Forest of {num_templates} on {grid.task} with verbalizer {verbalizer}: {grid.metric} from "
        f"{span(min(values), max(values))}."
    )


def _move(grid: Grid, pair: tuple[Result, Result], names: Mapping[str, str], verbalizers: Mapping[str, str]) -> Move:
    before, after = (grid.numbers([cell])[0] for cell in pair)
    label, prior = most_likely(pair[0])
    text = (
        f"{names[pair[0].template]}, {verbalizers[pair[0].verbalizer]}: {three_digits(before)} to "
        f"{three_digits(after)}; content-free prior {three_digits(prior)} for {label}"
    )
    return Move(verbalizers[pair[0].verbalizer], prior, before, after, text)


def _mass_point(cell: Result, mass: float, name: str, verbalizer: str) -> Point:
    shown = max(mass, SMALLEST_MASS)
    return Point(name, kind_of(cell), verbalizer, shown, shown, shown, f"{name}, {verbalizer}: {percent(mass)}")


def _lines(grid: Grid) -> tuple[Line, ...]:
    """Baselines of the headline metric; those that show the same three digits share one line."""
    groups: dict[str, list[str]] = {}
    for name in _CONSTANTS:
        if name in grid.baselines:
            groups.setdefault(three_digits(grid.baselines[name]), []).append(name)
    return tuple(Line(grid.baselines[names[0]], f"{_merged(names)} {digits}") for digits, names in groups.items())


def _merged(names: Sequence[str]) -> str:
    """What a line is called that stands for several baselines."""
    splits = [name.removeprefix("majority_") for name in names if name != "uniform"]
    majority = {"test": "majority of test (oracle)"}.get("+".join(splits), f"majority of {' and '.join(splits)}")
    return ", ".join([*(["uniform"] if "uniform" in names else []), *([majority] if splits else [])])


def _domain(values: Iterable[float], lines: Iterable[Line]) -> tuple[float, float]:
    """An axis that holds every value and baseline with some air, in steps of 0.05; shares stay within 0 and 1."""
    held = [*values, *(line.value for line in lines)]
    low, high = min(held, default=0.0), max(held, default=1.0)
    ends = math.floor((low - _AIR) * 20) / 20, math.ceil((high + _AIR) * 20) / 20
    return max(ends[0], min(low, 0.0)), min(ends[1], max(high, 1.0))


def _ends(points: Iterable[Point]) -> list[float]:
    return [end for point in points for end in (point.low, point.high)]


def _with_lines(alt: str, lines: Sequence[Line]) -> str:
    return f"{alt.rstrip('.')}. Lines: {'; '.join(line.label for line in lines)}." if lines else alt
