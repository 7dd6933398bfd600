"""The same command again does nothing twice; a run that was stopped goes on and ends as if it had not been."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.terminal import Call
from tests.stored import decisions, files

CHOSEN = ("--templates", "mood/*", "--verbalizers", "mood/*")


def samples(folder: Path) -> dict[str, bytes]:
    """The samples of every cell, byte for byte."""
    return files(folder, "samples/*.parquet")


def cells(folder: Path) -> Any:
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
    grid = [
        "--tasks",
        "review_sentiment",
        "--templates",
        "sentiment/all_*,sentiment/i_*",
        "--limit",
        "30",
        "--batch-size",
        "1",
    ]
    grid += ["--verbalizers", "positive=great,negative=bad"]
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


def equal_files(folder: Path) -> dict[str, bytes]:
    """What equal runs have byte for byte; `results.json` names the run, so the runs here have one name."""
    return files(folder, "results.json", "samples/*", "blocks/*/rows-*", "blocks/*/calibration-*")


@pytest.mark.parametrize(
    ("kind", "step"),
    [("sync", 11), ("write", 17), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("sync", "write"))],
)
def test_a_disk_that_fills_at_any_file_is_one_sentence_and_loses_nothing(
    run: Call, monkeypatch: pytest.MonkeyPatch, kind: str, step: int
) -> None:
    """Whichever file has no room: exit 1 and the way out; the same command then ends with the bytes of a calm run."""
    words = [*CHOSEN, "--batch-size", 1, "--quiet", "--name", "full"]
    synced, sync, left = 0, os.fsync, 0

    def count(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        sync(descriptor)

    def fill(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            if kind == "write":
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", count)
        assert run(*words, "-o", "calm").code == 0
    whole = forwards(Path("calm/full"))
    for number in range(0, synced, step):
        left = number
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fill)
            said = run(*words, "-o", f"full{number}")
        assert (said.code, said.out) == (1, "")
        sentence = r"error: full\d+/full\S*: cannot be written: No space left on device\. What was finished is stored: "
        assert re.fullmatch(sentence + r"free some space and run the same command again\.\n", said.err)
        assert not (Path(f"full{number}/full") / "results.json").exists()
        assert not list(Path(f"full{number}").rglob("*.tmp-*"))
        assert run(*words, "-o", f"full{number}").code == 0
        assert forwards(Path(f"full{number}/full")) <= whole
        assert equal_files(Path("calm/full")) == equal_files(Path(f"full{number}/full"))


def damage(path: Path, how: str) -> None:
    """Cut a file, fill it with something else, or turn one bit of its numbers."""
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[len(content) // 3] ^= 0x10
    path.write_bytes(content[:-30] if how == "cut" else b"nothing of ours" if how == "foreign" else content)


HOWS = ("cut", "foreign", "bit")
WHICH = ("part-00001.parquet", "rows-*.parquet", "calibration-*.parquet")
DAMAGES = [
    pytest.param(how, which, marks=[] if HOWS.index(how) == WHICH.index(which) else pytest.mark.slow)
    for how in HOWS
    for which in WHICH
]


@pytest.mark.parametrize(("how", "which"), DAMAGES)
def test_a_damaged_file_of_a_block_is_named_and_deleting_it_mends_the_run(run: Call, how: str, which: str) -> None:
    """Exit 1 and one sentence with the file; without it, the run scores what is lost and ends with the same bytes."""
    words = [*CHOSEN[:2], "--verbalizers", "mood/yes_no", "--batch-size", 1, "--quiet", "--name", "hurt"]
    assert run(*words).code == 0
    folder = Path("results/hurt")
    before, prompts = equal_files(folder), forwards(folder)
    path = sorted(folder.glob(f"blocks/*/{which}"))[0]
    damage(path, how)
    said = run(*words)
    sentence = f"error: {path}: is broken. Delete it and run the same command again to score it anew.\n"
    assert (said.code, said.out, said.err) == (1, "", sentence)
    path.unlink()
    assert run(*words).code == 0
    assert before == equal_files(folder)
    assert (0 < forwards(folder) < prompts) if which.startswith("part") else forwards(folder) == 0


def test_damaged_samples_are_written_anew(run: Call) -> None:
    """Decisions cost no forward pass: the same command makes them again."""
    assert run(*CHOSEN, "--name", "hurt").code == 0
    before = samples(Path("results/hurt"))
    damage(sorted(Path("results/hurt/samples").glob("*"))[0], "cut")
    assert run(*CHOSEN, "--name", "hurt").code == 0
    assert (before, 0) == (samples(Path("results/hurt")), forwards(Path("results/hurt")))


def test_a_folder_of_another_plan_is_refused_with_every_difference(run: Call) -> None:
    """Exit 2, each key with what it was and is, and nothing is touched; `--amend` makes the folder the new run's."""
    folder, asked = Path("results/mine"), [*CHOSEN, "--limit", 4, "--name", "mine"]
    assert run(*asked).code == 0
    before = files(folder)
    said = run(*CHOSEN[:2], "--verbalizers", "mood/yes_no", "--seed", 3, "--limit", 6, "--name", "mine")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "error: --name mine: results/mine holds another run: --verbalizers was mood/* and is mood/yes_no; "
        "--limit was 4 and is 6; --seed was 0 and is 3. Give another --name, or --amend to change that run.\n"
    )
    assert before == files(folder)
    free = ["--batch-size", 1, "--store-states", "--no-text"]
    assert (run(*asked, *free).code, forwards(folder)) == (0, 0)
    amended = [*CHOSEN[:2], "--verbalizers", "mood/yes_no", "--limit", 6, "--name", "mine"]
    assert run(*amended, "--amend").code == 0
    assert {(cell["verbalizer"], cell["num_rows"]) for cell in cells(folder)} == {("mood/yes_no", 6)}
    assert run(*amended).code == 0
    assert run(*asked).code == 2


def test_an_amended_run_has_the_decisions_of_a_run_of_its_own(run: Call) -> None:
    """What the folder held before has no part in the decisions, and no file of them stays."""
    run(*CHOSEN, "--limit", 4, "--name", "amended")
    words = [*CHOSEN[:2], "--verbalizers", "mood/yes_no", "--batch-size", 1]
    assert run(*words, "--name", "amended", "--amend").code == 0
    assert run(*words, "--name", "own").code == 0
    amended, own = Path("results/amended"), Path("results/own")
    assert set(samples(amended)) == set(samples(own))
    found, expected = decisions(amended), decisions(own)
    assert list(found) == list(expected)
    for cell, columns in expected.items():
        assert [found[cell][name] for name in ("row_id", "predicted")] == [
            columns[name] for name in ("row_id", "predicted")
        ]
        assert found[cell]["log_probabilities"] == [
            pytest.approx(one, abs=1e-5) for one in columns["log_probabilities"]
        ]


def _wait_for(happens: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is there, or the process has ended, half a minute at most."""
    deadline = time.monotonic() + 30
    while not happens() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert happens(), "the run ended before it stored anything"
