"""`run --rows`: a file of the user's own is scored whatever wrote it, or refused in a sentence with its place."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.terminal import Call, Said, assert_fault

TEMPLATES = ("--templates", "{{ text }} It was {{ mask }}.", "--verbalizers", "bad=terrible,good=great")
ASKED = ("--template", "{{ text }} It was {{ mask }}.", "--verbalizer", "bad=terrible,good=great")
TRIED = ("--template", "{{ text }} It was {{ mask }}.", "--labels", "bad=terrible,good=great", "--text", "so")
ERROR, USAGE = 1, 2
LABELLED = ("--label-column", "stars", "--label-values", "0=bad,1=good")
ROWS = "text,stars\na fine day,1\nwe lost,0\n"


@pytest.fixture
def score(call: Call, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`promptlab run --rows FILE` on a tiny model, without the pictures of a report."""

    def no_report(results: object, **options: object) -> list[Path]:
        return []

    monkeypatch.setattr("promptlab.reporting.report.write_report", no_report)

    def type_in(name: str, content: bytes | str, *arguments: object, asked: tuple[str, ...] = TEMPLATES) -> Said:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return call("run", "--rows", name, "--model", tiny["bert"], *asked, *arguments)

    return type_in


def cells_of(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said.err
    return json.loads(Path(said.out.splitlines()[-1]).read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", ROWS),
        pytest.param("bom.csv", b"\xef\xbb\xbf" + ROWS.encode(), marks=pytest.mark.slow),
        ("crlf.csv", ROWS.replace("\n", "\r\n")),
        pytest.param("no_end.csv", ROWS.rstrip("\n"), marks=pytest.mark.slow),
        pytest.param("quoted.csv", 'text,stars\r\n"a fine day",1\r\nwe lost,0\r\n', marks=pytest.mark.slow),
        ("tabs.tsv", ROWS.replace(",", "\t")),
        ("lines.jsonl", '{"text": "a fine day", "stars": 1}\n{"text": "we lost", "stars": "0"}\n'),
        pytest.param(
            "list.json", '[{"text": "a fine day", "stars": 1}, {"text": "we lost", "stars": 0}]', marks=pytest.mark.slow
        ),
    ],
)
def test_the_same_rows_are_the_same_whatever_wrote_them(score: Call, name: str, content: bytes | str) -> None:
    """A byte order mark, line ends of Windows, quotes, tabs and JSON change no cell."""
    found, plain = (cells_of(score(*file, *LABELLED)) for file in ((name, content), ("rows.csv", ROWS)))
    for one, other in zip(found, plain, strict=True):
        assert (other["metrics"], other["predicted"], other["mass"]) == (one["metrics"], one["predicted"], one["mass"])
    assert 2 == found[0]["num_rows"]


def test_rows_without_labels_have_predictions_and_an_agreement(score: Call) -> None:
    """Nothing is measured, and everything else is there."""
    asked = ("--templates", "{{ text }} It was {{ mask }}.", "--templates", "{{ text }} ({{ mask }})", *TEMPLATES[2:])
    said = score("rows.csv", ROWS, "--text-column", "text", "--ensemble", "*", asked=asked)
    stored = json.loads(Path(said.out.splitlines()[-1]).read_text(encoding="utf-8"))
    assert all(cell["metrics"] == {} and sum(cell["predicted"].values()) == 2 for cell in stored["cells"])
    assert {"ensemble:*"} < {cell["template"] for cell in stored["cells"]}
    assert ["none", "contextual"] == [one["calibration"] for one in stored["agreements"]]
    assert "two templates predict the same label for" in said.out


def test_train_rows_are_what_calibrations_look_at(score: Call) -> None:
    """`--train-rows` makes domain and support calibration possible; without it they are refused with that flag."""
    Path("train.csv").write_text("text,stars\n" + "".join(f"a day of {n},1\n" for n in range(9)), encoding="utf-8")
    asked = ("rows.csv", ROWS, "--calibrations", "domain,support", *LABELLED)
    numbers = Counter(
        (cell["calibration"], cell["num_calibration_prompts"])
        for cell in cells_of(score(*asked, "--train-rows", "train.csv"))
    )
    assert {("domain", 20): 1, ("support", 9): 1} == dict(numbers)
    parts = ["calibration 'domain' needs train rows: name a file of them with --train-rows."]
    assert_fault(score(*asked), USAGE, *parts)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("nul.csv", "text,stars\na,1\nb\0c,0\n", ["--rows nul.csv:3: holds a NUL byte (byte 16 of the file)"]),
        ("mixed.csv", "text,stars\nCafé,1\n".encode() + "Café,0\n".encode("latin-1"),
         ["--rows mixed.csv:3: byte 22 of the file (0xE9) is not UTF-8 text, as the lines before it are",
          "write the whole file as UTF-8."]),
        ("latin.csv", "text,stars\nCafé,1\n".encode("latin-1"),
         ["--rows latin.csv:2: byte 14 of the file (0xE9) is not UTF-8 text", "for example iconv -f WINDOWS-1252"]),
        ("utf16.csv", ROWS.encode("utf-16"), ["--rows utf16.csv: is UTF-16 text: convert it to UTF-8"]),
        ("short.csv", "text,stars\nonly\n", ["--rows short.csv:2: has 1 cell, the header names 2 (text, stars)"]),
        ("open.csv", 'text,stars\n"never closed,1\n', ["--rows open.csv:2: the quote that opens column 'text' is"]),
        ("twice.csv", "text,text\na,b\n", ["--rows twice.csv:1: the header names column 'text' twice"]),
        ("empty.csv", "", ["--rows empty.csv: is empty"]),
        ("head.csv", "text,stars\n", ["--rows head.csv: has no rows: only the header is there."]),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', ["--rows broken.jsonl:2: is not valid JSON"]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[-6:] else "",
)  # fmt: skip
def test_a_file_that_cannot_be_read(score: Call, name: str, content: bytes | str, parts: list[str]) -> None:
    """The flag, the file and the line, what was found there, and what to do."""
    assert_fault(score(name, content), ERROR, *parts)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("name", "frame", "place", "size"),
    [
        ("long.csv", 'text,stars\na,1\n"{}",0\n', "long.csv:3", "50,000,004"),
        ("long.jsonl", '{{"text": "{}"}}\n', "long.jsonl:1", "50,000,012"),
    ],
)
def test_a_field_of_50_megabytes(score: Call, name: str, frame: str, place: str, size: str) -> None:
    """A quote that was never closed or a file that was pasted into a cell: its line, size and column are told."""
    said = score(name, frame.format("x" * 50_000_000))
    wanted = [f"--rows {place}: the row has {size} characters, more than the 10,000,000 that are read",
              "in column 'text': shorten the text or leave the row out."]  # fmt: skip
    assert_fault(said, ERROR, *wanted)


def test_a_fault_far_down_a_file_is_found_before_scoring(score: Call) -> None:
    """The head is looked at for its columns, and every row before the first forward pass."""
    content = "text,stars\n" + "a fine day,1\n" * 500 + "only text\n"
    said = score("rows.csv", content, *LABELLED)
    assert_fault(said, ERROR, "rows.csv:502: has 1 cell, the header names 2 (text, stars)")
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--label-column", "starz"], USAGE,
         ["--label-column starz: in --rows rows.csv the column 'starz' is missing. Did you mean 'stars'?"]),
        (["--text-column", "txt"], USAGE, ["--text-column txt: in --rows rows.csv the column 'txt' is missing."]),
        (["--field", "who=txt"], USAGE, ["--field who=txt: in --rows rows.csv the column 'txt' is missing."]),
        (["--field", "mask=text"], USAGE, ["'mask' has a meaning of its own in templates"]),
        (["--label-column", "stars"], ERROR, ["rows.csv:2: label '1'", "'0' (1 row, rows.csv:3)", "Known: bad, good."]),
        (["--label-column", "stars", "--label-values", "1=good"], ERROR,
         ["rows.csv:3: label '0' (1 row) is unknown to task 'rows'. Known: 1.", "--label-values."]),
        (["--label-column", "stars", "--label-values", "0=bda,1=good"], USAGE,
         ["--label-values 0=bda: there is no label 'bda'. Did you mean 'bad'? Labels: bad, good."]),
        (["--label-values", "0=bad"], USAGE, ["--label-values needs --label-column, whose values it names."]),
        (["--label-column", "stars", "--label-values", "0=bad,0=good"], USAGE, ["--label-values: '0' stands twice."]),
        (["--tasks", "sst2"], USAGE, ["--rows and --tasks contradict each other: give the file, or the tasks."]),
        (["--split", "dev"], USAGE, ["--rows and --split contradict each other"]),
        (["--text-column", "text", "--field", "text=stars"], USAGE, ["contradict each other: give one of them."]),
        (["--store-states", "--dtype", "bfloat16"], USAGE, ["--store-states keeps float32 states: leave --dtype out."]),
        (["--labels", "bad,good,so"], ERROR, ["misses 'so': the labels of task 'rows' are bad, good, so."]),
        (["--labels", "bad"], USAGE, ["--rows: two different labels or more are needed, found bad."]),
        (["--verbalizers", "up=great,down=bad"], USAGE, ["several sets of labels (bad, good; up, down)", "--labels"]),
        (["--train-rows", "trian.csv"], USAGE, ["--train-rows trian.csv: there is no such file."]),
        (["--calibrations", "pmi_dc"], USAGE, ["calibration 'pmi_dc' needs a domain_prompt in the head"]),
        (["--calibrations", "suport"], USAGE, ["calibration 'suport' is unknown. Did you mean 'support'?"]),
        (["--prepare", "suport"], USAGE, ["calibration 'suport' is unknown. Did you mean 'support'?"]),
        (["--metrics", "acuracy"], USAGE, ["--metrics: metric 'acuracy' is unknown. Did you mean 'accuracy'?"]),
        (["--metrics", "f1"], USAGE, ["--metrics: metric 'f1' needs a label in parentheses, such as f1(bad)."]),
        (["--metrics", "f1(god)"], USAGE, ["metric 'f1(god)': there is no label 'god'. Did you mean 'good'?"]),
        (["--ensemble", "both=it_was|just"], USAGE, ["--ensemble both: 'it_was' is no template of the run."]),
        (["--ensemble", "*"], USAGE, ["--ensemble *: needs two templates of the run at least, * gives 1."]),
        (["--ensemble", "a="], USAGE, ["--ensemble: write a glob, or name=selector|selector, found 'a='."]),
        (["--device", "cuda:99"], USAGE, ["--device cuda:99: this machine has", "Use --device cpu, or auto."]),
        (["--dtype", "float8"], USAGE, ["--dtype: choose one of float32, bfloat16, float16, found 'float8'."]),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_the_file_or_each_other(
    score: Call, arguments: list[str], code: int, parts: list[str]
) -> None:
    """Each names the flag to change; nothing is scored or stored."""
    said = score("rows.csv", ROWS, *arguments)
    assert_fault(said, code, *parts)
    assert not Path("results").exists()


def test_every_unknown_label_is_counted(score: Call) -> None:
    """All of them at once, with their rows and the first place of each."""
    content = "text,stars\n" + "a,1\n" * 3 + "b,two\n" * 4 + "c,\n" * 2
    said = score("rows.csv", content, "--label-column", "stars", "--label-values", "1=good,0=bad")
    expected = (
        "rows.csv:5: label 'two' (4 rows, first here) and '' (2 rows, rows.csv:9) are unknown to task 'rows'. Known:"
    )
    assert_fault(said, ERROR, expected)


@pytest.mark.parametrize("flag", ["--text-column", "--label-column", "--labels", "--family", "--train-rows", "--field"])
def test_flags_of_rows_need_rows(call: Call, flag: str) -> None:
    """Without the file they would be passed over in silence."""
    said = call("run", flag, "a=b")
    assert_fault(said, USAGE, f"{flag} says something about --rows FILE, which is missing.")


def test_a_model_folder_without_a_tokenizer(call: Call, tiny: dict[str, Path], tmp_path: Path) -> None:
    """What is missing is named."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in tiny["bert"].iterdir():
        if not path.name.startswith("tokenizer"):
            (folder / path.name).write_bytes(path.read_bytes())
    Path("rows.csv").write_text(ROWS, encoding="utf-8")
    for command in (["run", "--rows", "rows.csv", *TEMPLATES], ["predict", "rows.csv", *ASKED], ["try", *TRIED]):
        said = call(*command, "--model", folder)
        assert_fault(said, ERROR, f"model '{folder}': ", "bare has no tokenizer files (tokenizer.json, vocab.txt ...).")


def test_no_network_and_no_copy(call: Call) -> None:
    """A model and a dataset that only the hub has: what was looked for, and how to give a copy."""
    Path("rows.csv").write_text(ROWS, encoding="utf-8")
    for command in (["run", "--rows", "rows.csv", *TEMPLATES], ["predict", "rows.csv", *ASKED], ["try", *TRIED]):
        said = call(*command, "--model", "someone/something")
        expected = ["model 'someone/something' is neither a folder nor bundled", "and the hub did not give it (",
                    "Check the name and the network, or give the folder of a copy."]  # fmt: skip
        assert_fault(said, USAGE, *expected)
    said = call("run", "--tasks", "sst2")
    assert_fault(said, ERROR, "task 'sst2': the hub dataset stanfordnlp/sst2 could not be loaded (",
                 "Name the folder that holds them with --data DIR or PROMPTLAB_DATA.")  # fmt: skip
