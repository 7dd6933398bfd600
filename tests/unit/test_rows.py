"""Sources become examples: equal whatever the format, and no broken row passes in silence."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import DataError, TemplateError, UsageError
from promptlab.rows import Limit, load_rows, majority, read_rows
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


def load(folder: Path, rows: list[Any], **task: str) -> list[tuple[dict[str, Any], str | None]]:
    """Fields and label of each example of some rows."""
    write_jsonl(folder, rows)
    loaded = load_rows(make_task(folder, **task), "test", data=str(folder))
    return [(dict(example.fields), example.label) for example in loaded.examples]


def fault_of(folder: Path, rows: list[Any], **task: str) -> str:
    """What is said of rows that cannot be read, from the file's name on."""
    with pytest.raises(DataError) as fault:
        load(folder, rows, **task)
    return str(fault.value).removeprefix(f"{folder}/toy/")


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


def test_a_missing_value_is_an_empty_text(tmp_path: Path) -> None:
    """Null and NaN become "", alone, inside a list, and inside an expression."""
    rows = [
        '{"text": null, "label": "positive"}',
        '{"text": NaN, "label": "positive"}',
        '{"text": ["a", null], "label": "positive"}',
    ]
    assert ["", "", ["a", ""]] == [fields["text"] for fields, _ in load(tmp_path, rows)]
    joined = load(
        tmp_path, ['{"title": "A", "body": null, "label": "positive"}'], fields="{text: \"title ~ '.' ~ body\"}"
    )
    assert joined == [({"text": "A."}, "positive")]


def test_a_field_may_be_an_expression_over_the_row(tmp_path: Path) -> None:
    """Columns can be joined, and a column whose name is no identifier is still a column."""
    row = {"title": "A", "answers": {"text": ["b"]}, "sentence 1": "c", "label": "positive"}
    fields = "{both: \"title ~ ' ' ~ answers['text'][0]\", text: sentence 1}"
    assert load(tmp_path, [row], fields=fields) == [({"both": "A b", "text": "c"}, "positive")]


@pytest.mark.parametrize(
    ("expected", "raw", "values"),
    [
        ("positive", 1, "{0: negative, 1: positive}"),
        ("positive", "1", "{0: negative, 1: positive}"),
        ("positive", True, "{false: negative, true: positive}"),
        ("positive", "True", "{'False': negative, 'True': positive}"),
        ("negative", "neg", "{neg: negative, pos: positive}"),
    ],
)
def test_raw_values_become_our_labels(tmp_path: Path, expected: str, raw: Any, values: str) -> None:
    """A raw value is found by value and type, or by how it is written, as csv has it."""
    rows = load(tmp_path, [{"text": "a", "label": raw}], label=f"{{column: label, values: {values}}}")
    assert [expected] == [label for _, label in rows]


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


@pytest.mark.parametrize(
    ("message", "row"),
    [
        ("test.jsonl:2: is not valid JSON: Expecting property name enclosed in double quotes (column 2).", "{bad"),
        ("test.jsonl:2: must be an object {...}, found list.", "[1]"),
        ("test.jsonl:2: is nested too deeply or holds too long a number.", '{"text": ' + "1" * 5000 + "}"),
        ("test.jsonl:2: is nested too deeply or holds too long a number.", "[" * 100_000),
        (
            "test.jsonl:2 field 'text': column 'text' is missing. Did you mean 'txt'? Columns: txt, label.",
            '{"txt": "a", "label": "positive"}',
        ),
        ("test.jsonl:2: label column 'label' is missing. Did you mean 'lable'?", '{"text": "a", "lable": "positive"}'),
        (
            "test.jsonl:2: label 'good' is unknown to task 'toy'. Known: negative, positive.",
            '{"text": "", "label": "good"}',
        ),
        (
            "test.jsonl:2: label ['a'] is unknown to task 'toy'. Known: negative, positive.",
            '{"text": "", "label": ["a"]}',
        ),
        (
            "test.jsonl:2: label None is unknown to task 'toy'. Known: negative, positive.",
            '{"text": "", "label": null}',
        ),
        ("test.jsonl:2 field 'text': an infinite number cannot stand in a prompt.", '{"text": -Infinity}'),
        ("test.jsonl:2 field 'text': holds half of a surrogate pair, which is no character.", '{"text": "\\ud83d"}'),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, message: str, row: str) -> None:
    """Each fault of a row is one sentence with file and line."""
    assert message == fault_of(tmp_path, [GOOD, row])


def test_an_unknown_raw_value_is_told_the_known_ones(tmp_path: Path) -> None:
    """A list, a float or -1 where 0 and 1 are named is an unknown label."""
    label = "{column: label, values: {0: negative, 1: positive}}"
    for raw in ("[1]", "1.5", "-1", "true"):
        found = fault_of(tmp_path, [f'{{"text": "a", "label": {raw}}}'], label=label)
        assert found.startswith("test.jsonl:1: label ")
        assert found.endswith(" is unknown to task 'toy'. Known: 0, 1.")


def test_a_wrong_expression_names_task_and_row(tmp_path: Path) -> None:
    """What a row lacks is told with its place, what the task's file says wrong without."""
    found = fault_of(tmp_path, [GOOD], fields='{text: "title | upper"}')
    assert found.startswith("test.jsonl:1 ")
    assert found.endswith("toy.yaml fields.text: 'title' is undefined.")
    with pytest.raises(
        TemplateError, match=r"toy\.yaml fields\.text:1 filter 'uper' is unknown\. Did you mean 'upper'"
    ):
        load(tmp_path, [GOOD], fields='{text: "text | uper"}')


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("test.csv:3: has fewer cells than the header names.", b"text,label\na,positive\nb\n"),
        ("test.csv:2: has more cells than the header names.", b"text,label\na,positive,c\n"),
        ("test.csv:2: is not valid CSV: ", b'text,label\n"a"b,positive\n'),
        ("test.csv: is not UTF-8 text (byte 11).", b"text,label\n\xe9,positive\n"),
        ("test.parquet: is not valid parquet: ", b"not parquet"),
        ("test.tsv: rows are read from .jsonl, .csv, .parquet, found '.tsv'.", b""),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, message: str, content: bytes) -> None:
    """A file that is not what its ending says is one sentence."""
    path = tmp_path / message.split(":")[0]
    path.write_bytes(content)
    with pytest.raises(DataError) as fault:
        list(read_rows(path))
    assert message in str(fault.value)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    """A file without rows names the task, the split and the folder."""
    assert fault_of(tmp_path, []) == "task 'toy': the split 'test' of the local folder toy has no rows."


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
    with pytest.raises(DataError, match=r"toy has no train\{\.jsonl,\.csv,\.parquet\} for the split 'train'\."):
        load_rows(task, "train")


def test_the_first_source_that_is_there_wins(tmp_path: Path) -> None:
    """Rows beside the task come before the hub, which is asked only where no folder is there."""
    rest = "splits: {test: test}\n    fields: {text: text}\n    label: {column: label}"
    source = f"bundled: data/toy\n    {rest}\n  - hub: {{path: nobody/nothing, verified: false}}"
    task = make_task(tmp_path, source)
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data", [GOOD])
    assert load_rows(task, "test").source["kind"] == "bundled"


def test_hub_rows_are_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the hub's form gives the same examples as a local source; the revision is kept with the result."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    write_jsonl(tmp_path, list(ROWS))
    local = load_rows(make_task(tmp_path), "test", data=str(tmp_path))
    hub = load_rows(make_task(tmp_path, f"hub: {{path: '{tmp_path / 'toy'}', verified: false}}"), "test")
    assert local.examples == hub.examples
    assert ("hub", False, None) == (hub.source["kind"], hub.source["verified"], hub.source["revision"])
    with pytest.raises(DataError, match=r"task 'toy': the hub dataset .*nothing could not be loaded \(.*\)\. Name the"):
        load_rows(make_task(tmp_path, "hub: {path: nobody/nothing, verified: false}"), "test")


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


@pytest.mark.parametrize("is_known", [True, False])
def test_a_hub_that_is_out_of_reach_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Where the hub's name is unknown the library runs offline, and is as it was afterwards."""
    import datasets
    import datasets.config

    modes: list[bool] = []

    def load(*args: object, **kwargs: object) -> None:
        modes.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("Couldn't reach it.")

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("promptlab.rows._is_known_host", lambda address: is_known)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = make_task(tmp_path, "hub: {path: far/away, verified: false}")
    with pytest.raises(DataError, match=r"the hub dataset far/away could not be loaded \(Couldn't reach it\)\."):
        load_rows(task, "test")
    assert [not is_known] == modes
    assert not datasets.config.HF_HUB_OFFLINE
