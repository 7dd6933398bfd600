"""How much a process grows by the rows that it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_library import write_library

NUM_ROWS = 100_000
PROGRAM = """
import resource, sys
from promptlab.rows import load_rows
from promptlab.specs.task import Task

task = Task.load(sys.argv[1])
load_rows(task, "train")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = load_rows(task, "test")
rows.hash, rows.gold_counts()
print(len(rows.examples), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the size of a process in other units")
def test_a_hundred_thousand_rows_add_about_20_megabytes(tmp_path: Path) -> None:
    """Rows of 100 characters are loaded, hashed and counted in 25 MB; as objects they took 70."""
    library = write_library(tmp_path)
    text = "it was a film that had a story and some good scenes but the ending was far too long for me"
    with (library / "tasks/data/views/test.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(NUM_ROWS):
            row = {"text": f"{text} {number:09d}", "label": ("positive", "negative")[number % 2]}
            stream.write(json.dumps(row) + "\n")
    command = [sys.executable, "-c", PROGRAM, str(library / "tasks/views.yaml")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    num_rows, growth = map(int, said.stdout.split())
    assert num_rows == NUM_ROWS
    assert growth < 25 * 1024
