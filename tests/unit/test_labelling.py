"""A file or a stream of rows comes back in order, with a label, its probability and the mass beside each row."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from promptlab import predicting
from promptlab.errors import DataError, LabelWordError, PromptlabError, TemplateError, UsageError
from promptlab.labelling import STDIN, Labelling, label_rows, open_rows
from tests.tiny_library import write_text

TEMPLATE = "{{ text }} It was {{ mask }}."
WORDS = "bad=terrible,good=great"
NEW = ["predicted", "confidence", "p_bad", "p_good", "mass", "reason"]
ROWS = [
    {"text": "a great film", "stars": 5},
    {"text": "a terrible play", "stars": 1},
    {"text": "so", "stars": None},
]


def asked(tiny: Mapping[str, Path], **changes: Any) -> Labelling:
    values: dict[str, Any] = {
        "templates": [TEMPLATE], "verbalizer": WORDS, "model": str(tiny["bert"]), "device": "cpu",
    }  # fmt: skip
    return Labelling(**{**values, **changes})


def pairs(rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((f"row {number}", row) for number, row in enumerate(rows))


def labelled(
    tiny: Mapping[str, Path], rows: list[dict[str, Any]] | None = None, **changes: Any
) -> list[dict[str, Any]]:
    return list(label_rows(pairs(ROWS if rows is None else rows), asked(tiny, **changes), shown="the rows"))


def test_every_row_comes_back_with_its_label(tiny: dict[str, Path]) -> None:
    """All of its own columns first, as they were, then the new ones; the label is the likeliest."""
    found = labelled(tiny)
    assert ROWS == [{name: row[name] for name in ("text", "stars")} for row in found]
    for row in found:
        assert ["text", "stars", *NEW] == list(row)
        shares = {"bad": row["p_bad"], "good": row["p_good"]}
        assert 1 == pytest.approx(sum(shares.values()))
        assert max(shares, key=lambda label: shares[label]) == row["predicted"]
        assert (max(shares.values()), None) == (row["confidence"], row["reason"])
        assert 0 < row["mass"] < 1


def test_order_is_kept_over_windows(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row has the numbers that it has alone."""
    rows = [{"text": " ".join(["film", "great", "so", "was"][: 1 + number % 4]), "id": number} for number in range(11)]
    alone = [labelled(tiny, [row])[0] for row in rows[:4]]
    monkeypatch.setattr(predicting, "WINDOW", 4)
    found = labelled(tiny, rows)
    assert list(range(11)) == [row["id"] for row in found]
    for number, row in enumerate(found):
        assert alone[number % 4]["p_good"] == pytest.approx(row["p_good"], abs=1e-6)


def test_rows_are_read_as_they_are_needed(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without an end is labelled window by window."""
    monkeypatch.setattr(predicting, "WINDOW", 20)
    endless = (("row", {"text": f"film {number}"}) for number in itertools.count())
    found = label_rows(endless, asked(tiny), shown="the rows")
    assert [f"film {number}" for number in range(45)] == [next(found)["text"] for _ in range(45)]


def test_a_row_that_cannot_be_scored_has_nulls_and_a_reason(tiny: dict[str, Path]) -> None:
    """It is not left out."""
    rows = [{"text": "so"}, {"text": "film " * 30}]
    short, long = labelled(tiny, rows, templates=["{{ text | fixed }} It was {{ mask }}."], max_length=16)
    assert short["reason"] is None
    assert short["predicted"] in ("bad", "good")
    assert [None] * 5 == [long[name] for name in NEW[:-1]]
    assert "longer than 16 tokens" in long["reason"]


def test_several_templates_are_averaged(tiny: dict[str, Path]) -> None:
    """The mean of what each says alone."""
    templates = [TEMPLATE, "{{ text }} ({{ mask }})"]
    one, other = (labelled(tiny, templates=[template]) for template in templates)
    both = labelled(tiny, templates=templates)
    for row, first, second in zip(both, one, other, strict=True):
        assert (first["p_good"] + second["p_good"]) / 2 == pytest.approx(row["p_good"], abs=1e-9)


@pytest.mark.parametrize(
    ("row", "template", "changes"),
    [
        ({"body": "so"}, TEMPLATE, {"text_column": "body"}),
        ({"A b": "so"}, TEMPLATE, {"text_column": "A b"}),
        ({"body": "so", "who": "she"}, "{{ who }}: {{ what }} It was {{ mask }}.",
         {"fields": ["what=body", "who=who"]}),
        ({"body": "so", "who": "she"}, "{{ who }}: {{ text }} It was {{ mask }}.",
         {"text_column": "body", "fields": {"who": "who"}}),
        ({"who": "she", "what": "so"}, "{{ who }}: {{ what }} It was {{ mask }}.", {}),
    ],
)  # fmt: skip
def test_fields_are_columns(tiny: dict[str, Path], row: dict[str, str], template: str, changes: dict[str, Any]) -> None:
    """Named by --text-column and --field, or every column under its own name."""
    (found,) = labelled(tiny, [row], templates=[template], **changes)
    filled = template.replace("{{ who }}", "she").replace("{{ what }}", "so").replace("{{ text }}", "so")
    (same,) = labelled(tiny, [{"any": "x"}], templates=[filled])
    assert same["p_good"] == pytest.approx(found["p_good"], abs=1e-6)
    assert row == {name: found[name] for name in row}


def test_new_columns_can_have_a_prefix(tiny: dict[str, Path]) -> None:
    """So that a file that was labelled once can be labelled again."""
    again = labelled(tiny, labelled(tiny), prefix="second_")
    assert ["text", "stars", *NEW, *(f"second_{name}" for name in NEW)] == list(again[0])
    assert again[0]["predicted"] == again[0]["second_predicted"]


@pytest.mark.parametrize("column", NEW)
def test_a_taken_column_is_refused(tiny: dict[str, Path], column: str) -> None:
    """Nothing of the user's is written over; the flag that helps is named."""
    with pytest.raises(UsageError) as fault:
        labelled(tiny, [{"text": "so"}, {"text": "so", column: "mine"}])
    assert f"the rows: has a column '{column}' already: name the new columns otherwise with --prefix." == (
        str(fault.value)
    )


def test_a_column_that_comes_late_is_no_less_taken(tiny: dict[str, Path]) -> None:
    """The rows before it are given out, and nothing is written over."""
    rows = [*({"text": "so"} for _ in range(30)), {"text": "so", "mass": "mine"}]
    found = label_rows(pairs(rows), asked(tiny), shown="the rows")
    assert 30 == len([next(found) for _ in range(30)])
    with pytest.raises(UsageError, match="the rows: has a column 'mass' already"):
        next(found)


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"fields": ["what"]}, UsageError, "--field: write name=value, found 'what'."),
        ({"fields": ["a=text", "a=stars"]}, UsageError, "--field: 'a' stands twice."),
        ({"fields": ["a=txt"]}, UsageError, "--field a=txt: in the rows the column 'txt' is missing. Did you mean"),
        ({"text_column": "body"}, UsageError, "--text-column body: in the rows the column 'body' is missing."),
        ({"text_column": "text", "fields": ["text=stars"]}, UsageError, "both fill 'text': keep one."),
        ({"templates": ["{{ txt }} {{ mask }}"]}, TemplateError, "field 'txt' is unknown in the rows."),
        ({"templates": ["{{ text }} was"]}, TemplateError, "has no {{ mask }}"),
        ({"templates": ["it_wsa"]}, UsageError, "template 'it_wsa' is unknown."),
        ({"verbalizer": "sentiment/*"}, UsageError, "verbalizers, one was wanted: "),
        ({"verbalizer": "bad=terrible"}, PromptlabError, "labels: needs at least 2, found 1."),
        ({"verbalizer": "bad=unbelievable,good=great"}, LabelWordError, "label word 'unbelievable' splits into"),
        ({"calibration": "batch"}, UsageError, "calibration 'batch' needs all rows at once"),
        ({"calibration": "domian"}, UsageError, "calibration 'domian' is unknown. Did you mean 'domain'?"),
        ({"model": "./nowhere"}, UsageError, "model './nowhere'"),
        ({"dtype": "float8"}, UsageError, "--dtype float8: choose one of float32, bfloat16, float16."),
        ({"device": "gpu"}, UsageError, "--device gpu: write auto, cpu, cuda, cuda:N or mps."),
        ({"max_length": 65}, UsageError, "--max-length 65: model"),
        ({"batch_size": "big"}, UsageError, "--batch-size big: write auto or a whole number from 1."),
    ],
)
def test_what_cannot_be_done_is_explained(
    tiny: dict[str, Path], changes: dict[str, Any], kind: type[PromptlabError], sentence: str
) -> None:
    """One sentence, before the first row is written."""
    with pytest.raises(kind) as fault:
        labelled(tiny, **changes)
    assert sentence in str(fault.value)


def test_no_rows_are_a_fault(tiny: dict[str, Path]) -> None:
    """A file without rows is most likely another file than was meant."""
    with pytest.raises(DataError, match=r"^the rows: has no rows\.$"):
        labelled(tiny, [])


def test_a_broken_row_is_told_with_its_place(tiny: dict[str, Path]) -> None:
    """Rows before it are labelled, and it is not skipped in silence."""
    rows = [*({"text": "so"} for _ in range(30)), {"body": "so"}]
    with pytest.raises(DataError, match=r"^row 30 field 'text': column 'text' is missing\."):
        labelled(tiny, rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", 'text,n\nso,1\n"a, b",2\n'),
        ("rows.tsv", "text\tn\nso\t1\na, b\t2\n"),
        ("rows.jsonl", '{"text": "so", "n": 1}\n{"text": "a, b", "n": 2}\n'),
        ("rows.json", '[{"text": "so", "n": 1}, {"text": "a, b", "n": 2}]'),
        ("rows.txt", "so\na, b\n"),
    ],
)
def test_a_file_and_a_stream_hold_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    """A file says by its suffix what it is, standard input by --format, jsonl where nothing is said."""
    write_text(tmp_path / name, text)
    rows = [row for _, row in open_rows(str(tmp_path / name), stdin=io.BytesIO(), form=None)]
    assert ["so", "a, b"] == [row["text"] for row in rows]
    form = name.rpartition(".")[2]
    stream = io.BytesIO(text.encode())
    assert rows == [row for _, row in open_rows(STDIN, stdin=stream, form=None if form == "jsonl" else form)]


@pytest.mark.parametrize(
    ("rows", "form", "sentence"),
    [
        ("rows.csv", "csv", "--format csv: is for standard input, the suffix of rows.csv says what it is."),
        (STDIN, "xml", "standard input: the format 'xml' is unknown. Known: jsonl, csv, parquet, json, tsv, txt."),
        ("none.csv", None, "none.csv: there is no such file."),
        ("rows.doc", None, "rows.doc: the ending of a file of rows is one of .jsonl, .csv,"),
    ],
)
def test_rows_that_cannot_be_opened_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str, form: str | None, sentence: str
) -> None:
    """A format for a file, an unknown one, no such file."""
    monkeypatch.chdir(tmp_path)
    write_text(Path("rows.csv"), "text\nso\n")
    write_text(Path("rows.doc"), "so\n")
    with pytest.raises(PromptlabError) as fault:
        list(open_rows(rows, stdin=io.BytesIO(b"{}"), form=form))
    assert sentence in str(fault.value)
