"""A preview shows what a template says to a tokenizer, and what of it a model would see."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.errors import LabelWordError, TemplateError
from promptlab.harness import execute
from promptlab.previewing import Preview, preview_task, try_text
from promptlab.specs.run import make_run_spec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import RunStore
from tests.oracles import MASK, field, mask_log_probs, prompt

PreviewOf = Callable[..., list[Preview]]
IT_WAS = "{{ text }} It was {{ mask }}."


@pytest.fixture
def preview(tiny: dict[str, Path]) -> PreviewOf:
    """The previews of the bundled reviews."""

    def previews_of(kind: str = "bert", **options: Any) -> list[Preview]:
        given = {"tasks": "review_sentiment", "limit": 1, "device": "cpu", "models": tiny[kind], **options}
        return list(preview_task(make_run_spec(given)))

    return previews_of


def shown(one: Preview) -> str:
    """The lines of a preview as one line."""
    return " ".join(line.strip() for line in one.lines())


def test_each_template_and_row_is_a_preview(preview: PreviewOf) -> None:
    """Two templates, two rows: four previews, each with a head that names task, template, row and gold label."""
    found = preview(templates=["sentiment/it_was", "sentiment/null"], limit=2)
    assert ["sentiment/it_was"] * 2 + ["sentiment/null"] * 2 == [one.template for one in found]
    for one in found:
        assert f"== review_sentiment / {one.template} / row {one.row}, gold {one.gold}" == one.lines()[0]
        assert one.gold in ("negative", "positive")
    assert 80 >= max(len(line) for one in found for line in one.lines())


def test_tokens_show_the_mask_the_template_and_what_was_cut(preview: PreviewOf) -> None:
    """The mask in arrows, the template's tokens in braces, the row's plain, and how many were cut."""
    (one,) = preview(templates=IT_WAS, max_length=16)
    assert "[MASK]" in one.prompt
    assert 16 == len(one.tokens)
    assert one.num_truncated > 0
    assert ("[MASK]", "mask") in one.tokens
    assert [("it", "literal"), ("was", "literal")] == list(one.tokens[-5:-3])
    assert ("[CLS]", "special") == one.tokens[0]
    assert f"16 tokens, {one.num_truncated} cut: [CLS] " in shown(one)
    assert "{it} {was} >[MASK]< {.} [SEP]" in shown(one)


def test_label_words_have_a_probability_or_a_reason(preview: PreviewOf) -> None:
    """A word of one token has its probability at the mask, a word that splits the sentence that says so."""
    words = {"negative": "terrible", "positive": "unbelievable"}
    (one,) = preview(templates=IT_WAS, verbalizers=words)
    (found,) = one.verbalizers
    assert 0 < float(found.words["negative"]["terrible"]) < 1
    assert "label word 'unbelievable' splits into" in str(found.words["positive"]["unbelievable"])
    assert ({}, None) == (dict(found.probabilities), found.mass)
    assert found.fault is not None
    assert "words: negative: terrible 0." in shown(one)
    assert "label word 'unbelievable' splits into" in shown(one)
    assert "fills: " in shown(one)


def test_a_preview_shows_what_a_run_decides(preview: PreviewOf, tiny: dict[str, Path], tmp_path: Path) -> None:
    """P(label | row) without and with contextual calibration, of every verbalizer."""
    options: dict[str, Any] = {
        "templates": "sentiment/it_was", "verbalizers": ["sentiment/great_terrible", "sentiment/good_bad"],
        "limit": 3,
    }  # fmt: skip
    found = preview(**options)
    spec = {"tasks": "review_sentiment", "device": "cpu", "models": tiny["bert"], "output_path": tmp_path, **options}
    run = execute(make_run_spec(spec))
    for cell in (cell for cell in run.results if cell.template == "sentiment/it_was"):
        rows = RunStore(run.folder).read_samples(cell.samples, cell.cell).to_pylist()
        for row, one in zip(rows, found, strict=True):
            (of_verbalizer,) = (words for words in one.verbalizers if words.verbalizer == cell.verbalizer)
            expected = dict(zip(cell.labels, np.exp(row["log_probabilities"]).tolist(), strict=True))
            assert row["row_id"] == one.row
            assert expected == pytest.approx(dict(of_verbalizer.probabilities[cell.calibration]), abs=1e-6)
            assert float(np.exp(row["log_mass"])) == pytest.approx(of_verbalizer.mass, abs=1e-6)


def test_a_row_that_does_not_fit_says_why(preview: PreviewOf) -> None:
    """Where the template alone is too long there is nothing to show but the reason."""
    (one,) = preview(templates="{{ text }} All in all, it was {{ mask }}.", max_length=6)
    assert one.reason is not None and "longer than 6 tokens" in one.reason
    assert ((), (), ()) == (one.tokens, one.verbalizers, one.fills)
    assert any(line.startswith("  cannot be scored: ") for line in one.lines())


def test_two_masks_show_the_fills_of_each(preview: PreviewOf) -> None:
    """Words for two masks have one probability, and each mask its own fills."""
    words = [{"negative": [["no", "bad"]], "positive": [["yes", "good"]]}]
    (one,) = preview(templates="{{ text }} It was {{ mask }} and {{ mask }}.", verbalizers=words)
    (double,) = one.verbalizers
    assert double.fault is None and 0 < float(double.words["positive"]["yes + good"]) < 1
    assert (5, [5]) == (len(one.fills), [len(fills) for fills in one.further_fills])
    assert "fills of mask 1: " in shown(one) and "fills of mask 2: " in shown(one)


def test_a_preview_is_plain_values(preview: PreviewOf) -> None:
    """It can be written as JSON, without NaN, and holds what its lines show."""
    for options in ({}, {"max_length": 6}, {"verbalizers": {"negative": "badness", "positive": "great"}}):
        for one in preview(templates=IT_WAS, **options):
            held = json.loads(json.dumps(dataclasses.asdict(one), allow_nan=False))
            assert ("review_sentiment", one.prompt, one.reason) == (held["task"], held["prompt"], held["reason"])


def tried(backend: Any, template: str = IT_WAS, *, words: Any = None, **fields: Any) -> Preview:
    """What a template makes of one text."""
    chosen = [Verbalizer.from_labels(one) for one in words or [{"bad": "terrible", "good": "great"}]]
    return try_text(fields or {"text": "a fine day"}, Template.from_text(template), chosen, backend)


def test_a_text_can_be_tried_without_a_task(backends: dict[str, Any]) -> None:
    """It has no task, row or gold label; its head says what was asked."""
    one = tried(backends["bert"])
    assert (None, None, None) == (one.task, one.row, one.gold)
    assert "a fine day It was [MASK]." == one.prompt
    assert "== inline template" == one.lines()[0]
    (words,) = one.verbalizers
    assert {"none", "contextual"} == set(words.probabilities)
    for values in words.probabilities.values():
        assert ["bad", "good"] == list(values)
        assert 1 == pytest.approx(sum(values.values()))


def test_probabilities_are_those_of_the_whole_head(backends: dict[str, Any], models: dict[str, Any]) -> None:
    """Of each word over the full vocabulary, and the best fills in their order, as plain transformers has them."""
    one = tried(backends["bert"], words=[{"bad": ["terrible", "bad"], "good": "great"}], text="the team won")
    tokenizer = backends["bert"].tokenizer
    asked = prompt(field("the team won"), " It was ", MASK, ".")
    log_probs = mask_log_probs(models["bert"], tokenizer, asked)[0]
    best = np.argsort(-log_probs)[: len(one.fills)]
    assert np.exp(log_probs[best]) == pytest.approx([value for _, value in one.fills], abs=1e-6)
    pieces = tokenizer.convert_ids_to_tokens(best.tolist())
    assert [piece.removeprefix("##") for piece in pieces] == [word.removeprefix("##") for word, _ in one.fills]
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("terrible", "bad", "great")}
    (found,) = one.verbalizers
    at_mask = {word: value for several in found.words.values() for word, value in several.items()}
    assert {word: float(np.exp(log_probs[token])) for word, token in ids.items()} == pytest.approx(at_mask, abs=1e-6)
    assert sum(np.exp(log_probs[token]) for token in ids.values()) == pytest.approx(found.mass, abs=1e-6)


def test_labels_are_in_the_order_in_which_they_are_written(backends: dict[str, Any]) -> None:
    """Two verbalizers with other labels can stand side by side, and options are the first words of the first."""
    words: list[dict[str, Any]] = [
        {"up": "great", "down": ["terrible", "bad"]},
        {"yes": "yes", "no": "no", "so": "maybe"},
    ]
    one = tried(backends["bert"], "{{ text }} {{ options | join(' or ') }} ? {{ mask }}.", words=words)
    assert "a fine day great or terrible ? [MASK]." == one.prompt
    assert [["up", "down"], ["yes", "no", "so"]] == [list(found.probabilities["none"]) for found in one.verbalizers]


def test_a_template_of_several_fields_is_tried_with_all(backends: dict[str, Any]) -> None:
    """Each field has its text."""
    one = tried(
        backends["bert"], "{{ premise }}?{{ sep }} {{ mask }}, {{ hypothesis }}", premise="we won", hypothesis="so"
    )
    assert "we won? |  [MASK], so" == one.prompt


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        (
            TemplateError,
            {"template": "{{ txt }} {{ mask }}"},
            "field 'txt' is unknown in what was given. Did you mean 'text'?",
        ),
        (TemplateError, {"template": "{{ text }}"}, "has no {{ mask }}"),
        (LabelWordError, {"template": "{{ mask }} {{ mask }}"}, "stands for one mask, the template has 2"),
        (LabelWordError, {"words": [{"bad": "badness", "good": "great"}]}, "label word 'badness' splits into"),
        (
            LabelWordError,
            {"words": [{"bad": "Great", "good": "great"}]},
            "'Great' of label 'bad' and 'great' of label 'good' are the same token",
        ),
    ],
)
def test_what_cannot_be_tried_is_explained(
    backends: dict[str, Any], kind: type[Exception], changes: dict[str, Any], sentence: str
) -> None:
    """One sentence, as a run would say it."""
    with pytest.raises(kind) as fault:
        tried(backends["bert"], **changes)
    assert sentence in str(fault.value)


def test_lines_fit_a_terminal(backends: dict[str, Any]) -> None:
    """Long texts, long words and many labels are wrapped at 80 columns."""
    words = {f"a_label_of_many_letters_{n}": word for n, word in enumerate(("great", "bad", "yes", "no", "so", "fine"))}
    one = tried(backends["bert"], words=[words, {"bad": "terrible", "good": "good"}], text="a fine day " * 30)
    assert 80 >= max(map(len, one.lines()))
    assert "" == one.lines()[-1]
