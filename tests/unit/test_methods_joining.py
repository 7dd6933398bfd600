"""Demonstrations behind a row: the ids of one long text, and what is cut where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.encoding import Encoder
from promptlab.methods.joining import Demonstration, Joiner
from promptlab.types import EncodedPrompt, Role
from tests.contract.test_methods import prompts_of
from tests.tiny_models import FAMILIES, TWO_SEGMENTS

ROW = "a great film"
SHOTS = ["it was a good day", "the food was bad and the room was bad"]
WORDS = ["good", "bad"]


def encoder_of(tokenizer: Any, kind: str, max_length: int = 64) -> Encoder:
    return Encoder(tokenizer, max_length=max_length, uses_segment_ids=kind in TWO_SEGMENTS)


class Encoding:
    """What `prompts_of` needs of a backend."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encoder(self, max_length: int | None) -> Encoder:
        """The encoder, whatever length is asked for."""
        return self._encoder


def joined(encoder: Encoder, template: str = "{{ text }} It was {{ mask }}.", texts: list[str] = SHOTS) -> Any:
    """The row with the shots behind it, their masks filled with the words."""
    row, *shots = prompts_of(Encoding(encoder), [ROW, *texts], template)
    joiner = Joiner(encoder)
    shown = [joiner.demonstrate(shot, encoder.tokens(" " + word)[-1]) for shot, word in zip(shots, WORDS, strict=False)]
    return row, joiner.join(row, shown)


@pytest.mark.parametrize("kind", ["bert", "bert_cased", "distilbert", "electra"])
def test_ids_are_those_of_the_written_text(tokenizers: dict[str, Any], kind: str) -> None:
    """WordPiece: [CLS] row [SEP] first shot [SEP] second shot [SEP], written out and tokenised in one go."""
    row, found = joined(encoder_of(tokenizers[kind], kind))
    text = "a great film It was [MASK]. [SEP] it was a good day It was good. [SEP] "
    expected = tokenizers[kind](text + "the food was bad and the room was bad It was bad.")["input_ids"]
    assert expected == found.prompt.input_ids.tolist()
    second = int(kind in TWO_SEGMENTS)
    assert [0] * len(row) + [second] * (len(expected) - len(row)) == found.prompt.segment_ids.tolist()
    assert row.mask_positions == found.prompt.mask_positions
    assert (0, 0) == (found.num_cut, found.num_left_out)


def test_roberta_puts_two_separators_between(tokenizers: dict[str, Any]) -> None:
    """As its tokenizer does between two texts, and one at the end."""
    encoder = encoder_of(tokenizers["roberta"], "roberta")
    row, found = joined(encoder)
    tokens = encoder.token_texts(found.prompt.input_ids)
    assert [*encoder.token_texts(row.input_ids), "</s>"] == tokens[: len(row) + 1]
    assert 1 + 2 + 2 == tokens.count("</s>")
    assert "</s>" != tokens[-2]
    assert {0} == set(found.prompt.segment_ids.tolist())


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "bert_chinese"])
def test_row_stands_first_with_the_only_mask(tokenizers: dict[str, Any], kind: str) -> None:
    """The start is the row's prompt token by token, and a demonstration's words are text of the template."""
    row, found = joined(encoder_of(tokenizers[kind], kind))
    size = len(row) - 1
    assert row.input_ids[:size].tolist() == found.prompt.input_ids[:size].tolist()
    assert row.roles[:size].tolist() == found.prompt.roles[:size].tolist()
    assert row.mask_positions == found.prompt.mask_positions
    mask = tokenizers[kind].mask_token_id
    assert 1 == found.prompt.input_ids.tolist().count(mask)
    assert row.key != found.prompt.key


def test_pairs_stay_pairs_and_shots_are_second_texts(tokenizers: dict[str, Any]) -> None:
    """A row of two texts keeps its segment ids; both texts of a shot get those of a second text."""
    template = "{{ text }}{{ sep }}It was {{ mask }}."
    row, found = joined(encoder_of(tokenizers["bert"], "bert"), template)
    segments = found.prompt.segment_ids.tolist()
    assert row.segment_ids.tolist() == segments[: len(row)]
    assert {1} == set(segments[len(row) :])
    text = "a great film [SEP] It was [MASK]. [SEP] it was a good day [SEP] It was good. [SEP] "
    expected = tokenizers["bert"](text + "the food was bad and the room was bad [SEP] It was bad.")["input_ids"]
    assert expected == found.prompt.input_ids.tolist()


def test_text_of_the_longest_shot_is_cut_first(tokenizers: dict[str, Any]) -> None:
    """From its end, token by token, then in turn; the row, the mask and the template stay."""
    tokenizer = tokenizers["bert"]
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SHOTS]
    behind = [tokenizer(f"It was {word}. [SEP]", add_special_tokens=False)["input_ids"] for word in WORDS]
    num_text, length = sum(map(len, texts)), len(joined(encoder_of(tokenizer, "bert"))[1].prompt)
    for excess in range(1, num_text + 1):
        texts[0 if len(texts[0]) >= len(texts[1]) else 1].pop()
        row, found = joined(encoder_of(tokenizer, "bert", max_length=length - excess))
        expected = [*row.input_ids.tolist(), *texts[0], *behind[0], *texts[1], *behind[1]]
        assert expected == found.prompt.input_ids.tolist()
        assert (excess, 0) == (found.num_cut, found.num_left_out)


def test_shot_whose_template_does_not_fit_is_left_out(tokenizers: dict[str, Any]) -> None:
    """The last one first; where none fits, the row is scored as it is."""
    tokenizer = tokenizers["bert"]
    row = joined(encoder_of(tokenizer, "bert"))[0]
    room = len(tokenizer("It was bad. [SEP]", add_special_tokens=False)["input_ids"])
    two = joined(encoder_of(tokenizer, "bert", max_length=len(row) + 2 * room))[1]
    one = joined(encoder_of(tokenizer, "bert", max_length=len(row) + 2 * room - 1))[1]
    none = joined(encoder_of(tokenizer, "bert", max_length=len(row) + room - 1))[1]
    assert [0, 1, 2] == [found.num_left_out for found in (two, one, none)]
    assert (len(row) + 2 * room, len(row) + 2 * room - 1) == (len(two.prompt), len(one.prompt))
    assert tokenizer.decode(one.prompt.input_ids).endswith("it was good. [SEP]")
    assert row.key == none.prompt.key
    assert 0 == none.num_cut


def test_cut_keeps_text_before_the_template_and_behind_it() -> None:
    """Text of the row is counted from the left, wherever the template stands."""
    roles = np.array([Role.FIELD, Role.LITERAL, Role.FIELD, Role.FIELD, Role.LITERAL], dtype=np.int32)
    shown = Demonstration(np.arange(5, dtype=np.int32), roles)
    assert [[1, 4], [0, 1, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4]] == [shown.cut(size).ids.tolist() for size in range(4)]
    assert 3 == shown.num_text


def test_limit_is_that_of_the_model(tiny: dict[str, Any]) -> None:
    """The tiny models read 64 tokens, and longer prompts would not run."""
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    long = " ".join(["good"] * 60)
    row, found = joined(backend.encoder(None), texts=[long, long])
    assert isinstance(row, EncodedPrompt)
    assert 64 == len(found.prompt)
