"""The lines that a terminal shows after a run."""

from dataclasses import replace

from promptlab.reporting.summary import summary_lines
from tests.made_up_runs import cell, grid_cells, metric, run


def test_grid_is_one_line_a_calibration() -> None:
    """A grid shows median, range, majority of train and cells, and counts what was skipped with the first reason."""
    lines = summary_lines(run(grid_cells()))
    assert lines[0].split() == ["task", "calibration", "median", "min-max", "majority", "cells"]
    assert lines[1].split() == ["reviews", "none", "0.425", "0.400-0.450", "0.450", "4"]
    assert lines[2].split() == ["reviews", "contextual", "0.445", "0.420-0.470", "0.450", "4"]
    assert lines[3] == "accuracy: median and min-max over instructive templates; majority of train"
    assert "skipped 2 of 18 cells, first reason: verbalizers/made/odd.yaml" in " ".join(lines)


def test_small_run_is_one_line_a_cell() -> None:
    """At most 12 decided cells are shown one by one, with interval and mass."""
    lines = summary_lines(run([cell("made/it_was", metrics={"accuracy": metric(0.712, 0.1)}, mass=0.004)]))
    assert lines[0] == "mini on reviews, 100 rows of test, majority of train 0.450"
    assert lines[2].split() == ["it_was", "good_bad", "none", "0.712", "0.612-0.812", "0.400", "%"]
    assert lines[3] == "mass on label words below 1 % in 1 of 1 template x verbalizer pair"


def test_lines_fit_the_terminal() -> None:
    """No line is wider than asked for, however long the names are."""
    name = "made/" + "a_very_long_name_" * 5
    for count in (1, 20):
        cells = [cell(f"{name}{n}", name, task="t" * 60, skipped=None) for n in range(count)]
        for width in (80, 100):
            assert max(map(len, summary_lines(run(cells), width))) <= width


def test_run_without_gold_labels_shows_predictions() -> None:
    """Without gold labels there is no metric, but the label that is predicted most and its share."""
    lines = summary_lines(run([cell("made/it_was", metrics={})]))
    assert lines[1].split() == ["template", "verbalizer", "calibration", "most", "predicted", "share", "mass"]
    assert lines[2].split()[3:6] == ["positive", "60.0", "%"]


def test_all_skipped_is_said() -> None:
    """A run in which nothing was decided has no table, only the count and the reason."""
    skipped = [replace(item, skipped="a word splits", metrics={}) for item in grid_cells()]
    assert summary_lines(run(skipped)) == ["skipped 18 of 18 cells, first reason: a word splits"]


def test_several_models_have_a_column() -> None:
    """Two models are told apart in the first column, by the last folder of a path."""
    cells = [replace(item, model=model) for model in ("/somewhere/one", "two") for item in grid_cells()]
    lines = summary_lines(run(cells))
    assert lines[0].split()[0] == "model"
    assert [line.split()[0] for line in lines[1:5]] == ["one", "one", "two", "two"]
