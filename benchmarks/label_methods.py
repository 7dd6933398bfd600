"""`python -m benchmarks.label_methods --data DIR`: what methods reach with 16 shots a label, on three tasks.

Rows of train are cut in two by a seed: some are scored, and the shots are drawn from the others, so that no test row is
looked at. Every method has its default setting. No text of the rows is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import promptlab as pl
from promptlab.results import Result
from promptlab.seeding import derive_generator
from promptlab.specs.task import Task

TASKS = {  # the template and the label words of each task
    "sst2": ("sentiment/it_was", "sentiment/great_terrible"),
    "agnews": ("topic/kpt_topic", "topic/world_sports_business_tech"),
    "trec": ("question_type/answer_is", "question_type/person_place_number"),
}
METHODS = ("zero_shot", "demonstrations", "prototypical", "linear_probe", "soft_verbalizer", "head_fine_tune")


def main() -> None:
    """Run every task, print a table and write the figures."""
    options = _options()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.tasks:
            found[name] = _task(name, options, Path(folder))
    stored = {key: getattr(options, key) for key in ("model", "rows", "shots", "draws")} | {"tasks": found}
    _print(found)
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_methods", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of the tasks' rows")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tasks", nargs="*", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--methods", nargs="*", default=[*METHODS])
    parser.add_argument("--rows", type=int, default=300, help="rows of a task that are scored")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/label_methods.json"))
    return parser.parse_args()


def _task(name: str, options: Any, folder: Path) -> dict[str, Any]:
    """Accuracy and mean negative log-probability of every method on one task."""
    template, verbalizer = TASKS[name]
    run = pl.run(
        tasks=name, models=options.model, templates=template, verbalizers=verbalizer, calibrations="none",
        methods=options.methods, shots=options.shots, seeds=options.draws, selection="default",
        data=_cut_train(name, options, folder), output_path=folder / "results", name=name, quiet=True,
    )  # fmt: skip
    return {method: _figures(method, run.stored.few_shot) for method in options.methods}


def _cut_train(name: str, options: Any, folder: Path) -> Path:
    """A folder in which some seeded rows of train are the test split, and the rest is train."""
    source = Task.load(name).sources[0]
    text = (Path(options.data) / str(source.local) / "train.jsonl").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    order = derive_generator(0, "label_methods", name).permutation(len(lines))
    made = folder / f"{name}-data" / str(source.local)
    made.mkdir(parents=True)
    for split, places in (("test", order[: options.rows]), ("train", order[options.rows :])):
        path = made / f"{source.splits[split]}.jsonl"
        path.write_text("".join(f"{lines[place]}\n" for place in places), encoding="utf-8")
    return made.parent


def _figures(method: str, results: tuple[Result, ...]) -> dict[str, Any]:
    """The mean over draws, and the accuracy of each draw."""
    mine = [one for one in results if one.method == method]
    accuracies = [one.metrics["accuracy"].value for one in mine]
    losses = [one.metrics["nll"].value for one in mine]
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "log_loss": round(float(np.mean(losses)), 4),
        "draws": [round(float(value), 4) for value in accuracies],
    }


def _print(found: dict[str, Any]) -> None:
    methods = next(iter(found.values()))
    print(f"{'method':16} " + " ".join(f"{name:>16}" for name in found))
    for method in methods:
        shown = (f"{one[method]['accuracy']:.3f} ({one[method]['log_loss']:.3f})" for one in found.values())
        print(f"{method:16} " + " ".join(f"{text:>16}" for text in shown))


if __name__ == "__main__":
    main()
