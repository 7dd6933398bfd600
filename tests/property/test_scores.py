"""On every architecture a row has the numbers of the plain forward, in whatever company and whatever it holds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.batching import BatchSize
from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.rendering import compile_template, render
from promptlab.scoring import score_prompts
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Example, Prompt
from tests.oracles import mask_log_probs
from tests.tiny_models import FAMILIES, TWO_SEGMENTS

TOLERANCE = 1e-5
FEW = settings(derandomize=True, database=None, deadline=None, max_examples=4)
TEMPLATES = [
    compile_template(Template.from_text(text, name=text))
    for text in (
        "{{ text }} It was {{ mask }}.",
        "{{ mask }}: {{ text }}",
        "{{ text }}?{{ sep }} {{ mask }}, it was",
    )
]
EXTREME = {
    "a mask of BERT": "great [MASK] no",
    "a mask of RoBERTa": "great <mask> no",
    "the end of a text": "</s> great </s>",
    "only special tokens": "[CLS] [SEP] <s> </s> [PAD] <pad>",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 great \U0001f44d\U0001f3fd",
    "zero width": "gre\u200bat \ufeffno\u200d\u2060",
    "right to left": "\u05d8\u05d5\u05d1 \u202bgood\u202c \u062c\u064a\u062f",
    "NUL": "great\x00no\x00",
    "100,000 characters": "great no " * 11_112,
    "no blank at all": "\u597d" * 4_000,
    "nothing": "",
    "blanks": " \t\n\u3000",
    "a replaced character": "great \ufffd no",
    "chinese": "\u5f88\u597d\u3002",
}
TOKENS = [0, 5, 7, 20, 60, 90]

texts = st.lists(
    st.sampled_from(["great", "no, good", "it was bad.", "\u5f88\u597d", "[MASK]", "</s>", "", "yes " * 30]),
    min_size=1, max_size=3,
).map(" ".join)  # fmt: skip


def prompts_of(rows: Sequence[str]) -> list[Prompt]:
    """Every row through every template."""
    return [render(template, Example(str(n), n, {"text": row})) for template in TEMPLATES for n, row in enumerate(rows)]


def encoded(backend: Any, asked: Sequence[Prompt]) -> list[EncodedPrompt]:
    return [one for one in backend.encoder(None).encode(list(asked)) if isinstance(one, EncodedPrompt)]


def naive(model: Any, kind: str, one: EncodedPrompt) -> np.ndarray[Any, Any]:
    """The plain forward of one encoded prompt."""
    import torch

    inputs = {"input_ids": torch.tensor(one.input_ids[None].astype(np.int64))}
    if kind in TWO_SEGMENTS:
        inputs["token_type_ids"] = torch.tensor(one.segment_ids[None].astype(np.int64))
    with torch.inference_mode():
        logits = model(**inputs).logits[0, one.mask_positions[0]]
    found: np.ndarray[Any, Any] = torch.log_softmax(logits, dim=-1).numpy()[TOKENS]
    return found


def answers(backend: Any, prompts: Sequence[EncodedPrompt], size: int) -> np.ndarray[Any, Any]:
    """Log-probabilities of some tokens, a row a prompt, in their order."""
    block = BlockScores.of(score_prompts(backend, prompts, TOKENS, batch_size=BatchSize(None, size)))
    return block.take(np.array([one.key.encode() for one in prompts], dtype=f"S{KEY_BYTES}"), TOKENS)


@pytest.mark.parametrize("kind", FAMILIES)
@FEW
@given(rows=st.lists(texts, min_size=1, max_size=3), size=st.integers(1, 8), seed=st.integers(0, 99))
def test_company_changes_nothing(
    backends: dict[str, Any], models: dict[str, Any], kind: str, rows: list[str], size: int, seed: int
) -> None:
    """Alone or batched, in any order, twice or once: a prompt has the numbers of its plain forward, to 1e-5."""
    backend = backends[kind]
    prompts = encoded(backend, prompts_of([*rows, rows[0]]))
    expected = {one.key: naive(models[kind], kind, one) for one in prompts}
    random.Random(seed).shuffle(prompts)
    for one_size in (1, size, len(prompts)):
        found = answers(backend, prompts, one_size)
        np.testing.assert_allclose(found, [expected[one.key] for one in prompts], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_field_may_hold_anything(backends: dict[str, Any], models: dict[str, Any], kind: str) -> None:
    """Special tokens, emoji, NUL, 100,000 characters or nothing: one mask, one frame, and the plain numbers."""
    backend = backends[kind]
    long = [text for text in EXTREME.values() if len(text) > 1000]
    asked = [*prompts_of([text for text in EXTREME.values() if text not in long]), *prompts_of(long)[: len(long)]]
    prompts = encoded(backend, asked)
    assert len(asked) == len(prompts)
    mask, frame = backend.tokenizer.mask_token_id, [backend.tokenizer.cls_token_id, backend.tokenizer.sep_token_id]
    for one in prompts:
        ids = one.input_ids.tolist()
        assert (1, frame) == (ids.count(mask), [ids[0], ids[-1]])
        assert mask == ids[one.mask_positions[0]]
        assert len(one) <= 64
    found = answers(backend, prompts, 7)
    np.testing.assert_allclose(found, [naive(models[kind], kind, one) for one in prompts], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["emoji", "zero width", "right to left", "NUL", "nothing", "blanks", "chinese"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_strange_field_is_the_tokenizers_text(
    backends: dict[str, Any], models: dict[str, Any], kind: str, name: str
) -> None:
    """Texts that spell no special token have the numbers of the tokenizer's own ids for the written prompt."""
    for asked in prompts_of([EXTREME[name]]):
        (one,) = encoded(backends[kind], [asked])
        if one.num_truncated:
            continue
        oracle = mask_log_probs(models[kind], backends[kind].tokenizer, asked)[0][TOKENS]
        np.testing.assert_allclose(answers(backends[kind], [one], 1)[0], oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_gold_label_changes_no_prompt(backends: dict[str, Any], kind: str) -> None:
    """Rows with a label, with another one or with none are the same prompts."""
    rows = [Example(str(n), n, {"text": text}) for n, text in enumerate(EXTREME.values()) if len(text) < 1000]
    for template in TEMPLATES:
        keys = []
        for label in (None, "positive", "negative"):
            asked = [render(template, dataclasses.replace(row, label=label)) for row in rows]
            keys.append([one.key for one in encoded(backends[kind], asked)])
        assert keys[0] == keys[1] == keys[2]
