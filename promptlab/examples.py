"""The examples of a split, held as bytes and arrays and made one by one when they are asked for.

100,000 rows of a short text take about 15 MB instead of 70: the values of the fields are one buffer of JSON, ids are
bytes, labels small numbers.
"""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from promptlab.hashing import list_hash
from promptlab.types import Example

if TYPE_CHECKING:
    from jaxtyping import Int16, Int64, Shaped

NO_LABEL = -1
_CHUNK = 4096
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Sequence[Example]):
    """A sequence of examples with the same fields; an item is made anew each time, a slice is a smaller sequence.

    `text[ends[i]:ends[i + 1]]` is the JSON list of the values of example i, in the order of `field_names`.
    """

    field_names: tuple[str, ...]
    label_names: tuple[str, ...]
    text: bytes | bytearray
    ends: Int64[np.ndarray, " row_and_one"]
    id_bytes: Shaped[np.ndarray, " row"]
    indices: Int64[np.ndarray, " row"]
    label_indices: Int16[np.ndarray, " row"]

    @classmethod
    def collect(cls, examples: Iterable[Example], *, fields: Sequence[str], labels: Sequence[str]) -> Examples:
        """Hold examples, whose fields have JSON values and whose labels are among the given ones or None."""
        number: dict[str | None, int] = {label: index for index, label in enumerate(labels)}
        number[None] = NO_LABEL
        text, ends, indices, gold = bytearray(), array("q", [0]), array("q"), array("h")
        ids, parts = list[str](), [np.zeros(0, dtype="S1")]
        for example in examples:
            text += _as_json(example.fields[name] for name in fields)
            ends.append(len(text))
            indices.append(example.index)
            gold.append(number[example.label])
            ids.append(example.id)
            if len(ids) == _CHUNK:
                parts.append(np.array(ids, dtype="S"))
                ids.clear()
        parts.append(np.array(ids, dtype="S"))
        return cls(
            field_names=tuple(fields),
            label_names=tuple(labels),
            text=text,
            ends=np.frombuffer(ends, dtype=np.int64),
            id_bytes=np.concatenate(parts),
            indices=np.frombuffer(indices, dtype=np.int64),
            label_indices=np.frombuffer(gold, dtype=np.int16),
        )

    def take(self, positions: Iterable[int]) -> Examples:
        """The examples at some positions, in that order, without what the others hold."""
        chosen = np.fromiter(positions, dtype=np.int64)
        sizes = np.diff(self.ends)[chosen]
        return Examples(
            field_names=self.field_names,
            label_names=self.label_names,
            text=b"".join(self._json(position) for position in chosen),
            ends=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)]),
            id_bytes=self.id_bytes[chosen],
            indices=self.indices[chosen],
            label_indices=self.label_indices[chosen],
        )

    def ids(self) -> Shaped[np.ndarray, " row"]:
        """The ids, as bytes of ASCII."""
        return self.id_bytes

    def id_texts(self) -> Iterator[str]:
        """The ids as texts, of which a few are held at a time."""
        for start in range(0, len(self), _CHUNK):
            yield from (identity.decode("ascii") for identity in self.id_bytes[start : start + _CHUNK].tolist())

    def labels(self) -> Int16[np.ndarray, " row"]:
        """The places of the gold labels in `label_names`; NO_LABEL where there is none."""
        return self.label_indices

    def gold(self) -> list[str | None]:
        """The gold labels by name."""
        names = (*self.label_names, None)  # NO_LABEL is the last place
        return [names[index] for index in self.label_indices.tolist()]

    @functools.cached_property
    def hash(self) -> str:
        """Identifies ids and gold labels, in order."""
        return list_hash([identity, label] for identity, label in zip(self.id_texts(), self.gold(), strict=True))

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, position: int) -> Example: ...
    @overload
    def __getitem__(self, position: slice) -> Examples: ...
    def __getitem__(self, position: int | slice) -> Example | Examples:
        if isinstance(position, slice):
            return self.take(range(*position.indices(len(self))))
        place = range(len(self))[position]
        values = json.loads(self._json(place).decode("utf-8"))
        label = int(self.label_indices[place])
        return Example(
            id=bytes(self.id_bytes[place]).decode("ascii"),
            index=int(self.indices[place]),
            fields=dict(zip(self.field_names, values, strict=True)),
            label=None if label == NO_LABEL else self.label_names[label],
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of equal examples."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list: equal sequences of two kinds have no common hash

    def __repr__(self) -> str:
        return f"<{len(self)} examples of {', '.join(self.field_names)}>"

    def _json(self, place: int) -> Any:
        return self.text[self.ends[place] : self.ends[place + 1]]


def _as_json(values: Iterable[Any]) -> bytes:
    """The JSON list of some values; most are texts, for which the encoder's own function is enough."""
    parts = (encode_basestring(value) if type(value) is str else _ENCODER.encode(value) for value in values)
    return f"[{','.join(parts)}]".encode()


class Occurrences:
    """How often each digest was seen before, in about 30 bytes a digest, where a dict of texts takes 150.

    Digests lie in arrays in the order in which they came; a table of open addressing finds their places.
    """

    def __init__(self) -> None:
        self._high, self._low, self._counts = array("Q"), array("Q"), array("I")
        self._table = _free_table(1024)

    def add(self, digest: str) -> int:
        """Count a digest of 32 hexadecimal digits; how often it was counted before."""
        high, low = int(digest[:16], 16), int(digest[16:], 16)
        slot = self._slot(high, low)
        place = self._table[slot]
        if place:
            self._counts[place - 1] += 1
            return self._counts[place - 1] - 1
        self._high.append(high)
        self._low.append(low)
        self._counts.append(1)
        self._table[slot] = len(self._low)
        if 3 * len(self._low) > 2 * len(self._table):
            self._grow()
        return 0

    def _slot(self, high: int, low: int) -> int:
        """The slot of a digest, or the free one in which it belongs; slots hold places from 1, 0 is free."""
        slot = low % len(self._table)
        while (place := self._table[slot]) and (self._low[place - 1] != low or self._high[place - 1] != high):
            slot = (slot + 1) % len(self._table)
        return slot

    def _grow(self) -> None:
        self._table = _free_table(2 * len(self._table))
        for place, (high, low) in enumerate(zip(self._high, self._low, strict=True), start=1):
            self._table[self._slot(high, low)] = place


def _free_table(size: int) -> array[int]:
    return array("I", bytes(size * array("I").itemsize))
