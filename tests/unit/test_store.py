"""The run folder: whole files or none, parts that only add, and one sentence for what is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.errors import StoreError
from promptlab.store import (
    SCHEMA_VERSION,
    BlockScores,
    BlockStore,
    PromptRow,
    RunStore,
    append_event,
    read_json,
    read_table,
    write_bytes,
    write_json,
    write_table,
)
from promptlab.types import MaskScores


def scores_of(keys: list[str], token_ids: list[int], start: float = 0.0) -> MaskScores:
    """Scores that count down from `start`, one number a key and token."""
    number = len(keys)
    log_probs = start - np.arange(number * len(token_ids), dtype=np.float32).reshape(number, len(token_ids))
    return MaskScores(
        keys=tuple(keys),
        fills=np.zeros(number, dtype=np.int32),
        masks=np.zeros(number, dtype=np.int32),
        log_normalizers=np.ones(number, dtype=np.float32),
        token_ids=np.array(token_ids, dtype=np.int64),
        log_probs=log_probs,
        top_ids=np.tile(np.array([5, 6], dtype=np.int64), (number, 1)),
        top_log_probs=np.tile(np.array([-0.5, -1.5], dtype=np.float32), (number, 1)),
    )


def no_links(*_: Any) -> None:
    """A file system without hard links."""
    raise OSError(95, "Operation not supported")


def test_a_write_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    """A file is replaced as a whole, its folder is made, and no temporary file stays."""
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": "ü"})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [path] == list(path.parent.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the old file stays whole and the half-written one goes."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"a\.json: cannot be written: No space left on device\. Choose a folder with"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [path] == list(tmp_path.iterdir())


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the very last step the old content is what stands under the name."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(read_json(path)))
    write_json(path, {"a": 2})
    assert seen == [{"a": 1}]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A run says so before any work is done; writing over a folder leaves no temporary file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .* Choose a folder with --output-path\."):
        RunStore(tmp_path / "file" / "run").prepare()
    with pytest.raises(StoreError, match="cannot be written"):
        append_event(tmp_path / "file" / "events.jsonl", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert {"file", "folder"} == {path.name for path in tmp_path.iterdir()}


def test_a_prepared_folder_is_empty(tmp_path: Path) -> None:
    """The probe of a folder leaves nothing."""
    store = RunStore(tmp_path / "run")
    store.prepare()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_last_timings_are_read_where_they_can_be(tmp_path: Path) -> None:
    """A run without timings, or with broken ones, has none to add to."""
    store = RunStore(tmp_path)
    assert {} == store.last_timings()
    (tmp_path / "timings.json").write_text("{", encoding="utf-8")
    assert {} == store.last_timings()
    (tmp_path / "timings.json").write_text('{"forwards": 3}', encoding="utf-8")
    assert {"forwards": 3} == store.last_timings()


def test_nothing_stored_is_nan(tmp_path: Path) -> None:
    """NaN in a value is a programming error, and nothing is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "\ud800"])
def test_broken_json_is_one_sentence(tmp_path: Path, content: str) -> None:
    """A file that is missing or no JSON is told with its path."""
    path = tmp_path / "a.json"
    with pytest.raises(StoreError, match=r"a\.json: there is no such file"):
        read_json(path)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(StoreError, match=r"a\.json: cannot be read: "):
        read_json(path)


def test_tables_come_back_equal(tmp_path: Path) -> None:
    """Columns and metadata are read as they were written, and equal tables are equal bytes."""
    columns = {"a": [1, None], "b": ["x", "y"], "c": [[0.5], None]}
    for name in ("one", "two"):
        write_table(tmp_path / name, columns, {"schema_version": SCHEMA_VERSION, "labels": ["x"]})
    table, metadata = read_table(tmp_path / "one")
    assert columns == table.to_pydict()
    assert metadata == {"schema_version": SCHEMA_VERSION, "labels": ["x"]}
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_broken_table_says_what_to_do(tmp_path: Path) -> None:
    """Damaged, foreign and cut files all get the same advice."""
    import pyarrow as pa
    from pyarrow import parquet

    whole = tmp_path / "whole.parquet"
    write_table(whole, {"a": list(range(100))}, {"schema_version": SCHEMA_VERSION})
    for name, content in (("text", b"text"), ("empty", b""), ("cut", whole.read_bytes()[:-20])):
        (tmp_path / name).write_bytes(content)
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    for name in ("text", "empty", "cut", "foreign"):
        with pytest.raises(StoreError) as fault:
            read_table(tmp_path / name)
        advice = "is broken. Delete it and run the same command again to score it anew."
        assert str(fault.value) == f"{tmp_path / name}: {advice}"


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not read as if it were ours."""
    write_table(tmp_path / "a", {"a": [1]}, {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(StoreError, match=rf"was written by a newer promptlab \(schema {SCHEMA_VERSION + 1}\)"):
        read_table(tmp_path / "a")


def test_parts_are_added_and_merge(tmp_path: Path) -> None:
    """A second part adds prompts, a third adds tokens; what stood in the first file is never touched."""
    store = BlockStore(tmp_path / "block")
    store.append([scores_of(["p", "q"], [7, 9])])
    first = (tmp_path / "block/part-00000.parquet").read_bytes()
    store.append([scores_of(["r"], [7, 9], start=-10)])
    store.append([scores_of(["q"], [11], start=-20)])
    stored = store.read()
    assert first == (tmp_path / "block/part-00000.parquet").read_bytes()
    assert stored.columns == {7: 0, 9: 1, 11: 2}
    expected = [[0, -1, np.nan], [-2, -3, -20], [-10, -11, np.nan], [np.nan] * 3]
    np.testing.assert_array_equal(np.array(expected), stored.take(["p", "q", "r", None]))


@pytest.mark.parametrize("has_links", [True, False])
def test_two_runs_at_once_lose_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    """Where another process writes the same part first, ours becomes the next one; no temporary file stays."""
    ours, theirs = BlockStore(tmp_path / "block"), BlockStore(tmp_path / "block")
    fsync, waiting = os.fsync, [scores_of(["q"], [7], start=-5)]

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if waiting:
            theirs.append([waiting.pop()])

    monkeypatch.setattr(os, "getpid", iter(range(9)).__next__)
    monkeypatch.setattr(os, "fsync", meanwhile)
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    ours.append([scores_of(["p"], [7])])
    stored = ours.read()
    assert stored.has("p", [7])
    assert stored.has("q", [7])
    assert {"part-00000.parquet", "part-00001.parquet"} == {path.name for path in ours.folder.iterdir()}


def test_what_is_missing_is_known(tmp_path: Path) -> None:
    """A prompt is done for the tokens that were scored at it, and for no others."""
    store = BlockStore(tmp_path / "block")
    assert not store.read().has("p", [])
    store.append([scores_of(["p", "q"], [7, 9]), scores_of(["r"], [7, 9])])
    store.append([scores_of(["q"], [11])])
    stored = store.read()
    assert stored.has("p", [7, 9])
    assert stored.has("r", [9])
    assert stored.has("q", [7, 11])
    assert not stored.has("p", [7, 11])
    assert not stored.has("p", [8])
    assert not stored.has("x", [7])
    assert not stored.has("p", [7], mask=1)


def test_an_empty_block_is_readable(tmp_path: Path) -> None:
    """A block without parts holds nothing, and appending nothing writes nothing."""
    store = BlockStore(tmp_path / "block")
    store.append([])
    assert (0, 0) == store.read().log_probs.shape
    assert store.top_fills() == {}
    assert not store.folder.exists()
    assert isinstance(store.read(), BlockScores)


def test_the_best_fills_are_kept(tmp_path: Path) -> None:
    """Each mask's best tokens come back with their log-probabilities, best first."""
    store = BlockStore(tmp_path / "block")
    store.append([scores_of(["p"], [7])])
    assert store.top_fills() == {("p", 0, 0): [(5, -0.5), (6, -1.5)]}


def test_rows_come_back_equal(tmp_path: Path) -> None:
    """Which prompt answers for which row is kept, with the reason where none does."""
    store = BlockStore(tmp_path / "block")
    rows = [PromptRow("a-0", 0, "p", 2), PromptRow("b-0", 1, None, 0, "too long")]
    assert store.read_rows("test") is None
    store.write_rows("test", rows, {"words": {"great": 7}})
    assert store.read_rows("test") == (rows, {"schema_version": SCHEMA_VERSION, "words": {"great": 7}})


def test_a_block_is_described_once(tmp_path: Path) -> None:
    """What the block's id was made of is written by the first run and kept."""
    store = RunStore(tmp_path).block("abc")
    store.describe({"template": "t"})
    store.describe({"template": "u"})
    assert read_json(tmp_path / "blocks/abc/block.json") == {"schema_version": SCHEMA_VERSION, "template": "t"}


def test_events_and_samples(tmp_path: Path) -> None:
    """Events are one line each with their time; samples of cells that left the run are removed."""
    store = RunStore(tmp_path)
    store.event("started")
    store.event("scored", block="abc")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [("started", None), ("scored", "abc")] == [(event["event"], event.get("block")) for event in events]
    assert all(event["at"].endswith("+00:00") for event in events)
    for cell in ("old", "new"):
        store.write_samples(cell, {"row_id": ["a-0"]}, {"labels": ["x"]})
    store.drop_old_samples(["new"])
    assert [tmp_path / "samples/new.parquet"] == list((tmp_path / "samples").iterdir())
