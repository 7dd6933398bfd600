"""The same command again does nothing twice; a run that was stopped goes on and ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Call
from tests.stored import decisions, files

CHOSEN = ("--templates", "mood/*", "--verbalizers", "mood/*")


def samples(folder: Path) -> dict[str, bytes]:
    """The samples of every cell, byte for byte."""
    return files(folder, "samples/*.parquet")


def cells(folder: Path) -> object:
    """The cells of results.json, which do not name the run."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]


def forwards(folder: Path) -> int:
    return int(json.loads((folder / "timings.json").read_text(encoding="utf-8"))["forwards"])


def test_the_same_command_again_does_no_forward_pass(run: Call) -> None:
    """Results and samples stay byte for byte, and the user is told that nothing was needed."""
    folder = Path("results/again")
    assert run(*CHOSEN, "--name", "again").code == 0
    kept = [folder / "results.json", folder / "manifest.json", *(folder / "samples").glob("*")]
    before = [path.read_bytes() for path in kept]
    assert forwards(folder) > 0
    said = run(*CHOSEN, "--name", "again")
    assert said.code == 0
    assert "every score is stored already, no forward pass is needed." in said.err
    assert forwards(folder) == 0
    assert [path.read_bytes() for path in kept] == before


def test_another_verbalizer_of_the_family_costs_no_forward_pass(run: Call) -> None:
    """Candidates are the words of every verbalizer of the family, asked for or not."""
    first = run(*CHOSEN[:2], "--verbalizers", "mood/yes_no", "--name", "more")
    assert (first.code, forwards(Path("results/more")) > 0) == (0, True)
    said = run(*CHOSEN[:2], "--verbalizers", "mood/great_terrible", "--name", "more", "--amend")
    assert said.code == 0
    assert "every score is stored already, no forward pass is needed." in said.err
    assert forwards(Path("results/more")) == 0


def test_an_interrupt_keeps_what_was_scored_and_says_how_to_go_on(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two batches: exit 130, the command to type, and the rest is scored by it."""
    from promptlab.backends.mlm import MaskedBackend

    whole = run(*CHOSEN, "--batch-size", 2, "--name", "whole")
    assert whole.code == 0
    number, plain = 0, MaskedBackend.score

    def score(self: MaskedBackend, *arguments: object, **options: object) -> object:
        nonlocal number
        number += 1
        if number == 11:
            raise KeyboardInterrupt
        return plain(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedBackend, "score", score)
        said = run(*CHOSEN, "--batch-size", 2, "--name", "half")
    assert said.code == 130
    assert "interrupted: what was scored is stored. The same command continues: promptlab run --model" in said.err
    assert said.err.rstrip().endswith("--name half")
    assert run(*CHOSEN, "--batch-size", 2, "--name", "half").code == 0
    assert forwards(Path("results/half")) < forwards(Path("results/whole"))
    assert cells(Path("results/half")) == cells(Path("results/whole"))
    assert samples(Path("results/half")) == samples(Path("results/whole"))


def test_a_run_stopped_by_a_signal_goes_on_and_ends_the_same(
    call: Call, tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT in the middle of a real process leaves 130; the rerun ends with the results of a run left alone."""
    monkeypatch.setattr("promptlab.reporting.report.write_report", lambda results: [])
    grid = ["--tasks", "review_sentiment", "--templates", "sentiment/*_*", "--limit", "30", "--batch-size", "1"]
    words = ["run", "--model", str(tiny["bert"]), "--device", "cpu", *grid, "--name", "stopped"]
    began = subprocess.Popen(
        [sys.executable, "-m", "promptlab", *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = tmp_path / "results/stopped"
    _wait_for(lambda: any(folder.glob("blocks/*/part-*.parquet")), began)
    began.send_signal(signal.SIGINT)
    _, err = began.communicate(timeout=60)
    assert began.returncode == 130, err
    assert "Traceback" not in err
    assert "The same command continues: promptlab run" in err
    assert not (folder / "results.json").exists()
    assert call(*words).code == 0
    assert call(*words[:-1], "whole").code == 0
    assert 0 < forwards(folder) < forwards(tmp_path / "results/whole")
    assert cells(folder) == cells(tmp_path / "results/whole")
    assert samples(folder) == samples(tmp_path / "results/whole")


def test_a_changed_template_is_scored_again_and_nothing_else(run: Call, moods: Path) -> None:
    """Blocks are found by their content: only the template whose text changed has forward passes."""
    run(*CHOSEN, "--batch-size", 1, "--name", "edited")
    every = forwards(Path("results/edited"))
    (moods / "templates/mood/it_was.jinja").write_text("{{ text }} This was {{ mask }}.\n", encoding="utf-8")
    run(*CHOSEN, "--batch-size", 1, "--name", "edited")
    assert forwards(Path("results/edited")) == every // 2


def _wait_for(happens: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is there, or the process has ended, half a minute at most."""
    deadline = time.monotonic() + 30
    while not happens() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert happens(), "the run ended before it stored anything"
