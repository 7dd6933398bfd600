"""New rows -> a label each, with its probability: one template, or the mean over several; nothing is stored.

Rows come and go in windows, so that a file of any length takes the same memory.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.base import Backend
from promptlab.batching import BatchSize
from promptlab.blocks import KEY_BYTES, BlockScores
from promptlab.calibration import ROWS, calibrate, find_calibration
from promptlab.calibration_prompts import FROM_TRAIN, PromptGroup, make_group
from promptlab.deciding import word_fault
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError, UsageError
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import CompiledTemplate, check_one_mask, render
from promptlab.scoring import score_prompts
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Example, Unscorable
from promptlab.verbalizing import log_mass, pool_labels

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
            mass = float(np.mean([np.exp(answers.log_mass[row]) for answers in scored]))
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
        self._word_ids: dict[str, int] | None = None
        self._prior: Any = None

    def ask(self, examples: Sequence[Example]) -> _Answers:
        """Log p(y | x) and mass of every example."""
        verbalizer, labels = self._predictor.verbalizer, self._predictor.labels
        words, reasons = self._words_at(examples)
        if self._prior is None:
            self._prior = self._calibration_words(len(verbalizer.words))
        pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=labels)
        calibration = find_calibration(self._predictor.calibration)
        assert self._word_ids is not None
        return _Answers(
            calibrate(calibration, words, self._prior, pool), log_mass(words, self._word_ids, verbalizer), reasons
        )

    def _words_at(
        self, examples: Sequence[Example], template: CompiledTemplate | None = None
    ) -> tuple[Float64[np.ndarray, "row word"], dict[int, str]]:
        """Log-probability of each label word at the mask of each example, and why a row has none."""
        predictor, template = self._predictor, template or self._template
        verbalizer = predictor.verbalizer
        options = [verbalizer.labels[label][0].word for label in predictor.labels] if template.uses_options else None
        prompts = [render(template, example, options=options, seed=predictor.seed) for example in examples]
        for example, prompt in zip(examples, prompts, strict=True):
            check_one_mask(template, example, prompt)
        contexts = dict.fromkeys(context for prompt in prompts for context in slot_contexts(prompt))
        found = find_word_ids(predictor.encoder, verbalizer.words, list(contexts))
        fault = word_fault(found, verbalizer, template.shown, spell=predictor.encoder.token_text)
        if fault is not None:
            raise LabelWordError(fault)
        word_ids = {word: int(found[word]) for word in verbalizer.words}
        self._word_ids = self._word_ids or word_ids
        moved = [word for word in word_ids if word_ids[word] != self._word_ids[word]]
        if moved:
            raise LabelWordError(
                f"{verbalizer.path} with {template.shown}: label word '{moved[0]}' is not the same token in every row: "
                "put a blank around {{ mask }}."
            )
        encoded = predictor.encoder.encode(prompts)
        size = BatchSize.parse(predictor.batch_size, predictor.backend.device)
        fitting = [one for one in encoded if isinstance(one, EncodedPrompt)]
        parts = score_prompts(predictor.backend, fitting, list(word_ids.values()), batch_size=size)
        keys = [one.key.encode() if isinstance(one, EncodedPrompt) else b"" for one in encoded]
        taken = BlockScores.of(parts).take(np.array(keys, dtype=f"S{KEY_BYTES}"), list(word_ids.values()))
        return taken, {row: one.reason for row, one in enumerate(encoded) if isinstance(one, Unscorable)}

    def _calibration_words(self, num_words: int) -> Float64[np.ndarray, "prompt word"]:
        """Word scores of what the calibration asks with this template."""
        needed = find_calibration(self._predictor.calibration).prompts
        if needed is None:
            return np.zeros((0, num_words))
        group = make_group(needed, self._template, self._predictor.fields, None, seed=self._predictor.seed)
        if not isinstance(group, PromptGroup):
            raise UsageError(f"{self._template.shown}: calibration '{self._predictor.calibration}' {group}")
        words, reasons = self._words_at(group.examples, group.template)
        if len(reasons) == len(words):
            raise UsageError(
                f"{self._template.shown}: calibration '{self._predictor.calibration}' has no prompt that can be "
                f"scored: {next(iter(reasons.values()))}."
            )
        scored: Float64[np.ndarray, "prompt word"] = words[~np.isnan(words).any(axis=1)]
        return scored
