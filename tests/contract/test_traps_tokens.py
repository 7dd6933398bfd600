"""Traps 2 to 8: how a prompt becomes tokens. Each naive way is written out, and shows where the table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.types import EncodedPrompt, Prompt, Role
from tests.oracles import MASK, SEP, field, mask_log_probs, prompt, single_id, tokenized, truncated, word_id
from tests.tiny_models import BYTE_LEVEL, FAMILIES, METASPACE, TWO_SEGMENTS

TOLERANCE = 1e-5
IT_WAS = prompt(field("great, good"), " It was ", MASK, ".")
PAIR = prompt(field("great, good"), SEP, "it was ", MASK, " again")


def ours(backend: Any, asked: Prompt, max_length: int | None = None) -> EncodedPrompt:
    """The prompt as the package encodes it."""
    (encoded,) = backend.encoder(max_length).encode([asked])
    assert isinstance(encoded, EncodedPrompt)
    return encoded


def scores(backend: Any, encoded: EncodedPrompt) -> np.ndarray[Any, Any]:
    """Log-probabilities of the whole vocabulary at the mask."""
    found: np.ndarray[Any, Any] = backend.score([encoded], np.arange(len(backend.tokenizer))).log_probs
    return found


def naive_scores(model: Any, ids: list[int], place: int, **inputs: Any) -> np.ndarray[Any, Any]:
    """Log-probabilities at a place of one sequence."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), **inputs).logits[0, place].float()
    found: np.ndarray[Any, Any] = torch.log_softmax(logits, dim=-1).numpy()
    return found


def pieces(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def framed(tokenizer: Any, ids: list[int]) -> list[int]:
    return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_02_the_mask_takes_the_blank_before_it(backends: dict[str, Any], kind: str) -> None:
    """Ids put together around a mask leave a bare blank before it in byte-level vocabularies; the text has none."""
    tokenizer = backends[kind].tokenizer
    left, right = pieces(tokenizer, "great, good It was "), pieces(tokenizer, ".")
    naive = framed(tokenizer, [*left, tokenizer.mask_token_id, *right])
    oracle = tokenized(tokenizer, IT_WAS)[0]
    assert (kind in BYTE_LEVEL) == (naive != oracle)
    assert oracle == ours(backends[kind], IT_WAS).input_ids.tolist()


@pytest.mark.parametrize("way", ["as they are", "with a blank before each"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_03_piecewise_tokenisation(backends: dict[str, Any], kind: str, way: str) -> None:
    """Pieces tokenised one by one are other tokens than their text; a blank before each of them mends it nowhere."""
    asked = prompt('"', field("great"), 'ness", it was ', MASK, ".")
    tokenizer = backends[kind].tokenizer
    blank = " " if way == "with a blank before each" else ""
    texts = [piece if piece.kind == "mask" else pieces(tokenizer, blank + piece.text) for piece in asked.segments]
    naive = framed(
        tokenizer, [i for ids in texts for i in (ids if isinstance(ids, list) else [tokenizer.mask_token_id])]
    )
    oracle = tokenized(tokenizer, asked)[0]
    assert naive != oracle
    assert oracle == ours(backends[kind], asked).input_ids.tolist()


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_04_the_name_of_a_class_says_nothing(backends: dict[str, Any], kind: str) -> None:
    """A blank only for GPT-2's class, segment ids only for classes called BERT: wrong wherever it matters."""
    tokenizer, backend = backends[kind].tokenizer, backends[kind]
    names = " ".join(one.__name__ for one in type(tokenizer).__mro__)
    naive = pieces(tokenizer, " great" if "GPT2Tokenizer" in names else "great")[0]
    oracle = word_id(tokenizer, IT_WAS, "great")
    assert (kind in BYTE_LEVEL) == (naive != oracle and oracle is not None)
    assert oracle == backend_word(backend, IT_WAS, "great")
    types = tokenized(tokenizer, PAIR)[1]
    oracle_types = types if kind in TWO_SEGMENTS else [0] * len(types)
    naive_types = types if "BERT" in type(tokenizer).__name__ else [0] * len(types)
    assert (kind in TWO_SEGMENTS) == (naive_types != oracle_types)
    assert oracle_types == ours(backend, PAIR).segment_ids.tolist()


def backend_word(backend: Any, asked: Prompt, word: str) -> int | None:
    """What the package finds for a word."""
    from promptlab.label_words import find_word_ids, slot_contexts

    return single_id(find_word_ids(backend.encoder(None), [word], [slot_contexts(asked)])[word])


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_05_segment_ids_of_pairs(backends: dict[str, Any], models: dict[str, Any], kind: str) -> None:
    """A pair has the tokenizer's own separators, and its segment ids exactly where the model was given two types."""
    tokenizer, encoded = backends[kind].tokenizer, ours(backends[kind], PAIR)
    ids, types = tokenized(tokenizer, PAIR)
    num_types = int(getattr(models[kind].config, "type_vocab_size", 0) or 0)
    assert (kind in TWO_SEGMENTS) == (num_types == 2)
    assert (ids, types if num_types == 2 else [0] * len(ids)) == (
        encoded.input_ids.tolist(),
        encoded.segment_ids.tolist(),
    )
    between = ids[ids.index(tokenizer.sep_token_id) :][:2]
    is_doubled = kind in ("roberta", "xlm_roberta")
    assert is_doubled == (between == [tokenizer.sep_token_id] * 2)
    naive = naive_scores(models[kind], ids, encoded.mask_positions[0])  # no segment ids: zeros
    oracle = mask_log_probs(models[kind], tokenizer, PAIR)[0]
    assert (kind in TWO_SEGMENTS) == bool(np.abs(naive - oracle).max() > 1e-3)
    np.testing.assert_allclose(scores(backends[kind], encoded)[0], oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("keep", ["head", "tail", "middle"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_06_truncation_keeps_the_mask(backends: dict[str, Any], kind: str, keep: Any) -> None:
    """Cutting ids from the right loses the mask, slicing `[:-n]` the wrong end; ours takes row tokens alone."""
    backend = backends[kind]
    words = ["great", "good", "no", "yes", "bad"] * 2
    asked = prompt(field(" ".join(words), keep=keep), " It was ", MASK, ".")
    whole, excess = ours(backend, asked), 6
    rows = np.flatnonzero(whole.roles == Role.FIELD).tolist()
    kept = truncated([len(rows)], excess, [keep], [0])[0]
    gone = {place for number, place in enumerate(rows) if number not in kept}
    oracle = [token for place, token in enumerate(whole.input_ids.tolist()) if place not in gone]
    naive = whole.input_ids.tolist()[: len(whole) - excess]
    assert backend.tokenizer.mask_token_id not in naive
    sliced = {*rows[-excess:]}  # part[:-n], whatever should be kept
    naive_slice = [token for place, token in enumerate(whole.input_ids.tolist()) if place not in sliced]
    assert (keep != "head") == (naive_slice != oracle)
    assert naive != oracle
    encoded = ours(backend, asked, len(whole) - excess)
    assert (oracle, excess) == (encoded.input_ids.tolist(), encoded.num_truncated)


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_07_a_row_that_holds_the_mask(
    backends: dict[str, Any], models: dict[str, Any], kind: str, which: str
) -> None:
    """A row that spells a mask makes a second one for a tokenizer that parses it; the slot is found by its role."""
    tokenizer, mask = backends[kind].tokenizer, backends[kind].tokenizer.mask_token
    row = field(f"it {mask} was")
    asked = prompt(row, " no ", MASK, ".") if which == "first" else prompt(MASK, " no ", row, ".")
    parsed = tokenized(tokenizer, asked)[0]
    found = [place for place, token in enumerate(parsed) if token == tokenizer.mask_token_id]
    naive = naive_scores(models[kind], parsed, found[0 if which == "first" else -1])
    encoded = ours(backends[kind], asked)
    ids = encoded.input_ids.tolist()
    assert (2, 1) == (len(found), ids.count(tokenizer.mask_token_id))
    behind = len(tokenized(tokenizer, prompt(MASK, "."))[0]) - 2  # the mask, what follows it, the frame
    place = len(ids) - 1 - behind if which == "first" else 1
    oracle = naive_scores(models[kind], ids, place)
    assert np.abs(naive - oracle).max() > 1e-3
    np.testing.assert_allclose(scores(backends[kind], encoded)[0], oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_08_special_tokens_stand_once(backends: dict[str, Any], kind: str) -> None:
    """A frame written by hand comes on top of the tokenizer's own; a prompt has one, the tokenizer's."""
    tokenizer = backends[kind].tokenizer
    cls, sep, mask = tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token
    naive = tokenizer(f"{cls} great, good It was {mask}. {sep}")["input_ids"]
    oracle = tokenized(tokenizer, IT_WAS)[0]
    assert [2, 1] == [ids[:2].count(tokenizer.cls_token_id) for ids in (naive, oracle)]
    assert naive != oracle
    assert oracle == ours(backends[kind], IT_WAS).input_ids.tolist()


def test_traps_show_in_every_kind_of_vocabulary() -> None:
    """The families cover byte-level BPE, SentencePiece and WordPiece."""
    assert set(BYTE_LEVEL) < set(FAMILIES) > set(METASPACE)


def test_traps_are_listed_with_their_tests() -> None:
    """The note on traps has all 27 in order, names every test of a trap, and no test that is not there."""
    folder = Path(__file__).parent
    note = (folder.parents[1] / "docs" / "design" / "traps.md").read_text(encoding="utf-8")
    assert list(range(1, 28)) == [int(number) for number in re.findall(r"^\| (\d+) ", note, flags=re.MULTILINE)]
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("test_traps_*.py"))
    assert set(re.findall(r"def (test_trap_\w+)\(", sources)) == set(re.findall(r"`(test_trap_\w+)`", note))
    for number, line in re.findall(r"^\| (\d+) (.*)$", note, flags=re.MULTILINE):
        assert all(f"test_trap_{int(number):02d}_" in name for name in re.findall(r"test_trap_\d\d_", line))
