"""Aligned columns that fit a terminal."""

from __future__ import annotations

import pytest

from promptlab.reporting.columns import cut, fit_columns, natural_width


def test_text_is_left_and_numbers_are_right() -> None:
    """With two blanks between columns and none at the end of a line."""
    lines = fit_columns(["name", "value"], [["a", "1"], ["longer", "1000000"]], 80, num_left=1)
    assert lines == ["name      value", "a             1", "longer  1000000"]


def test_the_widest_text_is_cut_and_numbers_never_are() -> None:
    """Down to eight characters a column of text; a table of numbers alone may be wider than the terminal."""
    rows = [["x" * 50, "y" * 30, "0.123456"]]
    (_, line) = fit_columns(["one", "other", "number"], rows, 60, num_left=2)
    assert 60 == len(line)
    assert ("x" * 23 + "…", "y" * 23 + "…", "0.123456") == tuple(line.split())
    narrow = fit_columns(["one", "other", "number"], rows, 10, num_left=2)[1]
    assert ("x" * 7 + "…", "y" * 7 + "…", "0.123456") == tuple(narrow.split())


def test_what_fits_is_not_cut() -> None:
    """The natural width is that of the widest cells and the gaps."""
    table = [["name", "value"], ["abcdef", "1"]]
    assert 6 + 2 + 5 == natural_width(table)
    assert fit_columns(table[0], table[1:], 13, num_left=1)[1].startswith("abcdef")


@pytest.mark.parametrize(("text", "width", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("", 3, "")])
def test_a_cut_text_ends_in_an_ellipsis(text: str, width: int, shown: str) -> None:
    """So that a reader sees that it goes on."""
    assert shown == cut(text, width)
