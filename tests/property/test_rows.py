"""For any rows, formats agree and limits are nested."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.rows import Limit, load_rows
from promptlab.specs.task import Task

TASK = """\
title: Toy
family: any
kind: classification
labels: [a, b, c]
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


def write(folder: Path, table: list[tuple[str, str]]) -> Task:
    """A task whose rows lie beside it as jsonl."""
    (folder / "toy").mkdir()
    (folder / "toy.yaml").write_text(TASK)
    with (folder / "toy/test.jsonl").open("w", encoding="utf-8") as stream:
        for text, label in table:
            stream.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    return Task.load(str(folder / "toy.yaml"))


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
