"""A score block on disk: parts of log-probabilities that are only ever added, and which prompt answers for which row.

A block answers one question: what are the log-probabilities of these tokens at the masks of these prompts? Its parts
hold prompts as they are encoded, its fills what is asked about prompts with word pieces in their slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.block_scores import KEY_BYTES, BlockScores, FillPart, Part, join_parts
from promptlab.files import SCHEMA_VERSION, read_json, read_table, write_json, write_table
from promptlab.types import Fill, FillScores, MaskScores, WordTokens

if TYPE_CHECKING:
    import pyarrow
    from jaxtyping import Bool, Float32, Int32

    from promptlab.block_scores import Keys

MASKED, BETWEEN_SLOTS = "_", " | "  # how a stored fill writes a mask and what lies between two slots
_ONE_TOKEN = ": use a word that is one token."  # how schema 2 ended the reason of a word of several


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
class StoredRows:
    """The prompts of a segment as they are stored, with the tokens of each word there, or why it has none."""

    rows: PromptRows
    words: dict[str, WordTokens | str]
    metadata: dict[str, Any]


class BlockStore:
    """The folder of one score block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self, value: Mapping[str, Any]) -> None:
        """Store what the block's id was made of, once."""
        path = self.folder / "block.json"
        if not path.exists():
            write_json(path, {"schema_version": SCHEMA_VERSION, **value})

    def write_fit(self, value: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Store what was fitted for this block, and apart from it what two equal fits may differ in."""
        write_json(self.folder / "fit_cost.json", {"schema_version": SCHEMA_VERSION, **cost})
        write_json(self.folder / "fit.json", {"schema_version": SCHEMA_VERSION, **value})

    def read_fit_cost(self) -> dict[str, Any]:
        """The seconds and the memory that a fit took; empty where nothing was fitted."""
        path = self.folder / "fit_cost.json"
        stored: dict[str, Any] = read_json(path) if path.is_file() else {}
        return {key: value for key, value in stored.items() if key != "schema_version"}

    def read_fit(self) -> dict[str, Any]:
        """What `write_fit` stored, without its log step by step; empty where nothing was fitted."""
        path = self.folder / "fit.json"
        if not path.is_file():
            return {}
        stored: dict[str, Any] = read_json(path)
        return {key: value for key, value in stored.items() if key not in ("schema_version", "log")}

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
        self._add("part", columns, metadata)

    def append_fills(self, parts: Sequence[FillScores]) -> None:
        """Add the answers about filled prompts of some batches as one part."""
        if not parts:
            return
        columns = {
            "prompt_key": _dictionary([key for part in parts for key in part.keys]),
            "fill": _dictionary([_fill_text(fill) for part in parts for fill in part.fills]),
            "position": np.concatenate([part.positions for part in parts]).astype(np.int16),
            "token_id": np.concatenate([part.token_ids for part in parts]),
            "log_prob": np.concatenate([part.log_probs for part in parts]),
        }
        self._add("fills", columns, {"schema_version": SCHEMA_VERSION})

    def read(self) -> BlockScores:
        """Everything scored so far, of all parts; a later part wins where two have the same prompt and token."""
        plain = join_parts([_read_part(path) for path in self._parts("part")])
        return plain.with_answers(_read_fills(path) for path in self._parts("fills"))

    def read_states(self) -> MaskScores | None:
        """The stored last states at masks with their normalisers and no token at all; None where none were kept."""
        parts = []
        for path in self._parts("part"):
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
        for path in self._parts("part"):
            table, _ = read_table(path, ["prompt_key", "fill", "mask", "top_ids", "top_log_probs"])
            for row in table.to_pylist():
                if row["top_ids"]:
                    place = row["prompt_key"], row["fill"], row["mask"]
                    fills[place] = list(zip(row["top_ids"], row["top_log_probs"], strict=True))
        return fills

    def has_rows(self, name: str) -> bool:
        """Whether rows of that name are stored."""
        return (self.folder / f"{name}.parquet").is_file()

    def write_rows(
        self, name: str, rows: PromptRows, words: Mapping[str, WordTokens | str], metadata: Mapping[str, Any]
    ) -> None:
        """Store which prompt answers for which row, and the tokens of each label word in this template's context."""
        import pyarrow as pa

        columns = {
            "row_id": pa.array(rows.row_ids, type=pa.string()),
            "row_index": rows.row_index,
            "prompt_key": _key_column(rows.keys),
            "num_truncated": rows.num_truncated,
            "gold": rows.gold,
            "reason": pa.array([rows.reasons.get(number) for number in range(len(rows))], type=pa.string()),
        }
        stored = {word: _word_value(found) for word, found in words.items()}
        described = {"schema_version": SCHEMA_VERSION, "words": stored, **metadata}
        write_table(self.folder / f"{name}.parquet", columns, described)

    def read_rows(self, name: str) -> StoredRows:
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
        words = {word: _word(value) for word, value in metadata.pop("words").items()}
        metadata.pop("schema_version")
        return StoredRows(rows, words, metadata)

    def _parts(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*.parquet"))

    def _add(self, kind: str, columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        while not write_table(self._next_part(kind), columns, metadata, is_new=True):
            continue  # the same command runs twice, and the other one was first

    def _next_part(self, kind: str) -> Path:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._parts(kind)]
        return self.folder / f"{kind}-{max(numbers, default=-1) + 1:05d}.parquet"


def is_outdated(word: WordTokens | str) -> bool:
    """Whether a stored word is one of several tokens from before there were rules for them: they were not kept."""
    return isinstance(word, str) and word.endswith(_ONE_TOKEN)


def _read_part(path: Path) -> Part:
    table, metadata = read_table(path, ["prompt_key", "fill", "mask", "log_probs"])
    log_probs = _matrix(table["log_probs"])
    return Part(*_places(table), metadata["token_ids"], log_probs)


def _read_fills(path: Path) -> FillPart:
    import pyarrow as pa

    table, _ = read_table(path)
    texts = table["fill"].cast(pa.string()).combine_chunks().dictionary_encode()
    fills = [_parse_fill(text) for text in texts.dictionary.to_pylist()]
    columns = (texts.indices.to_numpy(), table["position"].to_numpy(), table["token_id"].to_numpy())
    asked, numbers = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return FillPart(
        keys=_keys(table["prompt_key"].cast(pa.string())),
        questions=[(fills[fill], position, token) for fill, position, token in asked.tolist()],
        numbers=numbers.reshape(-1),
        log_probs=table["log_prob"].to_numpy(),
    )


def _fill_text(fill: Fill) -> str:
    """A fill as it is stored: `17 _ _`, and ` | ` between two slots."""
    slots = (" ".join(MASKED if piece is None else str(piece) for piece in slot) for slot in fill.slots)
    return BETWEEN_SLOTS.join(slots)


def _parse_fill(text: str) -> Fill:
    slots = (slot.split() for slot in text.split(BETWEEN_SLOTS))
    return Fill(tuple(tuple(None if piece == MASKED else int(piece) for piece in slot) for slot in slots))


def _dictionary(texts: Sequence[str]) -> pyarrow.Array:
    import pyarrow as pa

    return pa.array(texts, type=pa.string()).dictionary_encode()


def _word_value(word: WordTokens | str) -> Any:
    """A word as it is stored: one token as its id, several as lists of ids, no token as the reason."""
    if isinstance(word, str):
        return word
    if len(word.pieces) == len(word.slots) == 1:
        return word.pieces[0]
    return {"slots": [list(slot) for slot in word.slots], "split": word.split}


def _word(value: Any) -> WordTokens | str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return WordTokens(((value,),))
    return WordTokens(tuple(tuple(slot) for slot in value["slots"]), value["split"])


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
