"""Encoding holds its promises for texts and lengths that nobody thought of."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.encoding import PLACEHOLDER
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.types import EncodedPrompt, Pieces, Prompt, Role, Segment, Unscorable
from tests.oracles import FRAMES, MASK, SEP, encoder_of, in_pieces, single_id, tokenized, word_id
from tests.tiny_models import BYTE_LEVEL, TOKENIZER_KINDS

MANY = settings(derandomize=True, database=None, deadline=None, max_examples=25)
SOME = settings(MANY, max_examples=12)
PIECES = (
    "great", " terrible", "Yes", "it was ", "caf\u00e9", "e\u0301", "\u5f88\u597d", "\u3002", "\U0001f600", "\ufb01",
    " ", "  ", "\n", "\t", "\u00a0", "\u200b", ".", ",", '"', "(", ")", "'s", "-", "\u2026", "3", "",
)  # fmt: skip
HOSTILE = ("[MASK]", "<mask>", "</s>", "<s>", "[SEP]", "[CLS]", "<pad>", "<unk>", "[UNK]")

plain_text = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
)
hostile_text = st.lists(st.sampled_from([*PIECES, *HOSTILE]), max_size=8).map("".join)


@st.composite
def prompts(draw: st.DrawFn, text: st.SearchStrategy[str] = plain_text, pieces: Pieces = "whole") -> Prompt:
    """Prompts of one or two parts with one or two masks among any literals and fields."""
    keep = st.sampled_from(["head", "tail", "middle"])
    fields = st.builds(Segment, st.just("field"), text, st.booleans(), keep, st.integers(0, 1))
    literals = st.builds(Segment, st.just("literal"), plain_text)
    segments = draw(st.lists(st.one_of(fields, literals), max_size=5))
    for _ in range(draw(st.integers(1, 2))):
        segments.insert(draw(st.integers(0, len(segments))), MASK)
    if draw(st.booleans()):
        segments.insert(draw(st.integers(0, len(segments))), SEP)
    return Prompt(tuple(segments), pieces)


in_pieces_of_either = st.one_of(prompts(pieces="lm_bff"), prompts(pieces="pet"))
hostile_prompts = st.one_of(
    prompts(hostile_text), prompts(hostile_text, pieces="lm_bff"), prompts(hostile_text, pieces="pet")
)


def spells_a_special_token(tokenizer: Any, asked: Prompt) -> bool:
    text = "".join(segment.text if segment.kind != "mask" else "\0" for segment in asked.segments)
    return any(token in text for token in (*tokenizer.all_special_tokens, PLACEHOLDER))


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@MANY
@given(asked=prompts())
def test_ids_are_the_tokenizers_own(tokenizers: dict[str, Any], kind: str, asked: Prompt) -> None:
    """Any prompt that spells no special token has the ids and segment ids of its text with the real mask token."""
    tokenizer = tokenizers[kind]
    if spells_a_special_token(tokenizer, asked):
        return
    ids, segment_ids = tokenized(tokenizer, asked)
    encoder = encoder_of(tokenizer)
    (encoded,) = encoder.encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    assert ids == encoded.input_ids.tolist()
    assert (segment_ids if encoder.uses_segment_ids else [0] * len(ids)) == encoded.segment_ids.tolist()


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@MANY
@given(asked=in_pieces_of_either)
def test_ids_of_pieces_are_those_of_the_programs(tokenizers: dict[str, Any], kind: str, asked: Prompt) -> None:
    """Any prompt in pieces that spells no special token has the ids that LM-BFF's or PET's own rules give."""
    tokenizer = tokenizers[kind]
    if spells_a_special_token(tokenizer, asked):
        return
    has_blank = kind in (*BYTE_LEVEL, "roberta_trimmed")
    ids, segment_ids = in_pieces(tokenizer, asked, FRAMES[kind], has_blank=has_blank)
    encoder = encoder_of(tokenizer)
    (encoded,) = encoder.encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    assert ids == encoded.input_ids.tolist()
    assert (segment_ids if encoder.uses_segment_ids else [0] * len(ids)) == encoded.segment_ids.tolist()


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@MANY
@given(asked=hostile_prompts, max_length=st.integers(4, 40))
def test_truncation_never_drops_moves_or_fakes_a_mask(
    tokenizers: dict[str, Any], kind: str, asked: Prompt, max_length: int
) -> None:
    """Whatever rows hold and however short the limit, only row tokens go and everything else keeps its order."""
    tokenizer = tokenizers[kind]
    (whole,) = encoder_of(tokenizer).encode([asked])
    (cut,) = encoder_of(tokenizer, max_length).encode([asked])
    assert isinstance(whole, EncodedPrompt)
    num_masks = sum(segment.kind == "mask" for segment in asked.segments)
    if isinstance(cut, Unscorable):
        assert f"the text that must not be cut is longer than {max_length} tokens" == cut.reason
        assert len(whole) > max_length
        return
    assert len(cut) <= max_length
    assert len(whole) - cut.num_truncated == len(cut)
    assert num_masks == len(cut.mask_positions)
    assert np.flatnonzero(cut.input_ids == tokenizer.mask_token_id).tolist() == list(cut.mask_positions)
    kept = [encoded.input_ids[encoded.roles != Role.FIELD].tolist() for encoded in (whole, cut)]
    assert kept[0] == kept[1]
    row_ids = iter(whole.input_ids[whole.roles == Role.FIELD].tolist())
    assert all(token in row_ids for token in cut.input_ids[cut.roles == Role.FIELD].tolist())
    assert (whole.key == cut.key) == (cut.num_truncated == 0)


@pytest.mark.parametrize("kind", ["roberta", "modernbert", "roberta_trimmed"])
@MANY
@given(asked=prompts(), max_length=st.integers(8, 40))
def test_no_bare_blank_stands_before_a_mask(
    tokenizers: dict[str, Any], kind: str, asked: Prompt, max_length: int
) -> None:
    """A mask token that swallows the blank before it has none; a cut leaves none of a row there."""
    tokenizer = tokenizers[kind]
    loose = Prompt(tuple(dataclasses.replace(s, is_shortenable=s.kind == "field") for s in asked.segments))
    for encoder in (encoder_of(tokenizer), encoder_of(tokenizer, max_length)):
        for encoded in encoder.encode([loose]):
            if isinstance(encoded, EncodedPrompt):
                before = [position - 1 for position in encoded.mask_positions]
                if encoded.num_truncated:
                    before = [position for position in before if encoded.roles[position] == Role.FIELD]
                assert "\u0120" not in tokenizer.convert_ids_to_tokens(encoded.input_ids[before].tolist())


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@SOME
@given(asked=st.lists(prompts(), min_size=2, max_size=4))
def test_keys_are_equal_where_contents_are(tokenizers: dict[str, Any], kind: str, asked: list[Prompt]) -> None:
    """Two prompts share a key exactly where ids, segment ids and roles are the same."""
    tokenizer = tokenizers[kind]
    if any(spells_a_special_token(tokenizer, one) for one in asked):
        return
    encoded = encoder_of(tokenizer).encode([*asked, asked[0]])
    contents = {
        (tuple(e.input_ids), tuple(e.segment_ids), tuple(e.roles)): e.key
        for e in encoded
        if isinstance(e, EncodedPrompt)
    }
    assert len(contents) == len(set(contents.values())) == len({e.key for e in encoded})  # type: ignore[union-attr]  # 512 tokens hold all of them


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@MANY
@given(asked=prompts(), word=st.sampled_from(["great", "Yes", "no", "s", "\u597d", ".", "maybe", "unseenword"]))
def test_a_word_is_the_token_that_takes_the_place_of_the_mask(
    tokenizers: dict[str, Any], kind: str, asked: Prompt, word: str
) -> None:
    """In any context a word has the id that the whole written prompt shows, or is refused where there is none."""
    tokenizer = tokenizers[kind]
    if spells_a_special_token(tokenizer, asked):
        return
    for slot, context in enumerate(slot_contexts(asked)):
        found = find_word_ids(encoder_of(tokenizer), [word], [(context,)])[word]
        assert word_id(tokenizer, asked, word, slot=slot) == single_id(found)
