"""Prompts in pieces: the tokens that LM-BFF and PET hand to the model, written out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from promptlab.encoding import PLACEHOLDER, Encoder
from promptlab.errors import DataError, ModelError
from promptlab.label_words import Context, find_word_ids, slot_contexts
from promptlab.piecewise import Piece, cut_pieces
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Example, Pieces, Prompt, Role, Segment, Unscorable
from tests.oracles import FRAMES, MASK, SEP, field, prompt, truncated
from tests.tiny_models import BYTE_LEVEL, TOKENIZER_KINDS

WAYS: tuple[Pieces, ...] = ("lm_bff", "pet")
SST2 = "{{ text }} It was {{ mask }}."
MNLI = "{{ premise | drop_last_character }}? {{ mask }}, {{ hypothesis | lower_first }}"
TREC = "{{ mask }}: {{ text }}"
AG_NEWS = "{{ title }} ({{ mask }}) {{ body }}"
YELP = "{{ text }}. it was {{ mask }}."
YELP_PAIR = "it was {{ mask }}!{{ sep }} {{ text }}"
FIELDS = {
    "text": "it was great", "premise": "it was bad.", "hypothesis": "The world", "title": "great", "body": "it was",
}  # fmt: skip


def written(body: str, pieces: Pieces, **fields: Any) -> Prompt:
    """The prompt of a template for one row."""
    template = Template.from_text(body).model_copy(update={"pieces": pieces})
    return render(compile_template(template), Example("0", 0, {**FIELDS, **fields}))


def apart(asked: Prompt, pieces: Pieces) -> Prompt:
    """The same prompt, in pieces."""
    return dataclasses.replace(asked, pieces=pieces)


def encoder_of(tokenizer: Any, max_length: int = 64) -> Encoder:
    return Encoder(tokenizer, max_length=max_length, uses_segment_ids=tokenizer.cls_token == "[CLS]")


def encode(tokenizer: Any, asked: Prompt, max_length: int = 64) -> EncodedPrompt:
    """The encoded prompt, which must be scorable."""
    (encoded,) = encoder_of(tokenizer, max_length).encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    return encoded


def tokens(tokenizer: Any, asked: Prompt) -> str:
    """The tokens of a prompt as the vocabulary spells them, with a plain sign for the blank of SentencePiece."""
    ids = encode(tokenizer, asked).input_ids.tolist()
    return " ".join(tokenizer.convert_ids_to_tokens(ids)).replace("\u2581", "_")


def cut(asked: Prompt, pieces: Pieces, *, blank: str = "+") -> list[list[tuple[str, int, bool]]]:
    """Text, segment and whether it is looked up, of the pieces of segments without a boundary or around one."""
    parts: list[list[Segment]] = [[]]
    for segment in asked.segments:
        if segment.kind == "sep":
            parts.append([])
        else:
            parts[-1].append(segment)
    found = cut_pieces(parts, pieces, mask="<>", blank=blank)
    assert all(len(one.text) == len(one.owners) and len(set(one.owners)) == 1 for part in found for one in part)
    return [[(one.text, one.owners[0], one.is_looked_up) for one in part] for part in found]


@pytest.mark.parametrize(
    ("expected", "asked"),
    [
        ([("a", 0, False), (" It was", 1, False), ("<>", 2, False), (".", 3, True)],
         prompt(field("a"), " It was ", MASK, ".")),
        ([("<>", 0, False), (":", 1, True), (" a", 2, False)], prompt(MASK, ": ", field("a"))),
        ([("a ", 0, False), ("?", 1, True), ("<>", 2, False)], prompt(field("a "), "?  ", MASK)),
        ([("a", 0, False), ("  b", 2, False), ("<>", 4, False)], prompt(field("a"), "  ", field("b"), " ", MASK)),
        ([("x", 0, True), (" ", 1, False), ("y", 2, True), ("<>", 3, False)], prompt("x ", field(""), "y", MASK)),
        ([("a", 0, True), (" it was", 1, False), ("<>", 2, False)], prompt("a ", Segment("soft", "it was "), MASK)),
        ([("b", 0, False), ("<>", 1, False)], prompt(Segment("soft", "b"), MASK)),
        ([("<>", 0, False), ("\n", 1, True), ("a", 2, False)], prompt(MASK, "\n", field("a"))),
        ([("<>", 0, False), ("it was", 1, False)], prompt(MASK, "it was ")),
    ],
)  # fmt: skip
def test_lm_bff_gives_a_blank_to_the_field_behind_it_and_none_to_a_mask(
    expected: list[tuple[str, int, bool]], asked: Prompt
) -> None:
    """Each segment is apart, a literal of one character is looked up, and no blank is left at the end of a literal."""
    assert [expected] == cut(asked, "lm_bff")


def test_lm_bff_cuts_both_sides_of_a_boundary_alike() -> None:
    """Segments are numbered through the prompt, and a blank does not cross the boundary."""
    asked = prompt(field("a"), " b ", SEP, field("c"), " ", MASK, SEP)
    expected = [[("a", 0, False), (" b", 1, False)], [("c", 3, False), ("<>", 5, False)], []]
    assert expected == cut(asked, "lm_bff")


@pytest.mark.parametrize(
    ("expected", "asked"),
    [
        (["+a", "+. It was", "<>", "+."], prompt(field("a"), ". It was ", MASK, ".")),
        (["+It was", "<>", "+.", "+a"], prompt("It was ", MASK, ". ", field("a"))),
        (["+a", "+(", "<>", "+)", "+b"], prompt(field("a"), " ( ", MASK, " ) ", field("b"))),
        (["<>", "+a", " b", "\tc"], prompt(MASK, "  ", field("a"), " ", field(" b"), field("\tc"))),
        (["+a", "+it was", "<>"], prompt(field(""), field("a"), Segment("soft", " it was "), MASK, " ")),
    ],
)
def test_pet_puts_a_blank_before_every_piece_and_takes_those_around_literals(
    expected: list[str], asked: Prompt
) -> None:
    """Text that is empty is no piece, a field that begins with a blank gets no second one, a mask none."""
    (found,) = cut(asked, "pet")
    assert expected == [text for text, _, _ in found]
    assert not any(is_looked_up for _, _, is_looked_up in found)


def test_pet_makes_no_pair_of_an_empty_second_side() -> None:
    """A second side without text is dropped; an empty first side stays."""
    assert 1 == len(cut(prompt("a", MASK, SEP, " ", field("")), "pet"))
    assert [[], ["<>"]] == [[text for text, _, _ in part] for part in cut(prompt(field(""), SEP, MASK), "pet")]
    assert [[]] == cut_pieces([[]], "pet", mask="<>", blank=" ")


def test_a_whole_prompt_is_one_piece_a_side() -> None:
    """Each character knows its segment, and a side without text is an empty one."""
    found = cut_pieces([[Segment("field", "ab"), MASK], []], "whole", mask="<>", blank=" ")
    assert [[Piece("ab<>", [0, 0, 1, 1])], [Piece("", [])]] == found


@pytest.mark.parametrize(
    ("kind", "pieces", "expected", "text"),
    [
        ("roberta", "lm_bff", "<s> it Ġwas Ġgreat Ġ I t Ġwas <mask> . </s>", SST2),
        ("roberta", "pet", "<s> Ġit Ġwas Ġgreat Ġ I t Ġwas <mask> Ġ. </s>", SST2),
        ("roberta", "lm_bff", "<s> it Ġwas Ġbad ? <mask> , Ġthe Ġworld </s>", MNLI),
        ("roberta", "pet", "<s> Ġit Ġwas Ġbad Ġ? <mask> Ġ, Ġthe Ġworld </s>", MNLI),
        ("roberta", "lm_bff", "<s> <mask> : Ġit Ġwas Ġgreat </s>", TREC),
        ("roberta", "pet", "<s> <mask> Ġ : Ġit Ġwas Ġgreat </s>", TREC),
        ("roberta", "lm_bff", "<s> great Ġ( <mask> ) Ġit Ġwas </s>", AG_NEWS),
        ("roberta", "pet", "<s> Ġgreat Ġ( <mask> Ġ ) Ġit Ġwas </s>", AG_NEWS),
        ("roberta", "pet", "<s> Ġit Ġwas Ġgreat Ġ. Ġit Ġwas <mask> Ġ. </s>", YELP),
        ("roberta", "pet", "<s> Ġit Ġwas <mask> Ġ! </s> </s> Ġit Ġwas Ġgreat </s>", YELP_PAIR),
        ("roberta", "lm_bff", "<s> it Ġwas <mask> ! </s> Ġit Ġwas Ġgreat </s>", YELP_PAIR),
        ("modernbert", "pet", "<s> Ġit Ġwas Ġgreat Ġ. Ġit Ġwas <mask> Ġ. </s>", YELP),
        ("bert", "lm_bff", "[CLS] it was bad ? [MASK] , the world [SEP]", MNLI),
        ("bert", "pet", "[CLS] it was bad ? [MASK] , the world [SEP]", MNLI),
        ("bert_cased", "lm_bff", "[CLS] it was great I ##t was [MASK] . [SEP]", SST2),
        ("bert_cased", "pet", "[CLS] it was [MASK] ! [SEP] it was great [SEP]", YELP_PAIR),
        ("xlm_roberta", "lm_bff", "<s> _it _was _great _It _was <mask> . </s>", SST2),
        ("xlm_roberta", "pet", "<s> _it _was _great _It _was <mask> _ . </s>", SST2),
        ("xlm_roberta", "lm_bff", "<s> _it _was _great _ . _it _was <mask> . </s>", YELP),
        ("xlm_roberta", "pet", "<s> _it _was <mask> _ ! </s> </s> _it _was _great </s>", YELP_PAIR),
        ("albert", "lm_bff", "[CLS] _it _was <mask> ! [SEP] _it _was _great [SEP]", YELP_PAIR),
        ("albert", "pet", "[CLS] _it _was _bad _ ? [MASK] _ , _th e _world [SEP]", MNLI),
        ("deberta_v2", "lm_bff", "[CLS] _it _was _great _It _was [MASK] . [SEP]", SST2),
    ],
)
def test_tokens_are_those_of_the_programs(
    tokenizers: dict[str, Any], kind: str, pieces: Pieces, expected: str, text: str
) -> None:
    """Published templates of LM-BFF and PET, piece by piece, in byte-level, WordPiece and Unigram vocabularies."""
    asked = written(text, pieces)
    expected = expected.replace("<mask>", tokenizers[kind].mask_token)
    assert expected == tokens(tokenizers[kind], asked)


def test_a_blank_before_the_mask_is_never_written(tokenizers: dict[str, Any]) -> None:
    """However many blanks a template has there, LM-BFF has none, and PET takes those of literals."""
    for blanks in ("", " ", "   "):
        for pieces, first in (("lm_bff", "it Ġwas"), ("pet", "Ġit Ġwas")):
            asked = written(f"it was{blanks}{{{{ mask }}}}", pieces)  # type: ignore[arg-type]  # a literal of two
            assert f"<s> {first} <mask> </s>" == tokens(tokenizers["roberta"], asked)


def test_a_sign_that_the_vocabulary_does_not_hold_is_the_unknown_token(tokenizers: dict[str, Any]) -> None:
    """LM-BFF asks for a character as it stands, so a capital of an uncased vocabulary is unknown; two are text."""
    assert "[CLS] [MASK] [UNK] [SEP]" == tokens(tokenizers["bert"], apart(prompt(MASK, "A"), "lm_bff"))
    assert "[CLS] [MASK] a . [SEP]" == tokens(tokenizers["bert"], apart(prompt(MASK, "A."), "lm_bff"))
    assert "[CLS] [MASK] a [SEP]" == tokens(tokenizers["bert"], apart(prompt(MASK, field("A")), "lm_bff"))
    assert "[CLS] [MASK] a [SEP]" == tokens(tokenizers["bert"], apart(prompt(MASK, "A"), "pet"))


def test_an_empty_field_keeps_literals_apart(tokenizers: dict[str, Any]) -> None:
    """Where a field is empty the texts around it are two pieces still; LM-BFF writes the blank before it."""
    body = "it {{ text }}great {{ mask }}"
    assert "<s> it Ġ great <mask> </s>" == tokens(tokenizers["roberta"], written(body, "lm_bff", text=""))
    assert "<s> Ġit Ġgreat <mask> </s>" == tokens(tokenizers["roberta"], written(body, "pet", text=""))
    assert "<s> it Ġgreat <mask> </s>" == tokens(tokenizers["roberta"], written(body, "whole", text=""))
    glued = body.replace(" {{ text", "{{ text")
    assert "<s> Ġit Ġgreat <mask> </s>" == tokens(tokenizers["roberta"], written(glued, "pet", text=""))


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_the_blank_of_pet_is_found_by_asking_the_tokenizer(tokenizers: dict[str, Any], kind: str) -> None:
    """Byte-level vocabularies take a blank before a piece, WordPiece and SentencePiece do not."""
    encoder = encoder_of(tokenizers[kind])
    spaced = [encoder.tokens(text) for text in ("great", " great")]
    is_byte_level = kind in (*BYTE_LEVEL, "roberta_trimmed")
    assert is_byte_level == (spaced[0] != spaced[1])
    assert spaced[is_byte_level] == encoder.word_tokens("great", "pet")
    assert (" " if is_byte_level else "") == encoder._probe_blank()


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_segments_of_a_pair(tokenizers: dict[str, Any], kind: str) -> None:
    """PET's pair has the tokenizer's own frame and segment ids; LM-BFF's one separator and a single segment."""
    tokenizer = tokenizers[kind]
    prefix, between, suffix = FRAMES[kind]
    for pieces, middle in (("lm_bff", [tokenizer.sep_token]), ("pet", between)):
        encoded = encode(tokenizer, apart(prompt("it was ", MASK, SEP, "great good"), pieces))  # type: ignore[arg-type]  # a literal of two
        special = encoded.input_ids[encoded.roles == Role.SPECIAL].tolist()
        assert [*prefix, *middle, *suffix] == tokenizer.convert_ids_to_tokens(special)
        num_first = encoded.mask_positions[0] + 1 + len(middle)
        has_two = pieces == "pet" and tokenizer.cls_token == "[CLS]"
        assert [0] * num_first + [int(has_two)] * (len(encoded) - num_first) == encoded.segment_ids.tolist()


def test_every_token_has_the_role_of_its_piece(tokenizers: dict[str, Any]) -> None:
    """A blank that a field takes over is the row's, text of the template stays protected."""
    asked = prompt(field("great"), " it was ", MASK, ", ", field("good"), Segment("soft", " all in"), SEP, ".")
    expected = "SPECIAL FIELD LITERAL LITERAL MASK LITERAL FIELD SOFT SOFT SPECIAL LITERAL SPECIAL"
    encoded = encode(tokenizers["roberta"], apart(asked, "lm_bff"))
    assert expected == " ".join(Role(role).name for role in encoded.roles)
    encoded = encode(tokenizers["bert"], apart(asked, "pet"))
    assert expected == " ".join(Role(role).name for role in encoded.roles)


@pytest.mark.parametrize("pieces", WAYS)
def test_truncation_keeps_the_mask_and_the_template(tokenizers: dict[str, Any], pieces: Pieces) -> None:
    """Row tokens go from the tail of the longest field until the prompt fits; protected text is never cut."""
    asked = apart(prompt(field("it was great good bad"), " It was ", MASK, ", ", field("yes no")), pieces)
    whole = encode(tokenizers["roberta"], asked)
    row = whole.input_ids[whole.roles == Role.FIELD].tolist()
    assert ["\u0120yes", "\u0120no"] == tokenizers["roberta"].convert_ids_to_tokens(row[-2:])
    for excess in range(1, len(row) + 1):
        encoded = encode(tokenizers["roberta"], asked, len(whole) - excess)
        assert (len(whole) - excess, excess) == (len(encoded), encoded.num_truncated)
        first, second = truncated([5, 2], excess, ["head", "head"], [0, 0])
        left = [row[place] for place in first] + [row[5 + place] for place in second]
        assert left == encoded.input_ids[encoded.roles == Role.FIELD].tolist()
        protected = [one.input_ids[one.roles != Role.FIELD].tolist() for one in (whole, encoded)]
        assert protected[0] == protected[1]
    (too_long,) = encoder_of(tokenizers["roberta"], len(whole) - len(row) - 1).encode([asked])
    assert isinstance(too_long, Unscorable)


@pytest.mark.parametrize("pieces", WAYS)
def test_a_cut_goes_through_no_character_of_any_piece(tokenizers: dict[str, Any], pieces: Pieces) -> None:
    """A letter goes with its accent in a later piece too, and a blank does not stay alone before the mask."""
    tokenizer = tokenizers["roberta"]
    asked = apart(prompt("it was ", MASK, ", ", field("yes e\u0301")), pieces)
    whole = encode(tokenizer, asked)
    assert ["\u0120", "e"] == tokenizer.convert_ids_to_tokens(whole.input_ids)[-5:-3]
    cut_once = encode(tokenizer, asked, len(whole) - 1)
    assert 3 == cut_once.num_truncated
    assert ["\u0120yes", "\u0120"] == tokenizer.convert_ids_to_tokens(cut_once.input_ids)[-3:-1]
    asked = apart(prompt("it was ", field("great  good"), MASK), pieces)
    cut_once = encode(tokenizer, asked, len(encode(tokenizer, asked)) - 1)
    assert ["\u0120great", "<mask>", "</s>"] == tokenizer.convert_ids_to_tokens(cut_once.input_ids)[-3:]


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@pytest.mark.parametrize("pieces", WAYS)
@pytest.mark.parametrize("text", ["[MASK]", "<mask>", "</s>", "great [SEP] bad", "<s><pad>", "[UNK]"])
def test_special_strings_of_a_row_stay_text(tokenizers: dict[str, Any], kind: str, pieces: Pieces, text: str) -> None:
    """A row that spells a special token adds no special token, no mask and no second frame."""
    tokenizer = tokenizers[kind]
    plain = encode(tokenizer, apart(prompt(MASK, SEP, "great"), pieces))
    asked = prompt(field(text), " It was ", MASK, ". ", field(f"{text}{text}"), SEP, field(text))
    encoded = encode(tokenizer, apart(asked, pieces))
    text_ids = set(encoded.input_ids[encoded.roles == Role.FIELD].tolist())
    assert set() == text_ids & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
    assert 1 == len(encoded.mask_positions)
    frames = [one.input_ids[one.roles == Role.SPECIAL].tolist() for one in (plain, encoded)]
    assert frames[0] == frames[1]


@pytest.mark.parametrize("pieces", WAYS)
def test_the_placeholder_in_a_row_is_refused(tokenizers: dict[str, Any], pieces: Pieces) -> None:
    """A row cannot make a mask of its own, in one text or in two that touch."""
    for texts in ([f"a {PLACEHOLDER}"], ["<|promptlab", ":mask|>"]):
        with pytest.raises(DataError, match=r"contains '<\|promptlab:mask\|>', which promptlab reserves for masks\."):
            encode(tokenizers["bert"], apart(prompt(*map(field, texts), " ", MASK), pieces))


@pytest.mark.parametrize("pieces", WAYS)
def test_three_parts_are_refused(tokenizers: dict[str, Any], pieces: Pieces) -> None:
    """A prompt has at most one sentence boundary here too."""
    with pytest.raises(DataError, match=r"a prompt has 3 parts: \{\{ sep \}\} may stand once in a template\."):
        encode(tokenizers["bert"], apart(prompt("a", SEP, MASK, SEP, "b"), pieces))


def test_a_pair_of_lm_bff_needs_a_separator() -> None:
    """A tokenizer without one is named; alone, a text is encoded."""
    from tests.tiny_models import build_tokenizer

    tokenizer = build_tokenizer("bert")
    tokenizer.sep_token = None
    assert "[CLS] [MASK] great [SEP]" == tokens(tokenizer, apart(prompt(MASK, "great"), "lm_bff"))
    with pytest.raises(ModelError, match="no token to separate sentences, which pieces: lm_bff needs for a pair"):
        encode(tokenizer, apart(prompt(MASK, SEP, "great"), "lm_bff"))


def word(tokenizer: Any, asked: Prompt, text: str) -> str:
    """The token of a label word, as the vocabulary spells it, or why it has none."""
    found = find_word_ids(encoder_of(tokenizer), [text], [slot_contexts(asked)])[text]
    if isinstance(found, str) or found.is_split:
        return found if isinstance(found, str) else found.split
    return str(tokenizer.convert_ids_to_tokens(found.pieces[0])).replace("\u2581", "_")


@pytest.mark.parametrize(
    ("expected", "kind", "pieces", "text"),
    [
        ("\u0120great", "roberta", "lm_bff", "great"),
        ("\u0120great", "roberta", "pet", "great"),
        (".", "roberta", "lm_bff", "."),
        ("\u0120.", "roberta", "pet", "."),
        (",", "roberta", "lm_bff", ","),
        ("great", "bert", "lm_bff", "great"),
        ("great", "bert", "pet", "great"),
        ("yes", "bert", "pet", "Yes"),
        ("_great", "xlm_roberta", "lm_bff", "great"),
        ("_great", "xlm_roberta", "pet", "great"),
        ("_great", "deberta_v2", "lm_bff", "great"),
        ("_great", "deberta_v2", "pet", "great"),
        (".", "albert", "lm_bff", "."),
    ],
)
def test_a_label_word_is_looked_up_by_itself(
    tokenizers: dict[str, Any], expected: str, kind: str, pieces: Pieces, text: str
) -> None:
    """The token with the blank, wherever the mask stands; of LM-BFF's words that begin with `<[.,` as it is written."""
    for asked in (prompt(MASK, ": ", field("a")), prompt("(", MASK, ")"), prompt(field("a"), MASK, field("b"))):
        assert expected == word(tokenizers[kind], apart(asked, pieces), text)


def test_a_label_word_in_pieces_is_refused_with_its_reason(tokenizers: dict[str, Any]) -> None:
    """A word of several tokens, one that the vocabulary does not hold, and a special token."""
    asked = {pieces: apart(prompt("it was ", MASK, "."), pieces) for pieces in WAYS}
    split = "splits into 3 tokens (good ##n ##ess) in"
    for pieces, shown in (("lm_bff", "' ___' (pieces: lm_bff)"), ("pet", "'___' (pieces: pet)")):
        assert f"{split} {shown}" == word(tokenizers["bert"], asked[pieces], "goodness")  # type: ignore[index]  # one of two
    expected = "label word '.com' is unknown to the tokenizer (it becomes <unk>)."
    assert expected == word(tokenizers["roberta"], asked["lm_bff"], ".com")
    expected = "label word '<mask>' is unknown to the tokenizer (it becomes <mask>)."
    assert expected == word(tokenizers["roberta"], asked["lm_bff"], "<mask>")
    expected = f"label word '{PLACEHOLDER}' is unknown to the tokenizer (it becomes <unk>)."
    assert expected == word(tokenizers["roberta"], asked["lm_bff"], PLACEHOLDER)


def test_a_context_is_stored_and_made_again() -> None:
    """What is stored of a slot says how its words are looked up; of a whole prompt it has three texts as ever."""
    for pieces in WAYS:
        (context,) = slot_contexts(apart(prompt(field("a"), MASK, field("b")), pieces))
        again = Context(*context.stored())  # type: ignore[arg-type]  # a list of texts and a truth value
        assert (context, pieces, True) == (again, again.pieces, again.is_literal)
    (context,) = slot_contexts(prompt("it was ", MASK, "."))
    assert ["x ", ".", "'\u2026 ___.'"] == context.stored()
    assert 2 == len(slot_contexts(apart(prompt(MASK, SEP, MASK), "pet")))
