"""Scores that need no template: what a random guess and a constant answer get right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from promptlab.errors import DataError
from promptlab.metrics import Outcome, measure
from promptlab.results import Baseline
from promptlab.rows import RowSet, load_rows, majority
from promptlab.specs.task import Task

NEED_PROBABILITIES = ("nll", "brier", "ece", "ece_debiased")


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
            baselines.append(_constant(task, scored, of_train, "majority_train", "most frequent in train"))
        note = "most frequent in the scored rows, an oracle"
        baselines.append(_constant(task, scored, of_scored[0], "majority_test", note))
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


def _constant(task: Task, rows: RowSet, label: str, name: str, note: str) -> Baseline:
    """Always the same label; by the metrics of the task, and by those that need no probabilities."""
    labels = task.labels
    index = {label: number for number, label in enumerate(labels)}
    gold = np.array([index[name] for name in rows.examples.label_names])[rows.examples.labels()]
    predicted = np.full(len(gold), index[label])
    outcome = Outcome(gold, predicted, np.full((len(gold), len(labels)), 1 / len(labels)), tuple(labels))
    metrics = {metric: measure(metric, outcome, seed=0).value for metric in _metrics(task)}
    return Baseline(rows.task, rows.split, name, metrics, f"always '{label}', {note}")


def _metrics(task: Task) -> list[str]:
    """What a constant answer can be measured by: it has no probabilities of its own."""
    named = [name for name in task.metrics if name.partition("(")[0] not in NEED_PROBABILITIES]
    return list(dict.fromkeys([*named, "accuracy", "macro_f1"]))
