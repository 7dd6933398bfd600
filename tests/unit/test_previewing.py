"""A preview shows what a template says to a tokenizer, and what of it a model would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import TemplateError
from promptlab.previewing import preview_task
from promptlab.specs.run import make_run_spec


@pytest.fixture
def preview(tiny: dict[str, Path]) -> Any:
    """The lines of every block of a preview of the bundled reviews."""

    def lines_of(kind: str = "bert", **options: Any) -> list[list[str]]:
        given = {"tasks": "review_sentiment", "limit": 1, "device": "cpu", "models": tiny[kind], **options}
        return list(preview_task(make_run_spec(given)))

    return lines_of


def test_each_template_and_row_is_a_block_of_lines(preview: Any) -> None:
    """Two templates, two rows: four blocks, each with a head that names task, template, row and gold label."""
    blocks = preview(templates=["sentiment/it_was", "sentiment/null"], limit=2)
    heads = [block[0] for block in blocks]
    assert len(blocks) == 4
    assert all(head.startswith("== review_sentiment / sentiment/") and ", gold " in head for head in heads)
    assert max(len(line) for block in blocks for line in block) <= 80


def test_tokens_show_the_mask_the_template_and_what_was_cut(preview: Any) -> None:
    """The mask in arrows, the template's tokens in braces, the row's plain, and how many were cut."""
    block = preview(templates="{{ text }} It was {{ mask }}.", max_length=16)[0]
    tokens = " ".join(line.strip() for line in block)
    assert "16 tokens, " in tokens
    assert " cut: [CLS] " in tokens
    assert "{it} {was} >[MASK]< {.} [SEP]" in tokens


def test_label_words_have_a_probability_or_a_reason(preview: Any) -> None:
    """A word of one token has its probability at the mask, a word that splits the sentence that says so."""
    words = {"negative": "terrible", "positive": "unbelievable"}
    block = preview(templates="{{ text }} It was {{ mask }}.", verbalizers=words)[0]
    shown = " ".join(line.strip() for line in block)
    assert ": terrible 0." in shown
    assert "label word 'unbelievable' splits into" in shown
    assert "fills: " in shown


def test_a_row_that_does_not_fit_says_why(preview: Any) -> None:
    """Where the template alone is too long there is nothing to show but the reason."""
    block = preview(templates="{{ text }} All in all, it was {{ mask }}.", max_length=6)[0]
    assert any(line.startswith("  cannot be scored: ") for line in block)


def test_two_masks_are_refused_as_a_run_refuses_them(preview: Any) -> None:
    """What cannot be scored is not shown as if it could."""
    with pytest.raises(TemplateError, match=r"has 2 masks, one is scored: keep one \{\{ mask \}\}\.$"):
        preview(templates="{{ text }} It was {{ mask }} and {{ mask }}.")
