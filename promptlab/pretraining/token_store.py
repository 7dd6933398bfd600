"""Corpora + tokenizer -> one array of token ids on disk, written once and mapped afterwards.

The rule guarded here: the folder's name is a digest of everything that the ids depend on, so a stale cache is never
read, and a half-written one does not exist (it is written beside and renamed). Ids take two bytes where the vocabulary
fits into them and four elsewhere.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from promptlab.pretraining.corpus import Corpus, digest_file, is_held_out, iterate_documents

_DOCUMENTS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 100_000
_FORMAT = 1

Ids = NDArray[Any]
"""Token ids of two or four bytes."""


@dataclass(frozen=True)
class TokenStore:
    """Encoded documents of all corpora.

    Args:
        ids: Token ids without special tokens, shape (token,).
        offsets: Where each document begins, and the end of the last, shape (document + 1,).
        corpus_index: Which corpus a document is from, shape (document,).
        held_out: Whether a document is kept from training, shape (document,).
        word_starts: Whether a token begins a word, shape (token,); None where nobody asked.
    """

    ids: Ids
    offsets: NDArray[np.int64]
    corpus_index: NDArray[np.uint8]
    held_out: NDArray[np.bool_]
    word_starts: NDArray[np.bool_] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each document, shape (document,)."""
        return np.diff(self.offsets)


def open_store(
    corpora: Sequence[Corpus],
    tokenizer: Tokenizer,
    *,
    cache_path: Path,
    seed: int,
    held_out_one_in: int,
    report: Callable[[str], None],
    marks_words: bool = False,
) -> TokenStore:
    """Give the encoded corpora, from the cache where they lie there.

    Args:
        corpora: What to encode, in order.
        tokenizer: The fast tokenizer.
        cache_path: Folder of all caches.
        seed: The user's seed; it chooses the held-out documents.
        held_out_one_in: One document in this many is held out.
        report: Takes a line of progress.
        marks_words: Whether it is kept which tokens begin a word.
    """
    key = _digest(corpora, tokenizer, seed=seed, held_out_one_in=held_out_one_in, marks_words=marks_words)
    folder = cache_path / f"tokens-{key}"
    if not folder.is_dir():
        plan = _Plan(corpora, tokenizer, seed=seed, held_out_one_in=held_out_one_in, marks_words=marks_words)
        _write_store(plan, folder=folder, report=report)
    names = ("ids", "offsets", "corpus_index", "held_out", *(["word_starts"] if marks_words else []))
    return TokenStore(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})


def training_documents(corpora: Sequence[Corpus], *, seed: int, held_out_one_in: int) -> Iterator[str]:
    """Give the training documents of all corpora; of a corpus of weight below 1 only that share of them."""
    for corpus in corpora:
        credit = 0.0
        for index, document in enumerate(iterate_documents(corpus)):
            credit += min(corpus.weight, 1.0)
            if credit < 1.0 or is_held_out(seed, corpus, index, one_in=held_out_one_in):
                continue
            credit -= 1.0
            yield document


def highest_id(tokenizer: Tokenizer) -> int:
    """The highest token id of a vocabulary, which may have gaps."""
    return max(tokenizer.get_vocab().values())


def encode_documents(
    documents: Iterator[str], tokenizer: Tokenizer, *, marks_words: bool = False
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """Encode document by document, the ids of each and which of its tokens begin a word (empty where not asked).

    A long document is cut at blanks so that all cores get work and memory stays flat.
    """
    id_type = np.uint16 if highest_id(tokenizer) <= np.iinfo(np.uint16).max else np.uint32
    encode = tokenizer.encode_batch if marks_words else tokenizer.encode_batch_fast
    while batch := list(islice(documents, _DOCUMENTS_AT_ONCE)):
        parts = [list(_cut(document)) for document in batch]
        flat = [part for document in parts for part in document]
        encoded = iter(encode(flat, add_special_tokens=False))
        for document in parts:
            pieces = [next(encoded) for _ in document]
            ids = np.concatenate([np.array(piece.ids, dtype=id_type) for piece in pieces])
            marks = [_word_starts(*pair) for pair in zip(pieces, document, strict=True)] if marks_words else []
            yield ids, np.concatenate([np.empty(0, dtype=np.bool_), *marks])


def _word_starts(encoding: Encoding, text: str) -> NDArray[np.bool_]:
    """Whether each token begins a word: the tokenizer counts another one there, or there is a blank before it."""
    if not encoding.ids:
        return np.empty(0, dtype=np.bool_)
    words = np.array(encoding.word_ids, dtype=np.int64)
    begins, ends = np.array(encoding.offsets, dtype=np.int64).T
    is_blank = np.array([character.isspace() for character in text] + [True])
    has_blank = is_blank[begins[1:]] | is_blank[np.maximum(begins[1:] - 1, 0)] & (begins[1:] >= ends[:-1])
    return np.concatenate([[True], (words[1:] != words[:-1]) | has_blank])


@dataclass(frozen=True)
class _Plan:
    """What a store is made of."""

    corpora: Sequence[Corpus]
    tokenizer: Tokenizer
    seed: int
    held_out_one_in: int
    marks_words: bool


def _digest(
    corpora: Sequence[Corpus], tokenizer: Tokenizer, *, seed: int, held_out_one_in: int, marks_words: bool
) -> str:
    sources = [(corpus.name, corpus.separator, digest_file(corpus.path)) for corpus in corpora]
    parts = [_FORMAT, seed, held_out_one_in, sources, tokenizer.to_str(), *(["words"] if marks_words else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _write_store(plan: _Plan, *, folder: Path, report: Callable[[str], None]) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lengths: list[int] = []
    corpus_index: list[int] = []
    held_out: list[bool] = []
    id_type: np.dtype[Any] = np.dtype(np.uint16)
    with (partial / "ids.raw").open("wb") as stream, (partial / "words.raw").open("wb") as words:
        for number, corpus in enumerate(plan.corpora):
            before = sum(lengths)
            encoded = encode_documents(iterate_documents(corpus), plan.tokenizer, marks_words=plan.marks_words)
            for position, (ids, starts) in enumerate(encoded):
                id_type = ids.dtype
                stream.write(ids.tobytes())
                words.write(starts.tobytes())
                lengths.append(len(ids))
                corpus_index.append(number)
                held_out.append(is_held_out(plan.seed, corpus, position, one_in=plan.held_out_one_in))
            report(f"encoded {corpus.name}: {sum(lengths) - before:,} tokens")
    np.save(partial / "ids.npy", np.fromfile(partial / "ids.raw", dtype=id_type))
    if plan.marks_words:
        np.save(partial / "word_starts.npy", np.fromfile(partial / "words.raw", dtype=np.bool_))
    for name in ("ids.raw", "words.raw"):
        (partial / name).unlink()
    np.save(partial / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(partial / "corpus_index.npy", np.array(corpus_index, dtype=np.uint8))
    np.save(partial / "held_out.npy", np.array(held_out, dtype=np.bool_))
    partial.rename(folder)


def _cut(document: str) -> Iterator[str]:
    if len(document) <= _CHARACTERS_AT_ONCE:
        yield document
        return
    start = 0
    while start < len(document):
        end = start + _CHARACTERS_AT_ONCE
        cut = max(document.rfind(" ", start, end), document.rfind("\n", start, end)) if end < len(document) else -1
        end = cut if cut > start else end
        yield document[start:end]
        start = end
