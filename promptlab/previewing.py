"""Run spec -> what each template says about a few rows: text, tokens with the mask marked, label words, best fills."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np

from promptlab.backends.base import Backend
from promptlab.encoding import Encoder
from promptlab.harness import plan_run
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.planning import PlannedBlock
from promptlab.rendering import check_one_mask, render
from promptlab.specs.run import RunSpec
from promptlab.types import EncodedPrompt, Example, Prompt, Role, Unscorable

WIDTH = 80


def preview_task(spec: RunSpec) -> Iterator[list[str]]:
    """Lines for every template that was asked for and applies, one row after the other.

    Raises:
        PromptlabError: what a run of the same spec would raise.
    """
    for backend, blocks in plan_run(spec).models:
        encoder = backend.encoder(spec.max_length)
        for block in blocks:
            if block.is_baseline:
                continue
            for example in block.rows.examples:
                prompt = render(block.template, example, options=block.options, seed=spec.seed)
                check_one_mask(block.template, example, prompt)
                yield _lines(backend, encoder, block, example, prompt)


def _lines(backend: Backend, encoder: Encoder, block: PlannedBlock, example: Example, prompt: Prompt) -> list[str]:
    head = f"{block.task.name} / {block.template.template.name} / row {example.id}"
    gold = f", gold {example.label}" if example.label is not None else ""
    encoded = encoder.encode([prompt])[0]
    lines = [f"== {head}{gold}", *_wrapped("prompt", prompt.text)]
    if isinstance(encoded, Unscorable):
        return [*lines, f"  cannot be scored: {encoded.reason}", ""]
    cut = f", {encoded.num_truncated} cut" if encoded.num_truncated else ""
    lines += _wrapped(f"{len(encoded)} tokens{cut}", _marked(encoder, encoded))
    words = {word: None for cell in block.cells for word in cell.verbalizer.words}
    found = find_word_ids(encoder, words, list(dict.fromkeys(slot_contexts(prompt))))
    ids = sorted({token for token in found.values() if isinstance(token, int)})
    scores = backend.score([encoded], np.array(ids, dtype=np.int64))
    column = {token: number for number, token in enumerate(ids)}
    for verbalizer in {cell.verbalizer.name: cell.verbalizer for cell in block.cells}.values():
        shown, faults = [], []
        for word in verbalizer.words:
            token = found[word]
            if isinstance(token, int):
                shown.append(f"{word} {np.exp(scores.log_probs[0, column[token]]):.4f}")
            else:
                faults += textwrap.wrap(token, WIDTH, initial_indent="    ", subsequent_indent="      ")
        lines += [*_wrapped(verbalizer.name, ", ".join(shown)), *faults]
    fills = encoder.words(scores.top_ids[0])
    best = ", ".join(f"{word} {np.exp(value):.3f}" for word, value in zip(fills, scores.top_log_probs[0], strict=True))
    return [*lines, *_wrapped("fills", best), ""]


def _marked(encoder: Encoder, encoded: EncodedPrompt) -> str:
    """Tokens with the masks in arrows and the row's tokens plain, the template's in braces."""
    pieces = []
    texts = encoder.token_texts(encoded.input_ids.tolist())
    for text, role in zip(texts, encoded.roles, strict=True):
        pieces.append(f">{text}<" if role == Role.MASK else f"{{{text}}}" if role == Role.LITERAL else text)
    return " ".join(pieces)


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ") or [f"  {name}:"]
