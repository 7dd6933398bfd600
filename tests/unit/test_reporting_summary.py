"""The lines that a terminal shows after a run."""

from dataclasses import replace
from statistics import median

from promptlab.reporting.summary import summary_lines
from promptlab.results import Result
from tests.made_up_runs import agreement, cell, ensemble, grid_cells, metric, run


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


def test_the_share_of_rows_that_were_cut_is_said() -> None:
    """The largest share of rows over templates and tasks, and with how many of them any row was cut."""
    cells = [replace(item, num_truncated=12 if item.template == "made/just" else 0) for item in grid_cells()]
    cells += [replace(item, task="news", num_truncated=7) for item in grid_cells()]
    assert "rows shortened to fit in 5 of 8 task x template pairs, at most 12.0 % of rows" in summary_lines(run(cells))
    assert not [line for line in summary_lines(run(grid_cells())) if "shortened" in line]


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


def unlabelled() -> list[Result]:
    """The cells of the grid without metrics; of 100 rows more get the second label the later a cell comes."""
    return [replace(item, metrics={}, predicted={"negative": 60 - number, "positive": 40 + number})
            for number, item in enumerate(grid_cells())]  # fmt: skip


def test_a_large_run_without_gold_labels_is_one_line_a_calibration() -> None:
    """The median share of rows that get each label, over instructive templates, and how many cells that is."""
    cells = [item for item in unlabelled() if item.skipped is None]
    lines = summary_lines(run(cells))
    assert ["task", "calibration", "cells", "predicted"] == lines[0].split()
    for line, calibration in zip(lines[1:3], ("none", "contextual"), strict=True):
        shares = [item.predicted["positive"] / 100 for item in cells
                  if item.calibration == calibration and item.template_tags == ("instructive",)]  # fmt: skip
        positive = f"{100 * median(shares):.1f} %"
        negative = f"{100 - 100 * median(shares):.1f} %"
        assert f"reviews  {calibration} 4 negative {negative}, positive {positive}".split() == line.split()
    assert "no gold labels: median share of rows over instructive templates" == lines[3]


def test_tasks_with_and_without_gold_labels_have_a_table_each() -> None:
    """What is measured comes first, with a blank line between."""
    cells = [*grid_cells(), *(replace(item, task="news") for item in unlabelled())]
    lines = summary_lines(run(cells))
    first, second = lines.index(""), len(lines) - next(n for n, line in enumerate(lines[::-1]) if "no gold" in line)
    assert "accuracy: median and min-max over instructive templates; majority of train" == lines[first - 1]
    assert ["task", "calibration", "cells", "predicted"] == lines[first + 1].split()
    assert first + 5 == second


def test_agreement_is_said_where_nothing_can_be_measured() -> None:
    """From the lowest to the highest over verbalizers and calibrations; with gold labels it stands in the report."""
    both = (agreement(value=0.615), agreement("made/great_terrible", value=0.92))
    found = summary_lines(replace(run(unlabelled()), agreements=both))
    assert "two templates predict the same label for 61.5 % to 92.0 % of the rows of reviews" in found
    one = summary_lines(replace(run(unlabelled()), agreements=both[:1]))
    assert "two templates predict the same label for 61.5 % of the rows of reviews" in one
    assert not [line for line in summary_lines(replace(run(grid_cells()), agreements=both)) if "two templates" in line]


def test_an_ensemble_is_one_sentence() -> None:
    """By calibration, the median over verbalizers; the table of templates is the same with it and without."""
    values = {"none": (0.5, 0.6), "contextual": (0.7, 0.9)}
    ensembles = [ensemble("all", name, calibration, metrics={"accuracy": metric(value)})
                 for calibration, pair in values.items()
                 for name, value in zip(("made/good_bad", "made/great_terrible"), pair, strict=True)]  # fmt: skip
    lines = summary_lines(run([*grid_cells(), *ensembles]))
    said = "ensemble:all on reviews, median over verbalizers: none 0.550, contextual 0.800"
    assert said in lines
    assert summary_lines(run(grid_cells())) == [line for line in lines if line != said]


def test_a_skipped_ensemble_says_why() -> None:
    """It is not lost in silence."""
    lost = ensemble("all", metrics={}, skipped="a member was skipped: a word splits")
    lines = summary_lines(run([*grid_cells(), lost]))
    assert "ensemble:all on reviews skipped in 1 cell: a member was skipped: a word splits" in lines


def test_long_notes_are_wrapped() -> None:
    """No line of ensembles, agreement or shares is wider than a terminal."""
    name = "a_very_long_name_" * 6
    cells = [replace(item, task=f"task_{name}", model=f"org/{model}_{name}") for model in "ab" for item in unlabelled()]
    cells += [replace(item, task=f"task_{name}", model=f"org/a_{name}", metrics={}) for item in [ensemble(name)]]
    cells += [replace(item, model=f"org/a_{name}") for item in [*grid_cells(), ensemble(name)]]
    spoken = tuple(replace(agreement(), task=f"task_{name}", model=f"org/{model}_{name}") for model in "ab")
    lines = summary_lines(replace(run(cells), agreements=spoken))
    assert [] == [line for line in lines if len(line) > 80]
