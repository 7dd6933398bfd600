"""Zero-shot decisions on the shots -> the cell that a user with those shots would take, for every number and draw.

The hard prompt has the same right as a method that is fitted: template, verbalizer and calibration are chosen on the
same labelled examples by the same rule. Nothing is fitted, so every shot is held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.deciding import Cell, Decision, Evidence, score_segment
from promptlab.hashing import content_hash
from promptlab.shots import Shots

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

SHOTS = "shots"  # the segment of a block that holds the prompts of all shots


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The shots of one number and draw, by row id and label index."""

    num_shots: int
    draw: int
    row_ids: tuple[str, ...]
    gold: Int64[np.ndarray, " shot"]

    @classmethod
    def of(cls, shots: Shots) -> Draw:
        """The draw that some shots are."""
        return cls(shots.num_shots, shots.draw, tuple(shots.examples.id_texts()), shots.label_indices)

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> Draw:
        """The draw that a manifest keeps."""
        return cls(value["num_shots"], value["draw"], tuple(value["rows"]), np.array(value["gold"], dtype=np.int64))

    @property
    def hash(self) -> str:
        """Identifies the rows and their labels."""
        return content_hash([self.num_shots, self.draw, list(self.row_ids), self.gold.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A choice: the cell that was taken, what it is called as a choice, and how it did on the shots."""

    cell: Cell
    taken: str
    num_candidates: int
    facts: Mapping[str, Any]

    def renamed(self, decision: Decision) -> Decision:
        """The decision of the cell that was taken, under the name of the choice."""
        result = replace(
            decision.result,
            cell=self.cell.cell_id,
            members=self.cell.members,
            samples=self.cell.samples,
            num_shots=self.cell.num_shots,
            draw=self.cell.draw,
            num_candidates=self.num_candidates,
            fit=self.facts,
        )
        return replace(decision, cell=self.cell, result=result)


@dataclass(slots=True, eq=False)
class Choosing:
    """How every instructive cell of one task does on the shots.

    Args:
        draws: the shots, for every number and draw.
        rule: `cross_validation` and `default` take the highest accuracy and then the lowest log loss, `mdl` the lowest
            log loss.
    """

    draws: Sequence[Draw]
    rule: str
    _cells: list[Cell] = field(default_factory=list)
    _row_ids: tuple[str, ...] = ()
    _log_probabilities: list[Float64[np.ndarray, "shot label"]] = field(default_factory=list)

    def add(self, cells: Sequence[Cell], evidence: Evidence) -> None:
        """Take in what the cells of a block say about the shots; cells of other than instructive templates do not."""
        if SHOTS not in evidence.segments or "instructive" not in cells[0].template_tags:
            return
        ids = evidence.segments[SHOTS].rows.row_ids
        self._row_ids = tuple(str(one) for one in (ids.to_pylist() if hasattr(ids, "to_pylist") else ids))
        for cell, log_probabilities in score_segment(cells, evidence, SHOTS):
            self._cells.append(cell)
            self._log_probabilities.append(log_probabilities)

    def choose(self) -> list[Chosen]:
        """One choice for every number of shots and draw; none where nothing could be decided."""
        if not self._cells:
            return []
        place = {row_id: number for number, row_id in enumerate(self._row_ids)}
        found = np.stack(self._log_probabilities)
        return [self._choose(draw, found[:, [place[row_id] for row_id in draw.row_ids]]) for draw in self.draws]

    def _choose(self, draw: Draw, log_probabilities: Float64[np.ndarray, "cell shot label"]) -> Chosen:
        right = (log_probabilities.argmax(axis=2) == draw.gold).mean(axis=1)
        loss = -log_probabilities[:, np.arange(len(draw.gold)), draw.gold].mean(axis=1)
        best = int(loss.argmin() if self.rule == "mdl" else np.lexsort((loss, -right))[0])
        taken = self._cells[best]
        name = content_hash([SHOTS, draw.hash, self.rule, sorted(cell.cell_id for cell in self._cells)])[:16]
        cell = replace(
            taken,
            cell_id=name,
            members=(taken.cell_id,),
            samples=f"{taken.task.name}-chosen-{name}",
            num_shots=draw.num_shots,
            draw=draw.draw,
        )
        blocks = {one.block_id for one in self._cells}
        facts = {
            "rule": self.rule,
            "shots_accuracy": float(right[best]),
            "shots_log_loss": float(loss[best]),
            "selection_passes": len(blocks) * len(draw.gold),
        }
        return Chosen(cell, taken.cell_id, len(self._cells), facts)
