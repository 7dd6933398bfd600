"""Stored scores become predictions and metrics: a cell worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from promptlab.deciding import NEAR_TIE, BlockRows, Cell, Decision, decide, skip
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import BlockScores, PromptRow

TASK = Task.model_validate(
    {
        "name": "toy",
        "path": "toy.yaml",
        "title": "Toy",
        "family": "sentiment",
        "kind": "classification",
        "labels": ["negative", "positive"],
        "sources": [{"local": "toy", "splits": {}, "fields": {"text": "text"}}],
        "language": "en",
        "license": "none",
        "citation": "none",
        "version": 1,
    }
)
WORDS = {"terrible": 7, "great": 9}
# p(terrible), p(great) and p(another word) at the mask of each prompt.
ROWS: Mapping[str, tuple[float, ...]] = {"p1": (0.1, 0.3, 0.5), "p2": (0.2, 0.05, 0.6)}
CONTENT_FREE: Mapping[str, tuple[float, ...]] = {
    "c1": (0.02, 0.08, 0.1),
    "c2": (0.03, 0.07, 0.1),
    "c3": (0.04, 0.06, 0.1),
}
GOLD = ("positive", "negative", "negative")


def cell_of(calibration: str) -> Cell:
    """A cell of the toy task."""
    return Cell(
        cell_id="c",
        block_id="b",
        model="mini",
        task=TASK,
        split="test",
        template=Template.from_text("{{ text }} {{ mask }}", name="t"),
        verbalizer=Verbalizer.from_labels({"positive": "great", "negative": "terrible"}, name="v"),
        calibration=calibration,
    )


def decide_toy(
    calibration: str = "none",
    *,
    rows: Mapping[str, tuple[float, ...]] = ROWS,
    content_free: Mapping[str, tuple[float, ...]] = CONTENT_FREE,
    gold: Sequence[str | None] = GOLD,
    num_unscored: int = 1,
) -> Decision:
    """The decision of a cell of two scored rows and one that was too long."""
    prompts = {**rows, **content_free}
    stored = BlockScores(
        rows={(key, 0, 0): number for number, key in enumerate(prompts)},
        columns={7: 0, 9: 1, 1: 2},
        log_probs=np.log(np.array(list(prompts.values()), dtype=np.float64).reshape(-1, 3)),
    )
    block = BlockRows(
        rows=[
            *(PromptRow(f"{key}-0", number, key, 2 * number) for number, key in enumerate(rows)),
            *(PromptRow(f"long-{number}", len(rows) + number, None, 0, "too long") for number in range(num_unscored)),
        ],
        content_free=[PromptRow(key, -1, key, 0) for key in content_free] or [PromptRow("c", -1, None, 0, "too long")],
        words=WORDS,
    )
    return decide(cell_of(calibration), stored, block, gold, seed=0, word_ids=WORDS)


def probabilities(decision: Decision) -> list[Any]:
    """p(positive | x) of each row, None where it has none."""
    rows = decision.samples["log_probabilities"]
    return [None if row is None else math.exp(row[1]) for row in rows]


def test_a_cell_by_hand() -> None:
    """Without calibration p(positive) is 0.3 / 0.4 = 3/4 and 0.05 / 0.25 = 1/5; the third row is wrong in any case.

    Two of three rows are right. The mean negative log-likelihood is that of 3/4, 4/5 and, unscored, 1/2.
    The label words have 0.4 and 0.25 of the mask, 0.325 in the mean. The prior is the mean of the content-free rows.
    """
    decision = decide_toy()
    result = decision.result
    assert [3 / 4, 1 / 5, None] == [p if p is None else pytest.approx(p) for p in probabilities(decision)]
    assert decision.samples["predicted"] == ["positive", "negative", None]
    assert pytest.approx(2 / 3) == result.metrics["accuracy"].value
    assert pytest.approx(-math.log(3 / 4 * 4 / 5 * 1 / 2) / 3) == result.metrics["nll"].value
    assert (3, 1, 1, 0) == (result.num_rows, result.num_unscored, result.num_truncated, result.num_near_ties)
    assert pytest.approx(0.325) == result.mass
    assert {"negative": 0.3, "positive": 0.7} == pytest.approx(dict(result.prior))
    assert result.predicted == {"negative": 1, "positive": 1, "none": 1}


def test_a_calibrated_cell_by_hand() -> None:
    """With the prior (0.3, 0.7) the first row is 5/6 : 15/14 = 7 : 9, the second 8/3 : 2/7 = 28 : 3."""
    decision = decide_toy("contextual")
    assert [9 / 16, 3 / 31, None] == [p if p is None else pytest.approx(p) for p in probabilities(decision)]
    assert {"negative": 0.3, "positive": 0.7} == pytest.approx(dict(decision.result.prior))
    assert pytest.approx(0.325) == decision.result.mass


def test_samples_hold_ids_and_reasons_but_no_text() -> None:
    """A row that could not be scored has no numbers and says why."""
    samples = decide_toy().samples
    assert samples["row_id"] == ["p1-0", "p2-0", "long-0"]
    assert samples["reason"] == [None, None, "too long"]
    assert samples["gold"] == list(GOLD)
    assert samples["log_probabilities"][2] is None
    assert [pytest.approx(math.log(0.4)), pytest.approx(math.log(0.25)), None] == samples["log_mass"]


def test_near_ties_are_counted() -> None:
    """A row whose labels are closer than the tolerance across machines is counted, one a little further is not."""
    rows = {
        "tie": (0.2, 0.2, 0.1),
        "near": (0.2, 0.2 * math.exp(NEAR_TIE / 2), 0.1),
        "far": (0.2, 0.2 * math.exp(NEAR_TIE * 2), 0.1),
    }
    assert decide_toy(rows=rows, gold=["positive"] * 4).result.num_near_ties == 2


@pytest.mark.parametrize("gold", [[None, None, None], ["positive", None, "negative"]])
def test_rows_without_gold_have_predictions_but_no_metrics(gold: Sequence[str | None]) -> None:
    """Unlabelled rows are decided all the same; a metric over a part of the rows would mislead."""
    decision = decide_toy(gold=gold)
    assert decision.result.metrics == {}
    assert decision.outcome is None
    assert decision.samples["predicted"] == ["positive", "negative", None]


def test_gold_labels_change_no_prediction() -> None:
    """Scores never see gold labels."""
    known, other = decide_toy(), decide_toy(gold=["negative", "positive", "positive"])
    assert known.samples["log_probabilities"] == other.samples["log_probabilities"]
    assert known.result.metrics["accuracy"].value != other.result.metrics["accuracy"].value


@pytest.mark.parametrize("calibration", ["none", "contextual"])
def test_a_template_that_is_too_long_for_every_row(calibration: str) -> None:
    """No row scored is an accuracy of 0 that can be stored: no mass, no prior, no NaN."""
    decision = decide_toy(calibration, rows={}, content_free={}, num_unscored=3)
    result = decision.result
    assert (3, 0.0, None) == (result.num_unscored, result.metrics["accuracy"].value, result.mass)
    assert result.predicted == {"negative": 0, "positive": 0, "none": 3}
    assert result.prior == {}
    json.dumps(asdict(result), allow_nan=False)


def test_what_cannot_be_calibrated_is_not_decided() -> None:
    """Without a content-free row a calibrated cell counts its rows as unscored, an uncalibrated one does not."""
    assert decide_toy("contextual", content_free={}).result.num_unscored == 3
    assert decide_toy("none", content_free={}).result.num_unscored == 1


def test_a_hopeless_label_keeps_its_log_probability() -> None:
    """A probability too small for a number is stored as its logarithm, 2 log 1e-300 here, not as minus infinity."""
    skewed = {f"c{number}": (0.5, 0.5e-300, 0.1) for number in range(3)}
    decision = decide_toy("contextual", rows={"p": (1e-300, 1.0, 1e-300)}, content_free=skewed, gold=["negative"] * 2)
    assert [pytest.approx(2 * math.log(1e-300)), 0.0] == decision.samples["log_probabilities"][0]
    assert decision.samples["predicted"][0] == "positive"


def test_equal_cells_have_equal_results() -> None:
    """Deciding again gives the same numbers, intervals included."""
    assert decide_toy().result == decide_toy().result


def test_a_skipped_cell_says_why() -> None:
    """A cell that is not decided keeps its names and has no metrics."""
    decided = decide_toy().result
    skipped = skip(cell_of("none"), 3, "'great' splits into 2 tokens")
    assert (decided.cell, decided.task, decided.num_rows) == (skipped.cell, skipped.task, skipped.num_rows)
    assert ({}, "'great' splits into 2 tokens") == (skipped.metrics, skipped.skipped)
