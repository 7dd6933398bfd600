"""`promptlab pretrain --model` adapts a checkpoint, and the folder is one more model of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from promptlab.reporting.report import render_report
from promptlab.results import read_results
from tests.end_to_end.terminal import Call, assert_fault

TEXT = "\n\n".join(
    f"Patient {number} had a fever and a rash; the fever fell on day {number % 9}." for number in range(90)
)
SHORT = ("--row-length", "24", "--batch-rows", "4", "--steps", "3", "--learning-rate", "1e-3", "--held-out-one-in", "5")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A domain's raw text."""
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_model_is_adapted_checked_run_and_compared(call: Call, run: Call, notes: Path, tiny: dict[str, Path]) -> None:
    """From raw text to a paired difference between the base and the adapted model."""
    base = str(tiny["bert"])
    command = ("pretrain", "--model", base, "--corpus", notes, *SHORT, "--whole-word", "-o", "adapted")
    said = call(*command)
    assert (0, "") == (said.code, said.err)
    assert "held-out perplexity" in said.out.splitlines()[-1]
    again = call(*command, "--resume")
    assert again.code == 0 and "going on from step 3 of 3" in again.out
    assert call("doctor", "--model", "adapted").code == 0
    flags = ("--templates", "mood/it_was", "--verbalizers", "mood/great_terrible", "--name", "both")
    assert run(*flags, model=f"{base},adapted").code == 0
    compared = call("compare", "both", "both", "--model", base, "--model", "adapted", "--output", "json")
    assert compared.code == 0 and "adapted" in compared.out
    assert json.loads((Path("adapted") / "training" / "adaptation.json").read_text())["steps"] == 3


def test_a_run_of_both_tells_what_adaptation_changed_without_the_models(
    call: Call, run: Call, notes: Path, tiny: dict[str, Path]
) -> None:
    """On the screen and in the report; after `rescore` too, from the run's folder alone."""
    base = Path(shutil.copytree(tiny["bert"], "base"))
    assert call("pretrain", "--model", base, "--corpus", notes, *SHORT, "-o", "adapted").code == 0
    flags = ("--templates", "mood/it_was", "--verbalizers", "mood/great_terrible", "--name", "both")
    said = run(*flags, model="base,adapted")
    assert said.code == 0 and "adapted, adapted from base: perplexity of held-out text of the domain" in said.out
    alone = run(*flags[:-1], "one", model="adapted")
    assert alone.code == 0 and "adapted from" not in alone.out
    for folder in ("base", "adapted"):
        shutil.rmtree(folder)
    before = _section("both")
    assert any(line.startswith("| held-out text of the domain |") for line in before)
    assert any(line.startswith("| moods | it\\_was | instructive | great\\_terrible | none |") for line in before)
    assert not any("moods | it\\_was" in line and "batch" in line for line in before)
    assert call("rescore", "both", "--calibrations", "batch").code == 0
    assert any("moods | it\\_was" in line and "batch" in line for line in _section("both"))
    assert [] == _section("one")


def _section(name: str) -> list[str]:
    """The lines of the report about adaptation."""
    lines = render_report(read_results(Path("results") / name), "md").splitlines()
    if "## What adaptation changed" not in lines:
        return []
    start = lines.index("## What adaptation changed")
    end = next(index for index in range(start + 1, len(lines)) if lines[index].startswith("## "))
    return lines[start:end]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ((), "or --model CHECKPOINT, to go on from one: neither is given"),
        (("--model", "mini", "--config", "mini.yaml"), "to go on from one: both are given"),
        (("--config", "mini.yaml", "--masking-rate", "0.2"), "--masking-rate belongs to --model"),
        (("--config", "mini.yaml", "--whole-word"), "--whole-word belongs to --model"),
        (("--model", "mini", "--masking-rate", "2"), "--masking-rate 2.0: it must be less than or equal to 0.9"),
        (("--model", "mini", "--row-length", "513"), "reads at most 512 tokens"),
        (("--model", "mini", "--device", "abacus"), "--device abacus: unknown"),
        (
            ("--model", "mini", "--general", "nowhere.txt"),
            "--general nowhere.txt: there is no file or folder nowhere.txt",
        ),
    ],
)
def test_a_wrong_call_is_one_sentence(call: Call, notes: Path, flags: tuple[str, ...], part: str) -> None:
    """What was given and what is allowed, before any work."""
    assert_fault(call("pretrain", "--corpus", notes, "-o", "adapted", *flags), 2, part)
    assert not (Path("adapted") / "model.safetensors").exists()
