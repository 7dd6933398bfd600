"""Raw rows become examples: fields and labels are looked up, and no broken row passes in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from promptlab.errors import DataError, TemplateError
from promptlab.specs.task import Task
from promptlab.validating import MOST_NAMED, validate_rows

COLUMN = {"column": "label"}
NUMBERED = {"column": "label", "values": {0: "negative", 1: "positive"}}
GOOD = {"text": "a", "label": "positive"}


def make_task(fields: dict[str, str] | None = None, label: dict[str, Any] | None = COLUMN) -> Task:
    """A task of two labels, made in memory."""
    source = {"local": "toy", "splits": {"test": "test"}, "fields": fields or {"text": "text"}, "label": label}
    known = {"name": "toy", "path": "toy.yaml", "title": "Toy", "family": "any", "kind": "classification"}
    said = {"language": "en", "license": "none", "citation": "none", "version": 1}
    return Task.model_validate({**known, **said, "labels": ["negative", "positive"], "sources": [source]})


def validate(rows: Sequence[Any], task: Task, *, counts_unknown: bool = True) -> list[tuple[dict[str, Any], Any]]:
    """Fields and label of each example of some rows."""
    pairs = [(f"x:{number}", row) for number, row in enumerate(rows, start=1)]
    made = validate_rows(task, task.sources[0], pairs, counts_unknown=counts_unknown)
    return [(dict(example.fields), example.label) for _, example in made]


def fault_of(rows: Sequence[Any], task: Task, *, counts_unknown: bool = True) -> str:
    """What is said of rows that are broken."""
    with pytest.raises(DataError) as fault:
        validate(rows, task, counts_unknown=counts_unknown)
    return str(fault.value)


def test_a_missing_value_is_an_empty_text() -> None:
    """Null and NaN become "", alone, inside a list, and inside an expression."""
    rows = [{**GOOD, "text": value} for value in (None, float("nan"), ["a", None])]
    assert ["", "", ["a", ""]] == [fields["text"] for fields, _ in validate(rows, make_task())]
    joined = make_task({"text": "title ~ '.' ~ body"})
    assert [({"text": "A."}, "positive")] == validate([{"title": "A", "body": None, "label": "positive"}], joined)


def test_a_field_may_be_an_expression_over_the_row() -> None:
    """Columns can be joined, and a column whose name is no identifier is still a column."""
    row = {"title": "A", "answers": {"text": ["b"]}, "sentence 1": "c", "label": "positive"}
    task = make_task({"both": "title ~ ' ' ~ answers['text'][0]", "text": "sentence 1"})
    assert [({"both": "A b", "text": "c"}, "positive")] == validate([row], task)
    found = fault_of([row, {"text": "a", "label": "positive"}], make_task({"text": "sentence 1"}))
    assert found == "x:2 field 'text': column 'sentence 1' is missing. Columns: text, label."


def test_ids_count_equal_rows() -> None:
    """An id is the hash of the fields and the number of equal rows before; the label does not matter."""
    rows = [GOOD, {"text": "b", "label": "negative"}, {**GOOD, "label": "negative"}]
    pairs = [("x", row) for row in rows]
    task = make_task()
    ids = [example.id for _, example in validate_rows(task, task.sources[0], pairs)]
    assert ids[2] == ids[0].removesuffix("-0") + "-1"
    assert ids[1] not in ids[::2]


@pytest.mark.parametrize(
    ("expected", "raw", "values"),
    [
        ("positive", 1, {0: "negative", 1: "positive"}),
        ("positive", "1", {0: "negative", 1: "positive"}),
        ("positive", True, {False: "negative", True: "positive"}),
        ("positive", "True", {"False": "negative", "True": "positive"}),
        ("negative", "neg", {"neg": "negative", "pos": "positive"}),
        ("positive", 1, {1: "positive", "1": "negative"}),
        ("negative", "1", {1: "positive", "1": "negative"}),
        ("negative", "", {"": "negative", "pos": "positive"}),
        ("negative", None, {"": "negative", "pos": "positive"}),
        ("negative", float("nan"), {"": "negative", "pos": "positive"}),
    ],
)
def test_raw_values_become_our_labels(expected: str, raw: Any, values: Any) -> None:
    """A raw value is found by value and type, or by how it is written, as csv has it; an empty cell is ''."""
    task = make_task(label={"column": "label", "values": values})
    assert [expected] == [label for _, label in validate([{"text": "a", "label": raw}], task)]


def test_a_number_may_be_the_name_of_a_label() -> None:
    """Where the labels are called like numbers, a number is found as its text is in a csv."""
    task = make_task().model_copy(update={"labels": ("0", "1")})
    assert ["1", "0"] == [label for _, label in validate([{"text": "", "label": raw} for raw in (1, "0")], task)]


@pytest.mark.parametrize(
    ("message", "row"),
    [
        (
            "x:2 field 'text': column 'text' is missing. Did you mean 'txt'? Columns: txt, label.",
            {"txt": "", "label": 0},
        ),
        ("x:2: label column 'label' is missing. Did you mean 'lable'? Columns: text, lable.", {"text": "", "lable": 0}),
        ("x:2 field 'text': an infinite number cannot stand in a prompt.", {"text": float("-inf")}),
        ("x:2 field 'text': holds half of a surrogate pair, which is no character.", {"text": ["\ud83d"]}),
        (
            "x:2 field 'text': a binary value cannot stand in a prompt: store the column as text.",
            {"text": {"a": b"\xff"}},
        ),
        ("x:2 field 'text': a complex cannot stand in a prompt: store the column as text.", {"text": 1j}),
    ],
)
def test_a_broken_row_is_named(message: str, row: dict[str, Any]) -> None:
    """Each fault of a row is one sentence with its place."""
    assert message == fault_of([GOOD, row], make_task())


def test_a_binary_column_that_no_field_wants_is_no_fault() -> None:
    """Only what a template may see must be text."""
    assert [({"text": "a"}, "positive")] == validate([{**GOOD, "picture": b"\xff"}], make_task())


MAP_IT = "Map it with label.values in the task or --label-values."
MAP_THEM = "Map them with label.values in the task or --label-values."


@pytest.mark.parametrize(
    ("message", "labels"),
    [
        (f"x:2: label 'meh' (1 row) is unknown to task 'toy'. Known: negative, positive. {MAP_IT}", ["meh"]),
        (f"x:2: label '' (1 row) is unknown to task 'toy'. Known: negative, positive. {MAP_IT}", [None]),
        (f"x:2: label ['a'] (1 row) is unknown to task 'toy'. Known: negative, positive. {MAP_IT}", [["a"]]),
        (
            "x:2: label 'meh' (3 rows, first here) and 'n/a' (2 rows, x:4) are unknown to task 'toy'. "
            f"Known: negative, positive. {MAP_THEM}",
            ["meh", "positive", "n/a", "meh", "n/a", "negative", "meh"],
        ),
        (
            "x:2: label 'a' (1 row), 'b' (1 row, x:3) and 'c' (1 row, x:4) are unknown to task 'toy'. "
            f"Known: negative, positive. {MAP_THEM}",
            ["a", "b", "c"],
        ),
    ],
)
def test_unknown_labels_are_named_all_at_once(message: str, labels: list[Any]) -> None:
    """Each with its number over the whole split and the place of its first row, so that one look mends all."""
    assert message == fault_of([GOOD, *({"text": "a", "label": label} for label in labels)], make_task())


def test_many_or_long_unknown_labels_are_cut() -> None:
    """Where the wrong column was named, the message does not hold the file."""
    found = fault_of([{"text": "", "label": "x" * 100}], make_task())
    assert f"label '{'x' * 58}… (1 row) is unknown" in found
    many = [{"text": "", "label": str(number % 15)} for number in range(45)]
    found = fault_of(many, make_task())
    assert MOST_NAMED == found.count("(3 rows")
    assert " and other values (15 rows) are unknown" in found


def test_counting_unknown_labels_ends_where_the_file_is_broken() -> None:
    """What was found before is told; without counting only the first row is."""
    task = make_task()

    def rows() -> Any:
        yield from (("x:1", {"text": "", "label": "meh"}), ("x:2", {"text": ""}), ("x:3", {"text": "", "label": "meh"}))
        raise DataError("x:4: is broken.")

    for counts_unknown, told in ((True, "(2 rows, first here)"), (False, "(1 row)")):
        with pytest.raises(DataError) as fault:
            list(validate_rows(task, task.sources[0], rows(), counts_unknown=counts_unknown))
        assert f"x:1: label 'meh' {told} is unknown" in str(fault.value)


def test_an_unknown_raw_value_is_told_the_known_ones() -> None:
    """A list, a float or -1 where 0 and 1 are named is an unknown label."""
    for raw in ([1], 1.5, -1, True):
        found = fault_of([{"text": "a", "label": raw}], make_task(label=NUMBERED))
        assert found == f"x:1: label {raw!r} (1 row) is unknown to task 'toy'. Known: 0, 1. {MAP_IT}"


def test_a_wrong_expression_names_task_and_row() -> None:
    """What a row lacks is told with its place, what the task's file says wrong without."""
    found = fault_of([GOOD], make_task({"text": "title | upper"}))
    assert found == "x:1 toy.yaml fields.text: 'title' is undefined."
    with pytest.raises(TemplateError, match=r"toy\.yaml fields\.text:1 filter 'uper' is unknown\. Did you mean"):
        validate([GOOD], make_task({"text": "text | uper"}))


def test_values_are_those_of_json() -> None:
    """A tuple is a list and a key a text, so that a row of any format has the id of the same row in JSON."""
    row = {**GOOD, "text": {"a": (1, 2.5, True), 3: ["b"]}}
    assert {"a": [1, 2.5, True], "3": ["b"]} == validate([row], make_task())[0][0]["text"]
    assert json.loads(json.dumps(row["text"])) == validate([row], make_task())[0][0]["text"]
