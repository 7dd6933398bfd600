"""Encoding: the tokenizer's own ids for the written prompt, one frame, masks where the template has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptlab.encoding import PLACEHOLDER, Encoder
from promptlab.errors import DataError, ModelError
from promptlab.types import EncodedPrompt, Prompt, Role, Segment, Unscorable
from tests.oracles import MASK, SEP, encoder_of, field, prompt, tokenized, truncated
from tests.tiny_models import TOKENIZER_KINDS

SPECIAL_STRINGS = (
    "[MASK]", "<mask>", " <mask>", "</s>", "<s>", "[SEP]", "[CLS]", "<pad>", "[PAD]", "[UNK]", "<unk>",
    "<|endoftext|>", "<|promptlab:mask", "promptlab:mask|>",
)  # fmt: skip
PROMPTS = {
    "single": prompt(field("A great film, and a good book."), " It was ", MASK, "."),
    "start of text": prompt(MASK, " news: ", field("the market rose 3 %")),
    "glued": prompt('"', MASK, '" (', field("caf\u00e9 na\u00efve"), ")", MASK, "!"),
    "blanks": prompt("  ", field(" a \t b\n\n"), "  ", MASK, "  ", field("  "), " ."),
    "scripts": prompt(field("\u5f88\u597d\u3002\u0434\u043e\u0431\u0440\u043e \U0001f600 e\u0301"), MASK, "\u3002"),
    "nothing but the mask": prompt(MASK),
    "pair": prompt(field("The team won (again)."), SEP, " The answer is ", MASK, ", ", field("it was great"), "."),
    "pair with an empty side": prompt(MASK, SEP, ""),
    "pair with the mask first": prompt("Is it ", MASK, "?", SEP, field("yes and no")),
}


def encode(encoder: Encoder, asked: Prompt) -> EncodedPrompt:
    """The encoded prompt, which must be scorable."""
    (encoded,) = encoder.encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    return encoded


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@pytest.mark.parametrize("asked", PROMPTS.values(), ids=PROMPTS)
def test_ids_are_the_tokenizers_own(tokenizers: dict[str, Any], kind: str, asked: Prompt) -> None:
    """A prompt has the ids and segment ids that the tokenizer gives for its text with the real mask token."""
    ids, segment_ids = tokenized(tokenizers[kind], asked)
    encoder = encoder_of(tokenizers[kind])
    encoded = encode(encoder, asked)
    assert ids == encoded.input_ids.tolist()
    assert (segment_ids if encoder.uses_segment_ids else [0] * len(ids)) == encoded.segment_ids.tolist()


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_masks_are_found_by_role(tokenizers: dict[str, Any], kind: str) -> None:
    """Mask positions hold the mask token, in order, and nothing else does."""
    encoded = encode(encoder_of(tokenizers[kind]), PROMPTS["glued"])
    mask_id = tokenizers[kind].mask_token_id
    assert list(encoded.mask_positions) == np.flatnonzero(encoded.input_ids == mask_id).tolist()
    assert 2 == len(encoded.mask_positions)


def test_every_token_has_its_role(tokenizers: dict[str, Any]) -> None:
    """Literal, field, soft and mask tokens and the frame are told apart."""
    asked = prompt("it was ", field("great good"), Segment("soft", " all in"), " ", MASK, SEP, ".")
    encoded = encode(encoder_of(tokenizers["bert"]), asked)
    expected = "SPECIAL LITERAL LITERAL FIELD FIELD SOFT SOFT MASK SPECIAL LITERAL SPECIAL"
    assert expected == " ".join(Role(role).name for role in encoded.roles)


def test_a_token_across_literal_and_field_is_protected(tokenizers: dict[str, Any]) -> None:
    """A token made of text of the template and of the row is not cut."""
    encoded = encode(encoder_of(tokenizers["bert"]), prompt("gre", field("at"), " ", MASK))
    assert [Role.SPECIAL, Role.LITERAL, Role.MASK, Role.SPECIAL] == encoded.roles.tolist()


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@pytest.mark.parametrize("text", SPECIAL_STRINGS)
def test_special_strings_of_a_row_stay_text(tokenizers: dict[str, Any], kind: str, text: str) -> None:
    """A row that spells a special token adds no special token, no mask and no second frame."""
    encoder, special = encoder_of(tokenizers[kind]), set(tokenizers[kind].all_special_ids)
    plain = encode(encoder, prompt(MASK, SEP, "great"))
    for shape in ("{}", "a {} b", "great{}bad", "{}{}"):
        encoded = encode(encoder, prompt("it was ", field(shape.replace("{}", text)), " ", MASK, SEP, field(text), "."))
        text_ids = set(encoded.input_ids[np.isin(encoded.roles, [Role.LITERAL, Role.FIELD])].tolist())
        assert set() == text_ids & (special - {tokenizers[kind].unk_token_id})
        assert 1 == len(encoded.mask_positions)
        frames = [one.input_ids[one.roles == Role.SPECIAL].tolist() for one in (plain, encoded)]
        assert frames[0] == frames[1]


def test_a_vocabulary_that_holds_a_special_token_as_a_piece_is_spelled_out(tokenizers: dict[str, Any]) -> None:
    """Unigram text "</s>", whose best piece is the special token itself, is cut into other pieces, all of the row."""
    tokenizer = tokenizers["unigram"]
    assert tokenizer.sep_token_id in tokenizer("great </s> bad", add_special_tokens=False)["input_ids"]
    encoded = encode(encoder_of(tokenizer), prompt(field("great </s> bad"), MASK))
    spelled = tokenizer.convert_ids_to_tokens(encoded.input_ids[encoded.roles == Role.FIELD].tolist())
    assert "great</s>bad" == "".join(spelled).replace("\u2581", "")


@pytest.mark.parametrize("pieces", [[field(f"a {PLACEHOLDER} b")], [field("<|promptlab"), ":mask|>"]])
def test_the_placeholder_in_a_row_is_refused(tokenizers: dict[str, Any], pieces: list[Any]) -> None:
    """A row cannot write the placeholder, whole or in two pieces, and so make a mask of its own."""
    with pytest.raises(DataError, match=r"contains '<\|promptlab:mask\|>', which promptlab reserves for masks\."):
        encoder_of(tokenizers["bert"]).encode([prompt(*pieces, " ", MASK)])


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_there_is_exactly_one_frame(tokenizers: dict[str, Any], kind: str) -> None:
    """The special tokens of a prompt are those that the tokenizer puts around an empty text or an empty pair."""
    tokenizer, encoder = tokenizers[kind], encoder_of(tokenizers[kind])
    for texts, asked in (([[""]], prompt("It was ", MASK)), ([[""], [""]], prompt("It was ", MASK, SEP, "great"))):
        encoded = encode(encoder, asked)
        assert tokenizer(*texts)["input_ids"][0] == encoded.input_ids[encoded.roles == Role.SPECIAL].tolist()


def test_prompts_are_encoded_in_order(tokenizers: dict[str, Any]) -> None:
    """A batch gives what each of its prompts gives alone."""
    encoder = encoder_of(tokenizers["roberta"])
    together = encoder.encode(list(PROMPTS.values()))
    assert [encode(encoder, asked).key for asked in PROMPTS.values()] == [e.key for e in together]  # type: ignore[union-attr]  # none is Unscorable


def test_a_model_without_segment_ids_gets_zeros(tokenizers: dict[str, Any]) -> None:
    """Segment ids of a pair are 0 where the model has one type."""
    encoder = encoder_of(tokenizers["bert"], uses_segment_ids=False)
    assert {0} == set(encode(encoder, PROMPTS["pair"]).segment_ids.tolist())


def test_keys_say_what_a_prompt_holds(tokenizers: dict[str, Any]) -> None:
    """Equal ids, segments and roles have one key; another word, role, boundary, mask or segment id has another."""
    encoder = encoder_of(tokenizers["bert"])
    same = [prompt("it was ", field("great "), MASK, "."), prompt("it ", "was ", field("great"), " ", MASK, ".")]
    others = [
        prompt("it was ", field("good "), MASK, "."),
        prompt("it was great ", MASK, "."),
        prompt("it was ", field("great "), MASK, SEP, "."),
        prompt("it was ", MASK, " great."),
    ]
    keys = [encode(encoder, asked).key for asked in [*same, *others]]
    assert keys[0] == keys[1]
    assert 5 == len(set(keys))
    pair, without = (encode(e, others[2]) for e in (encoder, encoder_of(tokenizers["bert"], uses_segment_ids=False)))
    assert pair.input_ids.tolist() == without.input_ids.tolist()
    assert pair.key != without.key


def test_three_parts_are_refused(tokenizers: dict[str, Any]) -> None:
    """A prompt has at most one sentence boundary, and the message says how it is written."""
    with pytest.raises(DataError, match=r"a prompt has 3 parts: \{\{ sep \}\} may stand once in a template\."):
        encoder_of(tokenizers["bert"]).encode([prompt("a", SEP, MASK, SEP, "b")])


def test_a_tokenizer_without_a_mask_is_refused(tokenizers: dict[str, Any]) -> None:
    """A checkpoint whose tokenizer has no mask token is named as no masked language model."""
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizers["bert"].backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(ModelError, match="the tokenizer has no mask token, so the checkpoint is no masked language"):
        encoder_of(bare)


def test_a_slow_tokenizer_is_refused() -> None:
    """A tokenizer without an engine of its own file is refused with its class named."""

    class Slow:
        mask_token_id = 1
        cls_token = "[CLS]"

    with pytest.raises(ModelError, match=r"the tokenizer Slow is not a fast one \(no tokenizer\.json\)\."):
        encoder_of(Slow())


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_trainable_tokens_take_positions_and_are_never_cut(tokenizers: dict[str, Any], kind: str) -> None:
    """At every limit a prompt with trainable words is cut to the tokens that it has with these words as its text."""
    pieces = [field("great, good and no"), MASK, ". ", field("it was bad")]
    soft = prompt(Segment("soft", "it was "), *pieces, Segment("soft", " it was no"))
    hard = prompt("it was ", *pieces, " it was no")
    whole = encode(encoder_of(tokenizers[kind]), hard)
    num_soft = int((encode(encoder_of(tokenizers[kind]), soft).roles == Role.SOFT).sum())
    assert num_soft > 3
    for max_length in range(4, len(whole) + 1):
        (of_soft,), (of_hard,) = (encoder_of(tokenizers[kind], max_length=max_length).encode([p]) for p in (soft, hard))
        if isinstance(of_hard, Unscorable):
            assert of_hard == of_soft
            continue
        assert isinstance(of_soft, EncodedPrompt)
        assert of_hard.input_ids.tolist() == of_soft.input_ids.tolist()
        assert num_soft == (of_soft.roles == Role.SOFT).sum()
        assert len(of_soft) <= max_length


def test_protected_text_that_is_too_long_is_unscorable(tokenizers: dict[str, Any]) -> None:
    """Where cutting every row token would not do, the prompt is Unscorable and says why."""
    encoder = encoder_of(tokenizers["bert"], max_length=6)
    literal, fixed, fits = encoder.encode(
        [
            prompt("it was a great day ", field("good"), " ", MASK),
            prompt("it was ", field("good bad good", fixed=True), " ", MASK),
            prompt("it was ", field("good bad good"), " ", MASK),
        ]
    )
    reason = "the text that must not be cut is longer than 6 tokens"
    assert [Unscorable(reason)] * 2 == [literal, fixed]
    assert isinstance(fits, EncodedPrompt)
    assert (6, 2) == (len(fits), fits.num_truncated)


WORDS = ["great", "terrible", "good", "bad", "yes", "no", "maybe", "world", "sports", "business"]


@pytest.mark.parametrize(
    ("keeps", "orders"),
    [
        (["head"], [0]),
        (["tail"], [0]),
        (["middle"], [0]),
        (["head", "tail"], [0, 0]),
        (["middle", "head"], [1, 0]),
        (["tail", "middle", "head"], [0, 2, 1]),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_truncation_cuts_the_longest_of_the_lowest_order(
    tokenizers: dict[str, Any], kind: str, keeps: list[Any], orders: list[int]
) -> None:
    """Fields lose one token at a time, from the longest of the lowest order, at the end that they do not keep."""
    tokenizer = tokenizers[kind]
    lengths = [9, 6, 3][: len(keeps)]
    texts = [" ".join((WORDS[number:] + WORDS)[:length]) for number, length in enumerate(lengths)]
    fields = [field(text, keep=keep, order=order) for text, keep, order in zip(texts, keeps, orders, strict=True)]
    asked = prompt("it was ", *[piece for one in fields for piece in (one, ", and ")], MASK, ".")
    whole = encode(encoder_of(tokenizer), asked)
    for excess in range(sum(lengths) + 1):
        kept = truncated(lengths, excess, keeps, orders)
        left = [text.split()[place] for text, places in zip(texts, kept, strict=True) for place in places]
        cut = encode(encoder_of(tokenizer, max_length=len(whole) - excess), asked)
        row_ids = cut.input_ids[cut.roles == Role.FIELD].tolist()
        assert left == tokenizer.decode(row_ids).split()
        assert excess == cut.num_truncated


def test_truncation_leaves_no_bare_blank_before_the_mask(tokenizers: dict[str, Any]) -> None:
    """A blank of a row that would stand alone before the mask after a cut goes with what was cut."""
    asked = prompt("it was ", field("great  good"), " ", MASK, ".")
    tokenizer = tokenizers["roberta"]
    whole = encode(encoder_of(tokenizer), asked)
    assert ["\u0120great", "\u0120", "\u0120good", "<mask>"] == tokenizer.convert_ids_to_tokens(whole.input_ids)[3:7]
    cut = encode(encoder_of(tokenizer, max_length=len(whole) - 1), asked)
    assert ["\u0120great", "<mask>"] == tokenizer.convert_ids_to_tokens(cut.input_ids)[3:5]
    assert 2 == cut.num_truncated
