"""Files and streams of every format give the same rows, with flat memory, and one sentence for what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptlab import lines, reading
from promptlab.errors import DataError, UsageError
from promptlab.reading import FORMATS, SUFFIXES, missing_column, read_rows, read_stream

ROWS: list[dict[str, Any]] = [
    {"text": 'A fine film, "really".\nTruly.', "label": "positive"},
    {"text": "Größe 猫", "label": "negative"},
    {"text": "", "label": "negative"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the file's ending."""
    import pyarrow as pa
    from pyarrow import parquet

    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def fault_of(path: Path) -> str:
    """What is said of a file that cannot be read, from the file's name on."""
    with pytest.raises(DataError) as fault:
        list(read_rows(path))
    return str(fault.value).removeprefix(f"{path.parent.as_posix()}/")


class Pipe(io.BytesIO):
    """A stream that cannot be sought, as standard input."""

    def seekable(self) -> bool:
        """It is not."""
        return False

    def seek(self, *_: int) -> int:
        """Refused."""
        raise io.UnsupportedOperation("a pipe")


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".txt"])
def test_every_format_gives_equal_rows(tmp_path: Path, suffix: str) -> None:
    """From a file, whatever the case of its ending, and from a pipe whose format is named."""
    path = write(tmp_path / f"rows{suffix}", ROWS)
    assert ROWS == [row for _, row in read_rows(path)]
    assert ROWS == [row for _, row in read_rows(path.rename(path.with_suffix(suffix.upper())))]
    pipe = Pipe(path.with_suffix(suffix.upper()).read_bytes())
    places, rows = zip(*read_stream(pipe, suffix[1:], "standard input"), strict=True)
    assert ROWS == list(rows)
    assert all(place.startswith("standard input:") for place in places)


def test_a_text_file_has_one_text_a_line(tmp_path: Path) -> None:
    """The column is `text`; the line's own blanks are kept, its end is not, and blank lines are no rows."""
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\xef\xbb\xbfa, b\r\n\r\n c \rd")
    assert [("1", "a, b"), ("3", " c "), ("4", "d")] == [
        (place.rpartition(":")[2], row["text"]) for place, row in read_rows(path)
    ]


def test_parquet_comes_in_batches_and_is_placed_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the row goes on from batch to batch."""
    monkeypatch.setattr(reading, "BATCH_ROWS", 2)
    path = write(tmp_path / "rows.parquet", [{"n": number} for number in range(5)])
    pairs = [(place.rpartition(":")[2], row["n"]) for place, row in read_rows(path)]
    assert [("1", 0), ("2", 1), ("3", 2), ("4", 3), ("5", 4)] == pairs


def test_parquet_keeps_nested_and_binary_columns(tmp_path: Path) -> None:
    """Lists and mappings are values like any other; bytes are given as they are, whoever wants them may complain."""
    row = {"list": ["a", "b"], "map": {"a": 1}, "bytes": b"\xff", "none": None}
    assert [row] == [dict(found) for _, found in read_rows(write(tmp_path / "rows.parquet", [row]))]


@pytest.mark.parametrize(
    ("message", "name", "content"),
    [
        ("rows.jsonl: has no rows: write one object {...} a line.", "rows.jsonl", b"\n \n"),
        ("rows.json: has no rows: write one object {...} a line, or one list of them.", "rows.json", b""),
        ("rows.json: has no rows: write one object {...} a line, or one list of them.", "rows.json", b" [ ]\n"),
        ("rows.csv: is empty: the first line names the columns, each further one is a row.", "rows.csv", b""),
        ("rows.csv: has no rows: only the header is there.", "rows.csv", b"text,label\n\n"),
        ("rows.tsv: has no rows: only the header is there.", "rows.tsv", b"text\tlabel"),
        ("rows.txt: has no rows: write one text a line.", "rows.txt", b"\xef\xbb\xbf"),
        ("rows.csv:3: has 1 cell, the header names 2 (text, label)", "rows.csv", b"text,label\na,b\nc\n"),
        ("rows.tsv:2: has 1 cell, the header names 2 (text, label)", "rows.tsv", b"text\tlabel\na,b\n"),
        ("rows.txt:2: holds a NUL byte (byte 3 of the file)", "rows.txt", b"a\nb\0\n"),
        ("rows.jsonl:2: byte 13 of the file (0xE9) is not UTF-8", "rows.jsonl", b'{"a": "b"}\n{"\xe9": 1}'),
        ("rows.parquet: is not valid parquet: Parquet magic bytes not found", "rows.parquet", b"text,label\na,b\n"),
        ("rows.parquet: is not valid parquet: ", "rows.parquet", b""),
        (
            "rows.xlsx: the ending of a file of rows is one of .jsonl, .csv, .parquet, .json, .tsv, .txt, "
            "found '.xlsx'.",
            "rows.xlsx",
            b"",
        ),
        ("rows: the ending of a file of rows is one of ", "rows", b""),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, message: str, name: str, content: bytes) -> None:
    """One sentence with the file, the line where there is one, and what is expected."""
    path = tmp_path / name
    path.write_bytes(content)
    found = fault_of(path)
    assert found.startswith(message)
    assert found.endswith(".")
    assert "\n" not in found


def test_a_path_that_is_no_file_is_told(tmp_path: Path) -> None:
    """A folder, a file that is not there with the nearest name, one that must not be read."""
    path = write(tmp_path / "reviews.csv", ROWS)
    (tmp_path / "folder.csv").mkdir()
    endings = ".jsonl, .csv, .parquet, .json, .tsv, .txt"
    assert f"folder.csv: is a folder: name a file of rows ({endings})." == fault_of(tmp_path / "folder.csv")
    assert "review.csv: there is no such file. Did you mean 'reviews.csv'?" == fault_of(tmp_path / "review.csv")
    assert "x.csv: there is no such file." == fault_of(tmp_path / "none" / "x.csv").removeprefix("none/")
    if os.geteuid():
        path.chmod(0)
        assert "reviews.csv: cannot be read: Permission denied." == fault_of(path)


def test_a_parquet_file_that_was_cut_is_told(tmp_path: Path) -> None:
    """A file whose pages are broken is one sentence, and so is text that is no UTF-8."""
    import pyarrow as pa
    from pyarrow import parquet

    path = write(tmp_path / "rows.parquet", [{"text": "a" * 5000} for _ in range(50)])
    content = bytearray(path.read_bytes())
    content[10:60] = b"\xff" * 50
    path.write_bytes(content)
    assert fault_of(path).startswith("rows.parquet: is not valid parquet: ")
    bad = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"label": ["x", "y"], "text": bad}), path)
    assert "rows.parquet:2: column 'text' holds bytes that are not UTF-8 text." == fault_of(path)
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert "rows.parquet: has two columns called 'a': every column needs a name of its own." == fault_of(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt", ".parquet"])
def test_a_long_text_is_read_up_to_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """What a prompt cannot hold is still a row, to be counted as one that cannot be scored."""
    from promptlab import delimited

    assert 10_000_000 == lines.MAX_CHARACTERS
    for module in (lines, reading, delimited):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 300_000)
    path = tmp_path / f"rows{suffix}"
    for size, is_read in ((290_000, True), (310_000, False)):
        rows = [{"text": "a"}, {"text": "b" * size}]
        if suffix == ".txt":
            path.write_text("\n".join(row["text"] for row in rows))
        else:
            write(path, rows)
        if is_read:
            assert rows == [row for _, row in read_rows(path)]
            continue
        found = fault_of(path)
        number = {".csv": 3}.get(suffix, 2)
        assert found.startswith(f"rows{suffix}:{number}: the row has 310,0")
        assert "more than the 300,000 that are read, and passes them in column 'text'" in found


class Endless(io.RawIOBase):
    """A long file that is made while it is read."""

    def __init__(self, head: bytes, row: bytes, num_rows: int, tail: bytes = b"") -> None:
        many = max(1, 50_000 // len(row))
        parts = [head, *([row * many] * (num_rows // many)), tail]
        self._parts: Iterator[bytes] = iter([part for part in parts if part])

    def read(self, size: int = -1) -> bytes:
        """The next piece."""
        return next(self._parts, b"")


TEXT = b"a film with a long title, " * 4


@pytest.mark.parametrize(
    ("format", "head", "row", "tail"),
    [
        ("jsonl", b"", b'{"text": "' + TEXT + b'"}\n', b""),
        ("json", b'[{"text": ""}', b', {"text": "' + TEXT + b'"}', b"]"),
        ("csv", b"text,label\n", b'"' + TEXT + b'\n",x\n', b""),
        ("tsv", b"text\tlabel\n", TEXT + b"\tx\n", b""),
        ("txt", b"", TEXT + b"\r", b""),
    ],
)
def test_reading_holds_one_row_at_a_time(format: str, head: bytes, row: bytes, tail: bytes) -> None:
    """2 MB of rows are read in less than 1 MB, on one line or on many."""
    num_rows = 2_000_000 // len(row)
    stream: Any = Endless(head, row, num_rows, tail)
    tracemalloc.start()
    count = sum(1 for _ in read_stream(stream, format, "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(count - num_rows) < 1000
    assert peak < 1_000_000


def test_rows_of_a_pipe_are_there_at_once() -> None:
    """A row is given before the next one is asked of the pipe."""
    asked = list[int]()

    class Slow(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            asked.append(len(asked))
            return b'{"n": %d}\n' % len(asked) if len(asked) < 4 else b""

    rows = read_stream(Slow(), "jsonl", "standard input")  # type: ignore[arg-type]  # a raw stream is one, too
    assert {"n": 1} == next(rows)[1]
    assert 1 == len(asked)
    assert [{"n": 2}, {"n": 3}] == [row for _, row in rows]


def test_an_unknown_format_is_told() -> None:
    """The formats are listed, with the nearest one."""
    with pytest.raises(UsageError) as fault:
        next(read_stream(io.BytesIO(), "jsnl", "standard input"))
    expected = f"standard input: the format 'jsnl' is unknown. Did you mean 'jsonl'? Known: {', '.join(FORMATS)}."
    assert expected == str(fault.value)


@pytest.mark.parametrize(
    ("expected", "column", "row"),
    [
        (
            "x:2 field 'a': column 'txt' is missing. Did you mean 'text'? Columns: text, label.",
            "txt",
            ["text", "label"],
        ),
        (
            "x:2 field 'a': column 'text' is missing. The columns look separated by ';': use commas, or tabs in a .tsv "
            "file. Columns: text;label.",
            "text",
            ["text;label"],
        ),
        (f"x:2 field 'a': column 'text' is missing. Columns: {'b' * 39}….", "text", ["b" * 50]),
    ],
)
def test_a_missing_column_is_told_the_columns(expected: str, column: str, row: list[str]) -> None:
    """The nearest name, the usual mistake, and what is there, shortened where a text stands in a header's place."""
    assert expected == missing_column("x:2 field 'a':", column, row)
    many = missing_column("x:", "z", [f"c{number}" for number in range(25)])
    assert many.endswith("c18, c19 and 5 more.")
