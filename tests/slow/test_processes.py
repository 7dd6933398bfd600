"""`torchrun ... promptlab pretrain --model` with two processes on a CPU: the run of one, a stop, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OPTIONS = ["--row-length", "64", "--batch-rows", "8", "--steps", "40", "--measure-every", "20"]
OPTIONS += ["--learning-rate", "5e-4", "--held-out-one-in", "4", "--threads", "1", "--device", "cpu"]
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def start(
    folder: Path, name: str, *more: str, launcher: list[str], options: list[str] = OPTIONS
) -> subprocess.Popen[str]:
    """Begin a run of the bundled model."""
    arguments = ["-m", "promptlab", "pretrain", "--corpus", str(folder / "notes.txt"), "-o", str(folder / name)]
    command = [sys.executable, *launcher, *arguments, "--model", "mini", *options, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def losses(folder: Path) -> dict[str, float]:
    """Every loss of the log."""
    lines = [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text().splitlines()]
    return {f"{key} {line['step']}": line[key] for line in lines for key in ("loss", "held_out_loss") if key in line}


def test_two_processes_of_a_launcher_make_the_run_of_one(tmp_path: Path) -> None:
    """Ctrl-C at the launcher stores the step, --resume goes on, and the losses are those of one process to 1e-5."""
    texts = [
        f"the patient number {n} has a fever and pain in the chest , and takes {n % 7} doses a day" for n in range(900)
    ]
    (tmp_path / "notes.txt").write_text("\n\n".join(texts))
    alone = start(tmp_path, "one", launcher=[])
    assert "after" in alone.communicate(timeout=300)[0].splitlines()[-1]
    cut = start(tmp_path, "two", launcher=LAUNCHER)
    log = tmp_path / "two" / "training" / "log.jsonl"
    while cut.poll() is None and not (log.exists() and '"step": 3,' in log.read_text()):
        time.sleep(0.05)
    cut.send_signal(signal.SIGINT)
    said = cut.communicate(timeout=300)[0]
    assert 1 == said.count("--resume goes on.")
    resumed = start(tmp_path, "two", "--resume", launcher=LAUNCHER)
    said = resumed.communicate(timeout=300)[0]
    assert 0 == resumed.returncode, said
    assert 1 == said.count("going on from step") == said.count("before,")
    assert pytest.approx(losses(tmp_path / "one"), abs=1e-5) == losses(tmp_path / "two")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch-rows", "5"], "--batch-rows 5: 2 processes cannot share a batch evenly"),
        (["--batch-rows", "4", "--steps", "0"], "--steps 0: it must be greater than or equal to 1"),
    ],
)
def test_a_fault_is_one_sentence_of_one_process(tmp_path: Path, options: list[str], sentence: str) -> None:
    """However many processes find it."""
    (tmp_path / "notes.txt").write_text("some text\n\nmore of it")
    said = start(tmp_path, "out", launcher=LAUNCHER, options=["--device", "cpu", *options]).communicate(timeout=300)[0]
    assert 1 == said.count(sentence), said
    assert "terminate called" not in said
