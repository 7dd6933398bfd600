"""`python -m benchmarks.bars --data DIR`: what a model reaches on real tasks, in three columns.

For each task the median over the shipped instructive templates; the cell (template, verbalizer, calibration) that does
best on 32 labelled train rows, as the mean over five seeded draws; and the oracle, the best cell of all. Chosen cells
are decided on the test rows; gold labels of test rows choose nothing but the oracle. No text of the rows is written.

The best cell is that of the highest accuracy on the 32 rows (ties: the lower log loss) or that of the lowest log loss,
the two rules of `promptlab run --selection`; which one is decided once for all tasks, by the mean accuracy of what each
rule chooses on the other train rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import promptlab as pl
from promptlab.seeding import derive_generator
from promptlab.specs.task import Task

BARS = {  # what the bundled model must reach by the middle column, and what it aims at
    "sst2": (0.68, 0.75), "imdb": (0.70, 0.78), "agnews": (0.60, 0.72), "subj": (0.60, 0.70), "trec": (0.35, 0.45),
    "20newsgroups_six": (0.40, 0.55),
}  # fmt: skip
CALIBRATIONS = ("none", "contextual", "domain", "support")
NUM_SHOTS, NUM_DRAWS = 32, 5
RULES = {"accuracy": ["right", "gold_log_probability"], "log loss": ["gold_log_probability", "right"]}
CELL = ["template", "verbalizer", "calibration"]


def main() -> None:
    """Score both splits of every task, choose, print and write the table."""
    options = _options()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        trains = {name: _train(name, options, Path(folder)) for name in options.tasks}
        rules = {rule: float(np.mean([_on_the_others(one, rule) for one in trains.values()])) for rule in RULES}
        best = max(rules, key=lambda rule: rules[rule])
        print(json.dumps({"on the other train rows": rules}), flush=True)
        for name, train in trains.items():
            found[name] = _task(name, train, best, options, Path(folder))
            print(f"{name:18} {json.dumps(found[name])}", flush=True)
    said = {"model": options.model, "limit": options.limit, "train_rows": options.train_rows}
    stored = {**said, "rule": best, "on_the_other_train_rows": rules, "tasks": found}
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of the tasks' rows")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tasks", nargs="*", default=[*BARS])
    parser.add_argument("--limit", type=int, help="the most test rows of a task; all by default")
    parser.add_argument("--train-rows", type=int, default=320, help="train rows that shots are drawn from")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/bars.json"))
    return parser.parse_args()


def _train(name: str, options: Any, folder: Path) -> pd.DataFrame:
    """The decisions of every cell on the train rows that shots are drawn from."""
    return _decided(_run(name, _train_folder(name, options, folder), None, options, folder / "train"))


def _task(name: str, train: pd.DataFrame, rule: str, options: Any, folder: Path) -> dict[str, Any]:
    """The three columns of one task."""
    test_run = _run(name, options.data, options.limit, options, folder / "test")
    cells = test_run.to_pandas()
    cells = cells[(cells["kind"] == "instructive") & cells["skipped"].isna()].set_index(CELL)
    chosen = [_choose(train, draw, rule) for draw in range(NUM_DRAWS)]
    scores = [float(cells.loc[cell, "accuracy"]) for cell in chosen]
    plain = cells.xs("none", level="calibration")["accuracy"]
    gold = test_run.predictions().drop_duplicates("row_id")["gold"]
    must, aim = BARS.get(name, (None, None))
    return {
        "rows": int(cells["num_rows"].iloc[0]),
        "majority": round(float(gold.value_counts(normalize=True).iloc[0]), 4),
        "median": round(float(plain.median()), 4),
        "chosen": round(float(np.mean(scores)), 4),
        "chosen_std": round(float(np.std(scores, ddof=1)), 4),
        "oracle": round(float(cells["accuracy"].max()), 4),
        "must": must,
        "aim": aim,
        "cells": [" / ".join(cell) for cell in chosen],
    }


def _train_folder(name: str, options: Any, folder: Path) -> Path:
    """A folder in which a seeded part of the train rows is scored, and the rest is what calibrations look at."""
    source = Task.load(name).sources[0]
    text = (Path(options.data) / str(source.local) / "train.jsonl").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    order = derive_generator(0, "bars", name).permutation(len(lines))
    made = folder / f"{name}-data" / str(source.local)
    made.mkdir(parents=True)
    for split, places in (("test", order[: options.train_rows]), ("train", order[options.train_rows :])):
        path = made / f"{source.splits[split]}.jsonl"
        path.write_text("".join(f"{lines[place]}\n" for place in places), encoding="utf-8")
    return made.parent


def _run(name: str, data: Any, limit: int | None, options: Any, folder: Path) -> Any:
    return pl.run(
        tasks=name, models=options.model, data=data, limit=limit, calibrations=CALIBRATIONS,
        max_length=options.max_length, output_path=folder, name=name, quiet=True,
    )  # fmt: skip


def _decided(run: Any) -> pd.DataFrame:
    """The decisions of instructive templates: whether each is right, and log p of the gold label."""
    cells = run.to_pandas()
    instructive = cells[(cells["kind"] == "instructive") & cells["skipped"].isna()]["template"].unique()
    found = run.predictions()
    found = found[found["template"].isin(instructive)]
    gold = [row[f"p_{label}"] for label, row in zip(found["gold"], found.to_dict("records"), strict=True)]
    return found.assign(right=found["gold"] == found["predicted"], gold_log_probability=np.log(np.array(gold, float)))


def _shots(train: pd.DataFrame, draw: int) -> pd.Series:
    """Which decisions are of the 32 rows of a draw."""
    rows = sorted(train["row_id"].unique())
    return train["row_id"].isin(derive_generator(0, "bars", draw).permutation(rows)[:NUM_SHOTS])


def _choose(train: pd.DataFrame, draw: int, rule: str) -> tuple[str, str, str]:
    """The cell that a rule takes by the 32 rows of a draw."""
    scores = train[_shots(train, draw)].groupby(CELL)[["right", "gold_log_probability"]].mean()
    template, verbalizer, calibration = scores.sort_values(RULES[rule]).index[-1]
    return template, verbalizer, calibration


def _on_the_others(train: pd.DataFrame, rule: str) -> float:
    """Mean accuracy, over draws, of what a rule takes, on the train rows that are not in the draw."""
    scores = []
    for draw in range(NUM_DRAWS):
        others = train[~_shots(train, draw)].set_index(CELL)
        scores.append(others.loc[_choose(train, draw, rule), "right"].mean())
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
