"""What each chart shows, before it is drawn."""

from dataclasses import replace

from promptlab.reporting.panels import change_panels, forest_panels, mass_panel, spread_panel
from promptlab.reporting.spreads import make_grids
from tests.made_up_runs import cell, ensemble, grid_cells, metric, run


def test_forest_has_every_template_in_one_order() -> None:
    """A panel a verbalizer, with the same order, axis and baselines in each; a skipped verbalizer has none."""
    panels = forest_panels(make_grids(run(grid_cells()))[0])
    assert [panel.title for panel in panels] == ["good_bad", "great_terrible"]
    assert {panel.order for panel in panels} == {("just", "it_was", "why", "null")}
    assert [len(panel.points) for panel in panels] == [8, 8]
    assert len({(panel.domain, panel.lines) for panel in panels}) == 1


def test_axis_holds_every_interval_and_baseline() -> None:
    """No interval or baseline lies on the edge of the axis, and an accuracy stays within 0 and 1."""
    wide = [
        cell("made/a", metrics={"accuracy": metric(0.97, 0.03)}),
        cell("made/b", metrics={"accuracy": metric(0.02, 0.02)}),
    ]
    assert forest_panels(make_grids(run(wide))[0])[0].domain == (0.0, 1.0)
    low, high = forest_panels(make_grids(run([cell("made/a")]))[0])[0].domain
    assert low < 0.45 < 0.55 < high


def test_equal_baselines_share_a_line() -> None:
    """Baselines that show the same digits are one line with all their names."""
    results = run([cell("made/a")])
    equal = tuple(replace(baseline, metrics={"accuracy": 0.5}) for baseline in results.baselines)
    results = replace(results, baselines=equal)
    panel = spread_panel(make_grids(results)[0], "reviews")
    assert panel is not None
    assert [line.label for line in panel.lines] == ["uniform, majority of train and test 0.500"]


def test_other_baselines_have_their_own_line() -> None:
    """The majority of the scored rows is called an oracle."""
    panel = spread_panel(make_grids(run([cell("made/a")]))[0], "reviews")
    assert panel is not None
    assert [line.label for line in panel.lines] == [
        "uniform 0.500",
        "majority of train 0.450",
        "majority of test (oracle) 0.550",
    ]


def test_change_shows_each_pair_once() -> None:
    """A move a template and verbalizer, by the largest content-free prior; controls are left out."""
    [panel] = change_panels(make_grids(run(grid_cells()))[0], "reviews")
    assert len(panel.moves) == 4
    assert {move.prior for move in panel.moves} == {0.7}
    assert all(move.after > move.before for move in panel.moves)
    assert "it rose in 4 of 4" in panel.alt


def test_mass_of_nothing_still_has_a_place() -> None:
    """A mass of 0 has no logarithm: it is drawn at the smallest mass, and its text tells the truth."""
    panel = mass_panel(make_grids(run([cell("made/a", mass=0.0)]))[0], "reviews")
    assert panel is not None
    assert (panel.points[0].value, panel.points[0].text) == (1e-9, "a, good_bad: 0 %")


def test_no_chart_shows_an_ensemble_as_a_template() -> None:
    """Every panel is the same with an ensemble in the run and without."""
    ensembles = [
        ensemble("all", calibration=name, metrics={"accuracy": metric(0.9)}) for name in ("none", "contextual")
    ]
    [without], [grid] = make_grids(run(grid_cells())), make_grids(run([*grid_cells(), *ensembles]))
    for draw in (spread_panel, mass_panel, change_panels):
        assert draw(without, "reviews") == draw(grid, "reviews")
    assert forest_panels(without) == forest_panels(grid)
