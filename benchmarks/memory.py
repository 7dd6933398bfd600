"""`python -m benchmarks.memory`: the peak memory of a run over many rows, as a ratio to one over a tenth of them.

Each run is a process of its own: rows that no task describes, four templates, one verbalizer, the bundled model. The
rows are made of words of the bundled reviews, seeded, so that no two are alike.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from promptlab.rows import load_rows
from promptlab.specs.task import Task

TEMPLATES = "sentiment/it_was,sentiment/just,sentiment/all_in_all,sentiment/i_thought"
WORDS_A_ROW = 8


def main() -> None:
    """Measure, print and write the figures."""
    options = _options()
    sizes = (options.rows // 10, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        figures = [_measure(number, Path(folder)) for number in sizes]
    stored = {"templates": TEMPLATES.split(","), "words_a_row": WORDS_A_ROW, "runs": figures}
    stored["ratio"] = round(figures[1]["peak_memory_bytes"] / figures[0]["peak_memory_bytes"], 3)
    for figure in figures:
        peak = figure["peak_memory_bytes"] / 2**20
        print(f"{figure['rows']:>8} rows: peak {peak:.0f} MiB, {figure['seconds']:.0f} s")
    print(f"ratio {stored['ratio']}")
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the larger run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/memory.json"))
    return parser.parse_args()


def _measure(number: int, folder: Path) -> dict[str, Any]:
    """One run of its own over so many rows."""
    path = folder / f"rows_{number}.csv"
    _write_rows(path, number)
    command = [sys.executable, "-m", "promptlab", "run", "--rows", str(path), "--text-column", "review"]
    command += ["--label-column", "label", "--templates", TEMPLATES, "--verbalizers", "sentiment/good_bad"]
    command += ["--output-path", str(folder / "results"), "--name", f"rows_{number}", "--quiet"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    # The largest of all children so far; the larger run comes last.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"rows": number, "peak_memory_bytes": peak, "seconds": round(seconds, 1)}


def _write_rows(path: Path, number: int) -> None:
    examples = load_rows(Task.load("review_sentiment"), "test").examples
    words = [word for example in examples for word in str(example.fields["text"]).split()]
    generator = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "label"])
        for row in range(number):
            writer.writerow([" ".join(generator.choices(words, k=WORDS_A_ROW)), ("negative", "positive")[row % 2]])


if __name__ == "__main__":
    main()
