"""Corpora + tokenizer -> one array of token ids on disk, written once and mapped afterwards.

The rule guarded here: the folder's name is a digest of everything that the ids depend on, so a stale cache is never
read, and a half-written one does not exist (it is written beside and renamed).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from promptlab.errors import UsageError
from promptlab.pretraining.corpus import Corpus, digest_file, is_held_out, iterate_documents

_DOCUMENTS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 100_000
_FORMAT = 1


@dataclass(frozen=True)
class TokenStore:
    """Encoded documents of all corpora.

    Args:
        ids: Token ids without special tokens, shape (token,).
        offsets: Where each document begins, and the end of the last, shape (document + 1,).
        corpus_index: Which corpus a document is from, shape (document,).
        held_out: Whether a document is kept from training, shape (document,).
    """

    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    corpus_index: NDArray[np.uint8]
    held_out: NDArray[np.bool_]

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
) -> TokenStore:
    """Give the encoded corpora, from the cache where they lie there.

    Args:
        corpora: What to encode, in order.
        tokenizer: The fast tokenizer.
        cache_path: Folder of all caches.
        seed: The user's seed; it chooses the held-out documents.
        held_out_one_in: One document in this many is held out.
        report: Takes a line of progress.
    """
    key = _digest(corpora, tokenizer, seed=seed, held_out_one_in=held_out_one_in)
    folder = cache_path / f"tokens-{key}"
    if not folder.is_dir():
        _write_store(corpora, tokenizer, folder=folder, seed=seed, held_out_one_in=held_out_one_in, report=report)
    names = ("ids", "offsets", "corpus_index", "held_out")
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


def _digest(corpora: Sequence[Corpus], tokenizer: Tokenizer, *, seed: int, held_out_one_in: int) -> str:
    sources = [(corpus.name, corpus.separator, digest_file(corpus.path)) for corpus in corpora]
    parts = [_FORMAT, seed, held_out_one_in, sources, tokenizer.to_str()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _write_store(
    corpora: Sequence[Corpus],
    tokenizer: Tokenizer,
    *,
    folder: Path,
    seed: int,
    held_out_one_in: int,
    report: Callable[[str], None],
) -> None:
    if tokenizer.get_vocab_size() > np.iinfo(np.uint16).max:
        raise UsageError(f"The vocabulary has {tokenizer.get_vocab_size()} pieces; pretraining stores up to 65,535.")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lengths: list[int] = []
    corpus_index: list[int] = []
    held_out: list[bool] = []
    with (partial / "ids.raw").open("wb") as stream:
        for number, corpus in enumerate(corpora):
            before = sum(lengths)
            for position, ids in enumerate(_encode(corpus, tokenizer)):
                stream.write(ids.tobytes())
                lengths.append(len(ids))
                corpus_index.append(number)
                held_out.append(is_held_out(seed, corpus, position, one_in=held_out_one_in))
            report(f"encoded {corpus.name}: {sum(lengths) - before:,} tokens")
    np.save(partial / "ids.npy", np.fromfile(partial / "ids.raw", dtype=np.uint16))
    (partial / "ids.raw").unlink()
    np.save(partial / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(partial / "corpus_index.npy", np.array(corpus_index, dtype=np.uint8))
    np.save(partial / "held_out.npy", np.array(held_out, dtype=np.bool_))
    partial.rename(folder)


def _encode(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[NDArray[np.uint16]]:
    """Encode document by document; a long one is cut at line ends so that all cores get work and memory stays flat."""
    remaining = iterate_documents(corpus)
    while documents := list(islice(remaining, _DOCUMENTS_AT_ONCE)):
        parts = [list(_cut(document)) for document in documents]
        flat = [part for document in parts for part in document]
        encoded = iter(tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        for document in parts:
            pieces = [np.array(next(encoded).ids, dtype=np.uint16) for _ in document]
            yield np.concatenate(pieces)


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
