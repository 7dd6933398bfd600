"""A score block on disk: parts of log-probabilities that are only ever added, and which prompt answers for which row.

A block answers one question: what are the log-probabilities of these tokens at the masks of these prompts?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.files import SCHEMA_VERSION, read_table, write_json, write_table
from promptlab.types import MaskScores

if TYPE_CHECKING:
    import pyarrow
    from jaxtyping import Bool, Float32, Float64, Int32, Int64, Shaped

    Keys = Shaped[np.ndarray, " row"]

KEY_BYTES = 32
_NO_KEYS = np.zeros(0, dtype=f"S{KEY_BYTES}")


@dataclass(frozen=True, slots=True, eq=False)
class PromptRows:
    """Which prompt answers for each row of a split, or for each text of a calibration; columns of equal length.

    `keys` are prompt keys in ASCII, empty where the prompt cannot be scored, and then `reasons` has why, by the
    number of the row. `gold` holds label indices, -1 for a row without a gold label.
    """

    row_ids: Sequence[str]
    row_index: Int32[np.ndarray, " row"]
    keys: Keys
    num_truncated: Int32[np.ndarray, " row"]
    gold: Int32[np.ndarray, " row"]
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def has_prompt(self) -> Bool[np.ndarray, " row"]:
        """Which rows have a prompt that can be scored."""
        found: Bool[np.ndarray, " row"] = self.keys != b""
        return found

    @property
    def first_reason(self) -> str | None:
        """Why the first of the unscorable rows cannot be scored, or None."""
        return self.reasons[min(self.reasons)] if self.reasons else None


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The scored prompts of one (fill, mask): sorted keys, and the row of each in the block's array."""

    keys: Keys
    rows: Int64[np.ndarray, " prompt"]

    def find(self, keys: Keys) -> Int64[np.ndarray, " key"]:
        """The row of each key, -1 where there is none."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.rows[places], -1)


@dataclass(frozen=True, slots=True, eq=False)
class BlockScores:
    """All stored scores of a block; natural logarithms, float32, NaN where a token is not scored yet.

    `columns` is the column of each token id in `log_probs`.
    """

    columns: Mapping[int, int] = field(default_factory=dict)
    log_probs: Float32[np.ndarray, "row token"] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    planes: Mapping[tuple[int, int], _Plane] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[MaskScores]) -> BlockScores:
        """The scores of parts in memory."""
        return _join([_Part.of(part) for part in parts])

    def missing(self, keys: Keys, token_ids: Sequence[int], mask: int = 0) -> Bool[np.ndarray, " key"]:
        """Which prompts lack one of the tokens at their mask."""
        rows, columns = self._rows(keys, mask), [self.columns.get(int(token), -1) for token in token_ids]
        if -1 in columns:
            return np.ones(len(keys), dtype=bool)
        missing = rows < 0
        missing[~missing] = np.isnan(self.log_probs[rows[~missing]][:, columns]).any(axis=1)
        return missing

    def take(self, keys: Keys, token_ids: Sequence[int], mask: int = 0) -> Float64[np.ndarray, "key token"]:
        """Log-probabilities of tokens at the mask of each prompt; NaN where there is no such prompt or token."""
        taken = np.full((len(keys), len(token_ids)), np.nan)
        rows = self._rows(keys, mask)
        known = [number for number, token in enumerate(token_ids) if int(token) in self.columns]
        columns = [self.columns[int(token_ids[number])] for number in known]
        is_there = np.flatnonzero(rows >= 0)
        found = self.log_probs[rows[is_there]]
        for number, column in zip(known, columns, strict=True):
            taken[is_there, number] = found[:, column]
        return taken

    def _rows(self, keys: Keys, mask: int) -> Int64[np.ndarray, " key"]:
        plane = self.planes.get((0, mask))
        return plane.find(keys) if plane is not None else np.full(len(keys), -1)


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
        states = [part.states for part in parts if part.states is not None]
        if states:
            columns["state"] = list(np.concatenate(states))
        metadata = {"schema_version": SCHEMA_VERSION, "token_ids": parts[0].token_ids.tolist()}
        while not write_table(self._next_part(), columns, metadata, is_new=True):
            continue  # the same command runs twice, and the other one was first

    def read(self) -> BlockScores:
        """Everything scored so far, of all parts; a later part wins where two have the same prompt and token."""
        return _join([_read_part(path) for path in self._parts()])

    def read_states(self) -> MaskScores | None:
        """The stored last states at masks with their normalisers and no token at all; None where none were kept."""
        parts = []
        for path in self._parts():
            table, _ = read_table(path)
            if "state" in table.column_names:
                parts.append(table)
        if not parts:
            return None
        places = [_places(table) for table in parts]
        number = sum(len(keys) for keys, _, _ in places)
        return MaskScores(
            keys=tuple(key.decode() for keys, _, _ in places for key in keys),
            fills=np.concatenate([fills for _, fills, _ in places]),
            masks=np.concatenate([masks for _, _, masks in places]),
            log_normalizers=np.concatenate([table["log_normalizer"].to_numpy() for table in parts]),
            token_ids=np.zeros(0, dtype=np.int64),
            log_probs=np.zeros((number, 0), dtype=np.float32),
            top_ids=np.zeros((number, 0), dtype=np.int64),
            top_log_probs=np.zeros((number, 0), dtype=np.float32),
            states=np.concatenate([_matrix(table["state"]) for table in parts]),
        )

    def top_fills(self) -> dict[tuple[str, int, int], list[tuple[int, float]]]:
        """The best fills of every scored mask: (token id, log-probability), best first."""
        fills: dict[tuple[str, int, int], list[tuple[int, float]]] = {}
        for path in self._parts():
            table, _ = read_table(path, ["prompt_key", "fill", "mask", "top_ids", "top_log_probs"])
            for row in table.to_pylist():
                if row["top_ids"]:
                    place = row["prompt_key"], row["fill"], row["mask"]
                    fills[place] = list(zip(row["top_ids"], row["top_log_probs"], strict=True))
        return fills

    def has_rows(self, name: str) -> bool:
        """Whether rows of that name are stored."""
        return (self.folder / f"{name}.parquet").is_file()

    def write_rows(self, name: str, rows: PromptRows, metadata: Mapping[str, Any]) -> None:
        """Store which prompt answers for which row, and the token of each label word in this template's context."""
        import pyarrow as pa

        columns = {
            "row_id": pa.array(rows.row_ids, type=pa.string()),
            "row_index": rows.row_index,
            "prompt_key": _key_column(rows.keys),
            "num_truncated": rows.num_truncated,
            "gold": rows.gold,
            "reason": pa.array([rows.reasons.get(number) for number in range(len(rows))], type=pa.string()),
        }
        write_table(self.folder / f"{name}.parquet", columns, {"schema_version": SCHEMA_VERSION, **metadata})

    def read_rows(self, name: str) -> tuple[PromptRows, dict[str, Any]]:
        """What `write_rows` stored."""
        table, metadata = read_table(self.folder / f"{name}.parquet")
        reasons = table["reason"].combine_chunks()
        numbers = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False))
        rows = PromptRows(
            row_ids=table["row_id"].combine_chunks(),
            row_index=table["row_index"].to_numpy(),
            keys=_keys(table["prompt_key"]),
            num_truncated=table["num_truncated"].to_numpy(),
            gold=table["gold"].to_numpy(),
            reasons={int(number): str(reasons[int(number)].as_py()) for number in numbers},
        )
        return rows, metadata

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _next_part(self) -> Path:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._parts()]
        return self.folder / f"part-{max(numbers, default=-1) + 1:05d}.parquet"


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One part: what was asked about, and the numbers."""

    keys: Keys
    fills: Int32[np.ndarray, " row"]
    masks: Int32[np.ndarray, " row"]
    token_ids: Sequence[int]
    log_probs: Float32[np.ndarray, "row token"]

    @classmethod
    def of(cls, scores: MaskScores) -> _Part:
        keys = np.array([key.encode() for key in scores.keys], dtype=f"S{KEY_BYTES}")
        return cls(keys, scores.fills, scores.masks, scores.token_ids.tolist(), scores.log_probs)


def _read_part(path: Path) -> _Part:
    table, metadata = read_table(path, ["prompt_key", "fill", "mask", "log_probs"])
    log_probs = _matrix(table["log_probs"])
    return _Part(*_places(table), metadata["token_ids"], log_probs)


def _join(parts: Sequence[_Part]) -> BlockScores:
    """One array of all parts: a row a (prompt, fill, mask), a column a token."""
    columns: dict[int, int] = {}
    for part in parts:
        for token in part.token_ids:
            columns.setdefault(int(token), len(columns))
    if not parts:
        return BlockScores()
    fills, masks = (np.concatenate([getattr(part, name) for part in parts]) for name in ("fills", "masks"))
    keys = np.concatenate([part.keys for part in parts])
    rows, planes, number = np.zeros(len(keys), dtype=np.int64), {}, 0
    for fill, mask in sorted({*zip(fills.tolist(), masks.tolist(), strict=True)}):
        here = np.flatnonzero((fills == fill) & (masks == mask))
        distinct, inverse = np.unique(keys[here], return_inverse=True)
        rows[here] = number + inverse
        planes[fill, mask] = _Plane(distinct, number + np.arange(len(distinct)))
        number += len(distinct)
    log_probs, start = np.full((number, len(columns)), np.nan, dtype=np.float32), 0
    for part in parts:
        places = rows[start : start + len(part.keys)]
        for number, token in enumerate(part.token_ids):
            log_probs[places, columns[int(token)]] = part.log_probs[:, number]
        start += len(part.keys)
    return BlockScores(columns, log_probs, planes)


def _places(table: pyarrow.Table) -> tuple[Any, Any, Any]:
    return _keys(table["prompt_key"]), table["fill"].to_numpy(), table["mask"].to_numpy()


def _key_column(keys: Keys) -> pyarrow.Array:
    """Prompt keys as a column of texts, null where a row has none; no text object is made a row."""
    import pyarrow as pa

    has_key = keys != b""
    packed = pa.py_buffer(np.ascontiguousarray(keys[has_key]).tobytes())
    texts = pa.Array.from_buffers(pa.binary(KEY_BYTES), int(has_key.sum()), [None, packed]).cast(pa.string())
    places = pa.array(np.cumsum(has_key) - 1, mask=~has_key)
    return texts.take(places)


def _keys(column: pyarrow.ChunkedArray) -> Keys:
    """A column of prompt keys as fixed-width bytes, empty where it is null."""
    import pyarrow as pa

    texts = column.combine_chunks()
    has_key = texts.is_valid().to_numpy(zero_copy_only=False)
    keys = np.zeros(len(texts), dtype=f"S{KEY_BYTES}")
    packed = texts.drop_null().cast(pa.binary()).cast(pa.binary(KEY_BYTES))
    buffer, start = packed.buffers()[1], packed.offset * KEY_BYTES
    if len(packed):
        keys[has_key] = np.frombuffer(buffer, dtype=keys.dtype, count=len(packed), offset=start)
    return keys


def _matrix(column: Any) -> Float32[np.ndarray, "row value"]:
    """A column of equally long lists as one array."""
    values = column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), -1) if len(values) else np.zeros((0, 0), dtype=np.float32)
