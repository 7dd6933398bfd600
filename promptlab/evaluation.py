"""Stored blocks -> every cell decided: results, ensembles and agreement, with the decisions written as samples.

One block is in memory at a time, and one cell of it; no model is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.blocks import PromptRows
from promptlab.choosing import Choosing, Chosen
from promptlab.combining import Agreements, Ensemble
from promptlab.deciding import Cell, Decision, Evidence, decide_block, load_evidence
from promptlab.errors import UsageError
from promptlab.metrics import check_metric
from promptlab.results import Agreement, Result
from promptlab.specs.run import ZERO_SHOT
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

    @property
    def is_fitted(self) -> bool:
        """Whether its scores come from a method that had labelled examples."""
        return self.cells[0].method != ZERO_SHOT


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What the cells of one model came to."""

    results: tuple[Result, ...]
    agreements: tuple[Agreement, ...]
    few_shot: tuple[Result, ...] = ()


def evaluate(
    store: RunStore,
    blocks: Sequence[StoredBlock],
    ensembles: Sequence[Cell],
    *,
    seed: int,
    metrics: Sequence[str] = (),
    choosing: Mapping[str, Choosing] | None = None,
) -> Evaluated:
    """Decide every cell of one model and write its samples.

    Args:
        store: the run.
        blocks: scored blocks; those of one task stand together.
        ensembles: cells whose members are cells of these blocks.
        seed: the user's seed, for intervals.
        metrics: names of metrics beside those of the tasks; each goes to the tasks that it fits.
        choosing: for each task, what chooses a cell by the shots, where there are some.
    """
    results, few_shot = list[Result](), list[Result]()
    whole = [Ensemble(cell) for cell in ensembles]
    agreements = {block.cells[0].task.name: Agreements() for block in blocks}
    for block in blocks:
        evidence, task = _evidence(store, block), block.cells[0].task
        if choosing and not block.is_fitted and not block.is_baseline:
            choosing[task.name].add(block.cells, evidence)
        decisions = decide_block(block.cells, evidence, seed=seed, metrics=metrics_for(task, metrics))
        takers: list[Ensemble | Agreements] = [] if block.is_fitted else [*whole]
        takers += [] if block.is_baseline or block.is_fitted else [agreements[task.name]]
        told = _told(decisions, few_shot if block.is_fitted else results, takers)
        _write(store, block.cells[0].samples, task, told)
    for ensemble in whole:
        decision = ensemble.finish(seed=seed, metrics=metrics_for(ensemble.cell.task, metrics))
        if decision is not None:
            _write(store, ensemble.cell.samples, ensemble.cell.task, _told([decision], results, []))
    for one in (choosing or {}).values():
        _write_chosen(store, blocks, one.choose(), few_shot, seed=seed, metrics=metrics)
    found = tuple(one for of_task in agreements.values() for one in of_task.finish())
    return Evaluated(tuple(results), found, tuple(few_shot))


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


def _evidence(store: RunStore, block: StoredBlock) -> Evidence:
    return load_evidence(store.block(block.block_id), block.names, faults=block.faults, shown=block.shown)


def _write_chosen(
    store: RunStore,
    blocks: Sequence[StoredBlock],
    chosen: Sequence[Chosen],
    results: list[Result],
    *,
    seed: int,
    metrics: Sequence[str],
) -> None:
    """Decide the cells that were chosen once more, under the names of the choices; a block is read once."""
    of_cell: dict[str, list[Chosen]] = {}
    for one in chosen:
        of_cell.setdefault(one.taken, []).append(one)
    found = list[Result]()
    for block in blocks:
        cells = [cell for cell in block.cells if cell.cell_id in of_cell]
        if not cells:
            continue
        task = cells[0].task
        for decision in decide_block(cells, _evidence(store, block), seed=seed, metrics=metrics_for(task, metrics)):
            for one in of_cell[decision.cell.cell_id]:
                renamed = one.renamed(decision)
                _write(store, renamed.cell.samples, task, _told([renamed], found, []))
    order = {one.cell.cell_id: place for place, one in enumerate(chosen)}
    results += sorted(found, key=lambda result: order[result.cell])


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
