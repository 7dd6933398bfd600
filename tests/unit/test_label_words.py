"""Label words: the token that a word is in the place of the mask, found from the whole written prompt."""

from __future__ import annotations

from typing import Any

import pytest

from promptlab.encoding import PLACEHOLDER
from promptlab.errors import LabelWordError
from promptlab.label_words import Context, find_word_ids, slot_contexts
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Prompt, WordTokens
from promptlab.verbalizing import check_collisions, require_words, usable_words, word_faults
from tests.oracles import MASK, SEP, encoder_of, field, prompt, single_id, word_id
from tests.tiny_models import TOKENIZER_KINDS

PROMPTS = {
    "after a blank": prompt(field("A great film."), " It was ", MASK, "."),
    "start of text": prompt(MASK, " news: ", field("the team won")),
    "start of the second part": prompt(field("the team won"), SEP, MASK, ", it was"),
    "after an opening quote": prompt('She said "', MASK, '" about it'),
    "after an opening bracket": prompt(field("the market rose"), " (", MASK, ")"),
    "before punctuation": prompt("Is it ", MASK, "? ", field("yes"), "!"),
    "before a blank": prompt(field("good"), " ", MASK, " ", field("bad")),
    "glued on the left": prompt(field("the answer is no"), MASK),
    "glued to a letter": prompt("in", MASK, " ", field("summary")),
    "glued on the right": prompt("It was ", MASK, field("ly good")),
    "after a new line": prompt(field("good"), "\n", MASK),
    "after two blanks": prompt(field("good"), "  ", MASK),
    "chinese": prompt(field("\u8fd9\u90e8\u7535\u5f71\u5f88\u597d\u3002"), "\u5f88", MASK, "\u3002"),
    "two masks": prompt("It was ", MASK, " and ", MASK, "."),
    "two masks that touch": prompt("It was ", MASK, MASK, "."),
    "nothing else": prompt(MASK),
}
WORDS = ("great", "terrible", "Yes", "yes", "no", "good", "world", "s", "unseenword", "\u597d", "well-made", "[MASK]")


def find(tokenizer: Any, asked: Prompt, word: str) -> WordTokens | str:
    """What is found for a word in the first slot of a prompt."""
    return find_word_ids(encoder_of(tokenizer), [word], [slot_contexts(asked)[:1]])[word]


def find_id(tokenizer: Any, asked: Prompt, word: str) -> int | None:
    """The one token of a word in the first slot of a prompt."""
    return single_id(find(tokenizer, asked, word))


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@pytest.mark.parametrize("asked", PROMPTS.values(), ids=PROMPTS)
def test_a_word_has_the_id_that_the_whole_prompt_shows(tokenizers: dict[str, Any], kind: str, asked: Prompt) -> None:
    """The id equals the one difference between the whole prompt with the word and with the mask, where there is one."""
    tokenizer, encoder = tokenizers[kind], encoder_of(tokenizers[kind])
    for slot, context in enumerate(slot_contexts(asked)):
        found = find_word_ids(encoder, WORDS, [(context,)])
        for word in set(WORDS) - set(tokenizer.all_special_tokens):
            expected = word_id(tokenizer, asked, word, slot=slot)
            assert expected == single_id(found[word]), (word, found[word])


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_a_word_after_a_blank_is_another_token(tokenizers: dict[str, Any], kind: str) -> None:
    """In a byte-level vocabulary the word after a blank and after a bracket are different tokens."""
    ids = [find_id(tokenizers[kind], PROMPTS[name], "no") for name in ("after a blank", "after an opening bracket")]
    assert ["\u0120no", "no"] == tokenizers[kind].convert_ids_to_tokens(ids)


def test_a_blank_that_the_tokenizer_marks_behind_a_mask_refuses_no_word(tokenizers: dict[str, Any]) -> None:
    """SentencePiece puts a blank before a "." behind a mask; the word is the token that it is in the text."""
    tokenizer = tokenizers["unigram"]
    assert ["\u2581", "."] == tokenizer.tokenize("it was <mask>.")[-2:]
    ids = [find_id(tokenizer, PROMPTS[name], "no") for name in ("after a blank", "after an opening bracket")]
    assert ["\u2581no", "no"] == tokenizer.convert_ids_to_tokens(ids)
    unknown = find(tokenizer, prompt("It was ", MASK, "\u3002"), "\u5f71")
    assert str(unknown).startswith("label word '\u5f71' ")


def test_contexts_are_cut_to_what_touches_the_slot() -> None:
    """A space cuts a context off with a stand-in, text that touches the slot is kept to the next space."""
    shown = [slot_contexts(PROMPTS[name])[0] for name in ("after a blank", "after an opening bracket", "nothing else")]
    assert [Context("x ", "."), Context(" (", ")"), Context("", "")] == shown
    assert [Context("It was ", ""), Context("", "")] != shown
    both = slot_contexts(PROMPTS["two masks that touch"])
    assert (Context("x ", f"{PLACEHOLDER}."), Context(f" {PLACEHOLDER}", ".")) == both


def test_rows_share_a_context_where_blanks_surround_the_slot() -> None:
    """However many rows there are, a slot between blanks has one context."""
    contexts = {slot_contexts(prompt(field(f"row {n}"), " ", MASK, " ", field(f"{n}")))[0] for n in range(9)}
    assert {Context("x ", " x")} == contexts


def test_a_word_that_splits_is_refused_with_its_split(tokenizers: dict[str, Any]) -> None:
    """The message shows the pieces, the place and what to do."""
    found = find(tokenizers["bert"], PROMPTS["after a blank"], "goodness")
    assert isinstance(found, WordTokens)
    assert ["good", "##n", "##ess"] == tokenizers["bert"].convert_ids_to_tokens(list(found.pieces))
    verbalizer = Verbalizer.from_labels({"a": "goodness", "b": "good"}, name="v")
    expected = (
        "label word 'goodness' splits into 3 tokens (good ##n ##ess) in '… ___.': use a word that is one token, or "
        "name a rule for several by @left_to_right behind the verbalizer."
    )
    assert {"goodness": expected} == word_faults({"goodness": found, "good": WordTokens(((5,),))}, verbalizer)


def test_every_slot_has_surroundings_of_its_own(tokenizers: dict[str, Any]) -> None:
    """The word of a slot has the tokens that it has there, and a message names the words that split and no other."""
    asked = prompt(MASK, ", it was ", MASK, ".")
    contexts = [slot_contexts(asked)]
    found = find_word_ids(encoder_of(tokenizers["roberta"]), ["no + no"], contexts)["no + no"]
    assert isinstance(found, WordTokens)
    assert ["no", "\u0120no"] == tokenizers["roberta"].convert_ids_to_tokens(list(found.pieces))
    split = find_word_ids(encoder_of(tokenizers["bert"]), ["good + goodness"], contexts)["good + goodness"]
    assert isinstance(split, WordTokens)
    assert "splits into 3 tokens (good ##n ##ess) in '… ___.'" == split.split


def test_an_unknown_word_is_refused(tokenizers: dict[str, Any]) -> None:
    """A word that becomes the unknown token is refused with that token named."""
    expected = "label word '\u5f71' is unknown to the tokenizer (it becomes [UNK])."
    assert expected == find(tokenizers["bert"], PROMPTS["after a blank"], "\u5f71")


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_a_special_token_is_no_label_word(tokenizers: dict[str, Any], kind: str) -> None:
    """A word that spells a mask or an end is refused, also where a vocabulary has it as a piece for any text."""
    tokenizer = tokenizers[kind]
    for name in ("after a blank", "after an opening bracket", "start of text"):
        for word in (tokenizer.mask_token, tokenizer.sep_token, tokenizer.pad_token):
            found = find(tokenizer, PROMPTS[name], word)
            verbalizer = Verbalizer.from_labels({"a": word, "b": "good"}, name="v")
            said = word_faults({word: found, "good": WordTokens(((5,),))}, verbalizer).get(word, "")
            assert said.startswith(f"label word '{word}' "), (name, found)
            assert isinstance(found, str) or not set(found.pieces) & set(tokenizer.all_special_ids)


def test_a_word_that_changes_its_neighbours_is_refused_with_both_splits(tokenizers: dict[str, Any]) -> None:
    """Where the word merges with the text that touches it, the message shows both splits."""
    start = "label word 's' changes its neighbours in"
    expected = f"{start} ' ye___': the text before it is cut otherwise, \u0120yes against \u0120 y e <mask>."
    assert expected == find(tokenizers["roberta"], prompt("the answer is ye", MASK), "s")
    split = "\u2026 \u0120world against \u2026 <mask> orld"
    expected = (
        f"label word 'w' changes its neighbours in '\u2026 ___orld': the text behind it is cut otherwise, {split}."
    )
    assert expected == find(tokenizers["roberta"], prompt("it was ", MASK, "orld"), "w")
    expected = f"{start} ' \u2026___': the text before it is cut otherwise. Put a blank around {{{{ mask }}}}."
    assert expected == find(tokenizers["roberta"], prompt(field("the answer is ye"), MASK), "s")


def test_a_word_that_varies_by_row_is_refused(tokenizers: dict[str, Any]) -> None:
    """A word that is one token in one row and another in the next is refused with both and no text of rows."""
    rows = [prompt(field("said ("), MASK, ")"), prompt(field("said "), MASK, ")")]
    contexts = [slot_contexts(row) for row in rows]
    expected = (
        "label word 'no' is not the same token in every row: 'no' in ' …___)', 'Ġno' in '… ___)'. "
        "Put a blank around {{ mask }}."
    )
    assert expected == find_word_ids(encoder_of(tokenizers["roberta"]), ["no"], contexts)["no"]


def test_uncased_words_collide(tokenizers: dict[str, Any]) -> None:
    """'Yes' and 'yes' are one token of an uncased vocabulary and are refused there, but not of a cased one."""
    verbalizer = Verbalizer.from_labels({"a": "Yes", "b": "yes"}, name="pair")
    for kind, collides in (("bert", True), ("bert_cased", False)):
        contexts = [slot_contexts(PROMPTS["after a blank"])]
        found = find_word_ids(encoder_of(tokenizers[kind]), verbalizer.words, contexts)
        ids = require_words(found, verbalizer, where="here")
        if collides:
            with pytest.raises(LabelWordError, match="'Yes' of label 'a' and 'yes' of label 'b' are the same token"):
                check_collisions(verbalizer, ids, "independent")
        else:
            check_collisions(verbalizer, ids, "independent")


def test_every_refused_word_is_named_with_its_place(tokenizers: dict[str, Any]) -> None:
    """All faults of a verbalizer come at once, each with where it was found."""
    words = ["great", "goodness", "badness"]
    found = find_word_ids(encoder_of(tokenizers["bert"]), words, [slot_contexts(PROMPTS["after a blank"])])
    verbalizer = Verbalizer.from_labels({"good": words[:2], "bad": words[2]}, name="v")
    with pytest.raises(LabelWordError) as caught:
        require_words(found, verbalizer, where="v.yaml with t.jinja")
    lines = str(caught.value).splitlines()
    starts = [f"v.yaml with t.jinja: label word '{word}' splits into" for word in words[1:]]
    assert [True, True] == [line.startswith(start) for line, start in zip(lines, starts, strict=True)]
    assert {"great": found["great"]} == usable_words(found, verbalizer)
