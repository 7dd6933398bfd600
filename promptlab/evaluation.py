"""Stored blocks -> every cell decided: results, ensembles and agreement, with the decisions written as samples.

One block is in memory at a time, and one cell of it; no model is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.blocks import PromptRows
from promptlab.combining import Agreements, Ensemble
from promptlab.deciding import Cell, Decision, decide_block, load_evidence
from promptlab.errors import UsageError
from promptlab.metrics import check_metric
from promptlab.results import Agreement, Result
from promptlab.specs.task import Task
from promptlab.store import RunStore

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True, eq=False)
class StoredBlock:
    """A scored block and the cells that read it, all of one task.

    `names` has the file of each segment inside the block's folder, `faults` why a calibration has no prompts.
    """

    block_id: str
    cells: tuple[Cell, ...]
    names: Mapping[str, str]
    faults: Mapping[str, str]
    shown: str
    is_baseline: bool


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What the cells of one model came to."""

    results: tuple[Result, ...]
    agreements: tuple[Agreement, ...]


def evaluate(
    store: RunStore,
    blocks: Sequence[StoredBlock],
    ensembles: Sequence[Cell],
    *,
    seed: int,
    metrics: Sequence[str] = (),
) -> Evaluated:
    """Decide every cell of one model and write its samples.

    Args:
        store: the run.
        blocks: scored blocks; those of one task stand together.
        ensembles: cells whose members are cells of these blocks.
        seed: the user's seed, for intervals.
        metrics: names of metrics beside those of the tasks; each goes to the tasks that it fits.
    """
    results: list[Result] = []
    whole = [Ensemble(cell) for cell in ensembles]
    agreements = {block.cells[0].task.name: Agreements() for block in blocks}
    for block in blocks:
        evidence = load_evidence(store.block(block.block_id), block.names, faults=block.faults, shown=block.shown)
        task = block.cells[0].task
        decisions = decide_block(block.cells, evidence, seed=seed, metrics=metrics_for(task, metrics))
        takers: list[Ensemble | Agreements] = [*whole]
        takers += [] if block.is_baseline else [agreements[task.name]]
        _write(store, block.cells[0].samples, task, _told(decisions, results, takers))
    for ensemble in whole:
        decision = ensemble.finish(seed=seed, metrics=metrics_for(ensemble.cell.task, metrics))
        if decision is not None:
            _write(store, ensemble.cell.samples, ensemble.cell.task, _told([decision], results, []))
    found = tuple(one for of_task in agreements.values() for one in of_task.finish())
    return Evaluated(tuple(results), found)


def metrics_for(task: Task, names: Sequence[str]) -> list[str]:
    """The metrics that a task can have: `f1(spam)` needs a label of that name."""
    fitting = []
    for name in names:
        try:
            check_metric(name, task.labels)
        except UsageError:
            continue
        fitting.append(name)
    return fitting


def _told(
    decisions: Iterable[Decision], results: list[Result], takers: Sequence[Ensemble | Agreements]
) -> Iterator[Decision]:
    """The decisions that were made, one after the other; each is told to those that need it before it is let go."""
    for decision in decisions:
        results.append(decision.result)
        for taker in takers:
            taker.add(decision)
        if decision.predicted is not None:
            yield decision


def _write(store: RunStore, name: str, task: Task, decisions: Iterator[Decision]) -> None:
    """Write decisions as samples while they are made."""
    store.write_samples(name, _schema(), (_batch(task, decision) for decision in decisions), task.labels)


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    label = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "cell": pa.string(),
        "row_id": pa.string(),
        "row_index": pa.int32(),
        "gold": label,
        "predicted": label,
        "log_probabilities": pa.list_(pa.float64()),
        "log_mass": pa.float64(),
        "num_truncated": pa.int32(),
        "reason": pa.string(),
    }
    return pa.schema(list(columns.items()))


def _batch(task: Task, decision: Decision) -> pyarrow.RecordBatch:
    """The decisions of one cell, one row a decision; nothing but nulls in rows that could not be scored."""
    import pyarrow as pa

    assert decision.predicted is not None and decision.log_probabilities is not None and decision.log_mass is not None
    rows, number, width = decision.rows, len(decision.rows), len(task.labels)
    is_unscored = decision.predicted < 0
    labels = pa.array(task.labels, type=pa.string())
    offsets = pa.array(np.arange(number + 1, dtype=np.int32) * width)
    values = pa.array(decision.log_probabilities.ravel())
    columns = [
        pa.repeat(pa.scalar(decision.cell.cell_id), number),
        rows.row_ids if isinstance(rows.row_ids, pa.Array) else pa.array(rows.row_ids, type=pa.string()),
        pa.array(rows.row_index),
        pa.DictionaryArray.from_arrays(pa.array(rows.gold, mask=rows.gold < 0), labels),
        pa.DictionaryArray.from_arrays(pa.array(decision.predicted.astype(np.int32), mask=is_unscored), labels),
        pa.ListArray.from_arrays(offsets, values, mask=pa.array(is_unscored)),
        pa.array(decision.log_mass, mask=np.isnan(decision.log_mass)),
        pa.array(rows.num_truncated),
        _reasons(rows),
    ]
    return pa.record_batch(columns, schema=_schema())


def _reasons(rows: PromptRows) -> pyarrow.Array:
    import pyarrow as pa

    if not rows.reasons:
        return pa.nulls(len(rows), pa.string())
    return pa.array([rows.reasons.get(number) for number in range(len(rows))], type=pa.string())
