"""Encoded documents -> rows of equal length, one pass after another.

The rules guarded here: a row holds the special tokens that the tokenizer puts before and behind a text ([CLS] and
[SEP]) and no padding; a document longer than a row is cut into
full windows, the last of which ends where the document ends; only documents shorter than a row share one. What a pass
holds depends on the seed and the number of the pass alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from promptlab.pretraining.token_store import Ids, TokenStore
from promptlab.pretraining.vocabulary import CLS, SEP
from promptlab.seeding import derive_generator

Rows = Ids
"""Token ids, or marks of tokens, of shape (row, token)."""


@dataclass(frozen=True)
class Edges:
    """The special tokens of a row: before its text, between two documents, behind its text."""

    before: tuple[int, ...] = (CLS,)
    between: tuple[int, ...] = (SEP,)
    behind: tuple[int, ...] = (SEP,)

    @property
    def size(self) -> int:
        """Tokens that they take from each row."""
        return len(self.before) + len(self.behind)


OUR_EDGES = Edges()


def pack_pass(
    store: TokenStore,
    weights: Sequence[float],
    *,
    length: int,
    seed: int,
    pass_index: int,
    edges: Edges = OUR_EDGES,
) -> Rows:
    """Pack one pass over the mixture into shuffled rows.

    Args:
        store: The encoded documents.
        weights: Weight of each corpus: 0.25 draws a quarter of its documents, 2 takes each twice.
        length: Tokens in a row.
        seed: The user's seed.
        pass_index: Number of the pass, from 0.
        edges: The special tokens of a row.

    Returns:
        Token ids, shape (row, length).
    """
    generator = derive_generator(seed, "pass", length, pass_index)
    share = np.asarray(weights)[store.corpus_index] * ~store.held_out
    copies = np.floor(share + generator.random(len(share))).astype(np.int64)
    documents = generator.permutation(np.repeat(np.arange(len(share)), copies))
    rows = pack_documents(store, documents, length=length, edges=edges)
    return rows[generator.permutation(len(rows))]


def pack_word_starts(
    store: TokenStore, weights: Sequence[float], *, length: int, seed: int, pass_index: int, edges: Edges
) -> Rows:
    """Pack which tokens begin a word into the rows of `pack_pass`, shape (row, length); a special token begins one."""
    assert store.word_starts is not None
    marks = replace(store, ids=store.word_starts)  # packed as ids are
    ones = Edges(*((1,) * len(tokens) for tokens in (edges.before, edges.between, edges.behind)))
    return pack_pass(marks, weights, length=length, seed=seed, pass_index=pass_index, edges=ones)


def pack_held_out(store: TokenStore, *, length: int, edges: Edges = OUR_EDGES) -> Rows:
    """Pack the held-out documents, in order, shape (row, length)."""
    return pack_documents(store, np.flatnonzero(store.held_out), length=length, edges=edges)


def pack_documents(store: TokenStore, documents: NDArray[np.int64], *, length: int, edges: Edges = OUR_EDGES) -> Rows:
    """Pack the given documents in the given order, shape (row, length)."""
    room = length - edges.size
    sizes = store.lengths[documents]
    is_long = sizes >= room
    long_rows = _cut_long(store, documents[is_long], room=room)
    short_rows = _join_short(store, documents[~is_long], room=room, between=edges.between)
    body = np.concatenate([long_rows, short_rows])
    before, behind = (np.tile(np.array(ids, body.dtype), (len(body), 1)) for ids in (edges.before, edges.behind))
    return np.concatenate([before, body, behind], axis=1)


def _cut_long(store: TokenStore, documents: NDArray[np.int64], *, room: int) -> Rows:
    """Windows of full length, spread evenly so that the first begins and the last ends with the document."""
    sizes = store.lengths[documents]
    counts = -(-sizes // room)
    owner = np.repeat(np.arange(len(documents)), counts)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    stride = (sizes - room)[owner] / np.maximum(counts - 1, 1)[owner]
    starts = store.offsets[documents][owner] + np.rint(rank * stride).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(store.ids, room) if len(starts) else store.ids[:0]
    return np.asarray(windows[starts]) if len(starts) else np.empty((0, room), dtype=store.ids.dtype)


def _join_short(store: TokenStore, documents: NDArray[np.int64], *, room: int, between: tuple[int, ...]) -> Rows:
    """Short documents one after another with [SEP] between, cut where a row is full; an unfilled end is left out."""
    pieces: list[Rows] = []
    end_mark = np.array(between, dtype=store.ids.dtype)
    for document in documents:
        start, end = store.offsets[document], store.offsets[document + 1]
        pieces += [store.ids[start:end], end_mark]
    stream = np.concatenate(pieces) if pieces else np.empty(0, dtype=store.ids.dtype)
    full = len(stream) // room
    return stream[: full * room].reshape(full, room)
