"""YAML with the words of YAML 1.2, and every fault of a file with its line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from promptlab.documents import parse_yaml, validate
from promptlab.errors import FileFault


class Inner(BaseModel):
    """A nested value."""

    model_config = ConfigDict(extra="forbid", strict=True)
    path: str
    number: int = 0


class Outer(BaseModel):
    """A file's value; `name` comes from its place."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    family: str
    inner: Inner | None = None
    many: list[Inner] = []


def faults_of(text: str, *, first_line: int = 1, **more: Any) -> list[str]:
    """The faults of a text that must have some."""
    with pytest.raises(FileFault) as fault:
        validate(Outer, parse_yaml(text, shown="x.yaml", first_line=first_line), name="x", **more)
    return fault.value.faults


def test_label_words_stay_words() -> None:
    """`yes`, `no`, `on` and times of day are words; only true and false are booleans."""
    read = parse_yaml("[yes, no, on, Off, y, 12:30, 2020-01-01, 1_000, 0x10, .inf, '1']", shown="x").data
    assert read == ["yes", "no", "on", "Off", "y", "12:30", "2020-01-01", "1_000", "0x10", ".inf", "1"]
    assert parse_yaml("[true, False, null, ~, 7, 5e-1]", shown="x").data == [True, False, None, None, 7, 0.5]


def test_an_empty_file_is_an_empty_mapping() -> None:
    """A file of comments alone has no keys."""
    assert parse_yaml("# nothing\n", shown="x").data == {}


def test_duplicate_keys_are_refused_with_both_lines() -> None:
    """A key that stands twice is named with the lines of both."""
    with pytest.raises(FileFault) as fault:
        parse_yaml("labels:\n  yes: a\n  no: b\n  'yes': c\n", shown="x.yaml")
    assert fault.value.faults == ["x.yaml:4 labels.yes: the key stands twice, first on line 2."]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("x.yaml:2 b: anchors and aliases are not read, write the value out.", "a: &a [1]\nb: *a"),
        ("x.yaml:1 a.0: anchors and aliases are not read, write the value out.", "a: &a [*a]"),
        ("x.yaml:1 a: the tag !!python/object:os.system is not read.", "a: !!python/object:os.system {x: 1}"),
        ("x.yaml:1 a: the tag !!str is not read.", "a: !!str 5"),
        ("x.yaml:1 a: the tag !!set is not read.", "a: !!set {x}"),
        ("x.yaml:1 a.0: the tag !mine is not read.", "a: [!mine 'x']"),
        ("x.yaml:1: a key must be one word.", "? [a]\n: 1"),
        ("x.yaml:1 a: is not a number that can be read.", "a: " + "1" * 5000),
        ("x.yaml:1 is nested more than 20 levels deep.", "[" * 100_000),
    ],
)
def test_what_a_data_file_does_not_need_is_refused(message: str, text: str) -> None:
    """Anchors, tags, odd keys and bottomless nesting are one sentence with file and line."""
    with pytest.raises(FileFault) as fault:
        parse_yaml(text, shown="x.yaml")
    assert [message] == fault.value.faults


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("x.yaml:2 is not valid YAML: ", "a: 1\nb: ]"),
        ("x.yaml:2 is not valid YAML: ", "a: 1\n---\nb: 2"),
        ("x.yaml:1 is not valid YAML: ", "a: \x00"),
    ],
)
def test_bad_syntax_is_one_sentence(start: str, text: str) -> None:
    """What YAML itself refuses names file and line."""
    with pytest.raises(FileFault) as fault:
        parse_yaml(text, shown="x.yaml")
    assert str(fault.value).startswith(start)
    assert len(fault.value.faults) == 1


def test_unknown_keys_are_hinted_at_with_their_line() -> None:
    """An unknown key names the nearest allowed one, at the top and inside, but no key that a file must not hold."""
    assert faults_of("famly: f") == [
        "x.yaml:1 family: is required and missing.",
        "x.yaml:1 famly: unknown key. Did you mean 'family'? Allowed: family, inner, many.",
    ]
    assert faults_of("family: f\n\nmany:\n  - pth: q") == [
        "x.yaml:4 many.0.path: is required and missing.",
        "x.yaml:4 many.0.pth: unknown key. Did you mean 'path'? Allowed: number, path.",
    ]


def test_all_faults_of_a_file_come_at_once() -> None:
    """A wrong type, a missing key and an unknown key are told together, each with its line."""
    found = faults_of("family: f\ninner:\n  number: two\n  nmber: 2\n")
    assert found == [
        "x.yaml:2 inner.path: is required and missing.",
        "x.yaml:3 inner.number: Input should be a valid integer, found 'two'.",
        "x.yaml:4 inner.nmber: unknown key. Did you mean 'number'? Allowed: number, path.",
    ]


def test_lines_count_from_the_start_of_the_file() -> None:
    """The head of a template starts on line 2, and so do the lines of its faults."""
    assert "x.yaml:3 inner: " in faults_of("family: f\ninner: 3", first_line=2)[0]
    with pytest.raises(FileFault, match=r"x\.yaml:3 a: the key stands twice, first on line 2"):
        parse_yaml("a: 1\na: 2", shown="x.yaml", first_line=2)


def test_keys_that_come_from_the_place_are_refused() -> None:
    """A file cannot name itself."""
    assert faults_of("family: f\nname: y") == [
        "x.yaml:2 name: is not a key of the file, it comes from the file's place."
    ]


@pytest.mark.parametrize(("found", "text"), [("a list", "- a"), ("a text", "a"), ("int", "7")])
def test_a_file_holds_keys_and_values(found: str, text: str) -> None:
    """A list, a text or a number alone is no data file."""
    assert [f"x.yaml:1 must hold keys and values, found {found}."] == faults_of(text)
