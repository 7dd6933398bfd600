"""What a template says about a few rows: text, tokens with the mask marked, label words, probabilities, best fills.

`preview_task` goes through the rows of a run spec, `try_text` asks about one text that no task holds.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from promptlab.answering import Answers, Words, answer
from promptlab.backends.base import Backend
from promptlab.batching import BatchSize
from promptlab.calibration import calibrate, find_calibration
from promptlab.calibration_prompts import content_free
from promptlab.deciding import word_fault
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError
from promptlab.filling import rule_of
from promptlab.harness import plan_run
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import (
    CompiledTemplate,
    check_fields,
    check_masks,
    compile_template,
    count_masks,
    render,
)
from promptlab.reporting.formats import percent
from promptlab.reporting.naming import INLINE
from promptlab.specs.run import RunSpec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Example, MaskScores, Prompt, Role, Unscorable, WordTokens
from promptlab.verbalizing import pool_labels, usable_words, word_faults

WIDTH = 80
CALIBRATIONS = ("none", "contextual")


@dataclass(frozen=True, slots=True)
class WordPreview:
    """What a verbalizer makes of one prompt; probabilities, natural, between 0 and 1.

    `words` holds the probability of each word in the slots over the full vocabulary, by the verbalizer's rule where it
    has several tokens, or why it has none; `probabilities` is p(y | x) by the name of the calibration, empty where a
    word has none; `mass` is None where words have no mass together.
    """

    verbalizer: str
    words: Mapping[str, Mapping[str, float | str]]
    probabilities: Mapping[str, Mapping[str, float]]
    mass: float | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """One prompt as a tokenizer and a model see it; `tokens` has the role of each, `reason` why there are none.

    `fills` are the best ones of the first mask, `further_fills` those of each further one.
    """

    task: str | None
    template: str
    row: str | None
    gold: str | None
    prompt: str
    tokens: tuple[tuple[str, str], ...] = ()
    num_truncated: int = 0
    verbalizers: tuple[WordPreview, ...] = ()
    fills: tuple[tuple[str, float], ...] = ()
    further_fills: tuple[tuple[tuple[str, float], ...], ...] = ()
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
        masks = [fills for fills in (self.fills, *self.further_fills) if fills]
        for number, fills in enumerate(masks, start=1):
            best = ", ".join(f"{word} {value:.3f}" for word, value in fills)
            lines += _wrapped("fills" if len(masks) == 1 else f"fills of mask {number}", best)
        return [*lines, ""]


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
        template: its number of masks is that of the words.
        verbalizers: each with the labels that its words stand for.
        backend: the model.
        max_length: most tokens of the prompt.
        seed: for templates that draw.

    Raises:
        TemplateError: the template reads a field that is not given.
        LabelWordError: a label word has no tokens of the model here, or several and no rule for them.
    """
    compiled = compile_template(template)
    check_fields(compiled, list(fields), of="what was given")
    options = [words[0].text for words in verbalizers[0].labels.values()] if compiled.uses_options else None
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
        words = dict.fromkeys(word for one in verbalizers for word in one.words)
        found = find_word_ids(self.encoder, words, [slot_contexts(prompt)])
        asked = [Words(one, usable_words(found, one)) for one in verbalizers]
        prompts = [prompt, *(self._render(text, like=prompt) for text in content_free(self.fields).examples)]
        size = BatchSize(None, len(prompts))
        answered = answer(self.backend, self.encoder, prompts, asked, batch_size=size, shows_masks=True)
        named = Preview(
            task=task,
            template=self.template.template.name,
            row=example.id if task is not None else None,
            gold=example.label,
            prompt=prompt.text,
        )
        encoded = answered.encoded[0]
        if isinstance(encoded, Unscorable):
            return replace(named, reason=encoded.reason)
        fills = self._fills(encoded, answered.masks)
        return replace(
            named,
            tokens=self._tokens(encoded),
            num_truncated=encoded.num_truncated,
            verbalizers=tuple(
                self._words(one, labels, found, answers) for one, answers in zip(asked, answered.answers, strict=True)
            ),
            fills=fills[0] if fills else (),
            further_fills=fills[1:],
        )

    def _render(self, example: Example, *, like: Prompt | None = None) -> Prompt:
        """The prompt of an example, with as many masks as another one."""
        prompt = render(self.template, example, options=self.options, seed=self.seed)
        check_masks(self.template, example, prompt, number=count_masks(like or prompt))
        return prompt

    def _tokens(self, encoded: EncodedPrompt) -> tuple[tuple[str, str], ...]:
        texts = self.encoder.token_texts(encoded.input_ids.tolist())
        return tuple((text, Role(role).name.lower()) for text, role in zip(texts, encoded.roles, strict=True))

    def _fills(self, encoded: EncodedPrompt, masks: Sequence[MaskScores]) -> tuple[tuple[tuple[str, float], ...], ...]:
        """The best fills of each mask; none where a detector judged the words."""
        best = {}
        for part in masks:
            for number in (n for n, key in enumerate(part.keys) if key == encoded.key):
                words = self.encoder.words(part.top_ids[number])
                values = np.exp(part.top_log_probs[number]).tolist()
                best[int(part.masks[number])] = tuple(zip(words, values, strict=True))
        return tuple(best[mask] for mask in sorted(best))

    def _words(
        self,
        asked: Words,
        labels: tuple[str, ...] | None,
        found: Mapping[str, WordTokens | str],
        answers: Answers,
    ) -> WordPreview:
        """What one verbalizer makes of the first prompt, calibrated by the others."""
        verbalizer = asked.verbalizer
        labels = labels or tuple(verbalizer.labels)
        values = dict(zip(asked.tokens, np.exp(answers.sums[0]).tolist(), strict=True))
        known: dict[str, float | str] = {**values, **word_faults(found, verbalizer)}
        words = {label: {one.word: known[one.word] for one in several} for label, several in verbalizer.labels.items()}
        rule = rule_of(verbalizer, self.backend.scorer.scoring)
        fault = word_fault(found, verbalizer, rule, self.template.shown, spell=self.encoder.token_text)
        if fault is None and 0 in answers.reasons:
            fault = answers.reasons[0]
        if fault is not None:
            shown = {
                label: {word: value for word, value in of_label.items() if value == value}
                for label, of_label in words.items()
            }
            return WordPreview(verbalizer.name, shown, {}, None, fault)
        pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=labels)
        free = answers.scores[1:][~np.isnan(answers.scores[1:]).any(axis=1)]
        probabilities = {}
        for name in CALIBRATIONS if len(free) else CALIBRATIONS[:1]:
            by_label = np.exp(calibrate(find_calibration(name), answers.scores[:1], free, pool)[0]).tolist()
            probabilities[name] = dict(zip(labels, by_label, strict=True))
        mass = float(np.exp(answers.log_mass[0]))
        return WordPreview(verbalizer.name, words, probabilities, None if np.isnan(mass) else mass, None)


def _marked(token: tuple[str, str]) -> str:
    """A mask in arrows, a token of the template in braces, one of the row plain."""
    text, role = token
    return f">{text}<" if role == "mask" else f"{{{text}}}" if role == "literal" else text


def _word_lines(found: WordPreview) -> list[str]:
    """The words of a verbalizer with their probabilities, then what they make of the labels."""
    shown = [
        f"{label}: " + ", ".join(f"{word} {_short(value)}" for word, value in words.items() if isinstance(value, float))
        for label, words in found.words.items()
    ]
    values = [value for words in found.words.values() for value in words.values()]
    faults = [value for value in values if isinstance(value, str)] or ([found.fault] if found.fault else [])
    inline, sign, rule = found.verbalizer.partition("@")
    name = f"words{sign}{rule}" if inline.startswith(INLINE) else found.verbalizer
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


def _short(probability: float) -> str:
    """A probability with four places, or with two digits where these would be none."""
    return f"{probability:.4f}" if probability >= 0.0001 else f"{probability:.1e}"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ") or [f"  {name}:"]
