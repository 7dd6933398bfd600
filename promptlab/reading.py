"""A file or stream of rows -> (place, raw row) pairs, one after the other, with flat memory.

A row is a mapping from column to value, and its place is `file:line` with the line on which it starts. Whatever is
wrong with a file is one sentence that names the place; nothing is dropped in silence.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from promptlab.delimited import read_delimited
from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.json_rows import read_json, read_json_lines
from promptlab.library import shown_path
from promptlab.lines import MAX_CHARACTERS, TooLong, decode, read_lines, too_long

RawRow = Mapping[str, Any]
FORMATS = ("jsonl", "csv", "parquet", "json", "tsv", "txt")
SUFFIXES = tuple(f".{name}" for name in FORMATS)
BATCH_ROWS = 512  # of parquet
_BUFFER_BYTES = 1 << 16
_SHOWN_COLUMNS = 20


def read_rows(path: Path) -> Iterator[tuple[str, RawRow]]:
    """(place, raw row) pairs of a file; its suffix names the format.

    Raises:
        DataError: the file cannot be read, has no rows, or a row of it is broken.
    """
    shown = shown_path(path)
    check_file(path, shown)
    try:
        with path.open("rb") as stream:
            yield from read_stream(stream, path.suffix.lower().removeprefix("."), shown)
    except OSError as error:
        raise DataError(f"{shown}: cannot be read: {error.strerror or error}.") from None


def read_stream(stream: BinaryIO, format: str, shown: str) -> Iterator[tuple[str, RawRow]]:
    """(place, raw row) pairs of a binary stream, such as standard input, as soon as a row is there.

    Args:
        stream: is read once, to its end.
        format: one of `FORMATS`.
        shown: what messages call the stream.

    Raises:
        UsageError: the format is unknown.
        DataError: there are no rows, or one of them is broken.
    """
    if format not in _READERS:
        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"{shown}: the format '{format}' is unknown.{hint} Known: {', '.join(FORMATS)}.")
    is_empty = True
    for pair in _READERS[format](stream, shown):
        is_empty = False
        yield pair
    if is_empty:
        raise DataError(f"{shown}: has no rows: {_EMPTY[format]}.")


def check_file(path: Path, shown: str) -> None:
    """Refuse a path that is no file, with the nearest name in its folder.

    Raises:
        DataError: it is a folder, not there, or has an ending that is unknown.
    """
    if path.is_dir():
        raise DataError(f"{shown}: is a folder: name a file of rows ({', '.join(SUFFIXES)}).")
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise DataError(f"{shown}: there is no such file.{near}")
    if path.suffix.lower() not in SUFFIXES:
        found = f"'{path.suffix}'" if path.suffix else "a name without one"
        raise DataError(f"{shown}: the ending of a file of rows is one of {', '.join(SUFFIXES)}, found {found}.")


def missing_column(subject: str, column: str, row: Iterable[str]) -> str:
    """The sentence about a column that a row has not, with its nearest name and the ones there are.

    Args:
        subject: what needs the column, with its place.
        column: the column that was looked for.
        row: the columns that are there.
    """
    columns = [str(name) for name in row]
    listed = ", ".join(name if len(name) <= 40 else f"{name[:39]}…" for name in columns[:_SHOWN_COLUMNS])
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    hint = did_you_mean(column, columns)
    separator = next((mark for mark in ";|\t" if len(columns) == 1 and mark in columns[0]), None)
    if separator:
        hint = f" The columns look separated by {separator!r}: use commas, or tabs in a .tsv file."
    return f"{subject} column '{column}' is missing.{hint} Columns: {listed}{more}."


def _read_jsonl(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    return read_json_lines(decode(stream, shown), shown)


def _read_json(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    return read_json(decode(stream, shown), shown)


def _read_csv(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    return read_delimited(stream, shown, ",")


def _read_tsv(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    return read_delimited(stream, shown, "\t")


def _read_txt(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    """One text a line, in the column `text`; blank lines do not count."""
    number = 0
    try:
        for number, line in enumerate(read_lines(stream, shown), start=1):
            if not line.isspace():
                yield f"{shown}:{number}", {"text": line.rstrip("\r\n")}
    except TooLong as long:
        raise too_long(f"{shown}:{number + 1}", "text", f"{long.size():,}") from None


def _read_parquet(stream: BinaryIO, shown: str) -> Iterator[tuple[str, RawRow]]:
    """Rows of a parquet file, batch by batch; the place is `file:row`."""
    import pyarrow
    from pyarrow import parquet

    with _seekable(stream) as source:
        try:
            # Else the columns of a whole row group, which is mostly the file, are in memory before the first batch.
            file = parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            _check_columns(file.schema_arrow.names, shown)
            first = 1
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                yield from _batch_rows(batch, shown, first)
                first += batch.num_rows
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # the last for names that are no UTF-8
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(f"{shown}: is not valid parquet: {reason}.") from None


@contextlib.contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream, or a temporary file with its content: the tables of a parquet file stand at its end."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def _check_columns(names: list[str], shown: str) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DataError(f"{shown}: has two columns called '{name}': every column needs a name of its own.")


def _batch_rows(batch: Any, shown: str, first: int) -> Iterator[tuple[str, RawRow]]:
    if batch.nbytes > MAX_CHARACTERS:
        _check_sizes(batch, shown, first)
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        raise _text_fault(batch, shown, first) from None
    for number, row in enumerate(rows, start=first):
        yield f"{shown}:{number}", row


def _check_sizes(batch: Any, shown: str, first: int) -> None:
    """Refuse a row whose texts are over the bound, before any of them is copied."""
    from pyarrow import compute, types

    names = [
        name
        for name, kind in zip(batch.schema.names, batch.schema.types, strict=True)
        if types.is_string(kind) or types.is_large_string(kind)
    ]
    sizes = {name: compute.utf8_length(batch.column(name)).fill_null(0).to_pylist() for name in names}
    for number, of_row in enumerate(zip(*sizes.values(), strict=True), start=first):
        if sum(of_row) > MAX_CHARACTERS:
            longest = max(names, key=lambda name: sizes[name][number - first])
            raise too_long(f"{shown}:{number}", longest, f"{sum(of_row):,}")


def _text_fault(batch: Any, shown: str, first: int) -> DataError:
    """Which text of a batch is no UTF-8."""
    for number in range(batch.num_rows):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column[number].as_py()
            except UnicodeDecodeError:
                return DataError(f"{shown}:{first + number}: column '{name}' holds bytes that are not UTF-8 text.")
    return DataError(f"{shown}:{first}: holds bytes that are not UTF-8 text.")


_READERS: Mapping[str, Callable[[BinaryIO, str], Iterator[tuple[str, RawRow]]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "json": _read_json,
    "tsv": _read_tsv,
    "txt": _read_txt,
}
_EMPTY = {
    "jsonl": "write one object {...} a line",
    "csv": "only the header is there",
    "parquet": "the table is empty",
    "json": "write one object {...} a line, or one list of them",
    "tsv": "only the header is there",
    "txt": "write one text a line",
}
