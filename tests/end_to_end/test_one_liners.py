"""Commands that need no file of promptlab's own: a line each on the bundled model, for a reader and for a script."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.terminal import Call, Said

IT_WAS = "{{ text }} It was {{ mask }}."
IN_ALL = "{{ text }} All in all, it was {{ mask }}."
WORDS = "negative=terrible|bad,positive=great|good"
REVIEWS = ("I loved every minute", "what a waste of time", "fine, I suppose", "never again", "a joy from start to end")
NEW = ["predicted", "confidence", "p_negative", "p_positive", "mass", "reason"]


@pytest.fixture
def reviews(call: Call) -> Path:
    """Thirty rows, half of them with a comma, a quote or a line end inside; every second one is positive."""
    path = Path("reviews.csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "review", "stars"])
        for number in range(30):
            more = ["", ', "really"', "\nand so on"][number % 3]
            writer.writerow([number, f"{REVIEWS[number % 5]}{more}", number % 2])
    return path


@pytest.fixture
def quick(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line without the pictures of a report, which take seconds."""

    def no_report(results: object, **options: object) -> list[Path]:
        return []

    monkeypatch.setattr("promptlab.reporting.report.write_report", no_report)
    return call


def text_of(said: Said) -> list[str]:
    """The lines of a command that went well; none is wider than a terminal, but for the paths of files."""
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert [] == [line for line in lines if len(line) > 80 and not line.startswith("results/")]
    return lines


def json_of(said: Said) -> Any:
    """What a command wrote for a script, and nothing beside it."""
    assert said.code == 0, said.err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(said.out, parse_constant=refuse)


def test_try_says_what_the_model_makes_of_a_text(call: Call) -> None:
    """Prompt, tokens, words, probabilities without and with calibration, mass and fills."""
    asked = ("try", "--template", IT_WAS, "--labels", WORDS, "--text", "I loved every minute of it")
    lines = text_of(call(*asked))
    assert "== inline template" == lines[0]
    shown = " ".join(line.strip() for line in lines)
    for part in ("prompt: I loved every minute of it It was [MASK].", "{it} {was} >[MASK]< {.}", "positive: great 0.",
                 "p(negative) 0.", "with calibration contextual", "mass on the label words ", "fills: "):  # fmt: skip
        assert part in shown
    (found,) = json_of(call(*asked, "--output", "json"))
    assert "I loved every minute of it It was [MASK]." == found["prompt"]
    (words,) = found["verbalizers"]
    assert {"none", "contextual"} == set(words["probabilities"])
    assert words["probabilities"]["none"]["positive"] > words["probabilities"]["none"]["negative"]


def test_try_takes_several_templates_texts_and_verbalizers(call: Call) -> None:
    """Each template with each text, with every set of words; a library's names beside texts of one's own."""
    asked = ("try", "--template", IT_WAS, "--template", "sentiment/it_was", "--labels", WORDS,
             "--labels", "sentiment/great_terrible", "--text", "so good", "--text", "so bad")  # fmt: skip
    assert 4 == sum(line.startswith("== ") for line in text_of(call(*asked)))
    found = json_of(call(*asked, "--output", "json"))
    assert [2] * 4 == [len(one["verbalizers"]) for one in found]
    pair = ("try", "--template", "{{ premise }}? {{ mask }}, {{ hypothesis }}", "--labels", "yes=yes,no=no",
            "--field", "premise=we won", "--field", "hypothesis=we lost")  # fmt: skip
    assert "we won? [MASK], we lost" == json_of(call(*pair, "--output", "json"))[0]["prompt"]


def test_predict_writes_a_csv(call: Call, reviews: Path) -> None:
    """Thirty rows in, thirty rows out in their order, with all of their columns; the count is said beside the file."""
    asked = ("predict", reviews, "--template", IT_WAS, "--verbalizer", WORDS, "--text-column", "review")
    said = call(*asked, "-o", "labelled.csv")
    assert (0, "", "30 rows labelled in labelled.csv\n") == said
    with reviews.open(newline="", encoding="utf-8") as one, Path("labelled.csv").open(newline="") as other:
        before, after = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert before == [{name: row[name] for name in ("id", "review", "stars")} for row in after]
    assert ["id", "review", "stars", *NEW] == list(after[0])
    assert all(1 == pytest.approx(float(row["p_negative"]) + float(row["p_positive"])) for row in after)
    assert "positive" == after[0]["predicted"]
    assert not [path for path in Path().iterdir() if ".tmp-" in path.name]


def test_predict_writes_to_standard_output(call: Call, reviews: Path) -> None:
    """As CSV for a CSV, as JSON lines where asked; nothing but rows is printed there, and --quiet says nothing else."""
    asked = ("predict", reviews, "--template", IT_WAS, "--verbalizer", WORDS, "--text-column", "review")
    table = call(*asked)
    assert 30 == len(rows := list(csv.DictReader(io.StringIO(table.out))))
    assert "30 rows labelled\n" == table.err
    lines = call(*asked, "--output", "jsonl", "--quiet")
    assert "" == lines.err
    values = [json.loads(line) for line in lines.out.splitlines()]
    assert [row["predicted"] for row in rows] == [value["predicted"] for value in values]
    assert [value["reason"] for value in values] == [None] * 30


def test_predict_reads_standard_input(call: Call, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gives what the file gives, in its own form."""
    asked = ("--template", IT_WAS, "--verbalizer", WORDS, "--text-column", "review")
    from_file = call("predict", reviews, *asked)

    class Pipe:
        buffer = io.BytesIO(reviews.read_bytes())

    monkeypatch.setattr("sys.stdin", Pipe)
    assert from_file == call("predict", "-", *asked, "--format", "csv")


def test_predict_counts_what_it_could_not_label(call: Call) -> None:
    """Nothing is left out: the row is there with its reason, and the count is said."""
    Path("rows.txt").write_text("short\n" + "much too long " * 30 + "\n", encoding="utf-8")
    said = call("predict", "rows.txt", "--template", "{{ text | fixed }} It was {{ mask }}.", "--verbalizer", WORDS,
                "--max-length", 16)  # fmt: skip
    first, second = map(json.loads, said.out.splitlines())
    assert "2 rows labelled, 1 of them could not be scored\n" == said.err
    assert first["predicted"] in ("negative", "positive")
    assert (None, None) == (second["predicted"], second["p_positive"])
    assert "longer than 16 tokens" in second["reason"]


def test_a_half_written_file_is_never_left(call: Call) -> None:
    """A fault in the last row leaves what was there before."""
    Path("out.jsonl").write_text("as before\n", encoding="utf-8")
    Path("rows.jsonl").write_text('{"text": "so"}\n' * 40 + '{"txt": "so"}\n', encoding="utf-8")
    said = call("predict", "rows.jsonl", "--template", IT_WAS, "--verbalizer", WORDS, "-o", "out.jsonl")
    assert (1, "as before\n") == (said.code, Path("out.jsonl").read_text(encoding="utf-8"))
    assert "rows.jsonl:41 field 'text': column 'text' is missing. Did you mean 'txt'?" in said.err
    assert ["out.jsonl", "rows.jsonl"] == sorted(path.name for path in Path().iterdir() if path.is_file())


RULES = ("--templates", IT_WAS, "--templates", IN_ALL, "--verbalizers", WORDS, "--text-column", "review")
LABELS = ("--label-column", "stars", "--label-values", "0=negative,1=positive")


def test_run_measures_rows_with_labels(quick: Call, reviews: Path) -> None:
    """A table of cells, an ensemble, the metrics asked for; the same as JSON, without another forward pass."""
    asked = ("run", "--rows", reviews, *RULES, *LABELS, "--ensemble", "both=*", "--metrics", "brier,f1(positive)")
    lines = text_of(quick(*asked))
    assert lines[0].startswith("mini on reviews, 30 rows of test")
    assert any(line.startswith("ensemble:both on reviews, median over verbalizers: none 0.") for line in lines)
    found = json_of(quick(*asked, "--output", "json"))
    assert 6 == len(found["cells"])
    for cell in found["cells"]:
        assert {"accuracy", "macro_f1", "nll", "brier", "f1(positive)"} == set(cell["metrics"])
    assert 2 == len(found["agreements"])
    assert found["path"].startswith("results/mini-")


def test_run_shows_rows_without_labels(quick: Call, reviews: Path) -> None:
    """What is predicted, how often, and how far the templates agree."""
    lines = text_of(quick("run", "--rows", reviews, *RULES))
    assert ["template", "verbalizer", "calibration", "most", "predicted", "share", "mass"] == lines[1].split()
    assert any(line.startswith("two templates predict the same label for ") for line in lines)
    found = json_of(quick("run", "--rows", reviews, *RULES, "--output", "json"))
    assert [{}] * 4 == [cell["metrics"] for cell in found["cells"]]
    assert [30] * 4 == [sum(cell["predicted"].values()) for cell in found["cells"]]


def test_a_plan_of_ones_own_rows_can_be_seen_first(quick: Call, reviews: Path) -> None:
    """`--dry-run` says what applies and how much there is to score, for a reader and as JSON."""
    asked = ("run", "--rows", reviews, *RULES, "--ensemble", "both=*", "--dry-run")
    lines = text_of(quick(*asked))
    assert "mini: 2 blocks, 6 cells, at most 60 prompts of rows and 6 of calibrations" == lines[1]
    assert f"    template inline-{lines[3].split('inline-')[1][:8]}: {IT_WAS}" == lines[3]
    assert "    ensemble ensemble:both" in lines
    (model,) = json_of(quick(*asked, "--output", "json"))["models"]
    assert (2, 6, 60, 6) == tuple(model[name] for name in ("blocks", "cells", "prompts", "calibration_prompts"))
    assert not Path("results").exists()


def test_rescore_adds_rules_to_a_run(quick: Call, reviews: Path) -> None:
    """By its name under results/; the cells that were there stay as they were."""
    asked = ("run", "--rows", reviews, *RULES, *LABELS, "--name", "mine", "--output", "json")
    before = json_of(quick(*asked))
    lines = text_of(quick("rescore", "mine", "--calibrations", "batch", "--ensemble", "both=*", "--metrics", "brier"))
    assert any(" batch " in line for line in lines)
    found = json_of(quick("rescore", "mine", "--calibrations", "batch", "--output", "json"))
    assert {"none", "contextual", "batch"} == {cell["calibration"] for cell in found["cells"]}
    assert 4 + 2 + 3 == len(found["cells"])
    old = {cell["cell"]: cell["metrics"]["accuracy"] for cell in before["cells"]}
    assert old == {cell["cell"]: cell["metrics"]["accuracy"] for cell in found["cells"] if cell["cell"] in old}
    timings = json.loads(Path("results/mine/timings.json").read_text(encoding="utf-8"))
    assert 0 == timings["forwards"]


def test_compare_says_what_a_calibration_changed(quick: Call, reviews: Path) -> None:
    """Two runs, or one with itself, as a table, as JSON and as CSV."""
    for name, calibration in (("plain", "none"), ("calibrated", "contextual")):
        text_of(quick("run", "--rows", reviews, *RULES, *LABELS, "--calibrations", calibration, "--name", name))
    asked = ("compare", "plain", "calibrated")
    lines = text_of(quick(*asked))
    assert lines[0].startswith("first: plain, second: calibrated; they differ in calibration; ")
    assert "paired on 30 rows; accuracy by bonett-price and mcnemar mid-p;" in " ".join(lines)
    found = json_of(quick(*asked, "--output", "json"))
    assert (["calibration"], 2) == (found["differs_in"], len(found["pairs"]))
    for pair in found["pairs"]:
        assert pair["value_second"] - pair["value_first"] == pytest.approx(pair["difference"])
        assert pair["low"] <= pair["difference"] <= pair["high"]
        assert 0 <= pair["p_value"] <= pair["p_adjusted"] <= 1
    rows = list(csv.DictReader(io.StringIO(quick(*asked, "--output", "csv").out)))
    assert [pair["difference"] for pair in found["pairs"]] == [float(row["difference"]) for row in rows]
    itself = ("compare", "results/plain", "plain", "--template")
    names = [pair["first"]["template"] for pair in found["pairs"]]
    (one,) = json_of(quick(*itself, names[0], "--template", names[1], "--output", "json"))["pairs"]
    assert names == [one["first"]["template"], one["second"]["template"]]


def test_compare_of_unlabelled_runs_says_how_far_they_agree(quick: Call, reviews: Path) -> None:
    """No gold label, no difference."""
    text_of(quick("run", "--rows", reviews, *RULES, "--name", "bare"))
    lines = text_of(quick("compare", "bare", "bare", "--calibration", "none", "--calibration", "contextual"))
    assert "without gold labels: the two predict the same label for" in " ".join(lines)
    found = json_of(quick("compare", "bare", "bare", "--output", "json"))
    assert {(None, 1.0)} == {(pair["metric"], pair["agreement"]) for pair in found["pairs"]}


def test_preview_is_for_scripts_too(call: Call) -> None:
    """The same values as lines and as JSON."""
    asked = ("preview", "--tasks", "review_sentiment", "--templates", "sentiment/it_was", "-n", 2)
    assert 2 == sum(line.startswith("== review_sentiment / sentiment/it_was / row ") for line in text_of(call(*asked)))
    found = json_of(call(*asked, "--output", "json"))
    assert ["review_sentiment"] * 2 == [one["task"] for one in found]
    assert all(one["tokens"] and one["fills"] and one["gold"] in ("negative", "positive") for one in found)


def test_the_report_of_ones_own_rows_is_written(call: Call, reviews: Path) -> None:
    """The pages and the table lie beside the results, and a rescored run draws them again."""
    lines = text_of(call("run", "--rows", reviews, *RULES, *LABELS, "--name", "mine"))
    assert [f"results/mine/{name}" for name in ("results.json", "report.html", "report.md", "results.csv")] == lines[
        -4:
    ]
    page = Path("results/mine/report.md")
    assert "| reviews | none |" in page.read_text(encoding="utf-8")
    text_of(call("rescore", "mine", "--calibrations", "batch"))
    assert "| reviews | batch |" in page.read_text(encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    lines = text_of(call("rescore", "mine", "--metrics", "brier", "--no-report", "--quiet"))
    assert ["results/mine/results.json", "results/mine/results.csv"] == lines
    assert before == page.read_text(encoding="utf-8")
    assert "brier" in Path("results/mine/results.csv").read_text(encoding="utf-8").splitlines()[0]
