"""The hard prompt that labelled examples choose: by either rule, against a naive search over every cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from promptlab import choosing
from promptlab.choosing import SHOTS, Choosing, Chosen, Draw
from promptlab.deciding import Cell
from promptlab.specs.verbalizer import Verbalizer
from tests.unit.test_deciding import TASK

IDS = tuple(f"row{number}" for number in range(12))
GOLD = np.arange(12) % 2
WORDS = Verbalizer.from_labels({label: f"the{label}" for label in TASK.labels}, name="made/words")


def cells(number: int, tag: str = "instructive", block: str = "b") -> list[Cell]:
    """Cells of one block that differ in name alone."""
    return [
        Cell(f"{tag} {block} {place}", block, "mini", TASK, "test", f"made/{block}", (tag,), WORDS, "none", "samples")
        for place in range(number)
    ]


def say(right: Sequence[float]) -> np.ndarray:
    """Log p(label | row) of two labels, from the probability of the right one."""
    table = np.empty((len(right), 2))
    table[np.arange(len(right)), GOLD[: len(right)]] = right
    table[np.arange(len(right)), 1 - GOLD[: len(right)]] = 1 - np.asarray(right)
    return np.log(table)


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    blocks: Sequence[tuple[list[Cell], Sequence[np.ndarray]]],
    draws: Sequence[Draw],
    rule: str,
) -> list[Chosen]:
    """What is chosen where each cell says that about the shots."""
    known = {cell.cell_id: table for some, tables in blocks for cell, table in zip(some, tables, strict=True)}
    monkeypatch.setattr(choosing, "score_segment", lambda some, *_: [(cell, known[cell.cell_id]) for cell in some])
    found = Choosing(draws, rule)
    evidence: Any = SimpleNamespace(segments={SHOTS: SimpleNamespace(rows=SimpleNamespace(row_ids=IDS))})
    for some, _ in blocks:
        found.add(some, evidence)
    return found.choose()


def draw_of(places: Sequence[int], num_shots: int = 2, number: int = 0) -> Draw:
    """A draw of some rows."""
    return Draw(num_shots, number, tuple(IDS[place] for place in places), GOLD[list(places)])


@pytest.mark.parametrize("rule", ["cross_validation", "mdl", "default"])
@pytest.mark.parametrize("seed", range(10))
def test_the_choice_is_that_of_a_naive_search(monkeypatch: pytest.MonkeyPatch, rule: str, seed: int) -> None:
    """Each draw looks at its own rows alone, in any order: accuracy, then loss, then the first; mdl the loss."""
    generator = np.random.default_rng(seed)
    several = [cells(3, block="b"), cells(2, block="c")]
    tables = [[say(generator.uniform(0.1, 0.9, size=12)) for _ in some] for some in several]
    draws = [draw_of(generator.permutation(12)[:4], number=number) for number in range(5)]
    found = chosen(monkeypatch, list(zip(several, tables, strict=True)), draws, rule)
    assert [(2, number) for number in range(5)] == [(one.cell.num_shots, one.cell.draw) for one in found]
    for drawn, one in zip(draws, found, strict=True):
        best: tuple[Any, ...] | None = None
        for cell, table in zip(chain(*several), chain(*tables), strict=True):
            right, loss = 0, 0.0
            for name, gold in zip(drawn.row_ids, drawn.gold, strict=True):
                row = table[IDS.index(name)]
                right += int(np.argmax(row) == gold)
                loss -= row[gold] / 4
            rank = (round(loss, 9),) if rule == "mdl" else (-right / 4, round(loss, 9))
            if best is None or rank < best[0]:
                best = (rank, cell, right / 4, loss)
        assert best is not None
        assert best[1].cell_id == one.taken
        assert (one.taken,) == one.cell.members
        assert (best[2], best[3]) == pytest.approx((one.facts["shots_accuracy"], one.facts["shots_log_loss"]))
        assert (5, 2 * 4) == (one.num_candidates, one.facts["selection_passes"])


def test_the_rules_disagree_where_one_mistake_is_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four right with one at 0.01 wins by accuracy; two of four right, hardly wrong, wins by code length."""
    sure, unsure = say([0.9, 0.9, 0.9, 0.01] + [0.5] * 8), say([0.9, 0.9, 0.45, 0.45] + [0.5] * 8)
    for rule, winner in (("cross_validation", 0), ("default", 0), ("mdl", 1)):
        (found,) = chosen(monkeypatch, [(cells(2), [sure, unsure])], [draw_of([0, 1, 2, 3])], rule)
        assert cells(2)[winner].cell_id == found.taken


@pytest.mark.parametrize("rule", ["cross_validation", "mdl"])
def test_ties_go_to_the_first(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Cells that say the same: the first in the order of the run, so that the choice is the same on every machine."""
    (found,) = chosen(monkeypatch, [(cells(3), [say([0.8] * 12)] * 3)], [draw_of([0, 1])], rule)
    assert cells(3)[0].cell_id == found.taken


def test_equal_accuracies_are_told_apart_by_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are right everywhere; the surer one is taken though it comes second."""
    (found,) = chosen(
        monkeypatch, [(cells(2), [say([0.6] * 12), say([0.8] * 12)])], [draw_of([0, 1])], "cross_validation"
    )
    assert cells(2)[1].cell_id == found.taken


def test_controls_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misleading template that is right everywhere is no candidate; with nothing else there is no choice."""
    control = (cells(1, "misleading", "m"), [say([0.99] * 12)])
    (found,) = chosen(monkeypatch, [control, (cells(1), [say([0.4] * 12)])], [draw_of([0, 1])], "mdl")
    assert (cells(1)[0].cell_id, 1) == (found.taken, found.num_candidates)
    assert [] == chosen(monkeypatch, [control], [draw_of([0, 1])], "mdl")


def test_a_choice_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another draw, rule or set of candidates gives it another name; the same ones the same."""
    tables = [say([0.6] * 12), say([0.8] * 12)]

    def name(draw: Draw, rule: str, number: int) -> str:
        return chosen(monkeypatch, [(cells(number), tables[:number])], [draw], rule)[0].cell.cell_id

    names = [name(draw_of([0, 1]), "mdl", 2), name(draw_of([0, 3]), "mdl", 2),
             name(draw_of([0, 1]), "cross_validation", 2), name(draw_of([0, 1]), "mdl", 1)]  # fmt: skip
    assert 4 == len(set(names))
    assert names[0] == name(draw_of([0, 1]), "mdl", 2)


def test_a_draw_is_read_back_from_a_manifest() -> None:
    """What the manifest keeps of it is enough to choose again."""
    stored = {"num_shots": 2, "draw": 1, "rows": ["row0", "row1"], "gold": [0, 1]}
    assert draw_of([0, 1], number=1).hash == Draw.stored(stored).hash
