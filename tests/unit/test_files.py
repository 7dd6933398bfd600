"""Files of a run: whole or not there at all, equal for equal content, and one sentence for what is broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptlab import files
from promptlab.errors import StoreError
from promptlab.files import (
    SCHEMA_VERSION,
    append_event,
    read_json,
    read_table,
    whole_text,
    write_batches,
    write_bytes,
    write_json,
    write_records,
    write_table,
)

META = {"schema_version": SCHEMA_VERSION}
FREE_SPACE = "What was finished is stored: free some space and run the same command again."
CHOOSE = "Choose a folder with --output-path."
has_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")


def no_links(*_: Any) -> None:
    """A file system without hard links."""
    raise OSError(95, "Operation not supported")


def on_a_full_disk(path: Path) -> None:
    """Let the temporary file of the next write lie on a device without room."""
    path.with_name(f".{path.name}.tmp-{os.getpid()}").symlink_to("/dev/full")


def written_whole(path: Path, content: str) -> None:
    """A text of a file, written as a stream."""
    with whole_text(path) as stream:
        stream.write(content)


WRITERS = {
    "bytes": lambda path: write_bytes(path, b"2" * 9000),
    "json": lambda path: write_json(path, {"a": "2" * 9000}),
    "records": lambda path: write_records(path, {"a": 2}, {"b": [{"c": "2" * 9000}]}),
    "text": lambda path: written_whole(path, "2" * 9000),
    "table": lambda path: write_table(path, {"a": list(range(9000))}, META),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_is_whole_and_leaves_nothing_else(tmp_path: Path, writer: str) -> None:
    """A file is replaced as a whole, its folder is made, and no temporary file stays."""
    path = tmp_path / "deep" / "a"
    path.parent.mkdir()
    path.write_bytes(b"old")
    WRITERS[writer](path)
    WRITERS[writer](tmp_path / "deeper" / "still" / "a")
    assert path.read_bytes() == (tmp_path / "deeper" / "still" / "a").read_bytes() != b"old"
    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (28, "No space left on device", FREE_SPACE),
        (122, "Disk quota exceeded", FREE_SPACE),
        (5, "Input/output error", CHOOSE),
    ],
)
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, number: int, reason: str, remedy: str
) -> None:
    """Where the disk refuses, the old file stays whole, the half-written one goes, and the way out is named."""
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def refuse(_: int) -> None:
        raise OSError(number, reason)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError) as fault:
        WRITERS[writer](path)
    assert str(fault.value) == f"{path}: cannot be written: {reason}. {remedy}"
    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@has_full_device
@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_fills_while_a_file_is_written_is_told_apart(tmp_path: Path, writer: str) -> None:
    """What the system says when there is no room for the bytes reaches the user, from tables too."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    on_a_full_disk(path)
    with pytest.raises(StoreError) as fault:
        WRITERS[writer](path)
    assert str(fault.value) == f"{path}: cannot be written: No space left on device. {FREE_SPACE}"
    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """Until the very last step the old content is what stands under the name."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.read_bytes()))
    WRITERS[writer](path)
    assert [b"old"] == seen
    assert b"old" != path.read_bytes()


def test_what_is_renamed_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets its name only after its bytes are on the disk, so that no crash leaves a short one under it."""
    path, sizes = tmp_path / "a", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_bytes(path, b"x" * 100_000)
    assert [100_000] == sizes == [path.stat().st_size]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_takes_no_name_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """The first one is named and says so; the second leaves it as it is, with hard links or without."""
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a"
    assert write_bytes(path, b"first", is_new=True)
    assert not write_bytes(path, b"second", is_new=True)
    assert not write_table(path, {"a": [1]}, META, is_new=True)
    assert b"first" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """What stands where a folder should be is one sentence; writing over a folder leaves no temporary file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .*\. Choose a folder with --output-path\."):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(StoreError, match=r"events\.jsonl: cannot be written: .* Choose a folder with"):
        append_event(tmp_path / "file" / "events.jsonl", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder: cannot be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert {"file", "folder"} == {path.name for path in tmp_path.iterdir()}


def test_json_comes_back_equal(tmp_path: Path) -> None:
    """Keys are sorted, letters stay letters, and equal values are equal bytes."""
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    write_json(tmp_path / "b.json", {"a": "ü", "b": 1})
    assert {"a": "ü", "b": 1} == read_json(tmp_path / "a.json")
    assert '{\n "a": "ü",\n "b": 1\n}\n' == (tmp_path / "a.json").read_text(encoding="utf-8")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_records_are_one_line_each(tmp_path: Path) -> None:
    """A reader of JSON gets head and lists, a reader of lines one record a line; a list may be empty."""
    path = tmp_path / "a.json"
    records = [{"y": [1, None], "x": "ü\n"}, {"x": "}", "y": []}]
    write_records(path, {"run": "r", "a": 1}, {"cells": records, "none": []})
    assert {"a": 1, "run": "r", "cells": records, "none": []} == read_json(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert ['  {"x": "ü\\n", "y": [1, null]},', '  {"x": "}", "y": []}'] == [line for line in lines if '"x"' in line]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {"a": float("nan")}),
        lambda path: write_records(path, {"a": float("nan")}, {}),
        lambda path: write_records(path, {}, {"a": [{"b": float("inf")}]}),
        lambda path: append_event(path, {"a": float("nan")}),
    ],
)
def test_nothing_stored_is_nan(tmp_path: Path, write: Any) -> None:
    """NaN in a value is a programming error, and nothing is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "a.json")
    assert [] == [path for path in tmp_path.iterdir() if path.stat().st_size]


def test_a_stream_of_text_gets_its_name_at_the_end(tmp_path: Path) -> None:
    """Text is UTF-8 with its line ends as they are; after any fault, the user's Ctrl-C too, the old file stands."""
    path = tmp_path / "a.csv"
    with whole_text(path) as stream:
        stream.write("ü,1\r\n")
        assert not path.exists()
        stream.write("b,2\n")
    assert "ü,1\r\nb,2\n".encode() == path.read_bytes()
    with pytest.raises(KeyboardInterrupt), whole_text(path) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert "ü,1\r\nb,2\n".encode() == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "\ud800"])
def test_broken_json_is_one_sentence(tmp_path: Path, content: str) -> None:
    """A file that is missing or no JSON is told with its path."""
    path = tmp_path / "a.json"
    with pytest.raises(StoreError, match=r"a\.json: there is no such file, so .* is no finished run\."):
        read_json(path)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(StoreError, match=r"a\.json: cannot be read: "):
        read_json(path)


def test_events_are_one_line_each(tmp_path: Path) -> None:
    """Lines are only ever added."""
    for event in ({"b": 1, "a": "x\ny"}, {"c": None}):
        append_event(tmp_path / "events.jsonl", event)
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [{"a": "x\ny", "b": 1}, {"c": None}] == [json.loads(line) for line in lines]


def test_tables_come_back_equal(tmp_path: Path) -> None:
    """Columns and metadata are read as they were written, some columns or all, and equal tables are equal bytes."""
    columns = {"a": [1, None], "b": ["x", "y"], "c": [[0.5], None]}
    for name in ("one", "two"):
        write_table(tmp_path / name, columns, {**META, "labels": ["x"]})
    table, metadata = read_table(tmp_path / "one")
    assert columns == table.to_pydict()
    assert {**META, "labels": ["x"]} == metadata
    some, metadata = read_table(tmp_path / "one", ["c", "a"])
    assert {"a": columns["a"], "c": columns["c"]} == some.to_pydict()
    assert {**META, "labels": ["x"]} == metadata
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def batches(*columns: list[int]) -> Iterator[Any]:
    """Record batches of one column, made when they are asked for."""
    import pyarrow as pa

    for column in columns:
        yield pa.record_batch({"a": pa.array(column, type=pa.int32())})


def test_batches_become_one_table(tmp_path: Path) -> None:
    """Batches of any size, and none at all, are read back as one table in their order."""
    import pyarrow as pa

    schema = pa.schema({"a": pa.int32()})
    write_batches(tmp_path / "some", schema, batches([1, 2], [], [3]), META)
    write_batches(tmp_path / "none", schema, batches(), {**META, "labels": ["x"]})
    assert {"a": [1, 2, 3]} == read_table(tmp_path / "some")[0].to_pydict()
    table, metadata = read_table(tmp_path / "none")
    assert {"a": []} == table.to_pydict()
    assert {**META, "labels": ["x"]} == metadata


def test_a_fault_between_two_batches_keeps_the_old_table(tmp_path: Path) -> None:
    """Decisions are made while they are written: where one fails, nothing half-written is named."""
    import pyarrow as pa

    path, schema = tmp_path / "a", pa.schema({"a": pa.int32()})
    write_batches(path, schema, batches([1]), META)

    def failing() -> Iterator[Any]:
        yield from batches([2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_batches(path, schema, failing(), META)
    assert {"a": [1]} == read_table(path)[0].to_pydict()
    assert [path] == list(tmp_path.iterdir())


def test_a_broken_table_says_what_to_do(tmp_path: Path) -> None:
    """Damaged, foreign and cut files all get the same advice."""
    import pyarrow as pa
    from pyarrow import parquet

    whole = tmp_path / "whole.parquet"
    write_table(whole, {"a": list(range(100))}, META)
    for name, content in (("text", b"text"), ("empty", b""), ("cut", whole.read_bytes()[:-20])):
        (tmp_path / name).write_bytes(content)
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    for name in ("text", "empty", "cut", "foreign"):
        with pytest.raises(StoreError) as fault:
            read_table(tmp_path / name)
        advice = "is broken. Delete it and run the same command again to score it anew."
        assert str(fault.value) == f"{tmp_path / name}: {advice}"


def test_a_damaged_byte_never_becomes_another_number(tmp_path: Path) -> None:
    """A bit that the disk turned is noticed in every page and in the metadata, or it changes nothing that is read."""
    path = tmp_path / "a"
    columns = {"a": [number / 7 for number in range(50)], "b": [f"row {number}" for number in range(50)]}
    write_table(path, columns, {**META, "token_ids": [7012, 7015]})
    whole, (expected, metadata) = path.read_bytes(), read_table(path)
    start_of_footer, num_noticed = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            table, found = read_table(path)
        except StoreError:
            num_noticed += 1
            continue
        assert metadata == found
        assert place >= start_of_footer or expected == table
    assert num_noticed > len(whole) / 2


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not read as if it were ours."""
    write_table(tmp_path / "a", {"a": [1]}, {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(StoreError, match=rf"was written by a newer promptlab \(schema {SCHEMA_VERSION + 1}\)"):
        read_table(tmp_path / "a")


def test_a_write_of_another_process_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write one file at once have a temporary file each; the last one named stays, whole."""
    path, fsync, waiting = tmp_path / "a", os.fsync, [b"theirs" * 1000]

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if waiting:
            write_bytes(path, waiting.pop())
            assert b"theirs" * 1000 == path.read_bytes()

    monkeypatch.setattr(os, "getpid", iter(range(9)).__next__)
    monkeypatch.setattr(files.os, "fsync", meanwhile)
    write_bytes(path, b"ours")
    assert b"ours" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())
