"""SVG that is small, labelled and the same every time."""

from pathlib import Path

import promptlab.reporting
from promptlab.reporting.charts import CALIBRATION_COLOURS, COLOURS, GRID, INK, MUTED, PAPER, draw, tidy_svg
from promptlab.reporting.panels import forest_panels
from promptlab.reporting.spreads import make_grids
from tests.made_up_runs import cell, run


def test_tidy_svg_scales_and_speaks() -> None:
    """The size goes, the label comes, a mark's description becomes its title and numbers are cut."""
    raw = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="99.5" viewBox="0 0 400 99.5" version="1.1">'
        '<path aria-label="a &lt;b&gt;" role="graphics-symbol" opacity="0.5" d="M1.23456,2"/></svg>'
    )
    assert tidy_svg(raw, label='say "x"') == (
        '<svg viewBox="0 0 400 100" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="say &quot;x&quot;">'
        '<path opacity="0.5" d="M1.23,2"><title>a &lt;b&gt;</title></path></svg>'
    )


def test_equal_panels_give_equal_bytes() -> None:
    """Nothing about a chart depends on when or how often it is drawn, and no id can clash within a page."""
    [panel] = forest_panels(make_grids(run([cell("made/a"), cell("made/b", calibration="contextual")]))[0])
    drawn = draw(panel)
    assert drawn == draw(panel)
    assert " id=" not in drawn


def test_every_colour_has_one_for_a_dark_screen() -> None:
    """The stylesheet names every colour that charts are drawn in."""
    style = (Path(promptlab.reporting.__file__).parent / "report.css").read_text(encoding="utf-8")
    for colour in {*COLOURS, *CALIBRATION_COLOURS.values()}:
        assert f'svg [fill="{colour}"]' in style
        assert f'svg [stroke="{colour}"]' in style
    assert all(f'="{colour}"]' in style for colour in (INK, MUTED, GRID, PAPER))
