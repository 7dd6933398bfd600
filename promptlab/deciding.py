"""Stored block + decision rule (verbalizer, pooling, calibration) -> predictions, metrics and a `Result`.

Costs no forward pass and needs no torch: cells are decided again in milliseconds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptlab.block_scores import BlockScores
from promptlab.blocks import BlockStore, PromptRows
from promptlab.calibration import ROWS, Calibration, calibrate, find_calibration
from promptlab.errors import LabelWordError
from promptlab.filling import Rule, normalized, reserve_of, rule_of, word_sums
from promptlab.metrics import UNSCORED, Outcome, measure
from promptlab.results import MetricValue, Result
from promptlab.specs.run import ZERO_SHOT, Scoring
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import WordTokens
from promptlab.verbalizing import check_collisions, label_probabilities, log_mass, pool_labels, require_words

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

Answers = Literal["mask", "label"]

NEAR_TIE = 1e-4
METRICS = ("accuracy", "macro_f1", "nll")


@dataclass(frozen=True, slots=True)
class Cell:
    """A block, or several for an ensemble, under one decision rule, with everything that names it.

    `members` are the cells that an ensemble averages; `samples` names the file that its decisions go to. `answers` says
    whether the block has scores of words at masks or of labels; `method`, `num_shots` and `draw` what was fitted to
    which labelled examples.
    """

    cell_id: str
    block_id: str
    model: str
    task: Task
    split: str
    template: str
    template_tags: tuple[str, ...]
    verbalizer: Verbalizer
    calibration: str
    samples: str
    members: tuple[str, ...] = ()
    scoring: Scoring = "mask"
    answers: Answers = "mask"
    method: str = ZERO_SHOT
    num_shots: int | None = None
    draw: int | None = None

    @property
    def rule(self) -> Rule:
        """How the words are scored."""
        return rule_of(self.verbalizer, self.scoring)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Some prompts of a block: the rows of a split or what a calibration asks, and the tokens of each word there."""

    rows: PromptRows
    words: Mapping[str, WordTokens | str]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything stored about one block and one task.

    `segments` holds `rows` and what was scored for calibrations, and each of them once more where prompts had to leave
    room for longer words (see `segment_name`); `faults` says why something else was not scored; `shown` names the
    template in messages; `fit` says what was fitted, and is empty where nothing was.
    """

    scores: BlockScores
    segments: Mapping[str, Segment]
    faults: Mapping[str, str] = field(default_factory=dict)
    shown: str = "the template"
    fit: Mapping[str, Any] = field(default_factory=dict)

    def word_sums(self, name: str, words: Sequence[WordTokens], rule: Rule) -> Float64[np.ndarray, "row word"]:
        """Log-probabilities summed over the tokens of each word in a segment; NaN in rows that could not be scored."""
        return word_sums(self.scores, self.segments[name].rows.keys, words, rule)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A cell's result, and its decisions row by row; the arrays are None where the cell was skipped.

    `log_probabilities` are log p(y | x), uniform in rows that could not be scored; `predicted` holds label indices,
    -1 there; `log_mass` is NaN there.
    """

    cell: Cell
    result: Result
    rows: PromptRows
    log_probabilities: Float64[np.ndarray, "row label"] | None = None
    predicted: Int64[np.ndarray, " row"] | None = None
    log_mass: Float64[np.ndarray, " row"] | None = None
    outcome: Outcome | None = None


def load_evidence(store: BlockStore, names: Mapping[str, str], *, faults: Mapping[str, str], shown: str) -> Evidence:
    """What is stored of a block for one task; `names` has the file of each segment."""
    segments = {}
    for name, stored in names.items():
        found = store.read_rows(stored)
        segments[name] = Segment(found.rows, found.words)
    return Evidence(store.read(), segments, faults, shown, store.read_fit())


def decide_block(
    cells: Sequence[Cell], evidence: Evidence, *, seed: int, metrics: Sequence[str] = ()
) -> Iterator[Decision]:
    """Predictions and metrics of the cells of one block and one task, in their order.

    Args:
        cells: what is decided, and how; the cells of one verbalizer stand together.
        evidence: what is stored.
        seed: the user's seed, for intervals.
        metrics: names of metrics beside those of the task and the common ones.
    """
    for _, group in itertools.groupby(cells, key=lambda cell: cell.verbalizer.hash):
        yield from _decide_verbalizer(list(group), evidence, seed, metrics)


def score_segment(
    cells: Sequence[Cell], evidence: Evidence, name: str
) -> Iterator[tuple[Cell, Float64[np.ndarray, "row label"]]]:
    """Log p(y | x) of the prompts of another segment under each cell that can be decided there.

    Uniform where a prompt could not be scored. A calibration that looks at the scored rows has no say about others.
    """
    for _, group in itertools.groupby(cells, key=lambda cell: cell.verbalizer.hash):
        of_verbalizer = list(group)
        first = of_verbalizer[0]
        if name not in evidence.segments or word_fault(
            evidence.segments[name].words, first.verbalizer, first.rule, evidence.shown
        ):
            continue
        tokens = require_words(evidence.segments[name].words, first.verbalizer, where=first.verbalizer.path)
        asked = _Words(evidence, first.verbalizer, first.rule, tokens)
        words = asked.scores(asked.sums(name))
        pool = functools.partial(pool_labels, verbalizer=first.verbalizer, labels=first.task.labels)
        for cell in of_verbalizer:
            calibration = find_calibration(cell.calibration)
            found = _prior_words(calibration, asked, words) if calibration.prompts != ROWS else "looks at other rows"
            if not isinstance(found, str):
                log_probabilities = calibrate(calibration, words, found, pool)
                yield cell, np.where(np.isnan(log_probabilities), -np.log(len(first.task.labels)), log_probabilities)


def segment_name(name: str, reserve: int) -> str:
    """The segment of some prompts that leave room for so many further tokens: the longest word has those."""
    return f"{name}+{reserve}" if reserve else name


def word_fault(
    words: Mapping[str, WordTokens | str],
    verbalizer: Verbalizer,
    rule: Rule,
    shown: str,
    *,
    spell: Callable[[int], str] | None = None,
) -> str | None:
    """Why a verbalizer cannot be used with a template, or None.

    Args:
        words: the tokens of each word in the template's slots, or why it has none.
        verbalizer: its words must all be there.
        rule: how they are scored.
        shown: names the template.
        spell: how the vocabulary spells a token, where there is a tokenizer to ask.
    """
    where = f"{verbalizer.path} with {shown}"
    try:
        check_collisions(verbalizer, require_words(words, verbalizer, where=where), rule, spell=spell)
    except LabelWordError as error:
        return str(error)
    return None


def conclude(
    cell: Cell,
    rows: PromptRows,
    log_probabilities: Float64[np.ndarray, "row label"],
    mass: Float64[np.ndarray, " row"],
    *,
    seed: int,
    metrics: Sequence[str],
) -> Decision:
    """The decision that label log-probabilities mean; NaN in rows that could not be scored."""
    labels = cell.task.labels
    is_scored = ~np.isnan(log_probabilities).any(axis=1)
    filled = np.where(is_scored[:, None], log_probabilities, -np.log(len(labels)))
    predicted = np.where(is_scored, np.argmax(filled, axis=1), UNSCORED)
    outcome = _outcome(labels, rows, predicted, filled)
    names = dict.fromkeys([*cell.task.metrics, *METRICS, *metrics])
    result = replace(
        named(cell, len(rows)),
        num_unscored=int((~is_scored).sum()),
        num_truncated=int((rows.num_truncated > 0).sum()),
        num_near_ties=_count_near_ties(filled[is_scored]),
        mass=_mean_mass(mass[is_scored]),
        predicted=_count(labels, predicted),
        metrics={name: MetricValue.of(measure(name, outcome, seed=seed)) for name in names} if outcome else {},
    )
    return Decision(cell, result, rows, filled, predicted, mass, outcome)


def skip(cell: Cell, rows: PromptRows, reason: str) -> Decision:
    """A cell that was not decided, with the reason."""
    return Decision(cell, replace(named(cell, len(rows)), skipped=reason, samples=""), rows)


def named(cell: Cell, num_rows: int) -> Result:
    """A result that says which cell it is of, and nothing yet of what was found."""
    return Result(
        cell=cell.cell_id,
        block=cell.block_id,
        model=cell.model,
        task=cell.task.name,
        family=cell.task.family,
        split=cell.split,
        template=cell.template,
        template_tags=cell.template_tags,
        verbalizer=cell.verbalizer.name,
        pool=cell.verbalizer.pool,
        scoring=cell.scoring,
        multi_token=cell.verbalizer.multi_token,
        normalize=cell.verbalizer.normalize,
        calibration=cell.calibration,
        labels=cell.task.labels,
        num_rows=num_rows,
        members=cell.members,
        samples=cell.samples,
        method=cell.method,
        num_shots=cell.num_shots,
        draw=cell.draw,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """The words of one verbalizer in front of the evidence: their tokens, and the segments that leave room for them."""

    evidence: Evidence
    verbalizer: Verbalizer
    rule: Rule
    tokens: Mapping[str, WordTokens]

    @property
    def reserve(self) -> int:
        """How much longer the longest word makes a prompt."""
        return reserve_of(self.tokens.values(), self.rule)

    def sums(self, name: str) -> Float64[np.ndarray, "row word"]:
        """Log-probabilities of the words in a segment, summed over their tokens."""
        return self.evidence.word_sums(segment_name(name, self.reserve), list(self.tokens.values()), self.rule)

    def scores(self, sums: Float64[np.ndarray, "row word"]) -> Float64[np.ndarray, "row word"]:
        """What the verbalizer makes of the sums: themselves, or means over tokens."""
        return normalized(sums, list(self.tokens.values()), self.rule, self.verbalizer)

    def num_tokens(self) -> dict[str, tuple[int, ...]]:
        """How many tokens each word of a label has; empty where all have one in each slot."""
        if not any(word.is_split for word in self.tokens.values()):
            return {}
        labels = self.verbalizer.labels.items()
        return {label: tuple(len(self.tokens[word.word].pieces) for word in words) for label, words in labels}


def _decide_verbalizer(
    cells: Sequence[Cell], evidence: Evidence, seed: int, metrics: Sequence[str]
) -> Iterator[Decision]:
    """All cells of one verbalizer; its words are looked up once."""
    verbalizer, labels = cells[0].verbalizer, cells[0].task.labels
    fault = word_fault(evidence.segments[ROWS].words, verbalizer, cells[0].rule, evidence.shown)
    if fault is not None:
        yield from (skip(cell, evidence.segments[ROWS].rows, fault) for cell in cells)
        return
    found_words = require_words(evidence.segments[ROWS].words, verbalizer, where=verbalizer.path)
    asked = _Words(evidence, verbalizer, cells[0].rule, found_words)
    rows = evidence.segments[segment_name(ROWS, asked.reserve)].rows
    sums = asked.sums(ROWS)
    words = asked.scores(sums)
    has_mass = cells[0].answers == "mask"
    mass = log_mass(sums, list(found_words.values()), asked.rule) if has_mass else np.full(len(sums), np.nan)
    pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=labels)
    content_free = _prior_words(find_calibration("contextual"), asked, words)
    prior = {} if isinstance(content_free, str) else _prior(labels, pool(content_free))
    for cell in cells:
        calibration = find_calibration(cell.calibration)
        found = _prior_words(calibration, asked, words)
        if isinstance(found, str):
            yield skip(cell, rows, f"{cell.template}: calibration '{cell.calibration}' {found}")
            continue
        log_probabilities = calibrate(calibration, words, found, pool)
        decision = conclude(cell, rows, log_probabilities, mass, seed=seed, metrics=metrics)
        numbers = asked.num_tokens()
        result = replace(
            decision.result,
            prior=prior,
            num_calibration_prompts=len(found),
            num_tokens=numbers,
            fit=evidence.fit,
        )
        yield replace(decision, result=result)


def _prior_words(
    calibration: Calibration, asked: _Words, words: Float64[np.ndarray, "row word"]
) -> Float64[np.ndarray, "prompt word"] | str:
    """Word scores at the prompts of a calibration that could be scored, or why there are none."""
    name, evidence = calibration.prompts, asked.evidence
    if name is None:
        return words[:0]
    if name == ROWS:
        scored = words[~np.isnan(words).any(axis=1)]
        return scored if len(scored) else "has no scored row to look at."
    if name not in evidence.segments:
        return evidence.faults.get(name, "needs prompts that were not scored.")
    segment = evidence.segments[name]
    fault = word_fault(segment.words, asked.verbalizer, asked.rule, evidence.shown)
    if fault is not None:
        return f"cannot use its prompts: {fault}"
    moved = [word for word in asked.tokens if segment.words[word] != asked.tokens[word]]
    if moved:
        return f"has '{moved[0]}' as another token in its prompts than in the rows."
    found = asked.scores(asked.sums(name))
    scored = found[~np.isnan(found).any(axis=1)]
    reason = evidence.segments[segment_name(name, asked.reserve)].rows.first_reason
    return scored if len(scored) else f"has no prompt that can be scored: {reason}."


def _mean_mass(log_mass: Float64[np.ndarray, " row"]) -> float | None:
    """The mean of the mass over rows; None where it was not computed."""
    if not len(log_mass) or np.isnan(log_mass).any():
        return None
    return float(np.exp(log_mass).mean())


def _outcome(
    labels: tuple[str, ...],
    rows: PromptRows,
    predicted: Int64[np.ndarray, " row"],
    log_probabilities: Float64[np.ndarray, "row label"],
) -> Outcome | None:
    if not len(rows) or (rows.gold < 0).any():
        return None
    return Outcome(rows.gold.astype(np.int64), predicted, np.exp(log_probabilities), labels)


def _prior(labels: Sequence[str], content_free: Float64[np.ndarray, "text label"]) -> dict[str, float]:
    """Mean over the content-free texts of p(y | c), before calibration."""
    probabilities = label_probabilities(content_free).mean(axis=0)
    return {label: float(value) for label, value in zip(labels, probabilities, strict=True)}


def _count(labels: Sequence[str], predicted: Int64[np.ndarray, " row"]) -> dict[str, int]:
    counts = np.bincount(predicted + 1, minlength=len(labels) + 1)
    found = {label: int(number) for label, number in zip(labels, counts[1:], strict=True)}
    return found | ({"none": int(counts[0])} if counts[0] else {})


def _count_near_ties(log_probabilities: Float64[np.ndarray, "row label"]) -> int:
    """Rows whose two best labels are closer than the tolerance that holds across machines and batches."""
    if not len(log_probabilities):
        return 0
    best = np.partition(log_probabilities, -2, axis=1)[:, -2:]
    is_near: Bool[np.ndarray, " row"] = best[:, 1] - best[:, 0] < NEAR_TIE
    return int(is_near.sum())
