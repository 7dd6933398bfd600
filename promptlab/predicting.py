"""New rows -> a label each, with its probability: one template, or the mean over several; nothing is stored.

Rows come and go in windows, so that a file of any length takes the same memory.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promptlab.answering import Answers, Words, answer
from promptlab.backends.base import Backend
from promptlab.batching import BatchSize
from promptlab.calibration import ROWS, calibrate, find_calibration
from promptlab.calibration_prompts import FROM_TRAIN, PromptGroup, make_group
from promptlab.deciding import word_fault
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError, UsageError
from promptlab.filling import rule_of
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import CompiledTemplate, check_masks, count_masks, render
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Example, Prompt, WordTokens
from promptlab.verbalizing import pool_labels, require_words

if TYPE_CHECKING:
    from jaxtyping import Float64

WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Predicted:
    """What is predicted for one row; probabilities by label, the mean over the templates that could score it.

    `label` is None where no template could, and then `reason` says why.
    """

    label: str | None
    probabilities: Mapping[str, float]
    mass: float | None
    reason: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """Templates and one verbalizer in front of one model.

    Args:
        backend: the model.
        encoder: its tokenizer.
        templates: one or more; each is calibrated on its own.
        verbalizer: its labels, in its own order, are what is predicted.
        fields: the fields that the rows have.
        calibration: one that needs neither train rows nor all rows at once.
        batch_size: `auto` or a number of prompts.
        seed: for templates that draw.
        is_fitted: whether the backend has something fitted, so that soft tokens may be there.
        answers: whether the backend is asked at masks, or for labels, which then stand for themselves.

    Raises:
        UsageError: the calibration cannot be had row by row.
    """

    backend: Backend
    encoder: Encoder
    templates: Sequence[CompiledTemplate]
    verbalizer: Verbalizer
    fields: Sequence[str]
    calibration: str = "none"
    batch_size: str | int = "auto"
    seed: int = 0
    is_fitted: bool = False
    answers: Literal["mask", "label"] = "mask"

    def __post_init__(self) -> None:
        needed = find_calibration(self.calibration).prompts
        if needed == ROWS or needed in FROM_TRAIN:
            what = "all rows at once" if needed == ROWS else "train rows"
            raise UsageError(
                f"calibration '{self.calibration}' needs {what}: predict takes none, contextual or pmi_dc, and "
                "`promptlab run --rows` takes every one."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """What is predicted."""
        return tuple(self.verbalizer.labels)

    def predict(self, examples: Iterable[Example]) -> Iterator[Predicted]:
        """A prediction for every example, in order.

        Raises:
            LabelWordError: a label word is not one token in a template.
            TemplateError, DataError: a row that cannot be rendered or encoded, with its place.
        """
        templates = [_Asked(self, template) for template in self.templates]
        source = iter(examples)
        while window := list(itertools.islice(source, WINDOW)):
            found = [template.ask(window) for template in templates]
            yield from self._mean(found, len(window))

    def _mean(self, found: Sequence[_Answers], number: int) -> Iterator[Predicted]:
        for row in range(number):
            scored = [answers for answers in found if row not in answers.reasons]
            if not scored:
                yield Predicted(None, {}, None, found[0].reasons[row])
                continue
            mean = np.mean([np.exp(answers.log_probabilities[row]) for answers in scored], axis=0)
            masses = [float(np.exp(answers.log_mass[row])) for answers in scored]
            mass = None if np.isnan(masses).any() else float(np.mean(masses))
            probabilities = dict(zip(self.labels, mean.tolist(), strict=True))
            yield Predicted(self.labels[int(np.argmax(mean))], probabilities, mass, None)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """One template's answers to a window of rows."""

    log_probabilities: Float64[np.ndarray, "row label"]
    log_mass: Float64[np.ndarray, " row"]
    reasons: Mapping[int, str]


class _Asked:
    """One template with the tokens of its label words and the scores of its calibration, found once."""

    def __init__(self, predictor: Predictor, template: CompiledTemplate) -> None:
        self._predictor = predictor
        self._template = template
        self._tokens: dict[str, WordTokens] | None = None
        self._num_masks: int | None = None
        self._prior: Any = None

    def ask(self, examples: Sequence[Example]) -> _Answers:
        """Log p(y | x) and mass of every example."""
        verbalizer, labels = self._predictor.verbalizer, self._predictor.labels
        found = self._answers_to(examples)
        if self._prior is None:
            self._prior = self._calibration_words(len(verbalizer.words))
        pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=labels)
        calibration = find_calibration(self._predictor.calibration)
        log_mass = found.log_mass if self._predictor.answers == "mask" else np.full(len(found.scores), np.nan)
        return _Answers(calibrate(calibration, found.scores, self._prior, pool), log_mass, found.reasons)

    def _answers_to(self, examples: Sequence[Example], template: CompiledTemplate | None = None) -> Answers:
        """What the label words come to in the prompt of each example."""
        predictor, template = self._predictor, template or self._template
        verbalizer = predictor.verbalizer
        options = [verbalizer.labels[label][0].text for label in predictor.labels] if template.uses_options else None
        prompts = [
            render(template, one, options=options, seed=predictor.seed, is_fitted=predictor.is_fitted)
            for one in examples
        ]
        self._num_masks = self._num_masks or count_masks(prompts[0])
        for example, prompt in zip(examples, prompts, strict=True):
            check_masks(template, example, prompt, number=self._num_masks)
        words = Words(verbalizer, self._find_tokens(template, prompts))
        size = BatchSize.parse(predictor.batch_size, predictor.backend.device)
        (found,) = answer(predictor.backend, predictor.encoder, prompts, [words], batch_size=size).answers
        return found

    def _find_tokens(self, template: CompiledTemplate, prompts: Sequence[Prompt]) -> dict[str, WordTokens]:
        """The tokens of the label words, which must be the same in all rows."""
        predictor, verbalizer = self._predictor, self._predictor.verbalizer
        if predictor.answers == "label":
            return {label: WordTokens(((place,),)) for place, label in enumerate(verbalizer.words)}
        contexts = list(dict.fromkeys(slot_contexts(prompt) for prompt in prompts))
        found = find_word_ids(predictor.encoder, verbalizer.words, contexts)
        rule = rule_of(verbalizer, predictor.backend.scorer.scoring)
        fault = word_fault(found, verbalizer, rule, template.shown, spell=predictor.encoder.token_text)
        if fault is not None:
            raise LabelWordError(fault)
        tokens = require_words(found, verbalizer, where=verbalizer.path)
        self._tokens = self._tokens or tokens
        moved = [word for word in tokens if tokens[word] != self._tokens[word]]
        if moved:
            raise LabelWordError(
                f"{verbalizer.path} with {template.shown}: label word '{moved[0]}' is not the same token in every row: "
                "put a blank around {{ mask }}."
            )
        return tokens

    def _calibration_words(self, num_words: int) -> Float64[np.ndarray, "prompt word"]:
        """Word scores of what the calibration asks with this template."""
        needed = find_calibration(self._predictor.calibration).prompts
        if needed is None:
            return np.zeros((0, num_words))
        group = make_group(needed, self._template, self._predictor.fields, None, seed=self._predictor.seed)
        if not isinstance(group, PromptGroup):
            raise UsageError(f"{self._template.shown}: calibration '{self._predictor.calibration}' {group}")
        found = self._answers_to(group.examples, group.template)
        if len(found.reasons) == len(found.scores):
            raise UsageError(
                f"{self._template.shown}: calibration '{self._predictor.calibration}' has no prompt that can be "
                f"scored: {next(iter(found.reasons.values()))}."
            )
        scored: Float64[np.ndarray, "prompt word"] = found.scores[~np.isnan(found.scores).any(axis=1)]
        return scored
