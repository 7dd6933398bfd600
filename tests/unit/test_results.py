"""Results on disk: what is written is read back, what is foreign is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from promptlab import results
from promptlab.errors import StoreError
from promptlab.files import SCHEMA_VERSION, read_json, write_json
from promptlab.metrics import Measured
from promptlab.results import (
    Agreement,
    Baseline,
    MetricValue,
    Result,
    RunResults,
    as_json,
    read_results,
    write_results,
)
from promptlab.statistics import Interval

DECIDED = Result(
    cell="c1",
    block="b1",
    model="mini",
    task="toy",
    family="sentiment",
    split="test",
    template="sentiment/it_was",
    template_tags=("instructive",),
    verbalizer="sentiment/great_terrible",
    pool="max",
    calibration="none",
    labels=("negative", "positive"),
    num_rows=3,
    num_unscored=1,
    mass=0.25,
    prior={"negative": 0.4, "positive": 0.6},
    predicted={"negative": 1, "positive": 1, "none": 1},
    metrics={"accuracy": MetricValue(2 / 3, 0.2, 0.9, "wilson", 0.95, True)},
    samples="toy-b1",
)
SKIPPED = replace(DECIDED, cell="c2", metrics={}, mass=None, prior={}, predicted={}, skipped="'x' splits", samples="")
ENSEMBLE = replace(DECIDED, cell="c3", template="ensemble:all", members=("c1", "c4"), num_calibration_prompts=6)
AGREEMENT = Agreement("mini", "toy", "test", "words", "none", 3, 100, 0.8, 0.7, 0.9, "t", 0.95)


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A stored run of three cells."""
    made = RunResults(
        folder=tmp_path,
        manifest={"run": "demo", "failures": {"absent": "no rows found"}},
        results=(DECIDED, SKIPPED, ENSEMBLE),
        baselines=(Baseline("toy", "test", "uniform", {"accuracy": 0.5}, "a random guess"),),
        timings={"total_s": 1.5},
        agreements=(AGREEMENT,),
    )
    write_results(made)
    return made


def test_results_come_back_equal(run: RunResults) -> None:
    """Cells, baselines, agreements, timings and manifest are read as they were written."""
    assert run == read_results(run.folder)
    assert run.name == "demo"


def test_only_decided_cells_are_scored(run: RunResults) -> None:
    """A skipped cell is stored with its reason and has no metrics."""
    assert [DECIDED, ENSEMBLE] == run.scored() == read_results(run.folder).scored()


def test_equal_runs_are_equal_bytes(run: RunResults) -> None:
    """Writing again changes nothing: what may differ between equal runs is in timings.json alone."""
    known = (run.folder / "results.json").read_bytes()
    write_results(replace(run, timings={"total_s": 9.0}))
    assert known == (run.folder / "results.json").read_bytes()


def test_a_measured_metric_keeps_its_interval() -> None:
    """Value, interval, its kind and the good direction are stored."""
    measured = Measured(0.5, Interval(0.1, 0.9, "bootstrap"), higher_is_better=False)
    assert MetricValue.of(measured) == MetricValue(0.5, 0.1, 0.9, "bootstrap", 0.95, False)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    """A missing folder and one whose run was not finished are told apart."""
    with pytest.raises(StoreError, match=r"nowhere: there is no such run folder\."):
        read_results(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="no finished run"):
        read_results(tmp_path)


def test_a_newer_run_is_refused(run: RunResults) -> None:
    """Results of a later version are not read as if they were ours."""
    stored = read_json(run.folder / "results.json")
    write_json(run.folder / "results.json", {**stored, "schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(StoreError, match=rf"was written by a newer promptlab \(schema {SCHEMA_VERSION + 1}\)"):
        read_results(run.folder)


def test_a_foreign_manifest_is_one_sentence(run: RunResults) -> None:
    """A manifest or timings that hold something else are named with what to do."""
    for name, content in (("timings.json", []), ("manifest.json", {}), ("manifest.json", [])):
        write_json(run.folder / name, content)
        with pytest.raises(StoreError, match=rf"{name}: is not what promptlab writes\. Run the same command again\."):
            read_results(run.folder)
        write_results(run)


@pytest.mark.parametrize("content", [[], {}, {"cells": [{}], "baselines": []}, {"cells": [], "baselines": [{"x": 1}]}])
def test_foreign_results_are_one_sentence(run: RunResults, content: object) -> None:
    """A file that holds something else is named with what to do."""
    write_json(run.folder / "results.json", content)
    with pytest.raises(StoreError, match=r"results\.json: is not what promptlab writes\. Run the same command again\."):
        read_results(run.folder)


def test_scripts_get_what_is_stored(run: RunResults) -> None:
    """`--output json` has the values of results.json, where the run lies, and what could not be scored."""
    stored = read_json(run.folder / "results.json")
    found = json.loads(json.dumps(as_json(run), allow_nan=False))
    more = {"path": str(run.folder), "failures": {"absent": "no rows found"}}
    assert {**stored, **more} == found
    assert [json.loads(json.dumps(asdict(cell))) for cell in run.results] == stored["cells"]


def test_a_cell_is_one_line(run: RunResults) -> None:
    """Thousands of cells can be looked through by a tool that reads lines."""
    lines = (run.folder / "results.json").read_text(encoding="utf-8").splitlines()
    assert 3 == sum('"cell": "c' in line for line in lines)


def test_results_are_written_last(run: RunResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is stopped while a run is stored leaves no finished run, or the one that was there before."""
    before = (run.folder / "results.json").read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_records", stop)
    with pytest.raises(KeyboardInterrupt):
        write_results(replace(run, results=()))
    assert before == (run.folder / "results.json").read_bytes()
    other = replace(run, folder=run.folder / "other")
    with pytest.raises(KeyboardInterrupt):
        write_results(other)
    assert (other.folder / "manifest.json").is_file()
    with pytest.raises(StoreError, match=r"holds no finished run\. The command of a run that was stopped finishes it"):
        read_results(other.folder)


def test_a_run_of_before_agreements_and_samples_is_read(run: RunResults) -> None:
    """Keys that came later have their empty values."""
    stored = read_json(run.folder / "results.json")
    for cell in stored["cells"]:
        del cell["samples"], cell["members"]
    del stored["agreements"]
    write_json(run.folder / "results.json", stored)
    found = read_results(run.folder)
    assert ((), "") == (found.agreements, found.results[0].samples)
    assert replace(DECIDED, samples="") == found.results[0]
