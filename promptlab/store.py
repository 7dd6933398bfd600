"""The run folder and its score blocks on disk: small files written whole, parts only ever added.

Every write goes to a temporary file, is synced and renamed, so that a reader sees a whole file or none.
A block answers one question: what are the log-probabilities of these tokens at the masks of these prompts?
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.errors import StoreError
from promptlab.types import MaskScores

if TYPE_CHECKING:
    import pyarrow
    from jaxtyping import Float64

SCHEMA_VERSION = 1


def write_bytes(path: Path, content: bytes, *, is_new: bool = False) -> bool:
    """Write a whole file or nothing; a new file leaves one that has the name already as it is, and then gives False.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            return _name_new(temporary, path)
        temporary.replace(path)
        return True
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror}. Choose a folder with --output-path.") from None


def _name_new(temporary: Path, path: Path) -> bool:
    """Give a file its name unless the name is taken; in one step where the file system has hard links."""
    try:
        os.link(temporary, path)
    except OSError:
        if path.exists():
            temporary.unlink()
            return False
        temporary.replace(path)
        return True
    temporary.unlink()
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON with sorted keys; NaN is a programming error, not a value."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


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
    line = json.dumps(dict(event), sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}.") from None


def write_table(path: Path, columns: Mapping[str, Any], metadata: Mapping[str, Any], *, is_new: bool = False) -> bool:
    """Write columns as parquet, as `write_bytes` does; `metadata` is JSON kept in the file's schema."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(dict(columns))
    table = table.replace_schema_metadata({"promptlab": json.dumps(dict(metadata), sort_keys=True)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return write_bytes(path, buffer.getvalue(), is_new=is_new)


def read_table(path: Path) -> tuple[pyarrow.Table, dict[str, Any]]:
    """A table and its metadata.

    Raises:
        StoreError: the file is broken.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        metadata = json.loads((table.schema.metadata or {})[b"promptlab"])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise StoreError(f"{path}: is broken. Delete it and run the same command again to score it anew.") from None
    if metadata.get("schema_version", SCHEMA_VERSION) > SCHEMA_VERSION:
        raise StoreError(f"{path}: was written by a newer promptlab (schema {metadata['schema_version']}).")
    return table, metadata


@dataclass(frozen=True, slots=True)
class PromptRow:
    """Which prompt answers for a row: its key, or why it cannot be scored."""

    row_id: str
    row_index: int
    prompt_key: str | None
    num_truncated: int
    reason: str | None = None


@dataclass(slots=True)
class BlockScores:
    """All stored scores of a block: one row a (prompt, fill, mask), one column a token; NaN where not scored yet."""

    rows: dict[tuple[str, int, int], int] = field(default_factory=dict)
    columns: dict[int, int] = field(default_factory=dict)
    log_probs: Float64[np.ndarray, "row token"] = field(default_factory=lambda: np.zeros((0, 0)))

    def has(self, key: str, token_ids: Iterable[int], mask: int = 0) -> bool:
        """Whether the prompt's mask is scored for all of the tokens."""
        row = self.rows.get((key, 0, mask))
        if row is None:
            return False
        columns = [self.columns.get(token, -1) for token in token_ids]
        return -1 not in columns and not bool(np.isnan(self.log_probs[row, columns]).any())

    def take(self, keys: Sequence[str | None], mask: int = 0) -> Float64[np.ndarray, "key token"]:
        """Log-probabilities of every stored token at the mask of each prompt; NaN for None."""
        taken = np.full((len(keys), len(self.columns)), np.nan)
        for number, key in enumerate(keys):
            if key is not None:
                taken[number] = self.log_probs[self.rows[key, 0, mask]]
        return taken


class BlockStore:
    """The folder of one score block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self, value: Mapping[str, Any]) -> None:
        """Store what the block's id was made of, once."""
        path = self.folder / "block.json"
        if not path.exists():
            write_json(path, {"schema_version": SCHEMA_VERSION, **value})

    def append(self, parts: Sequence[MaskScores]) -> None:
        """Add the scores of some batches as one part."""
        if not parts:
            return
        columns = {
            "prompt_key": [key for part in parts for key in part.keys],
            "fill": np.concatenate([part.fills for part in parts]).astype(np.int16),
            "mask": np.concatenate([part.masks for part in parts]).astype(np.int16),
            "log_normalizer": np.concatenate([part.log_normalizers for part in parts]),
            "log_probs": list(np.concatenate([part.log_probs for part in parts])),
            "top_ids": list(np.concatenate([part.top_ids for part in parts])),
            "top_log_probs": list(np.concatenate([part.top_log_probs for part in parts])),
        }
        metadata = {"schema_version": SCHEMA_VERSION, "token_ids": parts[0].token_ids.tolist()}
        while not write_table(self._next_part(), columns, metadata, is_new=True):
            continue  # the same command runs twice, and the other one was first

    def read(self) -> BlockScores:
        """Everything scored so far, of all parts."""
        tables = [read_table(path) for path in self._parts()]
        scores = BlockScores()
        for table, metadata in tables:
            for token in metadata["token_ids"]:
                scores.columns.setdefault(int(token), len(scores.columns))
            for place in _places(table):
                scores.rows.setdefault(place, len(scores.rows))
        scores.log_probs = np.full((len(scores.rows), len(scores.columns)), np.nan)
        for table, metadata in tables:
            rows = [scores.rows[place] for place in _places(table)]
            columns = [scores.columns[int(token)] for token in metadata["token_ids"]]
            values = np.array(table["log_probs"].to_pylist(), dtype=np.float64)
            scores.log_probs[np.ix_(rows, columns)] = values.reshape(len(rows), len(columns))
        return scores

    def top_fills(self) -> dict[tuple[str, int, int], list[tuple[int, float]]]:
        """The best fills of every scored mask: (token id, log-probability), best first."""
        fills = {}
        for path in self._parts():
            table, _ = read_table(path)
            for place, ids, values in zip(
                _places(table), table["top_ids"].to_pylist(), table["top_log_probs"].to_pylist(), strict=True
            ):
                fills[place] = list(zip(ids, values, strict=True))
        return fills

    def write_rows(self, name: str, rows: Sequence[PromptRow], metadata: Mapping[str, Any]) -> None:
        """Store which prompt answers for which row, and the token of each label word in this template's context."""
        columns = {
            "row_id": [row.row_id for row in rows],
            "row_index": [row.row_index for row in rows],
            "prompt_key": [row.prompt_key for row in rows],
            "num_truncated": [row.num_truncated for row in rows],
            "reason": [row.reason for row in rows],
        }
        write_table(self.folder / f"rows-{name}.parquet", columns, {"schema_version": SCHEMA_VERSION, **metadata})

    def read_rows(self, name: str) -> tuple[list[PromptRow], dict[str, Any]] | None:
        """What `write_rows` stored, or None."""
        path = self.folder / f"rows-{name}.parquet"
        if not path.is_file():
            return None
        table, metadata = read_table(path)
        return [PromptRow(**row) for row in table.to_pylist()], metadata

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _next_part(self) -> Path:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._parts()]
        return self.folder / f"part-{max(numbers, default=-1) + 1:05d}.parquet"


def _places(table: Any) -> list[tuple[str, int, int]]:
    columns = (table[name].to_pylist() for name in ("prompt_key", "fill", "mask"))
    return list(zip(*columns, strict=True))


class RunStore:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, before any work is done.

        Raises:
            StoreError: it cannot be written.
        """
        probe = self.folder / ".writable"
        try:
            write_bytes(probe, b"")
        except StoreError as error:
            raise StoreError(str(error).replace(str(probe), str(self.folder))) from None
        probe.unlink()

    def block(self, block_id: str) -> BlockStore:
        """The store of a block."""
        return BlockStore(self.folder / "blocks" / block_id)

    def event(self, kind: str, **details: Any) -> None:
        """Note what happened, for a person and for a resumed run."""
        from datetime import UTC, datetime

        append_event(self.folder / "events.jsonl", {"at": datetime.now(UTC).isoformat(), "event": kind, **details})

    def write_samples(self, cell_id: str, columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Store label scores and predictions of a cell, one row a decision, without text."""
        path = self.folder / "samples" / f"{cell_id}.parquet"
        write_table(path, columns, {"schema_version": SCHEMA_VERSION, **metadata})

    def drop_old_samples(self, cell_ids: Iterable[str]) -> None:
        """Remove samples of cells that are no longer part of the run."""
        wanted = {f"{cell_id}.parquet" for cell_id in cell_ids}
        for path in (self.folder / "samples").glob("*.parquet"):
            if path.name not in wanted:
                path.unlink()

    def last_timings(self) -> dict[str, Any]:
        """The timings that the last finished call left; empty where there are none or they cannot be read."""
        try:
            timings = read_json(self.folder / "timings.json")
        except StoreError:
            return {}
        return timings if isinstance(timings, dict) else {}
