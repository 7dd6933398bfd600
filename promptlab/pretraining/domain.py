"""Corpora and a checkpoint's tokenizer -> what a run that goes on from the checkpoint reads, the same in every sitting.

The rules guarded here: special tokens come from the tokenizer and never from the text, and the held-out rows are masked
once, by the seed alone, so that the losses of two runs over the same corpora and base are about the same answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from promptlab.backends.loading import find_limits
from promptlab.backends.mlm import MaskedBackend
from promptlab.encoding import probe_frame
from promptlab.errors import DataError, ModelError, UsageError
from promptlab.pretraining.batches import Batches
from promptlab.pretraining.corpus import Corpus, is_held_out, iterate_documents
from promptlab.pretraining.job import Job, Report
from promptlab.pretraining.masking import HiddenPlaces, hide_words
from promptlab.pretraining.options import Continuation
from promptlab.pretraining.packing import Edges, Rows, pack_documents, pack_held_out, pack_pass, pack_word_starts
from promptlab.pretraining.recipe import Masking
from promptlab.pretraining.token_store import Ids, TokenStore, encode_documents, open_store
from promptlab.seeding import derive_seed

_MEASURED = Masking(rate=0.15)
_MAX_MEASURED_TOKENS = 65_536


@dataclass(frozen=True)
class Spelling:
    """What the rows of a tokenizer are made of.

    Args:
        engine: The tokenizer, parsing no special token in a text.
        edges: The special tokens of a row.
        mask_id: The id of the mask.
        unknown_id: The id of what the vocabulary does not hold; None where there is no such thing.
        can_hide: Whether a token id may be hidden or stand for another, shape (vocabulary,).
    """

    engine: Tokenizer
    edges: Edges
    mask_id: int
    unknown_id: int | None
    can_hide: Tensor

    def without_specials(self, ids: Ids) -> Ids:
        """Ids of text with the unknown token for special ones, which text turns into in some Unigram vocabularies."""
        is_special = ~self.can_hide.numpy()[ids]
        if self.unknown_id is None or not (is_special & (ids != self.unknown_id)).any():
            return ids
        return np.where(is_special, np.array(self.unknown_id, dtype=ids.dtype), ids)


@dataclass(frozen=True)
class Domain:
    """What the training reads and what it is measured on.

    Args:
        spelling: What its rows are made of.
        store: The encoded corpora.
        held_out: Masked rows of documents that are kept from the training.
        general: Masked rows of other text, by which forgetting is seen; None where none was named.
    """

    spelling: Spelling
    store: TokenStore
    held_out: HiddenPlaces
    general: HiddenPlaces | None


def prepare_domain(
    job: Job[Continuation], backend: MaskedBackend, general: tuple[Corpus, ...], *, report: Report
) -> Domain:
    """Encode the corpora, or find them where an earlier sitting left them, and mask what is measured."""
    options = job.recipe
    spelling = find_spelling(backend.tokenizer, num_embeddings=len(backend.model.get_input_embeddings().weight))
    _check_length(options, backend, spelling.edges)
    folder = job.output_path / "training"
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(
        job.corpora,
        spelling.engine,
        cache_path=folder,
        seed=job.seed,
        held_out_one_in=options.held_out_one_in,
        report=report,
        marks_words=options.whole_word,
    )
    store = replace(store, ids=spelling.without_specials(store.ids))
    rows = pack_held_out(store, length=options.row_length, edges=spelling.edges)
    if not len(rows):
        raise DataError(
            f"The corpora hold {len(store.lengths):,} documents with {len(store.ids):,} tokens, "
            f"{int(store.held_out.sum()):,} of them held out: too few for a held-out row of "
            f"{options.row_length} tokens; lower --row-length, or --held-out-one-in, "
            f"which is {options.held_out_one_in}."
        )
    held_out = _mask(rows, spelling, options.row_length, seed=job.seed)
    report(f"{len(store.ids):,} tokens in {len(store.lengths):,} documents; {len(held_out.ids):,} held-out rows")
    return Domain(spelling, store, held_out, _mask_general(job, general, spelling))


def find_spelling(tokenizer: object, *, num_embeddings: int) -> Spelling:
    """Learn from a fast tokenizer of transformers what its rows are made of.

    Raises:
        ModelError: it is not a fast one, or has no mask token.
    """
    found: Any = tokenizer
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the tokenizer {type(found).__name__} is not a fast one (no tokenizer.json).")
    if found.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token, so the checkpoint is no masked language model.")
    engine = Tokenizer.from_str(backend.to_str())
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    frame = probe_frame(found, 1)
    can_hide = torch.zeros(num_embeddings, dtype=torch.bool)
    can_hide[list(found.get_vocab().values())] = True
    can_hide[list(found.all_special_ids)] = False
    edges = Edges(frame.prefix, frame.suffix or frame.prefix, frame.suffix)
    return Spelling(engine, edges, int(found.mask_token_id), found.unk_token_id, can_hide)


def make_batches(job: Job[Continuation], domain: Domain) -> tuple[Batches, Batches | None]:
    """The rows of each step, and beside them which tokens begin a word where words are hidden whole."""
    options, store, edges = job.recipe, domain.store, domain.spelling.edges
    seed = derive_seed(job.seed, "continuing")

    def pack_ids(number: int) -> Rows:
        return pack_pass(store, job.weights, length=options.row_length, seed=seed, pass_index=number, edges=edges)

    def pack_starts(number: int) -> Rows:
        return pack_word_starts(
            store, job.weights, length=options.row_length, seed=seed, pass_index=number, edges=edges
        )

    remedy = "lower --batch-rows, --accumulate or --row-length"
    both = [pack_ids, pack_starts] if options.whole_word else [pack_ids]
    made = [Batches(pack, rows_a_step=options.rows_a_step, remedy=remedy) for pack in both]
    return made[0], made[1] if options.whole_word else None


def _check_length(options: Continuation, backend: MaskedBackend, edges: Edges) -> None:
    """Refuse rows that the model has no positions for, or that have no room for text."""
    limit, _ = find_limits(backend.checkpoint)
    if options.row_length > limit:
        raise UsageError(f"--row-length {options.row_length}: model '{options.model}' reads at most {limit} tokens.")
    if options.row_length <= edges.size + 1:
        raise UsageError(
            f"--row-length {options.row_length}: the tokenizer puts {edges.size} special tokens into a row, "
            "which leaves no room for text."
        )


def _mask(rows: Rows, spelling: Spelling, length: int, *, seed: int) -> HiddenPlaces:
    """Hide 15 % of the tokens of some rows, whatever the training hides, evenly chosen where there are many."""
    every = -(-len(rows) // max(1, _MAX_MEASURED_TOKENS // length))
    chosen = torch.from_numpy(rows[::every].astype(np.int64))
    seed = derive_seed(seed, "held_out_masks")
    return hide_words(chosen, None, spelling.can_hide, _MEASURED, mask_id=spelling.mask_id, seed=seed)


def _mask_general(job: Job[Continuation], corpora: tuple[Corpus, ...], spelling: Spelling) -> HiddenPlaces | None:
    """Masked rows of held-out documents of text that is only measured; of a large file the first that are enough."""
    if not corpora:
        return None
    found = list(encode_documents(_sample(job, corpora), spelling.engine))
    lengths = [len(ids) for ids, _ in found]
    length = job.recipe.row_length
    rows: Rows = np.empty((0, length))
    if sum(lengths):
        flags = np.ones(len(found), dtype=np.bool_)
        ids = spelling.without_specials(np.concatenate([ids for ids, _ in found]))
        store = TokenStore(ids, np.cumsum([0, *lengths]), np.zeros(len(found), dtype=np.uint8), flags)
        rows = pack_documents(store, np.arange(len(found)), length=length, edges=spelling.edges)
    if not len(rows):
        names = ", ".join(str(corpus.path) for corpus in corpora)
        raise DataError(
            f"--general {names}: one document in {job.recipe.held_out_one_in} is measured, and those do not fill a row "
            f"of {length} tokens; name more text, or lower --held-out-one-in."
        )
    return _mask(rows, spelling, length, seed=job.seed)


def _sample(job: Job[Continuation], corpora: tuple[Corpus, ...]) -> Iterator[str]:
    """Held-out documents of each corpus until they have enough characters."""
    for corpus in corpora:
        num_characters = 0
        for index, document in enumerate(iterate_documents(corpus)):
            if is_held_out(job.seed, corpus, index, one_in=job.recipe.held_out_one_in):
                yield document
                num_characters += len(document)
            if num_characters > 8 * _MAX_MEASURED_TOKENS // len(corpora):
                break
