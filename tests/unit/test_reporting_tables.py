"""The flat table of cells, as a frame and as CSV."""

import csv
import io
from pathlib import Path

import numpy as np

from promptlab.reporting.tables import to_csv, to_frame
from promptlab.results import MetricValue
from tests.made_up_learning import ROWS, few_shot_run, right_tables
from tests.made_up_runs import cell, ensemble, grid_cells, metric, run


def test_frame_has_one_row_a_cell() -> None:
    """Metrics are flat columns with their interval; a skipped cell has none and says why."""
    frame = to_frame(run(grid_cells()))
    assert len(frame) == 18
    first = frame.iloc[0]
    assert (first.accuracy, round(first.accuracy_low, 9), first.accuracy_high) == (0.40, 0.35, 0.45)
    assert tuple(first[["prior_label", "prior", "predicted_label", "predicted_share"]]) == (
        "positive",
        0.7,
        "positive",
        0.6,
    )
    assert 2 == frame.skipped.notna().sum() == frame.accuracy.isna().sum()


def test_csv_says_the_same_as_the_frame() -> None:
    """CSV has the frame's columns, one line a cell, full digits, and nothing where there is nothing."""
    results = run(grid_cells())
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    frame = to_frame(results)
    assert list(frame.columns) == list(rows[0])
    assert [f"{value}" if value == value else "" for value in frame.accuracy] == [row["accuracy"] for row in rows]


def test_columns_do_not_depend_on_the_order_of_metrics() -> None:
    """The headline metric comes first and the others follow by name, however a cell lists them."""
    other = MetricValue(1.0, 0.9, 1.1, "bootstrap", 0.95, False)
    values = {"nll": other, "accuracy": metric(0.5), "macro_f1": metric(0.4)}
    forward = run([cell("made/a", metrics=values)])
    backward = run([cell("made/a", metrics=dict(reversed(values.items())))])
    assert to_csv(forward) == to_csv(backward)
    wanted = ["accuracy", "macro_f1", "nll"]
    assert wanted == [name for name in to_frame(forward).columns if name in wanted]


def test_an_ensemble_is_a_row_of_its_own_kind() -> None:
    """It says how many templates it averages; a template says none."""
    frame = to_frame(run([cell("made/it_was"), cell("made/null"), ensemble("all")]))
    assert ["instructive", "null", "ensemble"] == frame.kind.tolist()
    assert [0, 0, 2] == frame.num_members.tolist()
    assert "ensemble:all" == frame.template[2]


def test_a_cell_says_how_many_prompts_its_calibration_asked() -> None:
    """A reader of the CSV sees what a prior rests on."""
    frame = to_frame(run([cell("made/it_was", calibration="domain", num_calibration_prompts=20)]))
    assert [20] == frame.num_calibration_prompts.tolist()


def test_few_shot_results_are_rows_behind_the_cells(tmp_path: Path) -> None:
    """They say their method, number of shots and draw; a cell says zero_shot and no number; the CSV has them too."""
    results = few_shot_run(tmp_path, right_tables(shots=(2,)), {"it_was": np.ones(ROWS, dtype=bool)})
    frame = to_frame(results)
    assert ["zero_shot"] * 4 + ["soft_prompt"] * 3 == frame.method.tolist()
    assert [0, 1, 2, 0, 1, 2] == frame.draw[1:].tolist()
    assert {2} == set(frame.num_shots[1:])
    assert frame[["num_shots", "draw"]].iloc[0].isna().all()
    assert ["instructive", *["chosen"] * 3, *["instructive"] * 3] == frame.kind.tolist()
    assert [0, 4, 4, 4, 0, 0, 0] == frame.num_candidates.tolist()
    assert frame.method.tolist() == [row["method"] for row in csv.DictReader(io.StringIO(to_csv(results)))]
