"""Ensembles and agreement of templates, against loops over members and over pairs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from promptlab.block_scores import KEY_BYTES
from promptlab.blocks import PromptRows
from promptlab.combining import Agreements, Ensemble
from promptlab.deciding import Cell, Decision, conclude, skip
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer

LABELS = ("bad", "fine", "good")
NUM_ROWS = 12
TASK = Task.model_validate(
    {
        "name": "toy",
        "path": "toy.yaml",
        "title": "Toy",
        "family": "mood",
        "kind": "classification",
        "labels": LABELS,
        "sources": [{"local": "toy", "splits": {}, "fields": {"text": "text"}}],
        "language": "en",
        "license": "none",
        "citation": "none",
        "version": 1,
    }
)
VERBALIZER = Verbalizer.from_labels({"bad": "bad", "fine": "so", "good": "good"}, name="words")


def cell(template: str, *, calibration: str = "none", tag: str = "instructive", members: Sequence[str] = ()) -> Cell:
    return Cell(
        cell_id=f"{template} {calibration}",
        block_id=template,
        model="mini",
        task=TASK,
        split="test",
        template=template,
        template_tags=(tag,),
        verbalizer=VERBALIZER,
        calibration=calibration,
        samples=template,
        members=tuple(members),
    )


def rows(unscored: Sequence[int] = (), *, cut: int = 0, gold: bool = True) -> PromptRows:
    """Twelve rows; from the first `cut` of them a token is missing."""
    keys = [b"" if number in unscored else b"key" for number in range(NUM_ROWS)]
    return PromptRows(
        row_ids=[f"row{number}" for number in range(NUM_ROWS)],
        row_index=np.arange(NUM_ROWS, dtype=np.int32),
        keys=np.array(keys, dtype=f"S{KEY_BYTES}"),
        num_truncated=(np.arange(NUM_ROWS) < cut).astype(np.int32),
        gold=np.arange(NUM_ROWS, dtype=np.int32) % 3 if gold else np.full(NUM_ROWS, -1, dtype=np.int32),
        reasons=dict.fromkeys(unscored, "too long"),
    )


def decision(of: Cell, *, seed: int = 0, unscored: Sequence[int] = (), cut: int = 0, gold: bool = True) -> Decision:
    """A decision of random probabilities."""
    draw = np.random.default_rng(seed)
    log_probabilities, mass = np.log(draw.dirichlet(np.ones(3), size=NUM_ROWS)), np.log(draw.random(NUM_ROWS))
    log_probabilities[list(unscored)], mass[list(unscored)] = np.nan, np.nan
    return conclude(of, rows(unscored, cut=cut, gold=gold), log_probabilities, mass, seed=0, metrics=())


def combined(decisions: Sequence[Decision], **of: str) -> Decision | None:
    """The ensemble of decisions."""
    members = [one.cell.cell_id for one in decisions]
    ensemble = Ensemble(cell("ensemble:all", members=members, **of))
    for one in decisions:
        ensemble.add(one)
    return ensemble.finish(seed=0, metrics=())


def three(**more: bool) -> list[Decision]:
    """Three members; row 3 is lost by one of them, row 5 by two, row 7 by all, row 9 by the last."""
    lost = ([3, 5, 7], [5, 7], [7, 9])
    return [decision(cell(f"t{n}"), seed=n, unscored=lost[n], cut=2 * n, **more) for n in range(3)]


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    """p(label | row) is the mean over the members that could score the row, and so is the mass."""
    members, whole = three(), combined(three())
    assert whole is not None and whole.log_probabilities is not None
    assert whole.log_mass is not None and whole.predicted is not None
    for row in range(NUM_ROWS):
        those = [one for one in members if one.predicted is not None and one.predicted[row] >= 0]
        if not those:
            assert (row, -1) == (7, whole.predicted[row])
            assert np.full(3, 1 / 3) == pytest.approx(np.exp(whole.log_probabilities[row]))
            continue
        parts = [np.exp(one.log_probabilities[row]) for one in those if one.log_probabilities is not None]
        expected = [sum(float(part[label]) for part in parts) / len(parts) for label in range(3)]
        assert expected == pytest.approx(np.exp(whole.log_probabilities[row]), abs=1e-12)
        assert expected.index(max(expected)) == whole.predicted[row]
        masses = [np.exp(one.log_mass[row]) for one in those if one.log_mass is not None]
        assert sum(masses) / len(masses) == pytest.approx(np.exp(whole.log_mass[row]), abs=1e-12)


def test_an_ensemble_has_no_mass_where_a_member_has_none() -> None:
    """Words of unlike lengths have no mass together: the mean over the other members would be that of another cell."""
    one, other = decision(cell("t0")), decision(cell("t1"), seed=1)
    without = dataclasses.replace(other, log_mass=np.full(NUM_ROWS, np.nan))
    whole = combined([one, without])
    assert whole is not None and whole.log_mass is not None
    assert np.isnan(whole.log_mass).all() and whole.result.mass is None
    assert whole.result.metrics


def test_an_ensemble_is_measured_like_a_template() -> None:
    """Its accuracy is that of its own predictions; rows that no member scored are its unscored rows."""
    whole = combined(three())
    assert whole is not None and whole.predicted is not None
    hits = sum(int(label) == number % 3 for number, label in enumerate(whole.predicted))
    assert hits / NUM_ROWS == pytest.approx(whole.result.metrics["accuracy"].value)
    assert (12, 1) == (whole.result.num_rows, whole.result.num_unscored)
    assert ("t0 none", "t1 none", "t2 none") == whole.result.members
    assert {} == (combined(three(gold=False)) or whole).result.metrics


def test_a_row_is_shortened_where_a_member_shortened_it() -> None:
    """The largest number of tokens that were cut counts, whichever member comes last."""
    assert 4 == (combined(three()) or three()[0]).result.num_truncated
    assert 4 == (combined(three()[::-1]) or three()[0]).result.num_truncated


def test_only_rows_that_no_member_scored_have_a_reason() -> None:
    """A row that one member lost and another scored is scored."""
    for decisions in (three(), three()[::-1]):
        whole = combined(decisions)
        assert whole is not None
        assert {7: "too long"} == dict(whole.rows.reasons)


def test_the_prompts_of_calibrations_add_up() -> None:
    """Each member was calibrated on its own."""
    members = [
        dataclasses.replace(one, result=dataclasses.replace(one.result, num_calibration_prompts=number))
        for number, one in enumerate(three(), start=3)
    ]
    whole = combined(members)
    assert whole is not None
    assert 3 + 4 + 5 == whole.result.num_calibration_prompts


def test_an_ensemble_of_a_skipped_member_is_skipped() -> None:
    """A mean over fewer templates than were asked for would be another ensemble: it says which reason stopped it."""
    lost = skip(cell("t1"), rows(), "label word 'so' splits.")
    for decisions in ([three()[0], lost], [lost, three()[0]], [lost]):
        whole = combined(decisions)
        assert whole is not None
        assert "a member was skipped: label word 'so' splits." == whole.result.skipped
        assert (12, {}, "") == (whole.result.num_rows, whole.result.metrics, whole.result.samples)


def test_others_than_its_members_do_not_count() -> None:
    """A cell of another calibration or template is passed over; without any member there is no ensemble."""
    ensemble = Ensemble(cell("ensemble:all", members=["t0 none", "t1 none"]))
    ensemble.add(decision(cell("t0", calibration="contextual"), seed=5))
    assert ensemble.finish(seed=0, metrics=()) is None
    for one in (*three(), decision(cell("t0", calibration="contextual"), seed=5)):
        ensemble.add(one)
    found, expected = ensemble.finish(seed=0, metrics=()), combined(three()[:2])
    assert found is not None and found.log_probabilities is not None
    assert expected is not None and expected.log_probabilities is not None
    assert expected.log_probabilities.tolist() == found.log_probabilities.tolist()


def test_the_order_of_members_does_not_matter() -> None:
    """A mean is a mean."""
    found = [combined(list(order)) for order in itertools.permutations(three())]
    values = [np.exp(one.log_probabilities) for one in found if one is not None and one.log_probabilities is not None]
    assert 6 == len(values)
    assert all(values[0] == pytest.approx(value, abs=1e-12) for value in values)


def agreed(decisions: Sequence[Decision]) -> dict[tuple[str, str], float]:
    agreements = Agreements()
    for one in decisions:
        agreements.add(one)
    return {(one.verbalizer, one.calibration): one.value for one in agreements.finish()}


@pytest.mark.parametrize("number", [2, 3, 6])
def test_agreement_is_a_loop_over_pairs(number: int) -> None:
    """The mean over rows of the share of pairs that predict the same label; a lost row agrees with nothing."""
    decisions = [decision(cell(f"t{n}"), seed=n, unscored=[n, 11]) for n in range(number)]
    labels = [one.predicted.tolist() for one in decisions if one.predicted is not None]
    pairs = list(itertools.combinations(labels, 2))
    shares = [sum(one[row] == other[row] >= 0 for one, other in pairs) / len(pairs) for row in range(NUM_ROWS)]
    assert {("words", "none"): pytest.approx(sum(shares) / NUM_ROWS)} == agreed(decisions)


def test_agreement_needs_no_gold_label() -> None:
    """It is the same without."""
    known, unknown = ([decision(cell(f"t{n}"), seed=n, gold=gold) for n in range(3)] for gold in (True, False))
    assert agreed(known) == agreed(unknown)


def test_only_instructive_templates_agree_and_each_rule_apart() -> None:
    """Controls and skipped cells do not count, calibrations have an agreement each, one template alone has none."""
    both = [decision(cell(f"t{n}"), seed=n) for n in range(2)]
    others = [
        decision(cell("null", tag="null"), seed=7),
        skip(cell("t9"), rows(), "a word splits"),
        decision(cell("t0", calibration="batch"), seed=8),
    ]
    assert agreed(both) == agreed([*both, *others])
    found = agreed([*both, *others, decision(cell("t1", calibration="batch"), seed=8)])
    assert {("words", "none"), ("words", "batch")} == set(found)
    assert 1.0 == found["words", "batch"]


def test_an_agreement_says_what_it_is_of() -> None:
    """Names, counts and an interval about the rows."""
    agreements = Agreements()
    for n in range(3):
        agreements.add(decision(cell(f"t{n}"), seed=n))
    (found,) = agreements.finish()
    assert ("mini", "toy", "test", "words", "none") == (
        found.model, found.task, found.split, found.verbalizer, found.calibration,
    )  # fmt: skip
    assert (3, 12, "t", 0.95) == (found.num_templates, found.num_rows, found.interval, found.confidence)
    assert 0 <= found.low <= found.value <= found.high <= 1
