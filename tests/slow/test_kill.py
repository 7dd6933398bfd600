"""Kill a run at many instants: no finished part is lost, none is half-read, the rerun ends with the same results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptlab.files import read_json, read_table
from tests.stored import files

NUM_KILLS = 12


def command(tiny: Path, output: Path) -> list[str]:
    """A run of a few seconds with many small parts."""
    arguments = ["run", "--model", str(tiny), "--tasks", "review_sentiment", "--templates", "sentiment/*"]
    arguments += ["--verbalizers", "positive=great,negative=bad", "--batch-size", "2", "--limit", "100"]
    return [sys.executable, "-m", "promptlab", *arguments, "-o", str(output), "--name", "killed", "--quiet"]


def stored(folder: Path) -> dict[str, bytes]:
    """The files that two equal runs must share, byte by byte."""
    return files(folder, "results.json", "samples/*.parquet", "blocks/*/rows-*", "blocks/*/calibration-*")


def check_whole(folder: Path, before: dict[str, bytes]) -> dict[str, bytes]:
    """The parts of all blocks: those of before are there as they were, and every named file can be read to its end."""
    parts = files(folder, "blocks/*/part-*.parquet")
    assert before.items() <= parts.items()
    for path in folder.rglob("*"):
        if path.suffix == ".parquet" and not path.name.startswith("."):
            read_table(path)
        if path.suffix == ".json" and not path.name.startswith("."):
            read_json(path)
    return parts


@pytest.mark.slow
def test_a_run_killed_at_any_instant_ends_with_the_same_results(tiny: dict[str, Path], tmp_path: Path) -> None:
    """SIGKILL at twelve instants of a run, then the same command: results and samples equal an undisturbed run.

    After every kill each part that was there is there, byte by byte, and nothing that has its name is half a file.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    subprocess.run(command(tiny["bert"], tmp_path / "calm"), check=True, env=environment, capture_output=True)
    whole, parts = time.monotonic() - began, dict[str, bytes]()
    for kill in range(NUM_KILLS):
        running = subprocess.Popen(
            command(tiny["bert"], tmp_path / "rough"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole * (kill + 1) / (NUM_KILLS + 1))
        running.send_signal(signal.SIGKILL)
        running.wait()
        parts = check_whole(tmp_path / "rough" / "killed", parts)
    assert parts
    finished = subprocess.run(
        command(tiny["bert"], tmp_path / "rough"), env=environment, capture_output=True, text=True, check=False
    )
    assert "" == finished.stderr
    assert 0 == finished.returncode
    assert stored(tmp_path / "calm" / "killed") == stored(tmp_path / "rough" / "killed")
