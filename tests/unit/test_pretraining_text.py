"""Corpora, vocabulary, token store, rows and masks of pretraining."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from promptlab.errors import DataError, FileFault, UsageError
from promptlab.pretraining.corpus import Corpus, is_held_out, iterate_documents, parse_corpus
from promptlab.pretraining.masking import mask_rows, masking_weights
from promptlab.pretraining.packing import pack_documents, pack_pass
from promptlab.pretraining.recipe import Masking, load_recipe
from promptlab.pretraining.token_store import TokenStore, open_store
from promptlab.pretraining.vocabulary import CLS, MASK, SEP, SPECIAL_TOKENS, train_vocabulary

TEXTS = ["the old house stood by the sea", "a boat left the harbour at dawn", "the sea was calm and the boat was old"]


def _store(*documents: list[int], held_out: tuple[int, ...] = ()) -> TokenStore:
    lengths = [len(document) for document in documents]
    return TokenStore(
        ids=np.concatenate([np.array(document, dtype=np.uint16) for document in documents]),
        offsets=np.cumsum([0, *lengths]),
        corpus_index=np.zeros(len(documents), dtype=np.uint8),
        held_out=np.array([index in held_out for index in range(len(documents))]),
    )


@pytest.mark.parametrize("ending", ["txt", "txt.xz", "txt.gz"])
def test_documents_end_at_blank_lines(tmp_path: Path, ending: str) -> None:
    """A blank line ends a document, whatever the compression, and the last needs none."""
    path = tmp_path / f"notes.{ending}"
    content = b"one\ntwo\n\n\nthree"
    packers = {"txt": bytes, "txt.xz": lzma.compress, "txt.gz": gzip.compress}
    path.write_bytes(packers[ending](content))
    assert list(iterate_documents(Corpus(path))) == ["one\ntwo", "three"]
    assert list(iterate_documents(Corpus(path, separator="line"))) == ["one", "two", "three"]


def test_corpus_argument_holds_a_weight(tmp_path: Path) -> None:
    """FILE=WEIGHT reads a weight and FILE alone means 1."""
    path = tmp_path / "a.txt"
    path.write_text("x")
    assert Corpus(path, 0.25) == parse_corpus(f"{path}=0.25")
    assert Corpus(path, 1.0, "line") == parse_corpus(str(path), line_names=("a",))


@pytest.mark.parametrize(
    ("argument", "words"),
    [("missing.txt", "there is no file"), ("{}=much", "is not a number"), ("{}=0", "above 0"), ("{}x", "no file")],
)
def test_bad_corpus_argument_is_explained(tmp_path: Path, argument: str, words: str) -> None:
    """Each fault of --corpus is one sentence that quotes what was typed."""
    path = tmp_path / "a.txt"
    path.write_text("x")
    typed = argument.format(path)
    with pytest.raises(UsageError, match=words) as fault:
        parse_corpus(typed)
    assert typed in str(fault.value)


def test_damaged_file_is_explained(tmp_path: Path) -> None:
    """A truncated archive is a fault with the file's name, not a traceback."""
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"text " * 1000)[:-30])
    with pytest.raises(DataError, match=r"a\.txt\.xz: cannot be read: .*It is no whole \.xz file"):
        list(iterate_documents(Corpus(path)))


def test_whole_words_are_one_piece_and_the_size_is_kept() -> None:
    """Words that must be whole are whole although the texts never hold them."""
    plain = train_vocabulary(TEXTS, size=45)
    tokenizer = train_vocabulary(TEXTS, size=45, whole_words=["terrible", "great"])
    assert tokenizer.encode("Terrible", add_special_tokens=False).tokens == ["terrible"]
    assert plain.get_vocab_size() == tokenizer.get_vocab_size() == 45
    assert list(SPECIAL_TOKENS) == [tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS))]


def test_store_is_written_once_and_equals_the_encoding(tmp_path: Path) -> None:
    """The second opening reads the cache, and each document's ids are the tokenizer's own."""
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXTS))
    tokenizer = train_vocabulary(TEXTS, size=70)
    said: list[str] = []
    for _ in range(2):
        store = open_store(
            [Corpus(path)], tokenizer, cache_path=tmp_path, seed=1, held_out_one_in=2, report=said.append
        )
    assert len(said) == 1
    for index, text in enumerate(TEXTS):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert expected == store.ids[store.offsets[index] : store.offsets[index + 1]].tolist()
        assert is_held_out(1, Corpus(path), index, one_in=2) == store.held_out[index]


def test_long_documents_are_cut_to_windows_that_cover_them() -> None:
    """Every token of a long document is in a window, the first begins it and the last ends it."""
    rows = pack_documents(_store(list(range(100, 123))), np.array([0]), length=12)
    assert rows.shape == (3, 12)
    assert {CLS} == set(rows[:, 0]) and {SEP} == set(rows[:, -1])
    assert (rows[0, 1], rows[-1, -2]) == (100, 122)
    assert set(range(100, 123)) == set(rows[:, 1:-1].flatten().tolist())


def test_short_documents_share_a_row() -> None:
    """Documents shorter than a row stand one after another with [SEP] between."""
    rows = pack_documents(_store([10, 11], [12, 13, 14], [15, 16]), np.array([0, 1, 2]), length=8)
    assert rows.tolist() == [[CLS, 10, 11, SEP, 12, 13, 14, SEP]]


def test_a_pass_leaves_held_out_documents_out_and_depends_on_its_number() -> None:
    """A pass holds no held-out token; the same pass is the same rows, another pass another order."""
    store = _store(*[[10 + index] * 6 for index in range(40)], held_out=(3, 5))
    first = pack_pass(store, [1.0], length=8, seed=7, pass_index=0)
    assert {10 + index for index in range(40) if index not in (3, 5)} == set(first[:, 1].tolist())
    assert first.tolist() == pack_pass(store, [1.0], length=8, seed=7, pass_index=0).tolist()
    assert first.tolist() != pack_pass(store, [1.0], length=8, seed=7, pass_index=1).tolist()
    assert len(pack_pass(store, [2.0], length=8, seed=7, pass_index=0)) == 76


def test_masks_hide_a_fixed_share_and_never_a_special_token() -> None:
    """Each row hides the same number of tokens, the targets are what stood there, [CLS] and [SEP] stay."""
    rows = torch.randint(5, 50, (20, 40))
    rows[:, 0], rows[:, -1] = CLS, SEP
    masking = Masking(rate=0.2)
    masked = mask_rows(rows, masking_weights(torch.ones(50), masking), masking, seed=3)
    assert masked.positions.shape == (20, 8)
    assert torch.equal(rows.gather(1, masked.positions), masked.targets)
    assert torch.equal(rows, masked.ids.scatter(1, masked.positions, masked.targets))
    assert int((masked.ids == MASK).sum()) == 20 * 8
    assert not bool(((masked.targets == CLS) | (masked.targets == SEP)).any())


def test_content_words_are_hidden_more_often() -> None:
    """With a content share of 1 a word of half the text is hidden far less than its share."""
    frequencies = torch.ones(50)
    frequencies[10] = 50.0
    rows = torch.where(torch.rand(200, 40) < 0.5, 10, torch.randint(11, 50, (200, 40)))
    masking = Masking(rate=0.1, content_share=1.0, subsample=1e-3)
    masked = mask_rows(rows, masking_weights(frequencies, masking), masking, seed=3)
    assert float((masked.targets == 10).float().mean()) < 0.3


def test_replaced_and_kept_shares() -> None:
    """Of the hidden tokens the asked shares show a stranger or themselves."""
    rows = torch.full((200, 40), 20)
    masking = Masking(rate=0.5, random_share=0.1, keep_share=0.1)
    masked = mask_rows(rows, masking_weights(torch.ones(50), masking), masking, seed=3)
    shown = masked.ids.gather(1, masked.positions)
    assert pytest.approx(float((shown == MASK).float().mean()), abs=0.03) == 0.8
    assert pytest.approx(float((shown == 20).float().mean()), abs=0.03) == 0.1


def test_shipped_recipe_is_valid() -> None:
    """The recipe of the bundled model loads."""
    recipe = load_recipe(Path(__file__).parents[2] / "promptlab" / "pretraining" / "mini.yaml")
    assert "terrible" in recipe.vocabulary.whole_words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("size: 70", "sise: 70", "vocabulary.sise"),
        ("layers: 2", "layers: two", "shape.layers"),
        ("awake_layers: 2", "awake_layers: 3", "wakes 3 of 2 layers"),
        ("heads: 2", "heads: 3", "multiple of twice the heads"),
        ("vocabulary:", "- vocabulary:", "not valid YAML"),
    ],
)
def test_bad_recipe_is_explained(tmp_path: Path, old: str, new: str, words: str) -> None:
    """A fault of a recipe names the file and the key."""
    good = (
        "vocabulary:\n  size: 70\nshape: {width: 16, layers: 2, heads: 2, mlp_width: 8, max_length: 16}\n"
        "stages:\n  - {name: a, tokens: 100, length: 16, batch_tokens: 32, awake_layers: 2, learning_rate: 0.1, "
        "masking: {rate: 0.2}}\n"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(good)
    load_recipe(path)
    path.write_text(good.replace(old, new))
    with pytest.raises(FileFault, match=words) as fault:
        load_recipe(path)
    assert "recipe.yaml" in str(fault.value)
