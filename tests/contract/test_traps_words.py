"""Traps 1, 9, 10, 11 and 21: what a label word is, and what several of them mean together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from promptlab.answering import Words, answer
from promptlab.batching import BatchSize
from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.deciding import word_fault
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, Example, Prompt, WordTokens
from promptlab.verbalizing import log_mass, pool_labels
from tests.oracles import MASK, SEP, SlotOracle, field, mask_log_probs, prompt, single_id, word_id
from tests.tiny_models import BYTE_LEVEL, FAMILIES, METASPACE

PLACES = {
    "after a blank": prompt(field("great"), " It was ", MASK, "."),
    "start of text": prompt(MASK, " it was ", field("great")),
    "start of the second part": prompt(field("great"), SEP, MASK, ", it was"),
    "after a quote": prompt('It was "', MASK, '".'),
    "after a bracket": prompt("It was (", MASK, ") ", field("great")),
    "before punctuation": prompt("It was ", MASK, "! ", field("great")),
}
BARE = ("start of text", "start of the second part", "after a quote", "after a bracket")  # no blank before the slot


def found(tokenizer_of: Any, asked: Prompt, words: list[str]) -> dict[str, WordTokens | str]:
    """What the package finds for words in the slot of a prompt."""
    return find_word_ids(tokenizer_of.encoder(None), words, [slot_contexts(asked)])


def ids_of(words: dict[str, WordTokens | str]) -> dict[str, int]:
    """The one token of each word."""
    return {word: token for word, one in words.items() if (token := single_id(one)) is not None}


def first_piece(tokenizer: Any, text: str) -> int:
    return int(tokenizer(text, add_special_tokens=False)["input_ids"][0])


@pytest.mark.parametrize("way", ["always with a blank", "never with a blank"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_01_a_word_with_or_without_its_blank(backends: dict[str, Any], kind: str, place: str, way: str) -> None:
    """One form of a word for every place is another token in some; the token is that of the written prompt."""
    tokenizer = backends[kind].tokenizer
    word = "great" if kind != "bert_chinese" else "好"
    naive = first_piece(tokenizer, f" {word}" if way == "always with a blank" else word)
    oracle = word_id(tokenizer, PLACES[place], word)
    is_wrong = {
        "byte": (place in BARE) == (way == "always with a blank"),
        "metaspace": place in ("after a quote", "after a bracket"),  # a text begins with a mark for its blank
        "wordpiece": False,
    }["byte" if kind in BYTE_LEVEL else "metaspace" if kind in METASPACE else "wordpiece"]
    assert is_wrong == (naive != oracle)
    assert oracle == single_id(found(backends[kind], PLACES[place], [word])[word])


@pytest.mark.parametrize("asked", [prompt("很", MASK, "。"), prompt("“", MASK, "”"), prompt(MASK, "：很好")])
def test_trap_01_chinese_words_touch_their_neighbours(backends: dict[str, Any], asked: Prompt) -> None:
    """A character is one token between other characters and between Chinese marks; a word of two is refused."""
    backend = backends["bert_chinese"]
    words = found(backend, asked, ["好", "差", "很好"])
    singles = [single_id(words[word]) for word in ("好", "差")]
    assert [word_id(backend.tokenizer, asked, word) for word in ("好", "差")] == singles
    fault = word_fault(words, Verbalizer.from_labels({"a": "很好", "b": "差"}, name="v"), "independent", "t")
    assert "label word '很好' splits into 2 tokens (很 好) in " in str(fault)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_09_words_of_several_tokens(backends: dict[str, Any], kind: str) -> None:
    """Words cut to their first piece meet in one token; such a word is refused, with its pieces."""
    tokenizer, long, short = backends[kind].tokenizer, "goodness", "good"
    if kind == "bert_chinese":
        long, short = "好看", "好"
    blank = " " if kind in BYTE_LEVEL else ""
    naive = [first_piece(tokenizer, blank + word) for word in (long, short)]
    assert naive[0] == naive[1]
    oracle = len(tokenizer(blank + long, add_special_tokens=False)["input_ids"])
    ours = found(backends[kind], PLACES["after a blank"], [long, short])
    pieces = " ".join(tokenizer.tokenize(blank + long))
    fault = word_fault(ours, Verbalizer.from_labels({"a": long, "b": short}, name="v"), "independent", "t")
    assert f"label word '{long}' splits into {oracle} tokens ({pieces}) in '… ___.': use a word that is one" in str(
        fault
    )


@pytest.mark.parametrize("way", ["mean", "max"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_09_pieces_at_one_mask_are_no_word(
    backends: dict[str, Any], models: dict[str, Any], kind: str, way: str
) -> None:
    """Pieces of a word averaged at one mask, or their largest, score no word; each rule asks several masks."""
    backend, asked = backends[kind], PLACES["after a blank"]
    word = "好看" if kind == "bert_chinese" else "goodness"
    tokens = found(backend, asked, [word])[word]
    assert isinstance(tokens, WordTokens) and tokens.is_split
    at_one_mask = mask_log_probs(models[kind], backend.tokenizer, asked)[0][list(tokens.pieces)]
    naive = float(at_one_mask.mean() if way == "mean" else at_one_mask.max())
    for rule in ("independent", "left_to_right", "pet"):
        oracle, ours = of_several_tokens(backend, models[kind], asked, tokens, rule)
        assert abs(naive - oracle) > 1e-2
        assert oracle == pytest.approx(ours, abs=3e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_09_an_uncorrected_score_favours_predictable_pieces(
    backends: dict[str, Any], models: dict[str, Any], kind: str
) -> None:
    """Each piece masked alone sees the rest of its word, which gives it away; left to right masks what comes behind."""
    backend, asked = backends[kind], PLACES["after a blank"]
    (encoded,) = backend.encoder(None).encode([asked])
    plain, differences = SlotOracle(models[kind], encoded, backend.encoder(None).mask_id), []
    for word in ("体育新闻", "好看", "不错") if kind == "bert_chinese" else ("goodness", "badness", "unbelievable"):
        tokens = found(backend, asked, [word])[word]
        assert isinstance(tokens, WordTokens)
        naive = 0.0
        for place, piece in enumerate(tokens.pieces):
            alone = [None if at == place else other for at, other in enumerate(tokens.pieces)]
            naive += plain.log_probs([alone])[place][piece]
        oracle, ours = of_several_tokens(backend, models[kind], asked, tokens, "left_to_right")
        assert oracle == pytest.approx(ours, abs=3e-5)
        differences.append(abs(naive - oracle))
    assert max(differences) > 1e-3


def test_trap_09_words_of_unlike_lengths_have_no_mass(backends: dict[str, Any], models: dict[str, Any]) -> None:
    """All words of one token and all of two have twice the probability that there is: such words have no mass."""
    backend, asked = backends["bert"], PLACES["after a blank"]
    words = found(backend, asked, ["great", "goodness"])
    great, goodness = (one for one in words.values() if isinstance(one, WordTokens))
    (encoded,) = backend.encoder(None).encode([asked])
    plain = SlotOracle(models["bert"], encoded, backend.encoder(None).mask_id)
    singles = np.exp(plain.log_probs([[None]])[0]).sum()
    pairs = np.outer(*map(np.exp, plain.log_probs([[None, None]]))).sum()
    assert 2 == pytest.approx(singles + pairs, abs=1e-5)
    sums = np.array([[-1.0, -2.0]])
    for rule in ("independent", "left_to_right"):
        assert np.isnan(log_mass(sums, [great, goodness], rule)).all()
        assert np.isfinite(log_mass(sums, [great, great], rule)).all()


def of_several_tokens(backend: Any, model: Any, asked: Prompt, tokens: WordTokens, rule: Any) -> tuple[float, float]:
    """The score of a word by a rule: of the plain model asked one text at a time, and of the package."""
    encoder, verbalizer = backend.encoder(None), Verbalizer.from_labels({"a": "x", "b": "y"}, multi_token=rule)
    (encoded,) = encoder.encode([asked])
    oracle = SlotOracle(model, encoded, encoder.mask_id).word(tokens.slots, rule)
    (ours,) = answer(
        backend, encoder, [asked], [Words(verbalizer, {"x": tokens})], batch_size=BatchSize(None, 4)
    ).answers
    return oracle, float(ours.sums[0, 0])


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_21_words_that_the_vocabulary_lowers(backends: dict[str, Any], kind: str) -> None:
    """'Yes' and 'yes' are one token of an uncased vocabulary: refused there with both labels and what they become."""
    backend, verbalizer = backends[kind], Verbalizer.from_labels({"a": "Good", "b": "good"}, name="pair")
    if kind == "bert_chinese":
        verbalizer = Verbalizer.from_labels({"a": "A", "b": "a"}, name="pair")
    one, other = verbalizer.words
    ids = found(backend, PLACES["after a blank"], [one, other])
    is_lowered = kind in ("bert", "distilbert", "electra", "albert", "bert_chinese")
    token_id = single_id(ids[other])
    assert is_lowered == (word_id(backend.tokenizer, PLACES["after a blank"], one) == token_id)
    fault = word_fault(ids, verbalizer, "independent", "t", spell=backend.encoder(None).token_text)
    if is_lowered:
        piece = backend.tokenizer.convert_ids_to_tokens(token_id)
        token = f"the same token {token_id} here (both become {piece})"
        said = f"'{one}' of label 'a' and '{other}' of label 'b' are {token}: use another word for one of them."
        assert f"verbalizer pair: {said}" == fault
    else:
        assert "the same token" not in str(fault)


def test_trap_21_transforms_of_text_look_before_they_cut() -> None:
    """Dropping the last character whatever it is breaks a word; the filter drops final marks only."""
    compiled = compile_template(Template.from_text("{{ text | drop_final_punctuation }}, {{ mask }}"))
    for text, oracle in (("It rains", "It rains"), ("It rains.", "It rains"), ("很好。", "很好"), ("I", "I")):
        naive = text[:-1]
        assert (naive == oracle) == (text[-1] in ".。")
        assert f"{oracle}, [MASK]" == render(compiled, Example("0", 0, {"text": text})).text


WEIGHTS = {"negative": {"bad": 1.0, "no": 1.0}, "positive": {"good": 1.0}}
POOLED = {
    "mean_logprob": lambda logs: sum(logs) / len(logs),
    "sum_prob": lambda logs: math.log(math.fsum(math.exp(log) for log in logs)),
    "max": max,
}


def scored(backend: Any, asked: Prompt, ids: list[int]) -> np.ndarray[Any, Any]:
    """Stored log-probabilities of tokens at the mask, one row."""
    (encoded,) = backend.encoder(None).encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    block = BlockScores.of([backend.score([encoded], np.array(sorted(set(ids))))])
    return block.take(np.array([encoded.key.encode()], dtype=f"S{KEY_BYTES}"), ids)


@pytest.mark.parametrize("rule", POOLED)
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_10_several_words_of_a_label(
    backends: dict[str, Any], models: dict[str, Any], kind: str, rule: Any
) -> None:
    """A softmax over the label words first punishes rare words; a label's score is its named pool of full log-probs."""
    asked = PLACES["after a blank"]
    words = {"negative": ["bad", "no"], "positive": ["good"]}
    if kind == "bert_chinese":
        words = {"negative": ["差", "大"], "positive": ["好"]}
    verbalizer = Verbalizer.from_labels(words, pool=rule)
    ids = ids_of(found(backends[kind], asked, list(verbalizer.words)))
    log_probs = mask_log_probs(models[kind], backends[kind].tokenizer, asked)[0].astype(np.float64)
    full = {word: float(log_probs[token]) for word, token in ids.items()}
    total = math.log(math.fsum(math.exp(value) for value in full.values()))
    oracle = [POOLED[rule]([full[word] for word in several]) for several in words.values()]
    naive = [sum(full[word] - total for word in several) / len(several) for several in words.values()]
    assert all(abs(one - other) > 1e-4 for one, other in zip(naive, oracle, strict=True))
    word_scores = scored(backends[kind], asked, list(ids.values()))
    np.testing.assert_allclose(pool_labels(word_scores, verbalizer, tuple(words))[0], oracle, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_10_a_word_may_have_the_id_0(backends: dict[str, Any], models: dict[str, Any], kind: str) -> None:
    """Id 0 as a marker of padding drops a word that has it; nothing here marks with an id."""
    asked, ids = PLACES["after a blank"], [0, 7]
    log_probs = mask_log_probs(models[kind], backends[kind].tokenizer, asked)[0]
    oracle = float(log_probs[ids].mean())
    naive = float(np.mean([log_probs[token] for token in ids if token > 0]))
    verbalizer = Verbalizer.from_labels({"a": ["x", "y"], "b": "z"})
    ours = pool_labels(scored(backends[kind], asked, [*ids, 9]), verbalizer, ("a", "b"))[0, 0]
    assert abs(naive - oracle) > 1e-3
    assert oracle == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_11_a_softmax_over_the_label_words_hides_their_mass(
    backends: dict[str, Any], models: dict[str, Any], kind: str
) -> None:
    """Probabilities are over the full vocabulary, so that words which the model finds unlikely are seen to be."""
    asked, words = PLACES["after a blank"], ["好", "差"] if kind == "bert_chinese" else ["good", "bad"]
    tokens = found(backends[kind], asked, words)
    ids = ids_of(tokens)
    oracle = mask_log_probs(models[kind], backends[kind].tokenizer, asked)[0][list(ids.values())]
    naive = oracle - np.logaddexp(*oracle)
    ours = scored(backends[kind], asked, list(ids.values()))
    assert np.abs(naive - oracle).max() > 1e-3
    np.testing.assert_allclose(ours[0], oracle, atol=1e-5, rtol=0)
    mass = log_mass(ours, [one for one in tokens.values() if isinstance(one, WordTokens)], "independent")
    assert np.exp(oracle).sum() == pytest.approx(float(np.exp(mass[0])), abs=1e-6)
    assert 1 == pytest.approx(float(np.exp(naive).sum()), abs=1e-5)
