"""Stored block + decision rule (verbalizer, pooling, calibration) -> predictions, metrics and a `Result`.

Costs no forward pass and needs no torch: cells are decided again in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.calibration import calibrate
from promptlab.metrics import UNSCORED, Outcome, measure
from promptlab.results import MetricValue, Result
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import BlockScores, PromptRow
from promptlab.types import LabelScores
from promptlab.verbalizing import label_probabilities, verbalize

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

NEAR_TIE = 1e-4
METRICS = ("accuracy", "macro_f1", "nll")


@dataclass(frozen=True, slots=True)
class Cell:
    """A block under one decision rule, with everything that names it."""

    cell_id: str
    block_id: str
    model: str
    task: Task
    split: str
    template: Template
    verbalizer: Verbalizer
    calibration: str


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """Which prompts of a block answer for the rows of a split and for the content-free texts, and their words."""

    rows: Sequence[PromptRow]
    content_free: Sequence[PromptRow]
    words: Mapping[str, int | str]


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A cell's result, and its decisions row by row."""

    result: Result
    samples: Mapping[str, Any]
    outcome: Outcome | None


def decide(
    cell: Cell,
    stored: BlockScores,
    block: BlockRows,
    gold: Sequence[str | None],
    *,
    seed: int,
    word_ids: Mapping[str, int],
) -> Decision:
    """Predictions and metrics of a cell.

    Args:
        cell: what is decided, and how.
        stored: the scores of the block.
        block: the block's rows, in the order of `gold`.
        gold: gold labels, None where a row has none; used for metrics only.
        seed: the user's seed, for intervals.
        word_ids: token id of each word of the verbalizer.
    """
    labels = cell.task.labels
    raw = _scores(cell, stored, block.rows, word_ids)
    content_free = _content_free_scores(cell, stored, block.content_free, word_ids)
    is_scored = np.array([row.prompt_key is not None for row in block.rows])
    if content_free is None:  # no text fits beside the template: nothing can be calibrated
        is_scored &= cell.calibration == "none"
    known = np.zeros((1, len(labels))) if content_free is None else content_free
    calibrated = calibrate(cell.calibration, raw.scores, known)
    log_probabilities = np.where(is_scored[:, None], calibrated, -np.log(len(labels)))
    predicted = np.where(is_scored, np.argmax(log_probabilities, axis=1), UNSCORED)
    outcome = _outcome(labels, gold, predicted, np.exp(log_probabilities))
    names = dict.fromkeys([*cell.task.metrics, *METRICS])
    result = replace(
        _named(cell, len(block.rows)),
        num_unscored=int((~is_scored).sum()),
        num_truncated=sum(row.num_truncated > 0 for row in block.rows),
        num_near_ties=_count_near_ties(log_probabilities[is_scored]),
        mass=float(np.exp(raw.log_mass[is_scored]).mean()) if is_scored.any() else None,
        prior=_prior(labels, content_free),
        predicted=_count(labels, predicted),
        metrics={name: MetricValue.of(measure(name, outcome, seed=seed)) for name in names} if outcome else {},
    )
    samples = _samples(block.rows, gold, labels, predicted, log_probabilities, raw.log_mass)
    return Decision(result, samples, outcome)


def skip(cell: Cell, num_rows: int, reason: str) -> Result:
    """The result of a cell that was not decided, with the reason."""
    return replace(_named(cell, num_rows), skipped=reason)


def _named(cell: Cell, num_rows: int) -> Result:
    """A result that says which cell it is of, and nothing yet of what was found."""
    return Result(
        cell=cell.cell_id,
        block=cell.block_id,
        model=cell.model,
        task=cell.task.name,
        family=cell.task.family,
        split=cell.split,
        template=cell.template.name,
        template_tags=cell.template.tags,
        verbalizer=cell.verbalizer.name,
        pool=cell.verbalizer.pool,
        calibration=cell.calibration,
        labels=cell.task.labels,
        num_rows=num_rows,
    )


def _scores(cell: Cell, stored: BlockScores, rows: Sequence[PromptRow], word_ids: Mapping[str, int]) -> LabelScores:
    log_probs, columns = stored.take([row.prompt_key for row in rows]), dict(stored.columns)
    absent = [token for token in sorted(set(word_ids.values())) if token not in columns]
    if absent:  # not one prompt of the block could be scored, so nothing was asked about these tokens
        columns |= {token: len(columns) + number for number, token in enumerate(absent)}
        log_probs = np.hstack([log_probs, np.full((len(rows), len(absent)), np.nan)])
    return verbalize(log_probs, columns, cell.verbalizer, word_ids, cell.task.labels)


def _content_free_scores(
    cell: Cell, stored: BlockScores, rows: Sequence[PromptRow], word_ids: Mapping[str, int]
) -> Float64[np.ndarray, "text label"] | None:
    """Label scores of the content-free texts that could be scored; None where none could."""
    scored = [row for row in rows if row.prompt_key is not None]
    return _scores(cell, stored, scored, word_ids).scores if scored else None


def _outcome(
    labels: Sequence[str],
    gold: Sequence[str | None],
    predicted: Int64[np.ndarray, " row"],
    probabilities: Float64[np.ndarray, "row label"],
) -> Outcome | None:
    if not gold or any(label is None for label in gold):
        return None
    index = {label: number for number, label in enumerate(labels)}
    return Outcome(np.array([index[str(label)] for label in gold]), predicted, probabilities, tuple(labels))


def _prior(labels: Sequence[str], content_free: Float64[np.ndarray, "text label"] | None) -> dict[str, float]:
    """Mean over the content-free texts of p(y | c), before calibration; empty where none could be scored."""
    if content_free is None:
        return {}
    probabilities = label_probabilities(content_free).mean(axis=0)
    return {label: float(value) for label, value in zip(labels, probabilities, strict=True)}


def _count(labels: Sequence[str], predicted: Int64[np.ndarray, " row"]) -> dict[str, int]:
    counts = {label: int((predicted == number).sum()) for number, label in enumerate(labels)}
    unscored = int((predicted == UNSCORED).sum())
    return counts | ({"none": unscored} if unscored else {})


def _count_near_ties(log_probabilities: Float64[np.ndarray, "row label"]) -> int:
    """Rows whose two best labels are closer than the tolerance that holds across machines and batches."""
    if not len(log_probabilities):
        return 0
    best = np.sort(log_probabilities, axis=1)[:, -2:]
    return int((best[:, 1] - best[:, 0] < NEAR_TIE).sum())


def _samples(
    rows: Sequence[PromptRow],
    gold: Sequence[str | None],
    labels: Sequence[str],
    predicted: Int64[np.ndarray, " row"],
    log_probabilities: Float64[np.ndarray, "row label"],
    log_mass: Float64[np.ndarray, " row"],
) -> dict[str, Any]:
    return {
        "row_id": [row.row_id for row in rows],
        "row_index": [row.row_index for row in rows],
        "gold": list(gold),
        "predicted": [labels[index] if index != UNSCORED else None for index in predicted],
        "log_probabilities": [
            list(values) if row.prompt_key is not None else None
            for row, values in zip(rows, log_probabilities, strict=True)
        ],
        "log_mass": [None if np.isnan(value) else float(value) for value in log_mass],
        "num_truncated": [row.num_truncated for row in rows],
        "reason": [row.reason for row in rows],
    }
