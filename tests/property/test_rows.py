"""For any rows, formats agree, limits are nested, and what is held compactly is what the plain way gives."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.examples import Examples
from promptlab.hashing import content_hash
from promptlab.reading import read_stream
from promptlab.rows import Limit, load_rows, majority
from promptlab.seeding import derive_seed
from promptlab.specs.task import Task
from promptlab.types import Example
from promptlab.validating import validate_rows

TASK = """\
title: Toy
family: any
kind: classification
labels: [b, a, c]
sources:
  - bundled: toy
    splits: {test: test}
    fields: {text: text}
    label: {column: label}
language: en
license: none
citation: none
version: 1
"""
checked = settings(max_examples=25, deadline=None, derandomize=True, database=None)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
tables = st.lists(st.tuples(texts, st.sampled_from("abc")), min_size=1, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def write(folder: Path, table: list[tuple[str, str]]) -> Task:
    """A task whose rows lie beside it as jsonl."""
    (folder / "toy").mkdir()
    (folder / "toy.yaml").write_text(TASK)
    with (folder / "toy/test.jsonl").open("w", encoding="utf-8") as stream:
        for text, label in table:
            stream.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    return Task.load(str(folder / "toy.yaml"))


def task_in_memory() -> Task:
    """The task without a folder."""
    known: dict[str, Any] = {"name": "toy", "path": "toy", "title": "Toy", "family": "any", "kind": "classification"}
    known |= {"labels": ["b", "a", "c"], "language": "en", "license": "none", "citation": "none", "version": 1}
    source = {"local": "toy", "splits": {"test": "test"}, "fields": {"x": "x", "y": "y"}, "label": {"column": "label"}}
    return Task.model_validate({**known, "sources": [source]})


def naive_examples(rows: Sequence[tuple[Any, Any, str]]) -> list[Example]:
    """Examples as a list with a counter of digests, as they once were held."""

    def plain(value: Any) -> Any:
        if value is None or value != value:
            return ""
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    seen: Counter[str] = Counter()
    examples = []
    for index, (x, y, label) in enumerate(rows):
        fields = {"x": plain(x), "y": plain(y)}
        digest = content_hash(fields)
        examples.append(Example(f"{digest[:16]}-{seen[digest]}", index, fields, label))
        seen[digest] += 1
    return examples


def naive_take(examples: Sequence[Example], number: int, seed: int) -> list[Example]:
    """The stratified prefix as it once was taken, example by example."""
    by_label: dict[str | None, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: derive_seed(seed, "limit", "toy", "test", example.id)):
        by_label[example.label].append(example)
    ranked = [
        ((rank + 0.5) / len(members), str(label), example)
        for label, members in by_label.items()
        for rank, example in enumerate(members)
    ]
    ranked.sort(key=lambda item: (item[0], item[1]))
    return [example for _, _, example in ranked[:number]]


@checked
@given(table=tables)
def test_csv_and_jsonl_agree(table: list[tuple[str, str]]) -> None:
    """Any text survives both formats, with quotes, commas, tabs and every kind of line end inside."""
    with tempfile.TemporaryDirectory() as name:
        task = write(Path(name), table)
        examples = load_rows(task, "test").examples
        (Path(name) / "toy/test.jsonl").unlink()
        with (Path(name) / "toy/test.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerows([("text", "label"), *table])
        assert examples == load_rows(task, "test").examples
    assert table == [(example.fields["text"], example.label) for example in examples]
    assert len({example.id for example in examples}) == len(table)


@checked
@given(table=tables, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), end=st.sampled_from(["\n", "\r\n"]))
def test_a_row_of_a_csv_is_placed_on_the_line_it_starts_on(
    table: list[tuple[str, str]], quoting: Any, end: str
) -> None:
    """The line is the number of line ends before the row, those inside of cells among them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerow(("text", "label"))
    starts = []
    for row in table:
        starts.append(len(text.getvalue()))
        writer.writerow(row)
    written = text.getvalue()
    lines = [len(io.StringIO(written[:start] + "x", newline="").readlines()) for start in starts]
    pairs = list(read_stream(io.BytesIO(written.encode("utf-8")), "csv", "x"))
    assert [f"x:{line}" for line in lines] == [place for place, _ in pairs]
    assert table == [(row["text"], row["label"]) for _, row in pairs]


@checked
@given(rows=st.lists(st.tuples(values, values, st.sampled_from("abc")), max_size=8), twice=st.integers(1, 3))
def test_examples_are_those_of_the_plain_way(rows: list[tuple[Any, Any, str]], twice: int) -> None:
    """Any value of JSON comes back, ids count equal rows, and hash, slices and labels are those of the list."""
    rows = rows * twice
    task = task_in_memory()
    pairs = [("x", {"x": x, "y": y, "label": label}) for x, y, label in rows]
    made = (example for _, example in validate_rows(task, task.sources[0], pairs))
    held = Examples.collect(made, fields=task.fields, labels=task.labels)
    naive = naive_examples(rows)
    assert naive == list(held)
    assert repr(naive) == repr(list(held))  # the types of numbers and the order of keys, too
    assert naive[1:-1:2] == list(held[1:-1:2])
    assert [example.label for example in naive] == held.gold()
    assert [example.id for example in naive] == list(held.id_texts())
    assert content_hash([[example.id, example.label] for example in naive]) == held.hash


@checked
@given(table=tables, number=st.integers(1, 12), seed=st.integers(0, 3))
def test_a_limit_takes_the_rows_of_the_plain_way(table: list[tuple[str, str]], number: int, seed: int) -> None:
    """The same examples in the same order as when they were sorted one by one, and the same counts."""
    with tempfile.TemporaryDirectory() as name:
        task = write(Path(name), table * 3)
        whole = load_rows(task, "test")
        taken = load_rows(task, "test", limit=Limit(number), seed=seed)
    assert naive_take(list(whole.examples), number, seed) == list(taken.examples)
    counts = Counter(example.label for example in taken.examples)
    assert dict(sorted(counts.items())) == taken.gold_counts()
    best = max(task.labels, key=lambda label: counts[label])
    assert (best, counts[best] / len(taken.examples)) == majority(taken, task.labels)


@checked
@given(table=tables, small=st.integers(1, 12), large=st.integers(1, 12), seed=st.integers(0, 3))
def test_limits_are_nested_and_stratified(table: list[tuple[str, str]], small: int, large: int, seed: int) -> None:
    """A smaller limit is a prefix of a larger one, and every label is within one row of its share."""
    small, large = sorted((small, large))
    with tempfile.TemporaryDirectory() as name:
        task = write(Path(name), table)
        few, many = (load_rows(task, "test", limit=Limit(number), seed=seed).examples for number in (small, large))
    assert few == many[:small]
    whole = Counter(label for _, label in table)
    taken = Counter(example.label for example in few)
    for label, number in whole.items():
        assert abs(taken[label] - len(few) * number / len(table)) <= 1
