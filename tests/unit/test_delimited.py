"""CSV and TSV become rows with the line on which they start; a fault names the line on which it begins."""

from __future__ import annotations

import io
from typing import Any

import pytest

from promptlab import delimited, lines
from promptlab.delimited import read_delimited
from promptlab.errors import DataError


def read(content: str | bytes, delimiter: str = ",") -> list[tuple[str, dict[str, Any]]]:
    """Places and rows of a file."""
    raw = content.encode() if isinstance(content, str) else content
    return [(place, dict(row)) for place, row in read_delimited(io.BytesIO(raw), "x.csv", delimiter)]


def fault_of(content: str | bytes, delimiter: str = ",") -> str:
    """What is said of a file that cannot be read."""
    with pytest.raises(DataError) as fault:
        read(content, delimiter)
    return str(fault.value)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_gives_the_same_values_and_lines(end: str, bom: str) -> None:
    """A row is placed on the line that it starts on, with quoted line ends and blank lines counted."""
    content = bom + end.join(["text,label", 'a "quote",x', "", f'"b{end}c ""d"", e",y', "f,z"])
    assert [
        ("x.csv:2", {"text": 'a "quote"', "label": "x"}),
        ("x.csv:4", {"text": f'b{end}c "d", e', "label": "y"}),
        ("x.csv:6", {"text": "f", "label": "z"}),
    ] == read(content)


def test_a_tsv_is_read_by_the_same_rules() -> None:
    """Tabs part the cells, and a quoted cell may hold one."""
    assert [("x.csv:2", {"text": "a, b", "label": "c\td"})] == read('text\tlabel\na, b\t"c\td"\n', "\t")


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("x.csv: is empty: the first line names the columns, each further one is a row.", ""),
        ("x.csv: is empty: the first line names the columns, each further one is a row.", "\r\n\n"),
        ("x.csv:1: the header has no name for column 2 of 3: the first line must name every column.", "a,,b\n1,2,3\n"),
        ("x.csv:2: the header has no name for column 1 of 2: the first line must name every column.", "\n , b\n1,2\n"),
        ("x.csv:1: the header names column 'a' twice: every column needs a name of its own.", "a,b,a\n1,2,3\n"),
        ("x.csv:3: has 1 cell, the header names 2 (a, b): a delimiter or a quote is missing.", "a,b\n1,2\n3\n"),
        ("x.csv:2: has 3 cells, the header names 2 (a, b): a delimiter or a quote is too many.", "a,b\n1,2,3\n"),
        (
            "x.csv:4: has 2 cells, the header names 12 (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 ...): a delimiter or a "
            "quote is missing.",
            f'{",".join(f"c{number}" for number in range(12))}\n{",".join("x" * 11)},"y\nz"\n1,2\n',
        ),
    ],
)
def test_a_wrong_header_or_row_is_told(message: str, content: str) -> None:
    """The columns need names, each its own, and a row needs as many cells."""
    assert message == fault_of(content)


REMEDY = "close it at the end of the cell, and write each quote inside the cell twice."


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("x.csv:3: the quote that opens column 'b' is never closed", 'a,b\n1,2\n3,"4\n5,6\n7,8\n'),
        ("x.csv:5: the quote that opens column 'b' is never closed", 'a,b\n1,2\n"3\n""4""",5\n6,"7\n'),
        (
            "x.csv:3: the quote that opens column 'a' closes with text behind it on line 5",
            'a,b\n1,2\n"3,4\n5,6\n7"8,9\n',
        ),
        ("x.csv:2: the quote that opens column 'b' closes with text behind it", 'a,b\n1,"2" 3\n'),
        ("x.csv:2: the quote that opens column 'a' is never closed", 'a,b\n"1 ""2"", 3\n'),
        ("x.csv:1: the quote that opens column '2' is never closed", 'a,"b\n1,2\n'),
        ("x.csv:2: the quote that opens column '3' is never closed", 'a,b\n1,2,"3\n'),
    ],
)
def test_an_open_quote_is_placed_where_it_opens(message: str, content: str) -> None:
    """Not at the end of the file, and not where the row starts that it stands in."""
    assert f"{message}: {REMEDY}" == fault_of(content)


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has 100 characters at most, and the file is read in chunks of a few bytes."""
    for module in (lines, delimited):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    monkeypatch.setattr(lines, "CHUNK_BYTES", 16)


@pytest.mark.usefixtures("small_bound")
@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("a", "x" * 500 + ",5\n"),
        ("b", "5," + "x" * 500 + "\n"),
        ("a", '"' + "x" * 500 + '",5\n'),
        ("a", '"' + "x " * 100 + "\n" + "y," * 100 + '",5\r\n'),
        ("b", "4" * 60 + ',"' + "x\n" * 200 + '"\n'),
        ("b", '"4\n5","' + 'x"" ' * 200 + '"\n'),
    ],
)
def test_a_row_over_the_bound_names_column_and_size(column: str, row: str) -> None:
    """The rest of the row is counted and not held, whether it is one line or a quoted cell of many."""
    expected = (
        f"x.csv:3: the row has {len(row.rstrip())} characters, more than the 100 that are read, and passes them in "
        f"column '{column}': shorten the text or leave the row out."
    )
    assert expected == fault_of(f"a,b\n1,2\n{row}")
    assert expected == fault_of(f"a,b\n1,2\n{row}6,7\n")


@pytest.mark.usefixtures("small_bound")
@pytest.mark.parametrize(
    ("message", "rest"),
    [("is never closed", "5,6\n" * 100), ("closes with text behind it on line 103", "5,6\n" * 99 + '7"8,9\n')],
)
def test_a_quote_that_holds_the_rest_of_a_large_file_is_placed_where_it_opens(message: str, rest: str) -> None:
    """What looks like a long row is an open quote, which is what must be mended."""
    found = fault_of(f'a,b\n1,2\n3,"4\n{rest}')
    assert found == f"x.csv:3: the quote that opens column 'b' {message}: {REMEDY}"


def test_a_long_cell_is_no_fault() -> None:
    """The limit of the csv module itself, 131,072 characters, is out of the way."""
    text = "x" * 500_000
    assert [("x.csv:2", {"a": text, "b": "1"}), ("x.csv:3", {"a": "2", "b": "3"})] == read(f'a,b\n"{text}",1\n2,3\n')
