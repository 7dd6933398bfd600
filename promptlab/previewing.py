"""What a template says about a few rows: text, tokens with the mask marked, label words, probabilities, best fills.

`preview_task` goes through the rows of a run spec, `try_text` asks about one text that no task holds.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptlab.backends.base import Backend
from promptlab.blocks import KEY_BYTES, BlockScores
from promptlab.calibration import calibrate, find_calibration
from promptlab.calibration_prompts import content_free
from promptlab.deciding import word_fault
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError
from promptlab.harness import plan_run
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import CompiledTemplate, check_fields, check_one_mask, compile_template, render
from promptlab.reporting.formats import percent
from promptlab.reporting.naming import INLINE
from promptlab.specs.run import RunSpec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Example, MaskScores, Prompt, Role, Unscorable
from promptlab.verbalizing import log_mass, pool_labels

WIDTH = 80
CALIBRATIONS = ("none", "contextual")


@dataclass(frozen=True, slots=True)
class WordPreview:
    """What a verbalizer makes of one mask; probabilities, natural, between 0 and 1.

    `words` holds the probability of each word at the mask over the full vocabulary, or why it has none;
    `probabilities` is p(y | x) by the name of the calibration, empty where a word has none.
    """

    verbalizer: str
    words: Mapping[str, Mapping[str, float | str]]
    probabilities: Mapping[str, Mapping[str, float]]
    mass: float | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """One prompt as a tokenizer and a model see it; `tokens` has the role of each, `reason` why there are none."""

    task: str | None
    template: str
    row: str | None
    gold: str | None
    prompt: str
    tokens: tuple[tuple[str, str], ...] = ()
    num_truncated: int = 0
    verbalizers: tuple[WordPreview, ...] = ()
    fills: tuple[tuple[str, float], ...] = ()
    reason: str | None = None

    def lines(self) -> list[str]:
        """The preview for a terminal of 80 columns."""
        row = f"row {self.row}" if self.row is not None else None
        template = "inline template" if self.template.startswith(INLINE) else self.template
        head = " / ".join(part for part in (self.task, template, row) if part is not None)
        gold = f", gold {self.gold}" if self.gold is not None else ""
        lines = [f"== {head}{gold}", *_wrapped("prompt", self.prompt)]
        if self.reason is not None:
            return [*lines, f"  cannot be scored: {self.reason}", ""]
        cut = f", {self.num_truncated} cut" if self.num_truncated else ""
        lines += _wrapped(f"{len(self.tokens)} tokens{cut}", " ".join(map(_marked, self.tokens)))
        for one in self.verbalizers:
            lines += _word_lines(one)
        best = ", ".join(f"{word} {value:.3f}" for word, value in self.fills)
        return [*lines, *_wrapped("fills", best), ""]


def preview_task(spec: RunSpec) -> Iterator[Preview]:
    """A preview of every template that was asked for and applies, one row after the other.

    Raises:
        PromptlabError: what a run of the same spec would raise.
    """
    for model in plan_run(spec).models:
        for block in model.blocks:
            if block.is_baseline:
                continue
            verbalizers = {cell.verbalizer.name: cell.verbalizer for cell in block.cells}
            look = _Look(model.backend, model.encoder, block.template, block.task.fields, block.options, spec.seed)
            for example in block.rows.examples:
                yield look.at(example, list(verbalizers.values()), block.task.labels, task=block.task.name)


def try_text(
    fields: Mapping[str, Any],
    template: Template,
    verbalizers: Sequence[Verbalizer],
    backend: Backend,
    *,
    max_length: int | None = None,
    seed: int = 0,
) -> Preview:
    """What a template and some label words make of one text.

    Args:
        fields: what the template may read.
        template: one mask.
        verbalizers: each with the labels that its words stand for.
        backend: the model.
        max_length: most tokens of the prompt.
        seed: for templates that draw.

    Raises:
        TemplateError: the template reads a field that is not given, or has not one mask.
        LabelWordError: a label word is not one token of the model here.
    """
    compiled = compile_template(template)
    check_fields(compiled, list(fields), of="what was given")
    options = [words[0].word for words in verbalizers[0].labels.values()] if compiled.uses_options else None
    look = _Look(backend, backend.encoder(max_length), compiled, list(fields), options, seed)
    found = look.at(Example("text", 0, dict(fields)), verbalizers, None)
    faults = [one.fault for one in found.verbalizers if one.fault is not None]
    if faults:
        raise LabelWordError("\n".join(faults))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One template in front of one model."""

    backend: Backend
    encoder: Encoder
    template: CompiledTemplate
    fields: Sequence[str]
    options: list[str] | None
    seed: int

    def at(
        self,
        example: Example,
        verbalizers: Sequence[Verbalizer],
        labels: tuple[str, ...] | None,
        *,
        task: str | None = None,
    ) -> Preview:
        """The preview of an example."""
        prompt = self._render(example)
        (encoded,) = self.encoder.encode([prompt])
        named = Preview(
            task=task,
            template=self.template.template.name,
            row=example.id if task is not None else None,
            gold=example.label,
            prompt=prompt.text,
            reason=encoded.reason if isinstance(encoded, Unscorable) else None,
        )
        if isinstance(encoded, Unscorable):
            return named
        words = dict.fromkeys(word for one in verbalizers for word in one.words)
        found = find_word_ids(self.encoder, words, list(dict.fromkeys(slot_contexts(prompt))))
        ids = sorted({token for token in found.values() if isinstance(token, int)})
        prompts = [encoded, *self._content_free()]
        scores = self.backend.score(prompts, np.array(ids, dtype=np.int64))
        return Preview(
            **{name: getattr(named, name) for name in ("task", "template", "row", "gold", "prompt")},
            tokens=self._tokens(encoded),
            num_truncated=encoded.num_truncated,
            verbalizers=tuple(self._words(one, labels, found, scores, prompts) for one in verbalizers),
            fills=self._fills(scores),
        )

    def _render(self, example: Example) -> Prompt:
        prompt = render(self.template, example, options=self.options, seed=self.seed)
        check_one_mask(self.template, example, prompt)
        return prompt

    def _content_free(self) -> list[EncodedPrompt]:
        encoded = self.encoder.encode([self._render(example) for example in content_free(self.fields).examples])
        return [one for one in encoded if isinstance(one, EncodedPrompt)]

    def _tokens(self, encoded: EncodedPrompt) -> tuple[tuple[str, str], ...]:
        texts = self.encoder.token_texts(encoded.input_ids.tolist())
        return tuple((text, Role(role).name.lower()) for text, role in zip(texts, encoded.roles, strict=True))

    def _fills(self, scores: MaskScores) -> tuple[tuple[str, float], ...]:
        words = self.encoder.words(scores.top_ids[0])
        return tuple((word, float(np.exp(value))) for word, value in zip(words, scores.top_log_probs[0], strict=True))

    def _words(
        self,
        verbalizer: Verbalizer,
        labels: tuple[str, ...] | None,
        found: Mapping[str, int | str],
        scores: MaskScores,
        prompts: Sequence[EncodedPrompt],
    ) -> WordPreview:
        """What one verbalizer makes of the first prompt, calibrated by the others."""
        labels = labels or tuple(verbalizer.labels)
        keys = np.array([prompt.key.encode() for prompt in prompts], dtype=f"S{KEY_BYTES}")
        block = BlockScores.of([scores])
        ids = [token if isinstance(token := found[word], int) else -1 for word in verbalizer.words]
        taken = block.take(keys, ids)
        at_mask = dict(zip(verbalizer.words, np.exp(taken[0]).tolist(), strict=True))
        words = {
            label: {word.word: _probability(found[word.word], at_mask[word.word]) for word in several}
            for label, several in verbalizer.labels.items()
        }
        fault = word_fault(found, verbalizer, self.template.shown, spell=self.encoder.token_text)
        if fault is not None:
            return WordPreview(verbalizer.name, words, {}, None, fault)
        pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=labels)
        probabilities = {}
        for name in CALIBRATIONS if len(prompts) > 1 else CALIBRATIONS[:1]:
            values = np.exp(calibrate(find_calibration(name), taken[:1], taken[1:], pool)[0]).tolist()
            probabilities[name] = dict(zip(labels, values, strict=True))
        word_ids = {word: int(token) for word, token in zip(verbalizer.words, ids, strict=True)}
        mass = float(np.exp(log_mass(taken[:1], word_ids, verbalizer)[0]))
        return WordPreview(verbalizer.name, words, probabilities, mass, None)


def _probability(token: int | str, value: float) -> float | str:
    return value if isinstance(token, int) else token


def _marked(token: tuple[str, str]) -> str:
    """A mask in arrows, a token of the template in braces, one of the row plain."""
    text, role = token
    return f">{text}<" if role == "mask" else f"{{{text}}}" if role == "literal" else text


def _word_lines(found: WordPreview) -> list[str]:
    """The words of a verbalizer with their probabilities, then what they make of the labels."""
    shown = [
        f"{label}: " + ", ".join(f"{word} {value:.4f}" for word, value in words.items() if isinstance(value, float))
        for label, words in found.words.items()
    ]
    values = [value for words in found.words.values() for value in words.values()]
    faults = [value for value in values if isinstance(value, str)] or ([found.fault] if found.fault else [])
    name = "words" if found.verbalizer.startswith(INLINE) else found.verbalizer
    lines = _wrapped(name, "; ".join(shown))
    for fault in faults:
        lines += textwrap.wrap(fault, WIDTH, initial_indent="    ", subsequent_indent="      ")
    for calibration, probabilities in found.probabilities.items():
        by_label = ", ".join(f"p({label}) {value:.3f}" for label, value in probabilities.items())
        said = by_label if calibration == "none" else f"{by_label} with calibration {calibration}"
        lines += textwrap.wrap(said, WIDTH, initial_indent="    ", subsequent_indent="      ")
    if found.mass is not None:
        lines.append(f"    mass on the label words {percent(found.mass)}")
    return lines


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ") or [f"  {name}:"]
