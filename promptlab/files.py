"""Whole files or none: bytes, JSON, tables and events, written so that a reader never sees half of one.

Every write goes to a temporary file, is synced and renamed. Nothing is pickled, and nothing stored is NaN. Tables carry
checksums, so that a damaged one is refused instead of read as other numbers.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from promptlab.errors import StoreError

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 3
ROW_GROUP = 65_536


def write_bytes(path: Path, content: bytes, *, is_new: bool = False) -> bool:
    """Write a whole file or nothing; a new file leaves one that has the name already as it is, and then gives False.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    with _whole(path, is_new=is_new) as (stream, named):
        stream.write(content)
    return named[0]


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON with sorted keys; NaN is a programming error, not a value."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def write_records(path: Path, head: Mapping[str, Any], lists: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write a JSON object of some values and some lists, one line a record, so that large lists are quick to write."""
    parts = [f"{_line(key)}: {_line(value)}" for key, value in sorted(head.items())]
    for key, records in lists.items():
        lines = ",\n  ".join(_line(record) for record in records)
        parts.append(f"{_line(key)}: [\n  {lines}\n ]" if lines else f"{_line(key)}: []")
    write_bytes(path, ("{\n " + ",\n ".join(parts) + "\n}\n").encode("utf-8"))


@contextlib.contextmanager
def whole_text(path: Path) -> Iterator[IO[str]]:
    """A stream of UTF-8 text to a file that gets its name at the end; nothing is left of it after a fault.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    with _whole(path, is_new=False) as (stream, _):
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        yield text
        text.flush()
        text.detach()


def read_json(path: Path) -> Any:
    """The value of a JSON file of a run.

    Raises:
        StoreError: the file is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such file, so {path.parent} is no finished run.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}.") from None


def append_event(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line to the events of a run."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(_line(dict(event)) + "\n")
    except OSError as error:
        raise _fault(path, error) from None


def write_table(path: Path, columns: Mapping[str, Any], metadata: Mapping[str, Any], *, is_new: bool = False) -> bool:
    """Write columns as parquet, as `write_bytes` does; `metadata` is JSON kept in the file's schema."""
    import pyarrow as pa

    table = pa.table(dict(columns))
    with _whole(path, is_new=is_new) as (stream, named):
        _write_batches(stream, table.schema, table.combine_chunks().to_batches(), metadata)
    return named[0]


def write_batches(path: Path, schema: pyarrow.Schema, batches: Iterable[Any], metadata: Mapping[str, Any]) -> None:
    """Write record batches one after the other into one parquet file, so that few of them are in memory."""
    with _whole(path, is_new=False) as (stream, _):
        _write_batches(stream, schema, batches, metadata)


def read_table(path: Path, columns: list[str] | None = None) -> tuple[pyarrow.Table, dict[str, Any]]:
    """A table, or some columns of it, and its metadata.

    Raises:
        StoreError: the file is broken.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with path.open("rb") as stream:
            file = parquet.ParquetFile(stream, page_checksum_verification=True)
            metadata = _unsealed(file.schema_arrow)
            # One thread: a pool of pyarrow's that is still ending when the process does can abort it.
            table = file.read(columns=columns, use_threads=False)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise StoreError(f"{path}: is broken. Delete it and run the same command again to score it anew.") from None
    if metadata.get("schema_version", SCHEMA_VERSION) > SCHEMA_VERSION:
        raise StoreError(f"{path}: was written by a newer promptlab (schema {metadata['schema_version']}).")
    return table, metadata


@contextlib.contextmanager
def _whole(path: Path, *, is_new: bool) -> Iterator[tuple[IO[bytes], list[bool]]]:
    """A stream to a temporary file that gets its name at the end, and a list that then says whether it got it.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    named: list[bool] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream, named
            stream.flush()
            os.fsync(stream.fileno())
        named.append(_name_new(temporary, path) if is_new else _name(temporary, path))
    except OSError as error:
        raise _fault(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _name(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _name_new(temporary: Path, path: Path) -> bool:
    """Give a file its name unless the name is taken; in one step where the file system has hard links."""
    try:
        os.link(temporary, path)
    except OSError:
        return False if path.exists() else _name(temporary, path)
    return True


def _write_batches(stream: IO[bytes], schema: Any, batches: Iterable[Any], metadata: Mapping[str, Any]) -> None:
    """Batches as one parquet file; small ones share a row group, which is quicker to write and to read."""
    import pyarrow as pa
    from pyarrow import parquet

    kept, waiting = schema.with_metadata(_sealed(metadata, schema)), list[Any]()
    with parquet.ParquetWriter(stream, kept, compression="zstd", write_page_checksum=True) as writer:
        for batch in batches:
            waiting.append(batch)
            if sum(len(one) for one in waiting) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))


def _sealed(metadata: Mapping[str, Any], schema: pyarrow.Schema) -> dict[str, str]:
    """Metadata as a parquet schema holds it, with a checksum of it and of the columns: those of pages have neither."""
    text = json.dumps(dict(metadata), sort_keys=True)
    return {"promptlab": text, "promptlab_crc32": str(_checksum(text.encode("utf-8"), schema))}


def _unsealed(schema: pyarrow.Schema) -> dict[str, Any]:
    """The metadata of a schema; KeyError or ValueError where it is none of ours or damaged."""
    stored = schema.metadata or {}
    text = stored[b"promptlab"]
    if int(stored[b"promptlab_crc32"]) != _checksum(text, schema):
        raise ValueError("the checksum does not fit")
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def _checksum(text: bytes, schema: pyarrow.Schema) -> int:
    return zlib.crc32("\x1f".join(schema.names).encode("utf-8"), zlib.crc32(text))


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _fault(path: Path, error: OSError) -> StoreError:
    """What kept a file from being written, and the way out of it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "What was finished is stored: free some space and run the same command again."
    else:
        remedy = "Choose a folder with --output-path."
    return StoreError(f"{path}: cannot be written: {error.strerror}. {remedy}")
