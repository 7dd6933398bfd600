"""Stored scores become predictions and metrics: a cell worked out by hand, and a naive loop over all of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.blocks import PromptRows
from promptlab.deciding import METRICS, NEAR_TIE, Cell, Decision, Evidence, Segment, decide_block, skip, word_fault
from promptlab.registry import CALIBRATIONS
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import MaskScores, WordTokens

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
WORDS: Mapping[str, WordTokens | str] = {
    word: WordTokens(((token,),)) for word, token in (("terrible", 7), ("great", 9), ("bad", 1))
}
TOKENS = (7, 9, 1)
VERBALIZER = Verbalizer.from_labels({"positive": "great", "negative": "terrible"}, name="v")
# p(terrible), p(great) and p(bad) at the mask of each prompt; a text is why a prompt cannot be scored.
Probabilities = Mapping[str, tuple[float, float, float] | str]
ROWS: Probabilities = {"p1": (0.1, 0.3, 0.5), "p2": (0.2, 0.05, 0.6), "long": "too long"}
CONTENT_FREE: Probabilities = {"c1": (0.02, 0.08, 0.1), "c2": (0.03, 0.07, 0.1), "c3": (0.04, 0.06, 0.1)}
SEGMENTS: Mapping[str, Probabilities] = {
    "rows": ROWS,
    "content_free": CONTENT_FREE,
    "domain": {"d1": (0.04, 0.04, 0.1), "d2": "too long", "d3": (0.02, 0.06, 0.1)},
    "domain_prompt": {"q": (0.3, 0.1, 0.1)},
    "support": {"s1": (0.01, 0.04, 0.04), "s2": (0.08, 0.02, 0.08)},
}
GOLD = ("positive", "negative", "negative")


def token_of(word: str) -> int:
    """The one token of a word."""
    found = WORDS[word]
    assert isinstance(found, WordTokens)
    return found.pieces[0]


def cell_of(calibration: str = "none", verbalizer: Verbalizer = VERBALIZER) -> Cell:
    """A cell of the toy task."""
    return Cell(
        cell_id=f"{verbalizer.name} {calibration}",
        block_id="b",
        model="mini",
        task=TASK,
        split="test",
        template="made/t",
        template_tags=("instructive",),
        verbalizer=verbalizer,
        calibration=calibration,
        samples="toy-b",
    )


def prompt_rows(prompts: Probabilities, gold: Sequence[str | None] = ()) -> PromptRows:
    """Rows of which every second token was cut, more the later they come."""
    reasons = {number: why for number, why in enumerate(prompts.values()) if isinstance(why, str)}
    keys = [b"" if isinstance(held, str) else key.encode() for key, held in prompts.items()]
    cut = [0 if isinstance(held, str) else 2 * number for number, held in enumerate(prompts.values())]
    labels = [-1 if label is None else TASK.labels.index(label) for label in gold or [None] * len(prompts)]
    number = np.arange(len(prompts), dtype=np.int32)
    return PromptRows(
        row_ids=[f"{key}-0" for key in prompts],
        row_index=number,
        keys=np.array(keys, dtype=f"S{KEY_BYTES}"),
        num_truncated=np.array(cut, dtype=np.int32),
        gold=np.array(labels, dtype=np.int32),
        reasons=reasons,
    )


def evidence_of(
    segments: Mapping[str, Probabilities],
    gold: Sequence[str | None] = GOLD,
    *,
    words: Mapping[str, Mapping[str, WordTokens | str]] | None = None,
    faults: Mapping[str, str] | None = None,
) -> Evidence:
    """What would be stored of a block; `words` has the tokens of segments in which they are others."""
    scored = {key: held for prompts in segments.values() for key, held in prompts.items() if not isinstance(held, str)}
    number = len(scored)
    stored = MaskScores(
        keys=tuple(scored),
        fills=np.zeros(number, dtype=np.int32),
        masks=np.zeros(number, dtype=np.int32),
        log_normalizers=np.zeros(number, dtype=np.float32),
        token_ids=np.array(TOKENS, dtype=np.int64),
        log_probs=np.log(np.array(list(scored.values())).reshape(-1, 3)).astype(np.float32),
        top_ids=np.zeros((number, 0), dtype=np.int64),
        top_log_probs=np.zeros((number, 0), dtype=np.float32),
    )
    found = {
        name: Segment(prompt_rows(prompts, gold if name == "rows" else ()), (words or {}).get(name, WORDS))
        for name, prompts in segments.items()
    }
    return Evidence(BlockScores.of([stored]), found, faults or {}, "templates/made/t.jinja")


def decide(
    calibration: str = "none",
    segments: Mapping[str, Probabilities] = SEGMENTS,
    gold: Sequence[str | None] = GOLD,
    *,
    metrics: Sequence[str] = (),
    **more: Any,
) -> Decision:
    """The decision of one cell of two scored rows and one that was too long."""
    (decision,) = decide_block([cell_of(calibration)], evidence_of(segments, gold, **more), seed=0, metrics=metrics)
    return decision


def positive(decision: Decision) -> list[float]:
    """p(positive | x) of each row."""
    assert decision.log_probabilities is not None
    return np.exp(decision.log_probabilities[:, 1]).tolist()


def predicted(decision: Decision) -> list[str | None]:
    assert decision.predicted is not None
    return [None if label < 0 else TASK.labels[label] for label in decision.predicted]


def test_a_cell_by_hand() -> None:
    """Without calibration p(positive) is 0.3 / 0.4 = 3/4 and 0.05 / 0.25 = 1/5; the third row is wrong in any case.

    Two of three rows are right. The mean negative log-likelihood is that of 3/4, 4/5 and, unscored, 1/2.
    The label words have 0.4 and 0.25 of the mask, 0.325 in the mean. The prior is the mean of the content-free rows.
    """
    decision = decide()
    result = decision.result
    assert [3 / 4, 1 / 5, 1 / 2] == pytest.approx(positive(decision), abs=1e-6)
    assert ["positive", "negative", None] == predicted(decision)
    assert pytest.approx(2 / 3) == result.metrics["accuracy"].value
    assert pytest.approx(-math.log(3 / 4 * 4 / 5 * 1 / 2) / 3) == result.metrics["nll"].value
    assert (3, 1, 1, 0) == (result.num_rows, result.num_unscored, result.num_truncated, result.num_near_ties)
    assert pytest.approx(0.325) == result.mass
    assert {"negative": 0.3, "positive": 0.7} == pytest.approx(dict(result.prior))
    assert {"negative": 1, "positive": 1, "none": 1} == result.predicted
    assert 0 == result.num_calibration_prompts


@pytest.mark.parametrize(
    ("calibration", "expected", "num_prompts"),
    [
        # The prior (0.3, 0.7): 5/6 : 15/14 = 7 : 9 and 8/3 : 2/7 = 28 : 3.
        ("contextual", [9 / 16, 3 / 31], 3),
        # Two bags have p = (1/2, 1/2) and (1/4, 3/4), one was too long; divided by (3/8, 5/8): 2/3 : 6/5 = 5 : 9 and
        # 32/15 : 8/25 = 20 : 3.
        ("domain", [9 / 14, 3 / 23], 2),
        # Divided by 0.3 and 0.1: 1/3 : 3 and 2/3 : 1/2.
        ("pmi_dc", [9 / 10, 3 / 7], 1),
        # Over the two words the support rows are (1/5, 4/5) and (4/5, 1/5): their geometric means are equal.
        ("support", [3 / 4, 1 / 5], 2),
        # The scored rows themselves have (1/4, 3/4) and (4/5, 1/5), in the mean (21/40, 19/40): 19 : 63 and 76 : 21.
        ("batch", [63 / 82, 21 / 97], 2),
    ],
)
def test_a_calibrated_cell_by_hand(calibration: str, expected: list[float], num_prompts: int) -> None:
    """Each calibration reads the prompts of its own segment, of which those that cannot be scored are left out.

    Mass and prior are those of the uncalibrated scores.
    """
    decision = decide(calibration)
    assert [*expected, 1 / 2] == pytest.approx(positive(decision), abs=1e-6)
    assert num_prompts == decision.result.num_calibration_prompts
    plain = decide().result
    assert (plain.mass, plain.prior) == (decision.result.mass, decision.result.prior)


def test_decisions_keep_ids_and_reasons() -> None:
    """A row that could not be scored has uniform probabilities, no mass, no label, and says why."""
    decision = decide()
    assert ["p1-0", "p2-0", "long-0"] == list(decision.rows.row_ids)
    assert {2: "too long"} == decision.rows.reasons
    assert decision.log_mass is not None and decision.predicted is not None
    assert [0.4, 0.25] == pytest.approx(np.exp(decision.log_mass[:2]), abs=1e-6)
    assert np.isnan(decision.log_mass[2])
    assert -1 == decision.predicted[2]


def test_near_ties_are_counted() -> None:
    """A row whose labels are closer than the tolerance across machines is counted, one a little further is not."""
    rows: Probabilities = {
        "tie": (0.2, 0.2, 0.1),
        "near": (0.2, 0.2 * math.exp(NEAR_TIE / 2), 0.1),
        "far": (0.2, 0.2 * math.exp(NEAR_TIE * 2), 0.1),
    }
    assert 2 == decide("none", {"rows": rows}, ["positive"] * 3).result.num_near_ties


@pytest.mark.parametrize("gold", [[None, None, None], ["positive", None, "negative"]])
def test_rows_without_gold_have_predictions_but_no_metrics(gold: Sequence[str | None]) -> None:
    """Unlabelled rows are decided all the same; a metric over a part of the rows would mislead."""
    decision = decide(gold=gold)
    assert {} == decision.result.metrics
    assert decision.outcome is None
    assert ["positive", "negative", None] == predicted(decision)


@pytest.mark.parametrize("calibration", CALIBRATIONS.names())
def test_gold_labels_change_no_prediction(calibration: str) -> None:
    """Scores never see gold labels."""
    known, other = decide(calibration), decide(calibration, gold=["negative", "positive", "positive"])
    assert positive(known) == positive(other)
    assert known.result.metrics["nll"].value != other.result.metrics["nll"].value


def test_a_template_that_is_too_long_for_every_row() -> None:
    """No row scored is an accuracy of 0 that can be stored: no mass, no prior, no NaN."""
    too_long: Mapping[str, Probabilities] = {
        "rows": dict.fromkeys("abc", "too long"),
        "content_free": {"c": "too long"},
    }
    result = decide("none", too_long).result
    assert (3, 0.0, None) == (result.num_unscored, result.metrics["accuracy"].value, result.mass)
    assert {"negative": 0, "positive": 0, "none": 3} == result.predicted
    assert {} == result.prior
    json.dumps(asdict(result), allow_nan=False)
    assert "made/t: calibration 'batch' has no scored row to look at." == decide("batch", too_long).result.skipped


@pytest.mark.parametrize(
    ("calibration", "change", "more", "reason"),
    [
        ("contextual", {"content_free": {"c": "too long"}}, {}, "has no prompt that can be scored: too long."),
        ("domain", {"domain": None}, {"faults": {"domain": "needs train rows."}}, "needs train rows."),
        ("domain", {"domain": None}, {}, "needs prompts that were not scored."),
        (
            "support",
            {},
            {"words": {"support": {**WORDS, "great": "label word 'great' splits."}}},
            "cannot use its prompts: verbalizer v with templates/made/t.jinja: label word 'great' splits.",
        ),
        (
            "pmi_dc",
            {},
            {"words": {"domain_prompt": {**WORDS, "great": WordTokens(((1,),))}}},
            "has 'great' as another token in its prompts than in the rows.",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_skipped(
    calibration: str, change: Mapping[str, Any], more: Mapping[str, Any], reason: str
) -> None:
    """A calibration without prompts that can be used costs its own cell, which says why; the others are decided."""
    segments = {name: held for name, held in {**SEGMENTS, **change}.items() if held is not None}
    decision = decide(calibration, segments, **more)
    assert f"made/t: calibration '{calibration}' {reason}" == decision.result.skipped
    assert ({}, "", None) == (decision.result.metrics, decision.result.samples, decision.log_probabilities)
    assert decide("none", segments, **more).result.skipped is None


def test_a_hopeless_label_keeps_its_log_probability() -> None:
    """A probability too small for a number is kept as its logarithm, 2 log 1e-300 here, not as minus infinity."""
    skewed: Probabilities = {f"c{number}": (0.5, 0.5e-300, 0.1) for number in range(3)}
    decision = decide("contextual", {"rows": {"p": (1e-300, 1.0, 1e-300)}, "content_free": skewed}, ["negative"])
    assert decision.log_probabilities is not None
    assert [2 * math.log(1e-300), 0.0] == pytest.approx(decision.log_probabilities[0], rel=1e-6)
    assert ["positive"] == predicted(decision)


def test_equal_cells_have_equal_results() -> None:
    """Deciding again gives the same numbers, intervals included."""
    assert decide().result == decide().result


def test_metrics_are_those_of_the_task_the_common_ones_and_what_is_asked_for() -> None:
    """Each is measured once; the task's own come first."""
    assert ["accuracy", "macro_f1", "nll"] == list(METRICS) == list(decide().result.metrics)
    assert ["accuracy", "macro_f1", "nll", "brier"] == list(decide(metrics=["brier", "nll"]).result.metrics)


def test_a_skipped_cell_says_why() -> None:
    """A cell that is not decided keeps its names and has no metrics."""
    decided = decide().result
    skipped = skip(cell_of("none"), prompt_rows(ROWS), "'great' splits into 2 tokens").result
    assert (decided.cell, decided.task, decided.num_rows) == (skipped.cell, skipped.task, skipped.num_rows)
    assert ({}, "'great' splits into 2 tokens", "") == (skipped.metrics, skipped.skipped, skipped.samples)


def test_cells_come_in_order_and_a_word_fault_costs_its_own_verbalizer() -> None:
    """A verbalizer without tokens, or two of whose words are one token, is skipped; the cells beside it are decided."""
    split = Verbalizer.from_labels({"positive": "great", "negative": "badness"}, name="splits")
    met = Verbalizer.from_labels({"positive": "Great", "negative": "great"}, name="meets")
    words = {**WORDS, "badness": "label word 'badness' splits.", "Great": WordTokens(((9,),))}
    cells = [cell_of(name, one) for one in (split, VERBALIZER, met) for name in ("none", "batch")]
    evidence = evidence_of(SEGMENTS, words={"rows": words})
    decisions = list(decide_block(cells, evidence, seed=0))
    assert [cell.cell_id for cell in cells] == [decision.result.cell for decision in decisions]
    assert [True, True, False, False, True, True] == [one.result.skipped is not None for one in decisions]
    assert "verbalizer splits with templates/made/t.jinja: label word 'badness' splits." == decisions[0].result.skipped
    assert "are the same token 9 here" in str(decisions[-1].result.skipped)
    assert decisions[0].result.skipped == word_fault(words, split, "independent", "templates/made/t.jinja")
    assert word_fault(words, VERBALIZER, "independent", "it") is None


@pytest.mark.parametrize("seed", range(4))
def test_every_cell_is_a_plain_loop(seed: int) -> None:
    """Three verbalizers and six calibrations over random scores, against loops over rows, words and labels."""
    draw = np.random.default_rng(seed)

    def prompts(name: str, number: int) -> Probabilities:
        """Some prompts, one in five of which cannot be scored."""
        values = draw.dirichlet(np.ones(6), size=number)[:, :3].clip(1e-6)
        lost = draw.random(number) < 0.2
        lost[0] = False
        return {f"{name}{n}": "too long" if lost[n] else tuple(map(float, values[n])) for n in range(number)}

    segments = {"rows": prompts("r", 12), "content_free": prompts("c", 3), "domain": prompts("d", 5),
                "domain_prompt": prompts("q", 1), "support": prompts("s", 9)}  # fmt: skip
    verbalizers = [
        VERBALIZER,
        Verbalizer.from_labels({"negative": {"bad": 2.0, "terrible": 0.5}, "positive": "great"}, name="weighted"),
        Verbalizer.from_labels({"positive": "great", "negative": ["terrible", "bad"]}, pool="sum_prob", name="summed"),
    ]
    cells = [cell_of(name, one) for one in verbalizers for name in CALIBRATIONS.names()]
    gold = draw.choice(["negative", "positive"], size=12).tolist()
    decisions = list(decide_block(cells, evidence_of(segments, gold), seed=0))
    for cell, decision in zip(cells, decisions, strict=True):
        expected = naive(segments, cell.verbalizer, cell.calibration)
        assert expected == pytest.approx(positive(decision), abs=1e-5), cell.cell_id
        right = sum(
            not isinstance(row, str) and (p > 0.5) == (label == "positive")
            for row, p, label in zip(segments["rows"].values(), expected, gold, strict=True)
        )
        assert right / 12 == pytest.approx(decision.result.metrics["accuracy"].value)


def naive(segments: Mapping[str, Probabilities], verbalizer: Verbalizer, calibration: str) -> list[float]:
    """p(positive | x) of every row, 1/2 where it cannot be scored."""
    columns = [TOKENS.index(token_of(word)) for word in verbalizer.words]
    weights = {word.word: word.weight for words in verbalizer.labels.values() for word in words}

    def scored(name: str) -> list[dict[str, float]]:
        found = [held for held in segments[name].values() if not isinstance(held, str)]
        return [{word: held[column] for word, column in zip(verbalizer.words, columns, strict=True)} for held in found]

    def shares(words: Mapping[str, float]) -> dict[str, float]:
        """p(label | prompt)."""
        scores = {}
        for label, several in verbalizer.labels.items():
            pairs = [(weights[word.word], words[word.word]) for word in several]
            total = sum(weight for weight, _ in pairs)
            mean = math.exp(sum(weight * math.log(value) for weight, value in pairs) / total)
            scores[label] = sum(w * v for w, v in pairs) if verbalizer.pool == "sum_prob" else mean
        return {label: score / sum(scores.values()) for label, score in scores.items()}

    prior = {"negative": 1.0, "positive": 1.0}
    by_word = dict.fromkeys(verbalizer.words, 1.0)
    places = {"contextual": "content_free", "domain": "domain", "pmi_dc": "domain_prompt", "batch": "rows"}
    if calibration in places:
        prompts = [shares(words) for words in scored(places[calibration])]
        prior = {label: sum(one[label] for one in prompts) / len(prompts) for label in prior}
    elif calibration == "support":
        rows = [{word: value / sum(words.values()) for word, value in words.items()} for words in scored("support")]
        by_word = {word: math.exp(sum(math.log(row[word]) for row in rows) / len(rows)) for word in by_word}
    found = []
    for held in segments["rows"].values():
        if isinstance(held, str):
            found.append(0.5)
            continue
        words = {word: held[column] / by_word[word] for word, column in zip(verbalizer.words, columns, strict=True)}
        divided = {label: share / prior[label] for label, share in shares(words).items()}
        found.append(divided["positive"] / sum(divided.values()))
    return found


def test_a_cell_is_the_same_alone_and_among_others() -> None:
    """A cell has the same result alone and among others."""
    cells = [cell_of(name) for name in CALIBRATIONS.names()]
    together = list(decide_block(cells, evidence_of(SEGMENTS), seed=0))
    for cell, decision in zip(cells, together, strict=True):
        (alone,) = decide_block([cell], evidence_of(SEGMENTS), seed=0)
        assert dataclasses.asdict(alone.result) == dataclasses.asdict(decision.result)
