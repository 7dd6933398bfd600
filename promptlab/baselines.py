"""Scores that need no template: what a random guess and a constant answer get right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from promptlab.errors import DataError
from promptlab.metrics import Outcome, measure
from promptlab.results import Baseline
from promptlab.rows import RowSet, load_rows, majority
from promptlab.specs.task import Task


def find_baselines(tasks: Iterable[Task], rows: dict[str, RowSet], *, data: str | None) -> list[Baseline]:
    """Baselines of every task: a uniform guess, and the majority of train and of the scored rows."""
    baselines = []
    for task in tasks:
        scored = rows[task.name]
        guess = {"accuracy": 1 / len(task.labels), "nll": float(np.log(len(task.labels)))}
        baselines.append(Baseline(task.name, scored.split, "uniform", guess, "a random guess"))
        of_scored = majority(scored, task.labels)
        if of_scored is None:
            continue
        of_train = _train_majority(task, scored.split, data)
        if of_train is not None:
            baselines.append(_constant(scored, task.labels, of_train, "majority_train", "most frequent in train"))
        note = "most frequent in the scored rows, an oracle"
        baselines.append(_constant(scored, task.labels, of_scored[0], "majority_test", note))
    return baselines


def _train_majority(task: Task, split: str, data: str | None) -> str | None:
    """The most frequent label of the train split, None where the task has none or it cannot be read."""
    if split == "train" or not any("train" in source.splits for source in task.sources):
        return None
    try:
        found = majority(load_rows(task, "train", data=data), task.labels)
    except DataError:
        return None
    return found[0] if found else None


def _constant(rows: RowSet, labels: Sequence[str], label: str, name: str, note: str) -> Baseline:
    """Always the same label."""
    index = {label: number for number, label in enumerate(labels)}
    gold = np.array([index[str(example.label)] for example in rows.examples])
    predicted = np.full(len(gold), index[label])
    outcome = Outcome(gold, predicted, np.full((len(gold), len(labels)), 1 / len(labels)), tuple(labels))
    metrics = {metric: measure(metric, outcome, seed=0).value for metric in ("accuracy", "macro_f1")}
    return Baseline(rows.task, rows.split, name, metrics, f"always '{label}', {note}")
