"""`python -m benchmarks.listing`: how fast a large library is listed, as a ratio to reading every file again.

Each contender is the whole command in a process of its own, in turn, round after round; the figure is its shortest
round, because whatever else the machine does only adds to a round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEMPLATE = (
    '---\nfields: [text]\nreference: "number {number}"\n---\n{{{{ text }}}} All in all, {number} {{{{ mask }}}}.\n'
)


def main() -> None:
    """Measure, print and write the figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_templates(root, options.num_templates)
        (root / "no-cache").write_text("a file where a folder would be: nothing is remembered", encoding="utf-8")
        caches = {"remembered": root / "cache", "read again": root / "no-cache"}
        seconds: dict[str, list[float]] = {name: [] for name in caches}
        for number in range(options.rounds + 1):
            for name, cache in caches.items():
                spent = _list(root, cache)
                if number:  # the first round fills the memory
                    seconds[name].append(spent)
    best = {name: min(spent) for name, spent in seconds.items()}
    figures = {
        name: {"wall_s": round(spent, 3), "times_remembered": round(spent / best["remembered"], 2)}
        for name, spent in best.items()
    }
    for name, figure in figures.items():
        print(f"{name:<12}{figure['wall_s']:>8.3f} s{figure['times_remembered']:>8.2f} x")
    stored = {"templates": options.num_templates, "rounds": options.rounds, "contenders": figures}
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing", description=__doc__.splitlines()[0])
    parser.add_argument("--num-templates", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/listing.json"))
    return parser.parse_args()


def _write_templates(root: Path, num_templates: int) -> None:
    for number in range(num_templates):
        path = root / "templates" / f"family{number % 20}" / f"template{number}.jinja"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEMPLATE.format(number=number), encoding="utf-8")


def _list(root: Path, cache: Path) -> float:
    """Wall seconds of one command."""
    command = [sys.executable, "-m", "promptlab", "ls", "templates", "--include", str(root)]
    began = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PROMPTLAB_CACHE_DIR": str(cache)}
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
