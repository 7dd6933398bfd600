"""Sources become examples: equal whatever the format, from the first source that is there, all of them or a part."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import DataError, UsageError
from promptlab.reading import read_rows
from promptlab.rows import Limit, describe_source, load_rows, majority, stream_examples
from promptlab.specs.task import Task

ROWS = [
    {"text": 'A fine film, "really".\nTruly.', "label": "positive"},
    {"text": "Größe 猫", "label": "negative"},
    {"text": "", "label": "negative"},
]


def make_task(
    folder: Path, source: str = "local: toy", fields: str = "{text: text}", label: str = "{column: label}"
) -> Task:
    """A task of two labels with one source."""
    path = folder / "toy.yaml"
    path.write_text(
        "title: Toy\nfamily: sentiment\nkind: classification\nlabels: [negative, positive]\n"
        f"sources:\n  - {source}\n    splits: {{train: train, test: test}}\n    fields: {fields}\n    label: {label}\n"
        "language: en\nlicense: none\ncitation: none\nversion: 1\n"
    )
    return Task.load(str(path))


def write_jsonl(folder: Path, rows: list[Any], split: str = "test") -> Path:
    """A split as jsonl; texts are written as they are."""
    path = folder / "toy" / f"{split}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_format_gives_equal_examples(tmp_path: Path) -> None:
    """The same rows as jsonl, csv and parquet have the same ids, fields, labels and hash."""
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "csv/toy").mkdir(parents=True)
    (tmp_path / "parquet/toy").mkdir(parents=True)
    write_jsonl(tmp_path, list(ROWS))
    with (tmp_path / "csv/toy/test.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "parquet/toy/test.parquet")
    task = make_task(tmp_path)
    loaded = [
        load_rows(task, "test", data=str(folder)) for folder in (tmp_path, tmp_path / "csv", tmp_path / "parquet")
    ]
    assert [loaded[0].examples] * 2 == [rows.examples for rows in loaded[1:]]
    assert {loaded[0].hash} == {rows.hash for rows in loaded}
    assert [row["text"] for row in ROWS] == [example.fields["text"] for example in loaded[0].examples]
    assert {"kind": "local", "folder": "toy"} == loaded[0].source


def test_ids_say_what_a_row_holds_and_not_where(tmp_path: Path) -> None:
    """Equal rows are told apart by their occurrence; the order of the file and the label do not matter."""
    task = make_task(tmp_path)
    a, b = {"text": "a", "label": "positive"}, {"text": "b", "label": "negative"}
    ids = []
    for rows in ([a, b, a], [b, a, {**a, "label": "negative"}]):
        write_jsonl(tmp_path, rows)
        ids.append([example.id for example in load_rows(task, "test", data=str(tmp_path)).examples])
    (a0, b0, a1), (b0_again, a0_again, a1_again) = ids
    assert (a0, b0, a1) == (a0_again, b0_again, a1_again)
    assert a1 == a0.removesuffix("-0") + "-1"


def test_the_place_in_the_source_is_kept(tmp_path: Path) -> None:
    """`index` counts rows, blank lines do not count, and the hash of the rows depends on labels and order."""
    write_jsonl(tmp_path, [{"text": "a", "label": "positive"}, "", {"text": "b", "label": "negative"}])
    rows = load_rows(make_task(tmp_path), "test", data=str(tmp_path))
    assert [0, 1] == [example.index for example in rows.examples]
    write_jsonl(tmp_path, [{"text": "a", "label": "positive"}, {"text": "b", "label": "positive"}])
    assert rows.hash != load_rows(make_task(tmp_path), "test", data=str(tmp_path)).hash


def test_rows_need_no_label(tmp_path: Path) -> None:
    """A source without labels gives examples without gold."""
    path = make_task(tmp_path).path
    text = Path(path).read_text().replace("    label: {column: label}\n", "")
    Path(path).write_text(text)
    write_jsonl(tmp_path, [{"text": "a"}])
    rows = load_rows(Task.load(path), "test", data=str(tmp_path))
    assert [None] == [example.label for example in rows.examples]
    assert majority(rows, ["negative", "positive"]) is None
    assert rows.gold_counts() == {}


def test_majority_is_the_most_frequent_label(tmp_path: Path) -> None:
    """The most frequent gold label and its share; the first in label order among equals."""
    write_jsonl(tmp_path, [{"text": str(number), "label": "positive"} for number in range(3)] + [ROWS[1]])
    rows = load_rows(make_task(tmp_path), "test", data=str(tmp_path))
    assert majority(rows, ["negative", "positive"]) == ("positive", 0.75)
    assert rows.gold_counts() == {"negative": 1, "positive": 3}
    write_jsonl(tmp_path, list(ROWS[:2]))
    rows = load_rows(make_task(tmp_path), "test", data=str(tmp_path))
    assert majority(rows, ["negative", "positive"]) == ("negative", 0.5)


GOOD = {"text": "a", "label": "positive"}


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    """A file without rows is named, with what it should hold."""
    write_jsonl(tmp_path, [])
    with pytest.raises(DataError, match=r"test\.jsonl: has no rows: write one object \{\.\.\.\} a line\."):
        load_rows(make_task(tmp_path), "test", data=str(tmp_path))


def test_missing_sources_splits_and_files_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what was looked for and how to say where it is."""
    task = make_task(tmp_path)
    with pytest.raises(
        DataError, match=r"task 'toy': no rows found\. Name the folder .* with --data DIR .* for: toy\."
    ):
        load_rows(task, "test")
    monkeypatch.setenv("PROMPTLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no rows found\. --data is .*\. It looks for: toy\."):
        load_rows(task, "test")
    write_jsonl(tmp_path, [GOOD])
    assert len(load_rows(task, "test").examples) == 1
    with pytest.raises(
        DataError, match=r"task 'toy' has no split 'tset'\. Did you mean 'test'\? It has: train, test\."
    ):
        load_rows(task, "tset")
    with pytest.raises(
        DataError, match=r"toy has no train\{\.jsonl,\.csv,\.parquet,\.json,\.tsv,\.txt\} for the split 'train'\."
    ):
        load_rows(task, "train")


def test_the_first_source_that_is_there_wins(tmp_path: Path) -> None:
    """Rows beside the task come before the hub, which is asked only where no folder is there."""
    rest = "splits: {test: test}\n    fields: {text: text}\n    label: {column: label}"
    source = f"bundled: data/toy\n    {rest}\n  - hub: {{path: nobody/nothing, verified: false}}"
    task = make_task(tmp_path, source)
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data", [GOOD])
    assert load_rows(task, "test").source["kind"] == "bundled"


def write_reviews(folder: Path, files: str = "{test: reviews.csv, train: more/other.json}") -> Task:
    """A task whose rows are named files beside it."""
    (folder / "more").mkdir(exist_ok=True)
    (folder / "reviews.csv").write_text("text,label\na,positive\nb,negative\nc,positive\n")
    (folder / "more/other.json").write_text(json.dumps([{"text": "d", "label": "negative"}]))
    path = folder / "reviews.yaml"
    path.write_text(
        "title: Reviews\nfamily: sentiment\nkind: classification\nlabels: [negative, positive]\n"
        f"sources:\n  - files: {files}\n    fields: {{text: text}}\n    label: {{column: label}}\n"
        "language: en\nlicense: none\ncitation: none\nversion: 1\n"
    )
    return Task.load(str(path))


def test_a_source_may_name_a_file_for_each_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the task's file from wherever promptlab is called; its splits are those that have a file."""
    task = write_reviews(tmp_path)
    monkeypatch.chdir(tmp_path / "more")
    rows = load_rows(task, "test")
    assert ["positive", "negative", "positive"] == rows.examples.gold()
    assert ["d"] == [example.fields["text"] for example in load_rows(task, "train").examples]
    files = {"test": "reviews.csv", "train": "more/other.json"}
    assert {"kind": "files", "files": files} == rows.source
    assert "the files reviews.csv, more/other.json" == describe_source(task.sources[0], None)
    with pytest.raises(DataError, match=r"task 'reviews' has no split 'validation'\. It has: test, train\."):
        load_rows(task, "validation")


def test_files_of_a_task_in_memory_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task without a file has no folder of its own; an absolute path is one anywhere."""
    task = write_reviews(tmp_path).model_copy(update={"path": "in memory"})
    monkeypatch.chdir(tmp_path)
    assert 3 == len(load_rows(task, "test").examples)
    absolute = write_reviews(tmp_path, f"{{test: {tmp_path / 'reviews.csv'}}}")
    assert 3 == len(load_rows(absolute.model_copy(update={"path": "in memory"}), "test").examples)


def test_a_named_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """One of several with its nearest name; where none is there all are named and --data is no remedy."""
    task = write_reviews(tmp_path)
    (tmp_path / "more/other.json").rename(tmp_path / "more/others.json")
    with pytest.raises(DataError, match=r"other\.json: there is no such file\. Did you mean 'others\.json'\?"):
        load_rows(task, "train")
    (tmp_path / "reviews.csv").unlink()
    with pytest.raises(DataError) as fault:
        load_rows(task, "test")
    folder = tmp_path.as_posix()
    expected = f"task 'reviews': no rows found. It looks for: {folder}/reviews.csv, {folder}/more/other.json."
    assert expected == str(fault.value)


def test_unknown_labels_of_a_split_are_told_with_their_numbers(tmp_path: Path) -> None:
    """All of the split is looked at before anything is said."""
    task = write_reviews(tmp_path)
    (tmp_path / "reviews.csv").write_text('text,label\n"a\nb",meh\nc,positive\nd,n/a\ne,meh\nf,\n')
    with pytest.raises(DataError) as fault:
        load_rows(task, "test")
    assert str(fault.value).replace(f"{tmp_path.as_posix()}/", "") == (
        "reviews.csv:2: label 'meh' (2 rows, first here), 'n/a' (1 row, reviews.csv:5) and '' (1 row, reviews.csv:7) "
        "are unknown to task 'reviews'. Known: negative, positive. "
        "Map them with label.values in the task or --label-values."
    )


def test_examples_can_be_had_one_by_one(tmp_path: Path) -> None:
    """A stream gives each raw row with the example that a loaded split has, before the next row is read."""
    task = write_reviews(tmp_path)
    read = list[str]()

    def pairs() -> Any:
        for place, row in read_rows(tmp_path / "reviews.csv"):
            read.append(place)
            yield place, row

    stream = stream_examples(task, pairs())
    row, first = next(stream)
    assert ({"text": "a", "label": "positive"}, 1) == (row, len(read))
    assert [first, *(example for _, example in stream)] == load_rows(task, "test").examples
    unlabelled = stream_examples(task, [("x:1", {"text": "a"})], has_labels=False)
    assert [(first.id, None)] == [(example.id, example.label) for _, example in unlabelled]
    with pytest.raises(DataError, match=r"x:1: label column 'label' is missing\. Columns: text\."):
        next(stream_examples(task, [("x:1", {"text": "a"})]))


def test_a_limit_is_a_nested_stratified_prefix(tmp_path: Path) -> None:
    """10 rows are within 50, which are within 100; every label keeps its share; the file's order does not matter."""
    rows = [{"text": str(number), "label": "positive" if number % 5 == 0 else "negative"} for number in range(100)]
    task = make_task(tmp_path)
    write_jsonl(tmp_path, rows)
    taken = {
        number: load_rows(task, "test", data=str(tmp_path), limit=Limit(number)).examples for number in (10, 50, 100)
    }
    assert taken[10] == taken[50][:10]
    assert taken[50] == taken[100][:50]
    assert [Counter(negative=8, positive=2), Counter(negative=40, positive=10)] == [
        Counter(example.label for example in taken[number]) for number in (10, 50)
    ]
    write_jsonl(tmp_path, rows[::-1])
    again = load_rows(task, "test", data=str(tmp_path), limit=Limit(10))
    assert [example.id for example in taken[10]] == [example.id for example in again.examples]
    assert again.num_in_source == 100
    other = load_rows(task, "test", data=str(tmp_path), limit=Limit(10), seed=1)
    assert {example.id for example in taken[10]} != {example.id for example in other.examples}


def test_the_first_rows_can_be_asked_for(tmp_path: Path) -> None:
    """`first:2` is the head of the file."""
    write_jsonl(tmp_path, list(ROWS))
    rows = load_rows(make_task(tmp_path), "test", data=str(tmp_path), limit=Limit.parse("first:2"))
    assert [0, 1] == [example.index for example in rows.examples]


@pytest.mark.parametrize("text", ["0", "-1", "first:0", "last:5", "ten", "1.5", "", "²"])
def test_a_wrong_limit_is_explained(text: str) -> None:
    """A limit is a whole number from 1, with or without `first:`."""
    assert ["5", "first:5"] == [str(Limit.parse(good)) for good in (5, "first:5")]
    with pytest.raises(UsageError) as fault:
        Limit.parse(text)
    assert str(fault.value) == f"--limit {text}: write a whole number from 1, or first:N for the first N rows."
