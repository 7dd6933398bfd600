"""Corpora and a recipe -> the material that every sitting of a run reads, and the net as it starts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import ModernBertForMaskedLM

from promptlab.errors import DataError
from promptlab.pretraining.job import Job, Report
from promptlab.pretraining.masking import masking_weights
from promptlab.pretraining.measuring import HeldOut, mask_held_out
from promptlab.pretraining.packing import pack_held_out
from promptlab.pretraining.recipe import Recipe
from promptlab.pretraining.starting import start_from_vectors
from promptlab.pretraining.token_store import TokenStore, open_store, training_documents
from promptlab.pretraining.vectors import count_tokens, learn_vectors
from promptlab.pretraining.vocabulary import load_tokenizer, train_vocabulary

_HELD_OUT_LENGTH = 128
_MAX_HELD_OUT_ROWS = 1_000


@dataclass(frozen=True)
class Material:
    """What the training reads: the same in every sitting."""

    tokenizer: Tokenizer
    store: TokenStore
    frequencies: Tensor
    held_out: HeldOut


def prepare(job: Job[Recipe], *, report: Report) -> Material:
    """Make the vocabulary, the token store and the held-out rows, or find them where an earlier sitting left them."""
    folder = job.output_path / "training"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(job, folder / "tokenizer.json", report=report)
    store = open_store(
        job.corpora,
        tokenizer,
        cache_path=folder,
        seed=job.seed,
        held_out_one_in=job.recipe.held_out_one_in,
        report=report,
    )
    counts = count_tokens(store, job.weights, vocabulary_size=tokenizer.get_vocab_size())
    frequencies = torch.from_numpy(counts).float()
    rows = pack_held_out(store, length=min(_HELD_OUT_LENGTH, job.recipe.shape.max_length))
    if not len(rows) or not counts.sum():
        raise DataError(
            f"The corpora hold {len(store.lengths):,} documents with {len(store.ids):,} tokens, "
            f"{int(store.held_out.sum()):,} of them held out: too few for one row each of training and held-out text."
        )
    every = -(-len(rows) // _MAX_HELD_OUT_ROWS)
    held_out = mask_held_out(torch.from_numpy(rows[::every].astype(np.int64)), frequencies, seed=job.seed)
    report(f"{len(store.ids):,} tokens in {len(store.lengths):,} documents; {len(rows[::every]):,} held-out rows")
    return Material(tokenizer, store, frequencies, held_out)


def start_model(model: ModernBertForMaskedLM, job: Job[Recipe], material: Material, *, report: Report) -> None:
    """Learn word vectors and write them into a fresh net."""
    report("learning word vectors")
    vectors = learn_vectors(
        material.store,
        job.weights,
        vectors=job.recipe.vectors,
        vocabulary_size=material.tokenizer.get_vocab_size(),
        width=job.recipe.shape.width,
        seed=job.seed,
    )
    masking = job.recipe.stages[0].masking
    loss = start_from_vectors(
        model, vectors, material.held_out.content_words, weights=masking_weights(material.frequencies, masking)
    )
    report(f"the net starts as a bag of words: held-out loss {loss:.3f} on content words")


def _tokenizer(job: Job[Recipe], path: Path, *, report: Report) -> Tokenizer:
    if path.exists():
        return load_tokenizer(path)
    report("training the vocabulary")
    rule = job.recipe.vocabulary
    documents = training_documents(job.corpora, seed=job.seed, held_out_one_in=job.recipe.held_out_one_in)
    tokenizer = train_vocabulary(documents, size=rule.size, whole_words=rule.whole_words)
    tokenizer.save(str(path))
    return tokenizer
