"""Words that a stored run has never scored -> tokens in their context, scored from the states that it kept.

The model's tokenizer and the rows of its decoder are read; no forward pass is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptlab.backends.base import Backend, make_backend
from promptlab.blocks import BlockStore, StoredRows, is_outdated
from promptlab.deciding import word_fault
from promptlab.encoding import Encoder
from promptlab.errors import UsageError
from promptlab.evaluation import StoredBlock
from promptlab.filling import plain_tokens
from promptlab.label_words import Context, find_word_ids
from promptlab.planning import first_of_each
from promptlab.results import RunResults
from promptlab.scoring import score_from_states
from promptlab.store import RunStore
from promptlab.types import WordTokens
from promptlab.verbalizing import usable_words


def add_words(run: RunResults, store: RunStore, model: str, blocks: Sequence[StoredBlock]) -> None:
    """Look up and score the words of all cells that the blocks of a model do not know yet.

    Raises:
        UsageError: there are such words, and no states or no fixed surroundings of the slot to score them from.
    """
    unknown = {block.block_id: _unknown(store.block(block.block_id), block) for block in blocks}
    lacking = [block for block in blocks if unknown[block.block_id] or _unscored(store.block(block.block_id), block)]
    if not lacking:
        return
    for block in lacking:
        _refuse(run, store.block(block.block_id), block, unknown[block.block_id])
    spec = run.manifest["spec"]
    facts = next(item for item in run.manifest["models"] if item["model"] == model)
    backend = make_backend(model, revision=facts["revision"], device=facts["device_class"], dtype=facts["dtype"])
    if backend.scorer.identity() != {name: facts.get(name) for name in backend.scorer.identity()}:
        raise UsageError(f"model '{model}' is not what it was when run '{run.name}' was made: run its command again.")
    encoder = backend.encoder(spec["max_length"])
    for block in lacking:
        _add(store.block(block.block_id), block, unknown[block.block_id], backend, encoder)


def _unknown(store: BlockStore, block: StoredBlock) -> list[str]:
    """Words of the block's cells that none of its segments knows, or whose tokens a rule needs and nobody kept."""
    found = store.read_rows(next(iter(block.names.values()))).words
    known = {word for word, tokens in found.items() if not is_outdated(tokens)}
    words = ((cell, word) for cell in block.cells for word in cell.verbalizer.words)
    needed = [word for cell, word in words if word not in (found if cell.verbalizer.multi_token == "refuse" else known)]
    return list(dict.fromkeys(needed))


def _unscored(store: BlockStore, block: StoredBlock) -> set[int]:
    """Tokens that words of the block's cells ask about at plain masks, and that are not scored."""
    if all(cell.scoring != "mask" for cell in block.cells):
        return set()
    asked: set[int] = set()
    for name in block.names.values():
        words = store.read_rows(name).words
        for cell in first_of_each((cell.verbalizer.hash, cell) for cell in block.cells):
            is_known = set(cell.verbalizer.words) <= set(words)
            if is_known and word_fault(words, cell.verbalizer, cell.rule, block.shown) is None:
                asked |= plain_tokens(usable_words(words, cell.verbalizer).values(), cell.rule)
    return asked - set(store.read().columns)


def _refuse(run: RunResults, store: BlockStore, block: StoredBlock, words: Sequence[str]) -> None:
    what = f"the words {', '.join(map(repr, words))} were" if words else "the first tokens of some words were"
    again = "run its command again with --amend and all verbalizers."
    if store.read_states() is None:
        raise UsageError(f"{what} not scored in run '{run.name}', which kept no states to score them from: {again}")
    for name in block.names.values() if words else ():
        if "contexts" not in store.read_rows(name).metadata:
            raise UsageError(
                f"the words {', '.join(map(repr, words))} cannot be added to {block.shown}, whose mask touches text of "
                f"the rows: {again}"
            )


def _add(store: BlockStore, block: StoredBlock, words: Sequence[str], backend: Backend, encoder: Encoder) -> None:
    """Find the tokens of words in every segment, score them, and only then store that they are known."""
    found: dict[str, tuple[StoredRows, Mapping[str, WordTokens | str]]] = {}
    tokens: set[int] = set()
    for name in block.names.values() if words else ():
        stored = store.read_rows(name)
        new = find_word_ids(encoder, words, _contexts(stored.metadata["contexts"]))
        found[name] = stored, {**stored.words, **new}
        tokens |= {one.pieces[0] for one in new.values() if isinstance(one, WordTokens) and len(one.pieces) == 1}
    score_from_states(backend, store, sorted(tokens - set(store.read().columns)))
    for name, (stored, known) in found.items():
        store.write_rows(name, stored.rows, known, stored.metadata)
    score_from_states(backend, store, sorted(_unscored(store, block)))


def _contexts(stored: Sequence[Any]) -> list[tuple[Context, ...]]:
    """Surroundings of the slots as they are stored; those of schema 2 have one slot and no list for it."""
    slots = [[one] if isinstance(one[0], str) else one for one in stored]
    return [tuple(Context(*context) for context in of_prompt) for of_prompt in slots]
