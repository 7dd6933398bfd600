"""The functions of `import promptlab`, and a stored run as an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import promptlab as pl
from promptlab import api
from promptlab.results import RunResults
from promptlab.store import RunStore
from tests.end_to_end.terminal import write_moods


@pytest.fixture
def empty(tmp_path: Path) -> pl.Run:
    """A run in which every cell is missing and a task had no rows."""
    manifest = {"run": "empty", "failures": {"lost": "task 'lost': no rows found."}}
    return pl.Run(RunResults(tmp_path / "empty", manifest, results=(), baselines=(), timings={}))


def test_a_run_is_a_sized_iterable_with_a_name_and_a_place(empty: pl.Run, tmp_path: Path) -> None:
    """It has the length of its cells and lies where it was stored."""
    assert (len(empty), list(empty), empty.results) == (0, [], ())
    assert (empty.name, empty.path) == ("empty", tmp_path / "empty")


def test_an_empty_run_can_be_shown(empty: pl.Run) -> None:
    """No cell is no crash, and what failed is said."""
    assert repr(empty).startswith(f"Run 'empty', 0 cells, in {empty.path}")
    assert repr(empty).endswith("not scored: task 'lost': no rows found.")
    assert "<table" in empty._repr_html_()
    assert len(empty.to_pandas()) == 0


def test_a_manifest_without_failures_has_none(tmp_path: Path) -> None:
    """The key is optional in a stored run."""
    assert pl.Run(RunResults(tmp_path, {"run": "old"}, (), (), {})).failures == {}


def test_a_report_has_one_of_three_endings(empty: pl.Run) -> None:
    """Another ending is refused before anything is rendered."""
    with pytest.raises(pl.PromptlabError, match=r"found '\.docx'"):
        empty.report("report.docx")


WORDS = {"bad": "terrible", "good": ["great", "good"]}
IT_WAS = "{{ text }} It was {{ mask }}."


@pytest.fixture(scope="module")
def moods(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> pl.Run:
    """A small run of two templates, two verbalizers and two calibrations."""
    root = write_moods(tmp_path_factory.mktemp("moods"))
    return pl.run(
        tasks="moods", templates="mood/*", verbalizers=["mood/great_terrible", WORDS], models=tiny["bert"],
        include=root, data=root / "data", output_path=root / "runs", name="first", device="cpu",
    )  # fmt: skip


def test_predictions_are_one_row_a_decision(moods: pl.Run) -> None:
    """Every decided cell x row with its names, gold and predicted label, probabilities, mass and reason."""
    frame = moods.predictions()
    assert 8 * 12 == len(frame)
    wanted = {"row_id", "row_index", "gold", "predicted", "num_truncated", "reason", "p_bad", "p_good", "mass",
              "model", "task", "template", "verbalizer", "calibration", "method", "num_shots", "draw"}  # fmt: skip
    assert wanted == set(frame.columns)
    assert {"moods"} == set(frame["task"])
    assert np.ones(96) == pytest.approx(frame["p_bad"] + frame["p_good"])
    assert (frame["predicted"] == np.where(frame["p_good"] > frame["p_bad"], "good", "bad")).all()
    keys = ["template", "verbalizer", "calibration"]
    for names, rows in frame.groupby(keys):
        (cell,) = (one for one in moods if tuple(getattr(one, key) for key in keys) == names)
        share = float((rows["gold"] == rows["predicted"]).mean())
        assert cell.metrics["accuracy"].value == pytest.approx(share)
        assert cell.mass == pytest.approx(rows["mass"].mean())
        stored = RunStore(moods.path).read_samples(cell.samples, cell.cell)["row_id"].to_pylist()
        assert stored == rows["row_id"].tolist()


def test_predictions_of_nothing_are_an_empty_frame(empty: pl.Run) -> None:
    """No decided cell is no crash."""
    assert 0 == len(empty.predictions())


def test_rows_that_were_not_scored_have_no_numbers(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Null where there is nothing, and the reason."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "so"}\n{"text": "' + "film " * 30 + '"}\n')
    run = pl.run(
        rows=rows, templates="{{ text | fixed }} It was {{ mask }}.", verbalizers=WORDS, models=tiny["bert"],
        output_path=tmp_path, calibrations="none", max_length=16, device="cpu",
    )  # fmt: skip
    scored, lost = (row for _, row in run.predictions().iterrows())
    assert pd.isna([scored["gold"], scored["reason"]]).all()
    assert pd.isna([lost[name] for name in ("predicted", "p_bad", "p_good", "mass")]).all()
    assert "longer than 16 tokens" in lost["reason"]


ROWS = [{"text": "a fine day", "n": 1}, {"text": "we lost", "n": 2}]


@pytest.mark.parametrize("form", ["path", "text path", "frame", "mappings", "texts"])
def test_whatever_holds_rows_is_labelled(tiny: dict[str, Path], tmp_path: Path, form: str) -> None:
    """A file, a data frame, mappings and plain texts give the same labels, in a frame with their own columns first."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rows: Any = {
        "path": path, "text path": str(path), "frame": pd.DataFrame(ROWS), "mappings": iter(ROWS),
        "texts": [row["text"] for row in ROWS],
    }[form]  # fmt: skip
    options: dict[str, Any] = {"model": tiny["bert"], "device": "cpu"}
    found = api.predict(rows, IT_WAS, WORDS, **options)
    known = api.predict(ROWS, IT_WAS, pl.Verbalizer.from_labels(WORDS), **options)
    new = ["predicted", "confidence", "p_bad", "p_good", "mass", "reason"]
    assert [*(["text"] if form == "texts" else ["text", "n"]), *new] == list(found.columns)
    assert found[new].equals(known[new])


def test_templates_and_verbalizers_may_be_files(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Paths of Python, names under --include, and loaded values mean the same."""
    root = write_moods(tmp_path / "own")
    template, verbalizer = root / "templates/mood/it_was.jinja", root / "verbalizers/mood/great_terrible.yaml"
    options: dict[str, Any] = {"model": tiny["bert"], "device": "cpu"}
    known = api.predict(ROWS, IT_WAS, {"bad": "terrible", "good": "great"}, **options)
    assert known.equals(api.predict(ROWS, template, verbalizer, **options))
    assert known.equals(api.predict(ROWS, "mood/it_was", "mood/great_terrible", include=root, **options))
    assert known.equals(api.predict(ROWS, [pl.Template.load(str(template))], str(verbalizer), **options))


def test_several_templates_and_options_are_handed_on(tiny: dict[str, Path]) -> None:
    """Columns, prefix and calibration are those of the command line."""
    rows = [{"body": "a fine day"}]
    options: dict[str, Any] = {"model": tiny["bert"], "device": "cpu", "text_column": "body", "prefix": "x_"}
    both = api.predict(rows, [IT_WAS, "{{ text }} ({{ mask }})"], WORDS, calibration="contextual", **options)
    parts = [
        api.predict(rows, template, WORDS, calibration="contextual", **options)["x_p_good"][0]
        for template in (IT_WAS, "{{ text }} ({{ mask }})")
    ]
    assert sum(parts) / 2 == pytest.approx(both["x_p_good"][0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"text_colum": "text"}, "argument 'text_colum' is unknown. Did you mean 'text_column'? Known: templates, "),
        ({"calibration": "batch"}, "calibration 'batch' needs all rows at once"),
        ({"text_column": "txt"}, "--text-column txt: in the rows the column 'txt' is missing. Did you mean 'text'?"),
        ({"dtype": "float8"}, "--dtype float8: choose one of"),
    ],
)
def test_wrong_arguments_of_predict_are_sentences(
    tiny: dict[str, Path], options: dict[str, Any], sentence: str
) -> None:
    """One kind of error to catch."""
    with pytest.raises(pl.PromptlabError) as fault:
        api.predict(ROWS, IT_WAS, WORDS, **{"model": tiny["bert"], "device": "cpu", **options})
    assert sentence in str(fault.value)


def test_a_run_is_rescored_by_more_rules(moods: pl.Run) -> None:
    """A run or its folder; one rule or several; the run that comes back has the old cells and the new."""
    once = api.rescore(moods, calibrations="batch", metrics=["brier"])
    assert {"none", "contextual", "batch"} == {cell.calibration for cell in once}
    assert 12 == len(once)
    assert all("brier" in cell.metrics for cell in once)
    own = moods.path.parents[1]
    twice = api.rescore(str(moods.path), ensembles={"both": ["mood/*"]}, verbalizers="mood/great_*", include=own)
    assert len(twice) == len(api.rescore(moods.path, verbalizers=["mood/great_terrible"], include=[own]))
    assert {"ensemble:both"} == {cell.template for cell in twice if cell.members}
    assert 12 + 6 == len(twice) == len(pl.load_run(moods.path))
    with pytest.raises(pl.PromptlabError, match="calibration 'support' needs prompts that run 'first' did not score"):
        api.rescore(moods.path, calibrations="support")


def test_two_runs_are_compared(moods: pl.Run) -> None:
    """Runs or folders, by axes that take one value or a pair."""
    found = api.compare(moods, moods.path, calibration=("none", "contextual"), template="it_was")
    assert {("none", "contextual")} == {(pair.first["calibration"], pair.second["calibration"]) for pair in found.pairs}
    assert {"mood/it_was"} == {pair.first["template"] for pair in found.pairs}
    cells = {(cell.verbalizer, cell.calibration): cell for cell in moods if cell.template == "mood/it_was"}
    for pair in found.pairs:
        before, after = (cells[pair.first["verbalizer"], name].metrics["accuracy"].value
                         for name in ("none", "contextual"))  # fmt: skip
        assert after - before == pytest.approx(pair.difference)
    of_loss = api.compare(moods, moods, metrics="nll", tasks="moods", seed=3)
    assert {("nll", 0.0)} == {(pair.metric, pair.difference) for pair in of_loss.pairs}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"templates": "it_was"}, "argument 'templates' is unknown. Did you mean 'template'? Known: model, template, "),
        ({"tasks": "mood"}, "run 'first' has no task 'mood'. Did you mean 'moods'?"),
        ({"metrics": "ece"}, "metric 'ece' cannot be compared row by row."),
    ],
)
def test_wrong_arguments_of_compare_are_sentences(moods: pl.Run, options: dict[str, Any], sentence: str) -> None:
    """As on the command line."""
    with pytest.raises(pl.PromptlabError) as fault:
        api.compare(moods, moods, **options)
    assert sentence in str(fault.value)


def test_a_folder_that_holds_no_run_is_a_sentence(moods: pl.Run, tmp_path: Path) -> None:
    """For every function that takes a run."""
    for call in (api.load_run, api.rescore, lambda folder: api.compare(moods, folder)):
        with pytest.raises(pl.PromptlabError, match="holds no finished run"):
            call(tmp_path)
