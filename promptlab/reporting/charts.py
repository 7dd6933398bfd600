"""Panels -> static SVG, drawn by Altair through vl-convert when the report is built; equal panels give equal bytes.

Every mark carries its numbers as a `title`, which a browser shows without a script. The few colours are constants, so
that the page can put others in their place on a dark screen.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import singledispatch
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from promptlab.reporting.panels import ChangePanel, CurvePanel, ForestPanel, Line, MassPanel, Panel, Point, SpreadPanel

if TYPE_CHECKING:
    import altair

INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#e2e6ea", "#ffffff"
CALIBRATION_COLOURS = {"none": "#0b68a8", "contextual": "#c8500b"}
COLOURS = ("#0b68a8", "#c8500b", "#137a5f", "#8a3a8f", "#8f6a00", "#5b5f97", "#9c2f3f", "#3d7a1d")
PLOT_WIDTH, LABEL_WIDTH, PANEL_WIDTH = 228, 118, 372
_LABEL_ROW = 12
_CHARACTER_WIDTH = 5.2
_POWERS = [10.0**power for power in range(-9, 1)]
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_MARK = "graphics-symbol"
_HIDDEN = {"class", "role", "aria-roledescription", "aria-hidden", "aria-label", "pointer-events", "opacity"}


def draw(panel: Panel) -> str:
    """A panel as an SVG element that scales with its container."""
    stream = io.StringIO()
    _configured(_chart(panel)).save(stream, format="svg")
    return tidy_svg(stream.getvalue(), label=panel.alt)


def tidy_svg(svg: str, *, label: str) -> str:
    """SVG as it stands inside a page: scalable, labelled, with titles on its marks and short numbers."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        text = element.get("aria-label") if element.get("role") == _MARK else None
        for name in _HIDDEN & set(element.attrib):
            if name != "opacity" or element.get(name) == "1":
                del element.attrib[name]
        for name in {"d", "transform"} & set(element.attrib):
            element.set(name, _LONG_NUMBER.sub(_shortened, element.attrib[name]))
        if text and element.tag == "path":
            title = ElementTree.SubElement(element, "title")
            title.text = text
    width, height = (math.ceil(float(root.attrib.pop(name))) for name in ("width", "height"))
    root.attrib.pop("version", None)
    root.set("viewBox", f"0 0 {max(width, PANEL_WIDTH)} {height}")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def _shortened(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


@singledispatch
def _chart(panel: Any) -> altair.TopLevelMixin:
    raise TypeError(f"{type(panel).__name__} is no panel")


@_chart.register(SpreadPanel)
def _spread_chart(panel: SpreadPanel) -> altair.TopLevelMixin:
    import altair as alt

    series = list(dict.fromkeys(point.series for point in panel.points))
    names = list(dict.fromkeys(point.name for point in panel.points))
    height = _height(len(names), len(series))
    layers = [*_baselines(panel.lines, panel.domain, height), *_dots(panel, panel.points, names, series)]
    return alt.layer(*layers).properties(width=PLOT_WIDTH, height=height, title=_title(panel.title))


@_chart.register(ForestPanel)
def _forest_chart(panel: ForestPanel) -> altair.TopLevelMixin:
    """Instructive templates above, controls below on the same axis."""
    import altair as alt

    groups = [
        [point for point in panel.points if (point.kind == "instructive") is is_instructive]
        for is_instructive in (True, False)
    ]
    parts: list[altair.LayerChart | altair.FacetChart] = []
    for points in filter(None, groups):
        names = [name for name in panel.order if any(point.name == name for point in points)]
        height = _height(len(names), len(panel.series))
        is_first, is_last = not parts, points is [some for some in groups if some][-1]
        lines = panel.lines if is_first else [Line(line.value, "") for line in panel.lines]
        layers = _dots(panel, points, names, panel.series, has_axis=is_last)
        rules = _baselines(lines, panel.domain, height)
        parts.append(alt.layer(*rules, *layers).properties(width=PLOT_WIDTH, height=height))
    return alt.vconcat(*parts, spacing=10).properties(title=_title(panel.title))


@_chart.register(ChangePanel)
def _change_chart(panel: ChangePanel) -> altair.TopLevelMixin:
    import altair as alt

    x = alt.X(
        "prior:Q",
        title="largest content-free prior (probability)",
        scale=alt.Scale(domain=[math.floor(100 / panel.num_labels) / 100, 1], nice=False),
        axis=alt.Axis(format=".1f", tickCount=6, grid=False),
    )
    axis = alt.Axis(format=".2f", values=_ticks(panel.domain), titlePadding=12)
    scale = alt.Scale(domain=list(panel.domain), nice=False, zero=False)
    base = alt.Chart(_data(panel.moves)).encode(x=x, color=_colour(panel.series, columns=1), description="text:N")
    y = alt.Y("before:Q", title=panel.metric, scale=scale, axis=axis)
    stem = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y=y, y2="after:Q")
    old = base.mark_point(size=26, filled=False, fill=PAPER, opacity=1, strokeWidth=1.5).encode(y=y)
    new = base.mark_point(size=32, filled=True, opacity=1).encode(y=alt.Y("after:Q"))
    rules = alt.Chart(_data(panel.lines)).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=alt.Y("value:Q"))
    subtitle = [
        f"hollow: before, filled: after {panel.calibration}",
        *(f"dashed: {line.label}" for line in panel.lines),
    ]
    title = alt.TitleParams(panel.title, subtitle=subtitle, anchor="start", frame="bounds")
    return alt.layer(rules, stem, old, new).properties(width=PLOT_WIDTH + LABEL_WIDTH - 52, height=230, title=title)


@_chart.register(MassPanel)
def _mass_chart(panel: MassPanel) -> altair.TopLevelMixin:
    import altair as alt

    height = 16 * len(panel.order)
    scale = alt.Scale(type="log", domain=[min([point.value for point in panel.points] + [panel.limit]) / 2, 1])
    x = alt.X(
        "value:Q",
        title="mass on label words (log scale)",
        scale=scale,
        axis=alt.Axis(format="~%", values=_POWERS, labelFlush=False, labelOverlap="greedy"),
    )
    dots = alt.Chart(_data(panel.points)).mark_point(size=34, filled=True, opacity=0.85)
    dots = dots.encode(
        x=x,
        y=alt.Y("name:N", sort=list(panel.order), title=None, axis=_name_axis()),
        color=_colour(panel.series, columns=1),
        shape=_shape(),
        description="text:N",
    )
    rule = alt.Chart(_data([Line(panel.limit, "1 %")]))
    limit = rule.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(x=alt.X("value:Q"))
    return alt.layer(limit, dots).properties(width=PLOT_WIDTH, height=height, title=_title(panel.title))


@_chart.register(CurvePanel)
def _curve_chart(panel: CurvePanel) -> altair.TopLevelMixin:
    """Lines over a logarithmic axis; a point is drawn a little beside its place, so that intervals do not hide."""
    import altair as alt

    numbers = sorted({int(point.name) for point in panel.points})
    step = 0.03 * (math.log(numbers[-1] / numbers[0]) or 1.0)
    middle = (len(panel.series) - 1) / 2
    rows = [
        {**asdict(point), "at": int(point.name) * math.exp(step * (panel.series.index(point.series) - middle))}
        for point in panel.points
    ]
    ends = [numbers[0] / math.exp(step * (middle + 1)), numbers[-1] * math.exp(step * (middle + 1))]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "at:Q",
            title="labelled examples a label (log scale)",
            scale=alt.Scale(type="log", domain=ends, nice=False),
            axis=alt.Axis(values=numbers, format="d", grid=False, labelOverlap=False),
        ),
        color=_colour(panel.series, columns=2, padding=32),
        description="text:N",
    )
    scale = alt.Scale(domain=list(panel.domain), nice=False, zero=False)
    axis = alt.Axis(format=".2f", values=_ticks(panel.domain), titlePadding=12)
    line = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(
        y=alt.Y("value:Q", title=panel.metric, scale=scale, axis=axis)
    )
    interval = base.mark_rule(strokeWidth=1.2, opacity=0.5).encode(y=alt.Y("low:Q", title=panel.metric), y2="high:Q")
    dot = base.mark_point(size=30, filled=True, opacity=1).encode(y=alt.Y("value:Q"))
    whole = alt.layer(interval, line, dot)
    return whole.properties(width=PLOT_WIDTH + LABEL_WIDTH - 52, height=230, title=_title(panel.title))


def _dots(
    panel: SpreadPanel | ForestPanel,
    points: Sequence[Point],
    names: Sequence[str],
    series: Sequence[str],
    *,
    has_axis: bool = True,
) -> list[altair.Chart]:
    """Interval and dot of every point, dodged by series; controls are hollow diamonds."""
    import altair as alt

    colours = _palette(series)
    base = alt.Chart(_data(points, colours=colours)).encode(
        y=alt.Y("name:N", sort=list(names), title=None, axis=_name_axis(), scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("series:N", sort=list(series)),
        description="text:N",
    )
    x = alt.X(
        "low:Q",
        title=panel.metric if has_axis else None,
        scale=alt.Scale(domain=list(panel.domain), nice=False, zero=False),
        axis=alt.Axis(
            format=".2f",
            values=_ticks(panel.domain),
            labelFlush=False,
            labels=has_axis,
            ticks=has_axis,
            domain=has_axis,
        ),
    )
    interval = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=x, x2="high:Q", color=_colour(series))
    dot = base.mark_point(size=30, filled=False, opacity=1, strokeWidth=1.5).encode(
        x=alt.X("value:Q"),
        shape=_shape(),
        stroke=alt.Stroke("colour:N", scale=None),
        fill=alt.Fill("fill:N", scale=None),
    )
    return [interval, dot]


def _baselines(lines: Sequence[Line], domain: tuple[float, float], height: int) -> list[altair.Chart]:
    """A rule a baseline; its label stands above the plot, each in a row of its own, and cuts the rules behind it."""
    import altair as alt

    rules, labels = [], []
    for row, line in enumerate(lines):
        top = -_LABEL_ROW * row if line.label else 0
        base = alt.Chart(_data([line]))
        rule = base.mark_rule(color=MUTED, strokeDash=[3, 3])
        rules.append(rule.encode(x=alt.X("value:Q"), y=alt.value(top), y2=alt.value(height)))
        place = (line.value - domain[0]) / (domain[1] - domain[0]) * PLOT_WIDTH
        width = _CHARACTER_WIDTH * len(line.label)
        left = max(-LABEL_WIDTH, min(place - width / 2, PLOT_WIDTH - width))
        text = base.mark_text(align="left", baseline="bottom", fontSize=10, color=MUTED)
        halo = base.mark_text(align="left", baseline="bottom", fontSize=10, stroke=PAPER, strokeWidth=4, color=PAPER)
        place_of = {"x": alt.value(round(left)), "y": alt.value(top - 1), "text": "label:N"}
        labels += [halo.encode(**place_of), text.encode(**place_of)] if line.label else []
    return [*rules, *labels]


def _ticks(domain: tuple[float, float]) -> list[float]:
    """At most six round values on an axis."""
    low, high = domain
    step = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step < 5.5), high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 4) for number in range(first, last + 1)]


def _height(num_names: int, num_series: int) -> int:
    return num_names * (9 * num_series + 8)


def _title(text: str) -> altair.TitleParams:
    import altair as alt

    return alt.TitleParams(text, anchor="start", frame="bounds", offset=6)


def _name_axis() -> altair.Axis:
    """Names in a column of fixed width, so that the plots of several panels stand in line."""
    import altair as alt

    return alt.Axis(
        minExtent=LABEL_WIDTH, maxExtent=LABEL_WIDTH, labelLimit=LABEL_WIDTH - 6, ticks=False, domain=False, grid=True
    )


def _colour(series: Sequence[str], *, columns: int = 3, padding: int = 10) -> altair.Color:
    """Colour by series, with its legend below the plot."""
    import altair as alt

    legend = alt.Legend(
        orient="bottom",
        title=None,
        columns=columns,
        columnPadding=padding,
        labelLimit=300,
        symbolOpacity=1,
        symbolStrokeWidth=3,
    )
    colours = _palette(series)
    return alt.Color("series:N", scale=alt.Scale(domain=list(series), range=list(colours.values())), legend=legend)


def _shape() -> altair.Shape:
    import altair as alt

    kinds = ["instructive", "irrelevant", "misleading", "null"]
    scale = alt.Scale(domain=kinds, range=["circle", "diamond", "diamond", "diamond"])
    return alt.Shape("kind:N", scale=scale, legend=None)


def _palette(series: Sequence[str]) -> dict[str, str]:
    """A colour a series: calibrations keep theirs in every run."""
    cycle = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(series)}
    return cycle | {name: colour for name, colour in CALIBRATION_COLOURS.items() if name in cycle}


def _data(values: Iterable[Any], *, colours: Mapping[str, str] | None = None) -> altair.InlineData:
    """Values as rows; with colours, controls are hollow."""
    import altair as alt

    rows = [asdict(value) for value in values]
    for row in rows if colours else ():
        colour = (colours or {})[row["series"]]
        row |= {"colour": colour, "fill": colour if row["kind"] == "instructive" else PAPER}
    return alt.InlineData(values=rows)


def _configured(chart: Any) -> Any:
    """Calm defaults: one font, few grid lines, no frame."""
    font = "system-ui, sans-serif"
    return (
        chart.configure(background="transparent", font=font, padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=11,
            gridColor=GRID,
            domainColor=MUTED,
            tickColor=MUTED,
        )
        .configure_legend(labelColor=INK, labelFontSize=11, padding=2, offset=6)
        .configure_title(color=INK, subtitleColor=MUTED, fontSize=12, subtitleFontSize=10, fontWeight=600)
    )
