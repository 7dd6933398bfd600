"""A task's source -> the examples of a split, in source order, or a seeded prefix in which every label keeps its share.

The first source that is there wins: rows that ship with the task, a folder under --data, named files, the hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.examples import NO_LABEL, Examples
from promptlab.hub import read_hub
from promptlab.library import shown_path
from promptlab.reading import SUFFIXES, RawRow, read_rows
from promptlab.seeding import derive_seed
from promptlab.specs.task import Source, Task
from promptlab.types import Example
from promptlab.validating import validate_rows


@dataclass(frozen=True, slots=True)
class RowSet:
    """The examples of one split, where they came from, and the hash of what they say (ids and labels)."""

    task: str
    split: str
    examples: Examples
    source: Mapping[str, Any]
    num_in_source: int

    @property
    def hash(self) -> str:
        """Identifies ids and gold labels, in order."""
        return self.examples.hash

    def gold_counts(self) -> dict[str, int]:
        """How many rows have each gold label; empty without labels."""
        labels = self.examples.labels()
        counts = np.bincount(labels[labels != NO_LABEL], minlength=len(self.examples.label_names))
        named = zip(self.examples.label_names, counts.tolist(), strict=True)
        return dict(sorted((label, count) for label, count in named if count))


@dataclass(frozen=True, slots=True)
class Limit:
    """How many rows to take: a seeded stratified prefix, or the first ones of the source."""

    num_rows: int
    is_first: bool = False

    @classmethod
    def parse(cls, text: str | int) -> Limit:
        """`100` is a stratified prefix, `first:100` the head of the source."""
        is_first = isinstance(text, str) and text.startswith("first:")
        number = str(text).removeprefix("first:")
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            raise UsageError(f"--limit {text}: write a whole number from 1, or first:N for the first N rows.")
        return cls(int(number), is_first)

    def __str__(self) -> str:
        return f"first:{self.num_rows}" if self.is_first else str(self.num_rows)


def load_rows(task: Task, split: str, *, data: str | None = None, limit: Limit | None = None, seed: int = 0) -> RowSet:
    """The examples of one split of a task.

    Args:
        task: the task; the first of its sources that is there is read.
        split: `train`, `validation` or `test`, as the task names them.
        data: the folder that local sources lie in (default: PROMPTLAB_DATA).
        limit: take only so many rows.
        seed: the user's seed, for a stratified limit.

    Raises:
        DataError: no source is there, or a row of it is broken.
    """
    source = _find_source(task, data)
    rows = _raw_rows(task, source, split, data)
    made = (example for _, example in validate_rows(task, source, rows, counts_unknown=True))
    examples = Examples.collect(made, fields=task.fields, labels=task.labels)
    if not len(examples):
        raise DataError(f"task '{task.name}': the split '{split}' of {describe_source(source, data)} has no rows.")
    taken = examples if limit is None else _take(examples, limit, seed, task.name, split)
    return RowSet(task.name, split, taken, describe_source(source, data, as_dict=True), len(examples))


def stream_examples(
    task: Task, rows: Iterable[tuple[str, RawRow]], *, has_labels: bool = True
) -> Iterator[tuple[RawRow, Example]]:
    """Each raw row with its validated example, one after the other, none of them held.

    The fields and the label are those of the task's first source, wherever the rows come from.

    Args:
        task: what the rows are examples of.
        rows: (place, raw row) pairs, as `read_rows` and `read_stream` give them.
        has_labels: whether the rows hold gold labels where the task says so; else every label is None.

    Raises:
        DataError: a row is broken, or its label is unknown to the task.
    """
    source = task.sources[0]
    return validate_rows(task, source if has_labels else source.model_copy(update={"label": None}), rows)


def describe_source(source: Source, data: str | None, *, as_dict: bool = False) -> Any:
    """The source in words, or as the manifest stores it."""
    if source.hub is not None:
        stored = {"kind": "hub", **source.hub.model_dump(mode="json")}
        return stored if as_dict else f"the hub dataset {source.hub.path}"
    if source.files is not None:
        names = ", ".join(source.files.values())
        return {"kind": "files", "files": dict(source.files)} if as_dict else f"the files {names}"
    kind = "local" if source.local is not None else "bundled"
    name = source.local if source.local is not None else source.bundled
    return {"kind": kind, "folder": name} if as_dict else f"the {kind} folder {name}"


def majority(rows: RowSet, labels: Sequence[str]) -> tuple[str, float] | None:
    """The most frequent gold label (the first in label order among equals) and its share; None without labels."""
    counts = rows.gold_counts()
    if not counts:
        return None
    label = max(labels, key=lambda name: counts.get(name, 0))
    return label, counts.get(label, 0) / sum(counts.values())


def _find_source(task: Task, data: str | None) -> Source:
    """The first source that is there.

    Raises:
        DataError: none is; what was looked for is named.
    """
    for source in task.sources:
        places = _places(task, source, data)
        if source.hub is not None or any(place.is_file() if source.files else place.is_dir() for place in places):
            return source
    names = ", ".join(
        ", ".join(map(shown_path, _places(task, source, data))) if source.files else str(source.local or source.bundled)
        for source in task.sources
    )
    hint = f" {_data_hint(data)}" if any(source.local is not None for source in task.sources) else ""
    raise DataError(f"task '{task.name}': no rows found.{hint} It looks for: {names}.")


def _data_hint(data: str | None) -> str:
    folder = data or os.environ.get("PROMPTLAB_DATA")
    return f"--data is {folder}." if folder else "Name the folder that holds them with --data DIR or PROMPTLAB_DATA."


def _places(task: Task, source: Source, data: str | None) -> list[Path]:
    """The folder of a source, or its files in the order of the splits; none for the hub and where no folder is named.

    What stands beside the task is looked for in the folder of its file; a task that was made in memory has none, and so
    the working folder is taken.
    """
    beside = Path(task.path).parent
    if source.bundled is not None:
        return [beside / source.bundled]
    if source.files is not None:
        return [beside / Path(name).expanduser() for name in source.files.values()]
    root = data or os.environ.get("PROMPTLAB_DATA")
    return [Path(root).expanduser() / source.local] if root and source.local is not None else []


def _raw_rows(task: Task, source: Source, split: str, data: str | None) -> Iterator[tuple[str, RawRow]]:
    """(place, raw row) pairs of a split."""
    if split not in source.splits:
        raise DataError(
            f"task '{task.name}' has no split '{split}'.{did_you_mean(split, source.splits)} "
            f"It has: {', '.join(source.splits)}."
        )
    their_name = source.splits[split]
    if source.hub is not None:
        return read_hub(source.hub, their_name, task=task.name, hint=_data_hint(data))
    places = _places(task, source, data)
    if source.files is not None:
        return read_rows(places[list(source.files).index(split)])
    for suffix in SUFFIXES:
        path = places[0] / f"{their_name}{suffix}"
        if path.is_file():
            return read_rows(path)
    raise DataError(
        f"task '{task.name}': {shown_path(places[0])} has no {their_name}{{{','.join(SUFFIXES)}}} "
        f"for the split '{split}'."
    )


def _take(examples: Examples, limit: Limit, seed: int, task: str, split: str) -> Examples:
    """The limited rows: a prefix of the source, or of an order in which every label keeps its share."""
    if limit.is_first:
        return examples[: limit.num_rows]
    seeds = np.fromiter((derive_seed(seed, "limit", task, split, name) for name in examples.id_texts()), dtype=np.int64)
    order = np.argsort(seeds, kind="stable")
    labels = examples.labels()[order]
    shares = np.zeros(len(order))
    for label in np.unique(labels):
        members = labels == label
        shares[members] = (np.arange(members.sum()) + 0.5) / members.sum()
    by_name = sorted(range(len(examples.label_names)), key=lambda index: examples.label_names[index])
    rank = np.argsort(np.array(by_name))  # the place of each label in the order of the names
    ranked = np.lexsort((rank[labels], shares))
    return examples.take(order[ranked[: limit.num_rows]])
