"""Stored few-shot runs made of made-up decisions, for tests of what is read off them; no model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.results import Result, RunResults
from promptlab.store import RunStore
from tests import made_up_runs
from tests.made_up_runs import LABELS, metric

ROWS, DRAWS = 80, 3
Tables = Mapping[tuple[Any, ...], np.ndarray]
FIT = {
    "method": "soft_prompt",
    "grid": [{"learning_rate": rate, "options": {}} for rate in (0.1, 0.01)],
    "setting": {"learning_rate": 0.1, "options": {}},
    "rule": "cross_validation",
    "num_parameters": 250,
    "steps": 20,
    "selection_passes": 300,
    "example_passes": 160,
    "losses": [0.7, 0.2],
    "facts": {},
}


def right_tables(
    *,
    tasks: tuple[str, ...] = ("reviews",),
    methods: tuple[str, ...] = ("zero_shot", "soft_prompt"),
    shots: tuple[int, ...] = (2, 4, 8),
    seed: int = 0,
) -> dict[tuple[Any, ...], np.ndarray]:
    """Right or wrong by (task, method, number of shots), rows x draws; later methods and more shots are better."""
    generator = np.random.default_rng(seed)
    found = {}
    for task in tasks:
        ease = generator.normal(size=(ROWS, 1))
        for number, method in enumerate(methods):
            for place, k in enumerate(shots):
                level = 0.5 * (place + number) - 0.2 + generator.normal(scale=0.05, size=(1, DRAWS))
                found[task, method, k] = ease + generator.normal(size=(ROWS, DRAWS)) < level
    return found


def few_shot_run(folder: Path, tables: Tables, cells: Mapping[str, np.ndarray], **changed: Any) -> RunResults:
    """A run with these decisions stored.

    Args:
        folder: where samples go.
        tables: right or wrong, rows x draws, by (task, method, number of shots) and, where a method has several, the
            template too.
        cells: right or wrong of zero-shot cells of `made/<name>`, by name; the same for every task.
        changed: other fields of the run.
    """
    store = RunStore(folder)
    store.prepare()
    tasks = list(dict.fromkeys(key[0] for key in tables))
    results = [_cell(store, task, name, right) for task in tasks for name, right in cells.items()]
    few_shot = [
        _draw(store, key, draw, right[:, draw]) for key, right in tables.items() for draw in range(right.shape[1])
    ]
    whole = made_up_runs.run(results, folder)
    manifest = {**whole.manifest, "tasks": {task: whole.manifest["tasks"]["reviews"] for task in tasks}}
    manifest["models"] = [{"model": "mini", "architecture": "Tiny", "weights": "cc", "ran": {"num_parameters": 10_000}}]
    return replace(whole, manifest=manifest, few_shot=tuple(few_shot), **changed)


def _cell(store: RunStore, task: str, name: str, right: np.ndarray) -> Result:
    samples = f"{task}-{name}"
    cell = made_up_runs.cell(
        f"made/{name}", cell=samples, samples=samples, task=task, metrics={"accuracy": metric(float(right.mean()))}
    )
    _write(store, cell, right)
    return cell


def _draw(store: RunStore, key: tuple[Any, ...], draw: int, right: np.ndarray) -> Result:
    task, method, num_shots, *named = key
    is_hard = method == "zero_shot"
    name = "-".join(map(str, [*key, draw])).replace("/", "_")
    cell = made_up_runs.cell(
        named[0] if named else "made/it_was",
        cell=name,
        block=f"block-{name}",
        samples=name,
        task=task,
        method=method,
        num_shots=num_shots,
        draw=draw,
        num_candidates=4 if is_hard else 0,
        metrics={"accuracy": metric(float(right.mean()))},
        fit={"rule": "cross_validation", "selection_passes": 12} if is_hard else {**FIT, "method": method},
    )
    _write(store, cell, right)
    return cell


def _write(store: RunStore, cell: Result, right: np.ndarray) -> None:
    """Half of the rows have the one gold label, half the other; what is wrong has the other one."""
    import pyarrow as pa

    gold = np.arange(len(right)) % 2
    columns = {
        "cell": [cell.cell] * len(right),
        "row_id": [f"row{number}" for number in range(len(right))],
        "gold": [LABELS[label] for label in gold],
        "predicted": [LABELS[label if good else 1 - label] for label, good in zip(gold, right, strict=True)],
        "log_probabilities": [
            np.log([0.7, 0.3] if (label == 0) == bool(good) else [0.3, 0.7]).tolist()
            for label, good in zip(gold, right, strict=True)
        ],
    }
    table = pa.table(columns)
    store.write_samples(cell.samples, table.schema, table.to_batches(), LABELS)
