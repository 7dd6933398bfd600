"""Decisions of several templates on the same rows -> an ensemble's decision, and how far the templates agree.

Decisions are added one after the other and let go, so that only sums are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from promptlab.blocks import PromptRows
from promptlab.deciding import Cell, Decision, conclude, skip
from promptlab.results import Agreement
from promptlab.statistics.agreement import consistency

if TYPE_CHECKING:
    from jaxtyping import Float64, Int32


@dataclass(slots=True, eq=False)
class Ensemble:
    """The mean over templates of p(y | x), each calibrated on its own; a row counts with the members that score it.

    Ensembling of patterns as in PET (Schick and Schuetze 2021), without weights.
    """

    cell: Cell
    _rows: PromptRows | None = None
    _sums: Float64[np.ndarray, "row label"] | None = None
    _masses: Float64[np.ndarray, " row"] | None = None
    _counts: Int32[np.ndarray, " row"] | None = None
    _reasons: list[str] = field(default_factory=list)
    _num_prompts: list[int] = field(default_factory=list)

    def add(self, decision: Decision) -> None:
        """Take a decision in where it is one of the members."""
        if decision.cell.cell_id not in self.cell.members:
            return
        if decision.log_probabilities is None or decision.predicted is None or decision.log_mass is None:
            self._reasons.append(str(decision.result.skipped))
            self._rows = self._rows or decision.rows
            return
        if self._sums is None or self._masses is None or self._counts is None:
            self._sums = np.zeros_like(decision.log_probabilities)
            self._masses, self._counts = np.zeros(len(decision.rows)), np.zeros(len(decision.rows), dtype=np.int32)
        is_scored = decision.predicted >= 0
        self._sums[is_scored] += np.exp(decision.log_probabilities[is_scored])
        self._masses[is_scored] += np.exp(decision.log_mass[is_scored])
        self._counts += is_scored
        self._rows = _joined(self._rows or decision.rows, decision.rows)
        self._num_prompts.append(decision.result.num_calibration_prompts)

    def finish(self, *, seed: int, metrics: Sequence[str]) -> Decision | None:
        """The decision of the ensemble, skipped where a member was; None where no member came."""
        if self._rows is None:
            return None
        if self._reasons or self._sums is None or self._masses is None or self._counts is None:
            return skip(self.cell, self._rows, f"a member was skipped: {self._reasons[0]}")
        with np.errstate(divide="ignore", invalid="ignore"):
            log_probabilities = np.log(self._sums / self._counts[:, None])
            log_mass = np.log(self._masses / self._counts)
        decision = conclude(self.cell, self._rows, log_probabilities, log_mass, seed=seed, metrics=metrics)
        result = replace(decision.result, num_calibration_prompts=sum(self._num_prompts))
        return replace(decision, result=result)


def _joined(before: PromptRows, rows: PromptRows) -> PromptRows:
    """Rows of which the most is cut that a member cut, with a reason only where no member can be scored."""
    lost = {number: reason for number, reason in before.reasons.items() if number in rows.reasons}
    return replace(rows, num_truncated=np.maximum(before.num_truncated, rows.num_truncated), reasons=lost)


@dataclass(slots=True, eq=False)
class Agreements:
    """How often two instructive templates predict the same label, for every verbalizer and calibration of a task."""

    _counts: dict[tuple[str, str], Int32[np.ndarray, "row label"]] = field(default_factory=dict)
    _num_templates: dict[tuple[str, str], int] = field(default_factory=dict)
    _cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    def add(self, decision: Decision) -> None:
        """Count the predictions of an instructive template."""
        cell = decision.cell
        if decision.predicted is None or "instructive" not in cell.template_tags:
            return
        key = cell.verbalizer.name, cell.calibration
        shape = len(decision.predicted), len(cell.task.labels)
        counts = self._counts.setdefault(key, np.zeros(shape, dtype=np.int32))
        scored = np.flatnonzero(decision.predicted >= 0)
        counts[scored, decision.predicted[scored]] += 1
        self._num_templates[key] = self._num_templates.get(key, 0) + 1
        self._cells.setdefault(key, cell)

    def finish(self) -> list[Agreement]:
        """One agreement for each verbalizer and calibration that two templates or more were decided with."""
        return [self._finish(key) for key, number in self._num_templates.items() if number > 1]

    def _finish(self, key: tuple[str, str]) -> Agreement:
        cell, counts = self._cells[key], self._counts[key]
        estimate = consistency(counts, self._num_templates[key])
        return Agreement(
            model=cell.model,
            task=cell.task.name,
            split=cell.split,
            verbalizer=cell.verbalizer.name,
            calibration=cell.calibration,
            num_templates=self._num_templates[key],
            num_rows=len(counts),
            value=estimate.value,
            low=estimate.interval.low,
            high=estimate.interval.high,
            interval=estimate.interval.kind,
            confidence=estimate.interval.confidence,
        )
