"""The run folder: events, samples of which the cells of a block share a file, and what the last call cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import StoreError
from promptlab.files import SCHEMA_VERSION, read_table
from promptlab.store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


def write_cells(store: RunStore, name: str, cells: dict[str, list[str]]) -> None:
    """Samples of some cells, the rows of each as one batch."""
    import pyarrow as pa

    schema = pa.schema({"cell": pa.string(), "row_id": pa.string()})
    batches: Any = (
        pa.record_batch([[cell] * len(rows), rows], schema=schema) for cell, rows in cells.items()
    )  # one after the other
    store.write_samples(name, schema, batches, ["bad", "good"])


def test_a_prepared_folder_is_empty(tmp_path: Path) -> None:
    """The folder is made with those above it, and its probe leaves nothing."""
    RunStore(tmp_path / "results" / "run").prepare()
    assert [] == list((tmp_path / "results" / "run").iterdir())


def test_a_folder_that_cannot_be_written_is_refused_by_its_own_name(tmp_path: Path) -> None:
    """A run says so before any work is done, and names the folder, not the probe."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as fault:
        RunStore(tmp_path / "file" / "run").prepare()
    assert str(fault.value) == (
        f"{tmp_path / 'file' / 'run'}: cannot be written: Not a directory. Choose a folder with --output-path."
    )


def test_blocks_lie_below_the_run(store: RunStore) -> None:
    """A block is found by its id."""
    assert store.folder / "blocks" / "abc" == store.block("abc").folder


def test_events_are_lines_with_their_time(store: RunStore) -> None:
    """What happened is told in order, each with its details and its time in UTC."""
    store.event("started")
    store.event("scored", block="abc")
    events = [json.loads(line) for line in (store.folder / "events.jsonl").read_text().splitlines()]
    assert [("started", None), ("scored", "abc")] == [(event["event"], event.get("block")) for event in events]
    assert all(event["at"].endswith("+00:00") for event in events)


def test_the_last_timings_are_read_where_they_can_be(store: RunStore) -> None:
    """A run without timings, or with broken ones, has none to add to."""
    assert {} == store.last_timings()
    for content, expected in (("{", {}), ("[1]", {}), ('{"forwards": 3}', {"forwards": 3})):
        (store.folder / "timings.json").write_text(content, encoding="utf-8")
        assert expected == store.last_timings()


def test_the_cells_of_a_block_share_a_file(store: RunStore) -> None:
    """Each cell is read alone, in the order of its rows; the labels stand in the file once."""
    write_cells(store, "moods-abc", {"one": ["r2", "r1"], "other": ["r2", "r1"]})
    assert [store.folder / "samples" / "moods-abc.parquet"] == list((store.folder / "samples").iterdir())
    for cell in ("one", "other"):
        assert {"cell": [cell] * 2, "row_id": ["r2", "r1"]} == store.read_samples("moods-abc", cell).to_pydict()
    assert 0 == len(store.read_samples("moods-abc", "third"))
    metadata = read_table(store.folder / "samples" / "moods-abc.parquet")[1]
    assert {"schema_version": SCHEMA_VERSION, "labels": ["bad", "good"]} == metadata


def test_samples_that_are_not_there_are_told_with_what_to_do(store: RunStore) -> None:
    """A file that is gone and one that is broken get a sentence each."""
    path = store.folder / "samples" / "moods-abc.parquet"
    with pytest.raises(StoreError) as fault:
        store.read_samples("moods-abc", "one")
    assert f"{path}: there is no such file. Run the same command again to decide its cells anew." == str(fault.value)
    write_cells(store, "moods-abc", {"one": ["r1"]})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"moods-abc\.parquet: is broken\. Delete it and run the same command again"):
        store.read_samples("moods-abc", "one")


def test_samples_that_left_the_run_are_removed(store: RunStore) -> None:
    """Files of cells that are no longer part of the run go; a skipped cell names none, other files stay."""
    store.drop_old_samples(["nothing is there yet"])
    for name in ("old", "new"):
        write_cells(store, name, {"one": ["r1"]})
    (store.folder / "samples" / "notes.txt").write_text("mine")
    store.drop_old_samples(["new", "", "new"])
    assert {"new.parquet", "notes.txt"} == {path.name for path in (store.folder / "samples").iterdir()}
