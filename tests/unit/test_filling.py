"""Words of several tokens, each rule against an oracle of a few lines that asks the plain model one text at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from promptlab.answering import Words, answer
from promptlab.batching import BatchSize
from promptlab.block_scores import BlockScores
from promptlab.filling import (
    Rule,
    asked_at,
    count_fills,
    count_missing_fills,
    fill_prompt,
    plain_tokens,
    reserve_of,
    rule_of,
    walk,
    word_sums,
)
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.scoring import score_fills, score_prompts
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Fill, FillScores, Prompt, WordTokens
from promptlab.verbalizing import log_mass
from tests.oracles import MASK, SEP, SlotOracle, field, prompt
from tests.stored import key_array

RULES: tuple[Rule, ...] = ("independent", "left_to_right", "pet", "first_token")
SIZE = BatchSize(None, 3)
PROMPTS = [
    prompt(field("the team won (again)"), " It was ", MASK, "."),
    prompt(field("no, it was bad"), " It was ", MASK, "."),
    prompt(field("yes " * 20), " It was ", MASK, "."),
]
PAIRS = [prompt(field("it was bad"), SEP, MASK, ", ", field("so it was ", fixed=True), MASK, ".")]
WORDS = {"one": "great", "several": "goodness", "more": "unbelievable", "other": "badness"}


def words_of(encoder: Any, asked: Prompt, words: Sequence[str]) -> dict[str, WordTokens]:
    found = find_word_ids(encoder, words, [slot_contexts(asked)])
    assert all(isinstance(one, WordTokens) for one in found.values()), found
    return {word: one for word, one in found.items() if isinstance(one, WordTokens)}


def verbalizer_of(words: Sequence[str], rule: str, **more: Any) -> Verbalizer:
    labels = {f"label {number}": word for number, word in enumerate(words)}
    return Verbalizer.from_labels(labels, multi_token=rule, name="words", **more)  # type: ignore[arg-type]  # a rule


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["bert_cased", "modernbert", "bert_chinese"])
def test_a_word_of_several_tokens_is_scored_by_its_rule(
    backends: dict[str, Any], models: dict[str, Any], kind: str, rule: Rule
) -> None:
    """Whatever the rule, batched scores are those of one plain forward after the other; see also `tests/support.py`."""
    backend, encoder = backends[kind], backends[kind].encoder(None)
    words = ["好", "好看", "体育新闻", "很差"] if kind == "bert_chinese" else list(WORDS.values())
    verbalizer = verbalizer_of(words, rule)
    tokens = words_of(encoder, PROMPTS[0], words)
    found = answer(backend, encoder, PROMPTS, [Words(verbalizer, tokens)], batch_size=SIZE).answers[0]
    lengths = [len(one.pieces) for one in tokens.values()]
    assert 1 == lengths[0] and max(lengths) > 2
    reserve = 0 if rule == "first_token" else max(lengths) - 1
    for row, encoded in enumerate(encoder.encode(PROMPTS, reserve=reserve)):
        oracle = SlotOracle(models[kind], encoded, encoder.mask_id)
        expected = [oracle.word(one.slots, rule) for one in tokens.values()]
        np.testing.assert_allclose(found.sums[row], expected, atol=3e-5, rtol=0)
    np.testing.assert_array_equal(found.sums, found.scores)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_two_masks_have_a_word_each(backends: dict[str, Any], models: dict[str, Any], kind: str, rule: Rule) -> None:
    """Words of any number of tokens go into several slots, in a pair of texts too; the rule goes over all of them."""
    backend, encoder = backends[kind], backends[kind].encoder(None)
    words = ["great + bad", "goodness + no", "yes + badness"]
    tokens = words_of(encoder, PAIRS[0], words)
    assert [2, 2, 2] == [len(one.slots) for one in tokens.values()]
    verbalizer = verbalizer_of(words, rule)
    found = answer(backend, encoder, PAIRS, [Words(verbalizer, tokens)], batch_size=SIZE).answers[0]
    reserve = reserve_of(tokens.values(), rule)
    (encoded,) = encoder.encode(PAIRS, reserve=reserve)
    oracle = SlotOracle(models[kind], encoded, encoder.mask_id)
    np.testing.assert_allclose(found.sums[0], [oracle.word(t.slots, rule) for t in tokens.values()], atol=3e-5, rtol=0)


def test_rules_differ_where_a_word_has_several_tokens(backends: dict[str, Any]) -> None:
    """The four rules are four numbers for a word of several tokens, and one number for a word of one."""
    backend, encoder = backends["bert"], backends["bert"].encoder(None)
    words = list(WORDS.values())
    tokens = words_of(encoder, PROMPTS[0], words)
    asked = [Words(verbalizer_of(words, rule), tokens) for rule in RULES]
    found = [one.sums[0] for one in answer(backend, encoder, PROMPTS[:1], asked, batch_size=SIZE).answers]
    for other in found[1:]:
        assert found[0][0] == pytest.approx(other[0], abs=1e-5)
    for column in (1, 2):
        values = [one[column] for one in found]
        assert len({round(value, 3) for value in values}) == 4, values


def test_normalize_divides_by_the_number_of_tokens(backends: dict[str, Any]) -> None:
    """With `mean` the score is the mean over tokens, the sum over what was asked for; of one token it is the same."""
    backend, encoder, words = backends["bert"], backends["bert"].encoder(None), list(WORDS.values())
    tokens = words_of(encoder, PROMPTS[0], words)
    for rule in RULES:
        verbalizer = verbalizer_of(words, rule, normalize="mean")
        found = answer(backend, encoder, PROMPTS[:1], [Words(verbalizer, tokens)], batch_size=SIZE).answers[0]
        numbers = [1 if rule == "first_token" else len(one.pieces) for one in tokens.values()]
        np.testing.assert_allclose(found.scores[0] * numbers, found.sums[0], rtol=1e-12)


def test_prompts_leave_room_for_the_longest_word(backends: dict[str, Any]) -> None:
    """No filled prompt is longer than the limit, all words of a verbalizer see one text, and others see theirs."""
    encoder = backends["bert"].encoder(24)
    words = list(WORDS.values())
    tokens = words_of(encoder, PROMPTS[0], words)
    longest = max(len(one.pieces) for one in tokens.values())
    (encoded,) = encoder.encode([PROMPTS[2]], reserve=reserve_of(tokens.values(), "pet"))
    (plain,) = encoder.encode([PROMPTS[2]])
    assert (24, 24 - longest + 1) == (len(plain), len(encoded))
    filled = fill_prompt(encoded, Fill(((None,) * longest,)), [(0, 5)], mask_id=encoder.mask_id)
    assert 24 == len(filled)
    assert 0 == reserve_of(tokens.values(), "first_token") == reserve_of([tokens["great"]], "pet")
    (too_long,) = encoder.encode([prompt("it was " * 10, MASK)], reserve=4)
    expected = "the text that must not be cut is longer than 24 tokens, 4 of them left free for the longest label word"
    assert expected == too_long.reason


def test_every_verbalizer_reads_the_prompts_that_leave_room_for_its_own_words(backends: dict[str, Any]) -> None:
    """Asked together or alone, in prompts that are cut, the answers are the same."""
    backend, encoder = backends["bert"], backends["bert"].encoder(16)
    asked = [
        Words(verbalizer_of(words, rule), words_of(encoder, PROMPTS[0], words))
        for words, rule in (
            (["goodness", "bad"], "pet"),
            (["great", "bad"], "independent"),
            (["unbelievable", "no"], "pet"),
        )
    ]
    together = answer(backend, encoder, PROMPTS, asked, batch_size=SIZE).answers
    for one, found in zip(asked, together, strict=True):
        (alone,) = answer(backend, encoder, PROMPTS, [one], batch_size=SIZE).answers
        np.testing.assert_allclose(found.sums, alone.sums, atol=1e-5, rtol=0)
    assert abs(together[0].sums[2, 1] - together[1].sums[2, 1]) > 1e-4


def test_a_fill_stands_where_the_mask_stood(backends: dict[str, Any]) -> None:
    """Pieces and masks take the place of each slot's mask, the segment ids go on, and questions find their token."""
    encoder = backends["bert"].encoder(None)
    (encoded,) = encoder.encode(PAIRS)
    mask = encoder.mask_id
    filled = fill_prompt(encoded, Fill(((7, None), (None, 8, 9))), [(1, 70), (2, 80), (4, 90)], mask_id=mask)
    first, second = encoded.mask_positions
    ids = encoded.input_ids.tolist()
    assert [
        *ids[:first],
        7,
        mask,
        *ids[first + 1 : second],
        mask,
        8,
        9,
        *ids[second + 1 :],
    ] == filled.input_ids.tolist()
    types = encoded.segment_ids.tolist()
    one, other = types[first], types[second]
    assert [*types[:first], one, one, *types[first + 1 : second], *[other] * 3, *types[second + 1 :]] == (
        filled.segment_ids.tolist()
    )
    assert (first + 1, second + 1, second + 3) == filled.asked
    assert ((1, 2, 4), (70, 80, 90), encoded.key) == (filled.positions, filled.token_ids, filled.key)


WORD = WordTokens(((4, 5, 6),))
KEYS = key_array(["a" * 32, "b" * 32])


def answered(values: dict[tuple[tuple[int | None, ...], int, int], Sequence[float]]) -> BlockScores:
    """What is known about the two prompts: by fill of one slot, position and token, a number for each prompt."""
    parts = [
        FillScores(
            keys=("a" * 32, "b" * 32),
            fills=(Fill((slot,)),) * 2,
            positions=np.full(2, position, dtype=np.int32),
            token_ids=np.full(2, token, dtype=np.int32),
            log_probs=np.array(numbers, dtype=np.float32),
        )
        for (slot, position, token), numbers in values.items()
    ]
    return BlockScores().with_fills(parts)


MASKED = (None, None, None)
FIRST = {(MASKED, 0, 4): (-1.0, -3.0), (MASKED, 1, 5): (-2.0, -1.0), (MASKED, 2, 6): (-3.0, -2.0)}


def test_pet_puts_the_likeliest_token_in_place_first_prompt_by_prompt() -> None:
    """By hand: the first prompt is sure of token 4, the second of token 5; each goes on from there."""
    known = answered(
        {
            **FIRST,
            ((4, None, None), 1, 5): (-0.5, np.nan), ((4, None, None), 2, 6): (-0.25, np.nan),
            ((4, None, 6), 1, 5): (-0.125, np.nan),
            ((None, 5, None), 0, 4): (np.nan, -0.5), ((None, 5, None), 2, 6): (np.nan, -1.5),
            ((4, 5, None), 2, 6): (np.nan, -0.75),
        }
    )  # fmt: skip
    found = walk(WORD, "pet", KEYS, known)
    assert [-1 - 0.25 - 0.125, -1 - 0.5 - 0.75] == found.log_probs.tolist()
    assert [0, 1, 1, 2, 2] == [one.depth for one in found.asked]
    assert not any(one.is_missing.any() for one in found.asked)
    assert 0 == count_missing_fills([(WORD, "pet")], KEYS, known)


def test_pet_waits_for_what_its_way_depends_on() -> None:
    """Nothing further is asked before the masks are scored; then each prompt asks about its own fill."""
    assert [MASKED] == [one.fill.slots[0] for one in walk(WORD, "pet", KEYS, BlockScores()).asked]
    assert np.isnan(walk(WORD, "pet", KEYS, BlockScores()).log_probs).all()
    after = asked_at([(WORD, "pet")], KEYS, answered(FIRST), 1)
    assert after is not None
    assert {(4, None, None): [0], (None, 5, None): [1]} == {one.fill.slots[0]: one.rows.tolist() for one in after}
    assert 2 + 2 * 2 == count_missing_fills([(WORD, "pet")], KEYS, BlockScores())
    assert asked_at([(WORD, "pet")], KEYS, BlockScores(), 1) is None


def test_left_to_right_is_known_beforehand() -> None:
    """Its fills depend on the word alone, so all of them are asked for at once, depth by depth."""
    asked = walk(WORD, "left_to_right", KEYS, BlockScores()).asked
    assert [MASKED, (4, None, None), (4, 5, None)] == [one.fill.slots[0] for one in asked]
    assert [(0,), (1,), (2,)] == [one.positions for one in asked]
    assert [(4,), (5,), (6,)] == [one.token_ids for one in asked]
    assert 3 * 2 == count_missing_fills([(WORD, "left_to_right")], KEYS, BlockScores())


def test_words_share_fills() -> None:
    """Words of one length share the masks, words of one beginning the fills after it; each counts once."""
    words = [WordTokens((pieces,)) for pieces in ((4, 5, 6), (4, 5, 7), (4, 8), (9,))]
    assert {"independent": 2, "left_to_right": 2 + 2 + 1, "pet": 2 + 2 + 2 + 1, "first_token": 0} == {
        rule: count_fills([(word, rule) for word in words]) for rule in RULES
    }
    assert 4 == count_fills([(word, "original") for word in words])
    assert {9} == plain_tokens(words, "independent")
    assert {4, 9} == plain_tokens(words, "first_token")
    assert set() == plain_tokens(words, "original")


def test_a_detector_is_asked_about_whole_words() -> None:
    """Every piece stands in its place and is asked about; what is summed is log p(original)."""
    known = answered({((4, 5, 6), place, token): (-float(token), -1.0) for place, token in enumerate((4, 5, 6))})
    found = walk(WORD, "original", KEYS, known)
    assert [-15.0, -3.0] == found.log_probs.tolist()
    assert [((0, 1, 2), (4, 5, 6))] == [(one.positions, one.token_ids) for one in found.asked]
    assert "original" == rule_of(verbalizer_of(["a", "b"], "pet"), "replaced_token")
    assert "independent" == rule_of(verbalizer_of(["a", "b"], "refuse"), "mask")


def test_rows_without_a_prompt_stay_unknown() -> None:
    """A row that cannot be scored has no number, and costs none of the others theirs."""
    known = answered({((4, 5, 6), place, token): (-1.0, -2.0) for place, token in enumerate((4, 5, 6))})
    sums = word_sums(known, key_array(["b" * 32, "", "a" * 32]), [WORD], "original")
    np.testing.assert_array_equal([[-6.0], [np.nan], [-3.0]], sums)


def test_mass_is_there_only_where_words_answer_one_question() -> None:
    """Words of one length have a mass together; of unlike lengths, in the order of pet, or in place they have none."""
    same = [WordTokens(((4, 5),)), WordTokens(((4, 6),)), WordTokens(((4, 5),))]
    sums = np.log([[0.1, 0.2, 0.1]])
    assert [0.1 + 0.2] == pytest.approx(np.exp(log_mass(sums, same, "left_to_right")))
    assert [0.1 + 0.2] == pytest.approx(np.exp(log_mass(sums, same, "independent")))
    assert [0.1] == pytest.approx(np.exp(log_mass(np.log([[0.1, 0.1, 0.1]]), same, "first_token")))
    for words, rule in ((same, "pet"), (same, "original"), ([*same[:2], WordTokens(((4,),))], "independent")):
        assert np.isnan(log_mass(sums, words, rule)).all()  # type: ignore[arg-type]  # a rule
    assert [0.3] == pytest.approx(np.exp(log_mass(np.log([[0.1, 0.2]]), [WordTokens(((4,),)), WORD_OF_5], "pet")))


WORD_OF_5 = WordTokens(((5,),))


def test_mass_is_of_words_that_fill_the_slots_alike() -> None:
    """As many tokens, but not in the same slots, are another question; so is no word at all."""
    apart = [WordTokens(((4, 5), (6,))), WordTokens(((4,), (5, 6)))]
    alike = [WordTokens(((4, 5), (6,))), WordTokens(((7, 5), (6,)))]
    sums = np.log([[0.1, 0.2]])
    for rule in ("independent", "left_to_right"):
        assert np.isnan(log_mass(sums, apart, rule)).all()  # type: ignore[arg-type]  # a rule
        assert [0.1 + 0.2] == pytest.approx(np.exp(log_mass(sums, alike, rule)))  # type: ignore[arg-type]  # a rule
    assert [0.1] == pytest.approx(np.exp(log_mass(np.log([[0.1, 0.1]]), apart[:1] * 2, "first_token")))
    for rule in (*RULES, "original"):
        assert [True, True] == np.isnan(log_mass(np.zeros((2, 0)), [], rule)).tolist()  # type: ignore[arg-type]  # a rule


def test_plain_masks_are_scored_only_where_a_word_asks(
    backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words that are all of several tokens cost their fills and no forward pass beside them."""
    backend, encoder = backends["bert"], backends["bert"].encoder(None)
    seen: list[int] = []
    monkeypatch.setattr("promptlab.answering.score_prompts", lambda *args, **options: seen.append(1) or [])
    for words, number in ((["goodness", "badness"], 0), (["goodness", "great"], 1)):
        asked = Words(verbalizer_of(words, "independent"), words_of(encoder, PROMPTS[0], words))
        found = answer(backend, encoder, PROMPTS, [asked], batch_size=SIZE)
        assert ((), (), number) == (found.encoded, found.masks, len(seen))


@pytest.mark.parametrize("rule", ["independent", "left_to_right", "pet"])
def test_fills_are_planned_from_all_that_is_asked(backends: dict[str, Any], rule: Rule) -> None:
    """What is stored of a half done pass is not scored again, and the numbers are those of one pass, to the byte."""
    backend, encoder = backends["bert"], backends["bert"].encoder(None)
    tokens = words_of(encoder, PROMPTS[0], ["goodness", "unbelievable"])
    words = [(word, rule) for word in tokens.values()]
    encoded = [
        one
        for one in encoder.encode(PROMPTS, reserve=reserve_of(tokens.values(), rule))
        if isinstance(one, EncodedPrompt)
    ]
    plain = BlockScores.of(score_prompts(backend, encoded, [], batch_size=SIZE))
    parts: list[FillScores] = []
    options: dict[str, Any] = {"mask_id": encoder.mask_id, "batch_size": SIZE}
    whole, tally = score_fills(backend, encoded, words, plain, on_part=parts.extend, **options)
    assert sum(len({*zip(part.keys, part.fills, strict=True)}) for part in parts) == tally.num_prompts
    half = plain.with_fills(parts[: len(parts) // 2])
    again, rest = score_fills(backend, encoded, words, half, **options)
    assert 0 < rest.num_prompts < tally.num_prompts
    nothing, none = score_fills(backend, encoded, words, again, **options)
    assert 0 == none.num_forwards
    keys = key_array([one.key for one in encoded])
    for scores in (again, nothing):
        np.testing.assert_array_equal(
            word_sums(whole, keys, list(tokens.values()), rule), word_sums(scores, keys, list(tokens.values()), rule)
        )


@pytest.mark.parametrize("rule", RULES)
def test_what_is_planned_is_what_is_asked(backends: dict[str, Any], rule: Rule) -> None:
    """No plain mask is scored as a fill, and the count that a plan prints is never too low."""
    backend, encoder = backends["bert"], backends["bert"].encoder(None)
    tokens = list(words_of(encoder, PAIRS[0], ["great + bad", "goodness + no", "yes + badness"]).values())
    words = [(word, rule) for word in tokens]
    encoded = encoder.encode(PAIRS, reserve=reserve_of(tokens, rule))
    plain = BlockScores.of(score_prompts(backend, encoded, sorted(plain_tokens(tokens, rule)), batch_size=SIZE))
    parts: list[FillScores] = []
    score_fills(
        backend, encoded, words, plain, mask_id=encoder.mask_id, batch_size=BatchSize(None, 100), on_part=parts.extend
    )
    asked = {fill for part in parts for fill in part.fills}
    assert not any(fill.is_plain for fill in asked)
    if rule == "pet":
        assert len(asked) <= count_fills(words)
    else:
        assert len(asked) == count_fills(words)
