"""The parts that commands share: lists of names, tables within 80 columns, paths as short as they can be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest

from promptlab.cli import app as application
from promptlab.cli.console import one_line, print_lines, printable, relative, split_names, table
from promptlab.errors import CellsFailed, PromptlabError, StoreError, UsageError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ([], None),
        (["a,b", "c"], ["a", "b", "c"]),
        ([" a , b ,"], ["a", "b"]),
        ([","], []),
        (["{{ text }}, so {{ mask }}"], ["{{ text }}, so {{ mask }}"]),
        (["good=great,bad=awful", "x,y"], ["good=great,bad=awful", "x", "y"]),
    ],
)
def test_names_are_split_at_commas_and_inline_texts_are_not(given: list[str] | None, expected: list[str]) -> None:
    """Blanks around a name and empty names do not count."""
    assert expected == split_names(given)


def test_a_name_and_a_text_in_one_value_are_refused() -> None:
    """Otherwise the name would silently become a part of the text."""
    with pytest.raises(UsageError, match=r"a text keeps its commas\. Give 'sentiment/\*' and the text a flag each\.$"):
        split_names(["sentiment/*,{{ text }} It was {{ mask }}."])


def test_a_table_is_aligned_and_cut_at_eighty_columns() -> None:
    """The last column takes what is left; what does not fit ends in an ellipsis."""
    lines = table([["a", "x" * 90], ["long name", "y"]], header=["name", "what"]).splitlines()
    assert lines[0] == "name       what"
    assert lines[1] == f"a          {'x' * 68}…"
    assert lines[2] == "long name  y"
    assert max(map(len, lines)) == 80


def test_a_table_can_wrap_its_last_column() -> None:
    """Nothing is lost; a word that is longer than the column is broken, a path stays whole."""
    path = "/" + "p" * 90
    rows = [["a", "word " * 30], ["b", path], ["c", ""], ["d", "w" * 90]]
    lines = table(rows, header=["name", "what"], wrap=True).splitlines()
    assert " ".join(lines[1:]).split() == ["a", *["word"] * 30, "b", path, "c", "d", "w" * 74, "w" * 16]
    assert max(len(line) for line in lines if path not in line) <= 80


def test_a_table_without_rows_has_its_header() -> None:
    """An empty listing is no crash."""
    assert table([], header=["name", "what"]) == "name  what"


def test_a_table_can_be_narrower() -> None:
    """So that it can be indented."""
    lines = table([["a", "word " * 30]], header=["name", "what"], wrap=True, width=40).splitlines()
    assert 40 >= max(map(len, lines)) > 35


def test_a_text_of_a_file_is_printed_without_signs_that_a_terminal_obeys() -> None:
    """A blank stands in their place; on one line, blanks are single."""
    assert "a [2J b  c" == printable("a\x1b[2J b\n\tc")
    assert "a [2J b c" == one_line(" a\x1b[2J b\n\tc\n")
    assert "größe 语" == one_line("größe 语")


def test_no_line_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that reads names gets none, not an empty one."""
    print_lines([])
    assert "" == capsys.readouterr().out
    print_lines(["a", "b"])
    assert "a\nb\n" == capsys.readouterr().out


def test_a_path_below_the_working_folder_is_written_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other path stays as it is."""
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "a" / "b") == "a/b"
    assert relative(Path("a")) == "a"
    assert relative(tmp_path.parent / "elsewhere") == str(tmp_path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UsageError("one sentence."), 2, "error: one sentence.\n"),
        (StoreError("one sentence."), 1, "error: one sentence.\n"),
        (CellsFailed("one sentence."), 3, "error: one sentence.\n"),
        (PromptlabError("one sentence."), 1, "error: one sentence.\n"),
        (KeyboardInterrupt(), 130, "interrupted.\n"),
        (KeyboardInterrupt("go on."), 130, "interrupted: go on.\n"),
    ],
)
def test_a_fault_becomes_a_sentence_and_an_exit_code(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The boundary of the command line, fault by fault."""
    assert _leave_with(raised, monkeypatch) == code
    assert capsys.readouterr() == ("", said)


def test_a_programming_error_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is not dressed up as a fault of the user."""
    with pytest.raises(ZeroDivisionError):
        _leave_with(ZeroDivisionError(), monkeypatch)


def _leave_with(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """The exit code of the command line when a command raises."""

    def refuse(arguments: list[str]) -> NoReturn:
        raise raised

    monkeypatch.setattr(sys, "argv", ["promptlab", "run"])
    monkeypatch.setattr(application, "_call", refuse)
    with pytest.raises(SystemExit) as leave:
        application.main()
    return leave.value.code
