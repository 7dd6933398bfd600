"""Token counts -> word vectors that start the net: what the corpora say about which words keep company.

The input and output vectors are the two factors of the positive pointwise mutual information of word pieces within a
window (Levy and Goldberg 2014 show that word2vec factorises the same matrix). They take a minute where training takes
hours. The rule guarded here: rows are scaled to unit length before the factorisation, because the net's first layer
norm does so to its input vectors anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from promptlab.pretraining.recipe import Vectors
from promptlab.pretraining.token_store import TokenStore
from promptlab.seeding import derive_generator, derive_seed

_SMOOTHING = 0.75
_EXTRA_DIMENSIONS = 32
_POWER_ITERATIONS = 4


@dataclass(frozen=True)
class WordVectors:
    """Two vectors a word piece; a piece that the counts never saw has zeros.

    Args:
        inputs: Rows of unit length, shape (vocabulary, width).
        outputs: Their product with an input vector is the scaled mutual information, shape (vocabulary, width).
        frequencies: Weighted count of each piece, shape (vocabulary,).
    """

    inputs: Tensor
    outputs: Tensor
    frequencies: Tensor


def learn_vectors(
    store: TokenStore, weights: Sequence[float], *, vectors: Vectors, vocabulary_size: int, width: int, seed: int
) -> WordVectors:
    """Count, weigh and factorise."""
    frequencies = count_tokens(store, weights, vocabulary_size=vocabulary_size)
    counts = _count_pairs(store, weights, frequencies, vectors=vectors, seed=seed)
    inputs, outputs = _factorise(_mutual_information(counts), width=width, seed=derive_seed(seed, "factorise") % 2**31)
    return WordVectors(inputs, outputs, torch.from_numpy(frequencies).float())


def count_tokens(store: TokenStore, weights: Sequence[float], *, vocabulary_size: int) -> NDArray[np.float64]:
    """Count each piece in the training documents, by the weights of the corpora, shape (vocabulary,)."""
    counts = np.bincount(store.ids, weights=_token_weights(store, weights), minlength=vocabulary_size)
    return counts.astype(np.float64)


def _token_weights(store: TokenStore, weights: Sequence[float]) -> NDArray[np.float64]:
    return np.repeat(np.asarray(weights, dtype=np.float64)[store.corpus_index] * ~store.held_out, store.lengths)


def _count_pairs(
    store: TokenStore, weights: Sequence[float], frequencies: NDArray[np.float64], *, vectors: Vectors, seed: int
) -> Tensor:
    """Count pairs within a window after thinning out frequent pieces; near pairs weigh more, shape (piece, piece)."""
    size = len(frequencies)
    relative = np.maximum(frequencies / frequencies.sum(), 1e-12)
    keep_rate = np.minimum(1.0, np.sqrt(vectors.subsample / relative))
    token_weights = _token_weights(store, weights)
    kept = derive_generator(seed, "thin").random(len(store.ids)) < keep_rate[store.ids]
    document = np.repeat(np.arange(len(store.lengths), dtype=np.int32), store.lengths)
    total = np.zeros(size * size, dtype=np.float32)
    for weight in np.unique(token_weights[token_weights > 0]):
        chosen = np.flatnonzero(kept & (token_weights == weight))
        ids, owner = store.ids[chosen].astype(np.int64), document[chosen]
        for distance in range(1, vectors.window + 1):
            together = owner[:-distance] == owner[distance:]
            codes = (ids[:-distance] * size + ids[distance:])[together]
            nearness = (vectors.window + 1 - distance) / vectors.window
            total += np.bincount(codes, minlength=size * size) * np.float32(weight * nearness)
    counts = torch.from_numpy(total).view(size, size)
    return counts + counts.T


def _mutual_information(counts: Tensor) -> Tensor:
    """Positive pointwise mutual information with smoothed context counts, rows of unit length, (piece, piece)."""
    row, column = counts.sum(1), counts.sum(0) ** _SMOOTHING
    expected = row[:, None] * (column / column.sum())[None, :]
    information = torch.log(counts / expected.clamp_min(1e-9)).nan_to_num_(0.0, 0.0, 0.0).clamp_min_(0.0)
    unit: Tensor = information / information.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return unit


def _factorise(matrix: Tensor, *, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Truncated singular vectors by subspace iteration, the singular values shared between the two factors."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(width + _EXTRA_DIMENSIONS, len(matrix))
    basis = torch.randn(len(matrix), rank, generator=generator)
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis).Q
        basis = torch.linalg.qr(matrix.T @ basis).Q
    left, values, right = torch.linalg.svd(matrix @ basis, full_matrices=False)
    left, values, right = left[:, :width], values[:width], (basis @ right.T)[:, :width]
    inputs = left * values.sqrt()
    length = inputs.norm(dim=1, keepdim=True)
    missing = (0, width - left.shape[1])  # a vocabulary smaller than the width has no more dimensions to give
    return F.pad(inputs / length.clamp_min(1e-9), missing), F.pad(right * values.sqrt() * length.mean(), missing)
