"""A task's source -> validated examples, in source order, each with an id that says what it holds.

The first source that is there wins: rows that ship with the task, a folder under --data, the hub.
A broken row names file, line and field; nothing is dropped in silence.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
import socket
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab import sandbox
from promptlab.errors import DataError, PromptlabError, UsageError, did_you_mean
from promptlab.hashing import content_hash
from promptlab.library import shown_path
from promptlab.seeding import derive_seed
from promptlab.specs.task import HubSource, Source, Task
from promptlab.types import Example

SUFFIXES = (".jsonl", ".csv", ".parquet")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class RowSet:
    """The examples of one split, where they came from, and the hash of what they say (ids and labels)."""

    task: str
    split: str
    examples: tuple[Example, ...]
    source: Mapping[str, Any]
    num_in_source: int

    @property
    def hash(self) -> str:
        """Identifies ids and gold labels, in order."""
        return content_hash([[example.id, example.label] for example in self.examples])

    def gold_counts(self) -> dict[str, int]:
        """How many rows have each gold label; empty without labels."""
        return dict(sorted(Counter(example.label for example in self.examples if example.label is not None).items()))


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
    examples = _to_examples(task, source, _raw_rows(task, source, split, data))
    if not examples:
        raise DataError(f"task '{task.name}': the split '{split}' of {describe_source(source, data)} has no rows.")
    taken = examples if limit is None else _take(examples, limit, seed, task.name, split)
    return RowSet(task.name, split, tuple(taken), describe_source(source, data, as_dict=True), len(examples))


def describe_source(source: Source, data: str | None, *, as_dict: bool = False) -> Any:
    """The source in words, or as the manifest stores it."""
    if source.hub is not None:
        stored = {"kind": "hub", **source.hub.model_dump(mode="json")}
        return stored if as_dict else f"the hub dataset {source.hub.path}"
    kind = "local" if source.local is not None else "bundled"
    name = source.local if source.local is not None else source.bundled
    return {"kind": kind, "folder": name} if as_dict else f"the {kind} folder {name}"


def majority(rows: RowSet, labels: Sequence[str]) -> tuple[str, float] | None:
    """The most frequent gold label (the first in label order among equals) and its share; None without labels."""
    counts = Counter(example.label for example in rows.examples if example.label is not None)
    if not counts:
        return None
    label = max(labels, key=lambda name: counts[name])
    return label, counts[label] / sum(counts.values())


def _find_source(task: Task, data: str | None) -> Source:
    for source in task.sources:
        if source.hub is not None or _folder(task, source, data).is_dir():
            return source
    names = ", ".join(str(source.local or source.bundled) for source in task.sources)
    raise DataError(f"task '{task.name}': no rows found. {_data_hint(data)} It looks for: {names}.")


def _data_hint(data: str | None) -> str:
    folder = data or os.environ.get("PROMPTLAB_DATA")
    return f"--data is {folder}." if folder else "Name the folder that holds them with --data DIR or PROMPTLAB_DATA."


def _folder(task: Task, source: Source, data: str | None) -> Path:
    if source.bundled is not None:
        return Path(task.path).parent / source.bundled
    root = data or os.environ.get("PROMPTLAB_DATA")
    return Path(root).expanduser() / str(source.local) if root else Path("/nonexistent-promptlab-data")


def _raw_rows(task: Task, source: Source, split: str, data: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, raw row) pairs of a split; the place is `file:line` or `dataset row N`."""
    if split not in source.splits:
        raise DataError(
            f"task '{task.name}' has no split '{split}'.{did_you_mean(split, source.splits)} "
            f"It has: {', '.join(source.splits)}."
        )
    their_name = source.splits[split]
    if source.hub is not None:
        return _hub_rows(task, source.hub, their_name, data)
    folder = _folder(task, source, data)
    for suffix in SUFFIXES:
        path = folder / f"{their_name}{suffix}"
        if path.is_file():
            return read_rows(path)
    raise DataError(
        f"task '{task.name}': {shown_path(folder)} has no {their_name}{{{','.join(SUFFIXES)}}} for the split '{split}'."
    )


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, raw row) pairs of a jsonl, csv or parquet file."""
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: rows are read from {', '.join(readers)}, found '{path.suffix}'.")
    try:
        yield from readers[path.suffix](path)
    except OSError as error:
        raise DataError(f"{shown_path(path)}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{shown_path(path)}: is not UTF-8 text (byte {error.start}).") from None


def _read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    shown = shown_path(path)
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{shown}:{number}: is not valid JSON: {error.msg} (column {error.colno}).") from None
            except (RecursionError, ValueError):  # a ValueError is a number of thousands of digits
                raise DataError(f"{shown}:{number}: is nested too deeply or holds too long a number.") from None
            if not isinstance(row, dict):
                raise DataError(f"{shown}:{number}: must be an object {{...}}, found {type(row).__name__}.")
            yield f"{shown}:{number}", row


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    shown = shown_path(path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    fault = "more" if None in row else "fewer"
                    raise DataError(f"{shown}:{reader.line_num}: has {fault} cells than the header names.")
                yield f"{shown}:{reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"{shown}:{reader.reader.line_num}: is not valid CSV: {error}.") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{shown_path(path)}: is not valid parquet: {str(error).splitlines()[0]}.") from None
    for number, row in enumerate(rows, start=1):
        yield f"{shown_path(path)}:{number}", row


def _hub_rows(task: Task, hub: HubSource, split: str, data: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a hub dataset at the named revision; datasets that need a script are refused by the library."""
    import datasets

    try:
        with _offline_where_unreachable():
            dataset = datasets.load_dataset(hub.path, hub.name, split=split, revision=hub.revision)
    except Exception as error:  # the library raises a dozen kinds; all of them mean that there are no rows
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"task '{task.name}': the hub dataset {hub.path} could not be loaded ({reason.rstrip('.')}). "
            f"{_data_hint(data)}"
        ) from None
    for number, row in enumerate(dataset):
        yield f"{hub.path} row {number}", row


@contextlib.contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """The hub's own offline mode where its name cannot be looked up: the local cache is read, nothing is tried again.

    Without it the library asks six times, half a minute long, and prints each attempt. Behind a proxy the name need
    not be known here, so there nothing is assumed.
    """
    import datasets.config
    import huggingface_hub.constants

    if urllib.request.getproxies() or _is_known_host(str(huggingface_hub.constants.ENDPOINT)):
        yield
        return
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _is_known_host(address: str) -> bool:
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, 443)
    except OSError:
        return False
    return True


def _to_examples(task: Task, source: Source, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> list[Example]:
    """Validated examples with ids."""
    getters: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    examples = []
    for index, (place, row) in enumerate(rows):
        fields = {name: _field(task, name, wanted, row, place, getters) for name, wanted in source.fields.items()}
        label = _label(task, source, row, place)
        digest = content_hash(fields)
        examples.append(Example(f"{digest[:16]}-{seen[digest]}", index, fields, label))
        seen[digest] += 1
    return examples


def _field(task: Task, name: str, wanted: str, row: Mapping[str, Any], place: str, getters: dict[str, Any]) -> Any:
    """One field of a row: a column of that name, or a Jinja expression over the row."""
    if wanted in row:
        return _as_json(row[wanted], name, place)
    if wanted.isidentifier():
        hint = did_you_mean(wanted, [str(column) for column in row])
        columns = ", ".join(str(column) for column in row)
        raise DataError(f"{place} field '{name}': column '{wanted}' is missing.{hint} Columns: {columns}.")
    if wanted not in getters:
        getters[wanted] = sandbox.compile_expression(wanted, shown=f"{shown_path(Path(task.path))} fields.{name}")
    try:
        filled = {column: "" if _is_missing(value) else value for column, value in row.items()}
        return _as_json(getters[wanted](filled), name, place)
    except PromptlabError as error:
        raise DataError(f"{place} {error}") from None


def _as_json(value: Any, name: str, place: str) -> Any:
    """A value that a template may see: text, number, list or mapping; a missing value is an empty text."""
    if _is_missing(value):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{place} field '{name}': an infinite number cannot stand in a prompt.")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise DataError(f"{place} field '{name}': holds half of a surrogate pair, which is no character.")
    if isinstance(value, str | int | bool | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(item, name, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, name, place) for item in value]
    raise DataError(f"{place} field '{name}': a {type(value).__name__} cannot stand in a prompt.")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _label(task: Task, source: Source, row: Mapping[str, Any], place: str) -> str | None:
    """Our name of the gold label, None where the source has no labels."""
    if source.label is None:
        return None
    column = source.label.column
    if column not in row:
        raise DataError(f"{place}: label column '{column}' is missing.{did_you_mean(column, map(str, row))}")
    raw, values = row[column], source.label.values
    if values is None:
        name = raw
    else:
        named = {(type(key), str(key)): value for key, value in values.items()}
        name = named.get((type(raw), str(raw)), {str(key): value for key, value in values.items()}.get(str(raw)))
    if name not in task.labels:
        allowed = ", ".join(map(str, values or task.labels))
        raise DataError(f"{place}: label {raw!r} is unknown to task '{task.name}'. Known: {allowed}.")
    return str(name)


def _take(examples: list[Example], limit: Limit, seed: int, task: str, split: str) -> list[Example]:
    """The limited rows: a prefix of the source, or of an order in which every label keeps its share."""
    if limit.is_first:
        return examples[: limit.num_rows]
    by_label: dict[str | None, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: derive_seed(seed, "limit", task, split, example.id)):
        by_label[example.label].append(example)
    ranked = [
        ((rank + 0.5) / len(members), str(label), example)
        for label, members in by_label.items()
        for rank, example in enumerate(members)
    ]
    ranked.sort(key=lambda item: (item[0], item[1]))
    return [example for _, _, example in ranked[: limit.num_rows]]
