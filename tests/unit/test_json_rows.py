"""JSON lines and lists of objects become rows, wherever the text is cut; a fault names the line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from promptlab import json_rows, lines
from promptlab.errors import DataError
from promptlab.json_rows import read_json, read_json_lines


def pieces_of(text: str, size: int) -> Any:
    """The text, cut into pieces."""
    return (text[start : start + size] for start in range(0, len(text), size))


def read(text: str, size: int = 1000) -> list[tuple[str, dict[str, Any]]]:
    """Places and rows of a .json file."""
    return list(read_json(pieces_of(text, size), "x.json"))


def fault_of(text: str, size: int = 1000, *, name: str = "json") -> str:
    """What is said of a text that cannot be read."""
    reader = read_json if name == "json" else read_json_lines
    with pytest.raises(DataError) as fault:
        list(reader(pieces_of(text, size), f"x.{name}"))
    return str(fault.value)


ROWS: list[dict[str, Any]] = [
    {"text": 'a "b" \\ ], [{\n猫', "label": 1},
    {"deep": {"list": [[], [{}], "}"]}, "number": -1.5e3},
    {"none": None, "yes": True, "": ""},
]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_piece_by_piece(size: int, indent: int | None) -> None:
    """On one line or on many, wherever the text is cut, with CR LF or LF."""
    text = json.dumps(ROWS, indent=indent, ensure_ascii=False)
    assert ROWS == [row for _, row in read(f"\n {text}\n", size)]
    assert ROWS == [row for _, row in read(text.replace("\n", "\r\n"), size)]
    assert ROWS == [row for _, row in read(text.replace("\n", "\r"), size)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 1000])
def test_rows_of_a_list_are_placed_by_line_and_number(end: str, size: int) -> None:
    """Several may stand on one line, so the number of the item is told too."""
    text = end.join(["", "[", '{"a": 1}, {"a":', "2}", ",", '  {"a": 3}', "]", ""])
    places = ["x.json:3 item 1", "x.json:3 item 2", "x.json:6 item 3"]
    assert list(zip(places, [{"a": 1}, {"a": 2}, {"a": 3}], strict=True)) == read(text, size)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_json_lines_may_be_called_json(size: int) -> None:
    """Some benchmarks name them so; blank lines do not count as rows."""
    text = '\n{"a": 1}\r\n\n{"a": 2}\r{"a": 3}\n'
    assert [("x.json:2", {"a": 1}), ("x.json:4", {"a": 2}), ("x.json:5", {"a": 3})] == read(text, size)


HOW = "the file holds one object {...} a line, or one list of them"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (f"x.json:1: is not valid JSON: Expecting property name enclosed in double quotes (column 3); {HOW}.", "{\n}"),
        (
            f"x.json:2 item 2: is not valid JSON: Expecting value (line 3); {HOW}.",
            '[{"a": 1},\n{"a":\n}, {"a": 123456}]',
        ),
        (f"x.json:1 item 2: is not valid JSON: Expecting value (line 1); {HOW}.", '[{"a": 1},]'),
        (
            f"x.json:1 item 1: is not valid JSON: Invalid control character at (line 1); {HOW}.",
            '[{"a": "\n"}]' + " " * 20,
        ),
        ("x.json:2 item 2: the file ends inside of this object: it is not whole.", '[{"a": 1},\n {"a": 2'),
        ("x.json:1 item 1: the file ends inside of this object: it is not whole.", '[{"a": "b'),
        ("x.json:1 item 1: the file ends inside of this object: it is not whole.", "["),
        ("x.json:2: the list that opens here is not closed: the file ends behind item 1.", '\n[{"a": 1}\n'),
        ("x.json:2: '{' stands behind item 1, where ',' or ']' must be.", '[{"a": 1}\n{"a": 2}]'),
        ("x.json:2: text stands behind the list that ends before it: remove it.", '[{"a": 1}]\n{"a": 2}'),
        ("x.json:1 item 2: must be an object {...}, found int.", '[{"a": 1}, 12, {"a": 3}]'),
        ("x.json:1 item 1: must be an object {...}, found list.", '[[{"a": 1}]]'),
        ("x.json:1 item 1: the name 'a' stands twice in one object: keep one of the two values.", '[{"a": 1, "a": 2}]'),
        ("x.json:1 item 1: is nested too deeply or holds too long a number.", f"[{'[' * 100_000}"),
    ],
)
@pytest.mark.parametrize("size", [4, 1000])
def test_a_broken_list_is_told(message: str, text: str, size: int) -> None:
    """Each fault is one sentence, the same wherever the text is cut."""
    assert message == fault_of(text, size)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "x.jsonl:2: is not valid JSON: Expecting ',' delimiter (column 9); each line holds one object {...}.",
            '{"a": 1}\n{"a": 1 "b": 2}\n',
        ),
        ("x.jsonl:3: must be an object {...}, found list.", '{"a": 1}\n\n[1]\n'),
        ("x.jsonl:1: the name 'b' stands twice in one object: keep one of the two values.", '{"a": {"b": 1, "b": 1}}'),
        ("x.jsonl:1: is nested too deeply or holds too long a number.", '{"a": ' + "1" * 5000 + "}"),
    ],
)
def test_a_broken_line_is_told(message: str, text: str) -> None:
    """The line and, where there is one, the column."""
    assert message == fault_of(text, name="jsonl")


@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("b", '{"a": {"c": "d"}, "b": "' + 'x\\"' * 100 + '", "e": "f"}'),
        ("a", '{"a": [' + '{"b": 1}, ' * 50 + "2]}"),
        ("a\\n", '{"a\\n": "' + "x" * 300),
    ],
)
@pytest.mark.parametrize("size", [7, 16])
def test_a_row_over_the_bound_names_column_and_size(
    monkeypatch: pytest.MonkeyPatch, column: str, row: str, size: int
) -> None:
    """A line is counted to its end; an item of a list is not read further than the bound."""
    for module in (lines, json_rows):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    rest = (
        f"more than the 100 that are read, and passes them in column '{column}': shorten the text or leave the row out."
    )
    good = '{"a": 1}\n'
    assert (
        fault_of(f"{good}{row}\n{good}", size, name="jsonl") == f"x.jsonl:2: the row has {len(row)} characters, {rest}"
    )
    found = fault_of(f'[{{"a": 1}}, {row}]', size)
    assert found.startswith("x.json:1 item 2: the row has at least 1")
    assert found.endswith(f" characters, {rest}")


def test_a_whole_item_over_the_bound_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound does not depend on how much of the file was read at once."""
    for module in (lines, json_rows):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    item = json.dumps({"a": "x" * 200})
    assert fault_of(f"[{item}]").startswith(f"x.json:1 item 1: the row has {len(item)} characters, more than the 100")
