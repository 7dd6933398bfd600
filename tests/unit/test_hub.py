"""Rows of the hub are those of a local folder, and a hub that is out of reach is told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptlab.errors import DataError
from promptlab.rows import load_rows
from promptlab.specs.task import Task

ROWS = [{"text": "Größe 猫", "label": "negative"}, {"text": "", "label": "positive"}]


def make_task(source: str | Path, kind: str = "hub") -> Task:
    """A task of two labels in memory, with one source."""
    place = {"hub": {"path": str(source), "verified": False}} if kind == "hub" else {"local": str(source)}
    rest = {"splits": {"test": "test"}, "fields": {"text": "text"}, "label": {"column": "label"}}
    known = {"name": "toy", "path": "toy.yaml", "title": "Toy", "family": "any", "kind": "classification"}
    said = {"language": "en", "license": "none", "citation": "none", "version": 1}
    return Task.model_validate({**known, **said, "labels": ["negative", "positive"], "sources": [{**place, **rest}]})


def test_hub_rows_are_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the hub's form gives the same examples as a local source; the revision is kept with the result."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    local = load_rows(make_task("toy", kind="local"), "test", data=str(tmp_path))
    hub = load_rows(make_task(tmp_path / "toy"), "test")
    assert local.examples == hub.examples
    assert ("hub", False, None) == (hub.source["kind"], hub.source["verified"], hub.source["revision"])
    with pytest.raises(DataError, match=r"task 'toy': the hub dataset .*nothing could not be loaded \(.*\)\. Name the"):
        load_rows(make_task("nobody/nothing"), "test")


@pytest.mark.parametrize("is_known", [True, False])
def test_a_hub_that_is_out_of_reach_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Where the hub's name is unknown the library runs offline, and is as it was afterwards."""
    import datasets
    import datasets.config

    modes: list[bool] = []

    def load(*args: object, **kwargs: object) -> None:
        modes.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("Couldn't reach it.")

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("promptlab.hub._is_known_host", lambda address: is_known)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = make_task("far/away")
    with pytest.raises(DataError, match=r"the hub dataset far/away could not be loaded \(Couldn't reach it\)\."):
        load_rows(task, "test")
    assert [not is_known] == modes
    assert not datasets.config.HF_HUB_OFFLINE
