"""A file of rows becomes a task without a task file, and what does not fit names the flag that is to blame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlab.ad_hoc import ad_hoc_task
from promptlab.errors import DataError, UsageError
from promptlab.reading import read_stream
from promptlab.rows import load_rows, stream_examples

LABELS = ("negative", "positive")


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with rows to score, rows to learn from, and others."""
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text("text,stars,Review Text,mask,label\na,1,x,m,neg\nb,2,y,m,pos\n")
    Path("train.jsonl").write_text('{"text": "c", "stars": 3, "Review Text": "z", "mask": "", "label": "pos"}\n')
    Path("other.csv").write_text("body,label\na,neg\n")
    return tmp_path


def test_every_column_with_a_usable_name_is_a_field(reviews: Path) -> None:
    """Without a word on fields; names with a meaning of their own and the gold label are none."""
    task = ad_hoc_task("reviews.csv", labels=LABELS)
    assert {"text": "text", "stars": "stars", "label": "label"} == dict(task.sources[0].fields)
    assert ("reviews", LABELS, "", 1) == (task.name, task.labels, task.family, task.version)
    assert {"not stated"} == {task.language, task.license, task.citation}
    assert [None, None] == load_rows(task, "test").examples.gold()
    labelled = ad_hoc_task("reviews.csv", labels=LABELS, label_column="label", label_values={"neg": "negative"})
    assert ("text", "stars") == labelled.fields


def test_a_field_that_nobody_asked_for_is_in_both_files(reviews: Path) -> None:
    """What only the rows to score have, templates cannot read of the rows to learn from."""
    Path("more.csv").write_text("text,note,label\na,b,neg\n")
    assert ("text", "note", "label") == ad_hoc_task("more.csv", labels=LABELS).fields
    both = ad_hoc_task("more.csv", train_rows="train.jsonl", labels=LABELS, label_column="label")
    assert ("text",) == both.fields


def test_columns_are_named_by_flags(reviews: Path) -> None:
    """A column of any name can be the text or a field; labels are mapped, and the train split is another file."""
    task = ad_hoc_task(
        "reviews.csv",
        train_rows="train.jsonl",
        text_column="Review Text",
        fields={"rating": "stars"},
        label_column="label",
        label_values={"neg": "negative", "pos": "positive"},
        labels=LABELS,
        family="sentiment",
        name="mine",
    )
    rows, train = load_rows(task, "test"), load_rows(task, "train")
    assert [{"text": "x", "rating": "1"}, {"text": "y", "rating": "2"}] == [example.fields for example in rows.examples]
    assert ["negative", "positive"] == rows.examples.gold()
    assert [("z", "positive")] == [(example.fields["text"], example.label) for example in train.examples]
    assert {"kind": "files", "files": {"test": "reviews.csv", "train": "train.jsonl"}} == rows.source
    assert ("mine", "sentiment") == (task.name, task.family)


def test_a_task_of_another_folder_finds_its_file(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the working folder, or absolute."""
    (reviews / "deep").mkdir()
    monkeypatch.chdir(reviews / "deep")
    for path in ("../reviews.csv", reviews / "reviews.csv"):
        assert 2 == len(load_rows(ad_hoc_task(path, labels=LABELS), "test").examples)


def test_rows_that_were_read_already_are_a_head(reviews: Path) -> None:
    """Standard input is read once: its first rows are handed over and name the columns."""
    with Path("reviews.csv").open("rb") as stream:
        pairs = read_stream(stream, "csv", "standard input")
        head = [next(pairs)]
        task = ad_hoc_task("-", head=head, labels=LABELS, name="typed", text_column="text")
        examples = [example for _, example in stream_examples(task, [*head, *pairs])]
    assert ["a", "b"] == [example.fields["text"] for example in examples]


@pytest.mark.parametrize(
    ("expected", "rows"),
    [
        ("reviews-2024.v1", "reviews 2024.v1.csv"),
        ("über_uns", "über_uns.csv"),
        ("rows", "+.csv"),
        ("a-b", "-a  b-.csv"),
    ],
)
def test_a_task_is_called_like_its_file(reviews: Path, expected: str, rows: str) -> None:
    """What no name can hold is a dash."""
    Path(rows).write_text("text\na\n")
    assert expected == ad_hoc_task(rows, labels=LABELS).name


def test_a_column_that_cannot_stand_in_a_prompt_is_no_field_by_itself(reviews: Path) -> None:
    """Pictures and dates are left out unless somebody asks for them; so is what only some rows have."""
    import datetime

    import pyarrow as pa
    from pyarrow import parquet

    row = {"text": "a", "picture": b"\xff", "day": datetime.date(2024, 1, 1)}
    parquet.write_table(pa.Table.from_pylist([row]), "rows.parquet")
    assert ("text",) == ad_hoc_task("rows.parquet", labels=LABELS).fields
    with pytest.raises(DataError, match=r"field 'p': a binary value cannot stand in a prompt"):
        load_rows(ad_hoc_task("rows.parquet", labels=LABELS, fields={"p": "picture"}), "test")
    Path("ragged.jsonl").write_text('{"text": "a", "more": "b"}\n{"text": "c"}\n')
    assert ("text",) == ad_hoc_task("ragged.jsonl", labels=LABELS).fields


COLUMNS = "Columns: text, stars, Review Text, mask, label."


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--rows review.csv: there is no such file. Did you mean 'reviews.csv'?", {"rows": "review.csv"}),
        ("--rows .: is a folder: name a file of rows (.jsonl, .csv, .parquet, .json, .tsv, .txt).", {"rows": "."}),
        ("--rows x.xlsx: the ending of a file of rows is one of .jsonl, .csv,", {"rows": "x.xlsx"}),
        ("--train-rows none.csv: there is no such file.", {"train_rows": "none.csv"}),
        (
            f"--text-column txt: in --rows reviews.csv the column 'txt' is missing. Did you mean 'text'? {COLUMNS}",
            {"text_column": "txt"},
        ),
        (
            f"--field a=body: in --rows reviews.csv the column 'body' is missing. {COLUMNS}",
            {"fields": {"a": "body"}},
        ),
        (
            f"--label-column lbl: in --rows reviews.csv the column 'lbl' is missing. Did you mean 'label'? {COLUMNS}",
            {"label_column": "lbl"},
        ),
        (
            "--text-column text: in --train-rows other.csv the column 'text' is missing. Columns: body, label.",
            {"text_column": "text", "train_rows": "other.csv"},
        ),
        (
            "--text-column stars and --field text=text both fill 'text': keep one.",
            {"text_column": "stars", "fields": {"text": "text"}},
        ),
        (
            "--field mask=text: 'mask' has a meaning of its own in templates: give the field another name.",
            {"fields": {"mask": "text"}},
        ),
        (
            "--field my text=text: 'my text' is no name that a template can use: give the field another name.",
            {"fields": {"my text": "text"}},
        ),
        (
            "--label-values neg=negativ: there is no label 'negativ'. Did you mean 'negative'? "
            "Labels: negative, positive.",
            {"label_column": "label", "label_values": {"neg": "negativ"}},
        ),
        (
            "--label-values: they are the values of a column: name it with --label-column.",
            {"label_values": {"neg": "negative"}},
        ),
        ("--rows: two different labels or more are needed, found one.", {"labels": ("one",)}),
        ("the name of a task is made of letters, digits, '_', '.', '+' and '-', found 'a/b'.", {"name": "a/b"}),
        (
            "--rows odd.csv: no column has a name that a template can use (my text, 2): name the column of the text "
            "with --text-column, or each field with --field NAME=COLUMN.",
            {"rows": "odd.csv"},
        ),
    ],
)
def test_what_does_not_fit_names_the_flag(reviews: Path, message: str, arguments: dict[str, Any]) -> None:
    """A wrong argument is a fault of usage, told before any row is loaded."""
    Path("x.xlsx").write_text("")
    Path("odd.csv").write_text("my text,2\na,b\n")
    with pytest.raises(UsageError) as fault:
        ad_hoc_task(**{"rows": "reviews.csv", "labels": LABELS, **arguments})
    assert str(fault.value).startswith(message)


def test_a_head_that_cannot_be_read_is_told_with_flag_and_line(reviews: Path) -> None:
    """The file's own fault, behind the flag that named the file."""
    Path("bad.csv").write_text("text,label\na\n")
    for flag, arguments in (("--rows", {"rows": "bad.csv"}), ("--train-rows", {"train_rows": "bad.csv"})):
        with pytest.raises(DataError) as fault:
            ad_hoc_task(**{"rows": "reviews.csv", "labels": LABELS, **arguments})
        assert f"{flag} {reviews}/bad.csv:2: has 1 cell, the header names 2".replace(f"{reviews}/", "") in str(
            fault.value
        )
