"""Words that a stored run has never scored -> tokens in their context, scored from the states that it kept.

The model's tokenizer and the rows of its decoder are read; no forward pass is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptlab.backends.base import Backend
from promptlab.blocks import BlockStore
from promptlab.errors import UsageError
from promptlab.evaluation import StoredBlock
from promptlab.label_words import Context, find_word_ids
from promptlab.registry import BACKENDS
from promptlab.results import RunResults
from promptlab.scoring import score_from_states
from promptlab.store import RunStore


def add_words(run: RunResults, store: RunStore, model: str, blocks: Sequence[StoredBlock]) -> None:
    """Look up and score the words of all cells that the blocks of a model do not know yet.

    Raises:
        UsageError: there are such words, and no states or no fixed surroundings of the slot to score them from.
    """
    lacking = {block.block_id: words for block in blocks if (words := _unknown(store.block(block.block_id), block))}
    if not lacking:
        return
    for block in blocks:
        if block.block_id in lacking:
            _refuse(run, store.block(block.block_id), block, lacking[block.block_id])
    spec = run.manifest["spec"]
    facts = next(item for item in run.manifest["models"] if item["model"] == model)
    backend: Backend = BACKENDS.get("mlm")(
        model, revision=facts["revision"], device=facts["device_class"], dtype=facts["dtype"]
    )
    if backend.scorer.identity() != {name: facts[name] for name in backend.scorer.identity()}:
        raise UsageError(f"model '{model}' is not what it was when run '{run.name}' was made: run its command again.")
    encoder = backend.encoder(spec["max_length"])
    for block in blocks:
        if block.block_id in lacking:
            _add(store.block(block.block_id), block, lacking[block.block_id], backend, encoder)


def _unknown(store: BlockStore, block: StoredBlock) -> list[str]:
    """Words of the block's cells that none of its segments knows."""
    known: dict[str, Any] = store.read_rows(next(iter(block.names.values())))[1]["words"]
    return list(dict.fromkeys(word for cell in block.cells for word in cell.verbalizer.words if word not in known))


def _refuse(run: RunResults, store: BlockStore, block: StoredBlock, words: Sequence[str]) -> None:
    shown = ", ".join(repr(word) for word in words)
    again = "run its command again with --amend and all verbalizers."
    if store.read_states() is None:
        raise UsageError(
            f"the words {shown} were not scored in run '{run.name}', which kept no states to score them from: {again}"
        )
    for name in block.names.values():
        if "contexts" not in store.read_rows(name)[1]:
            raise UsageError(
                f"the words {shown} cannot be added to {block.shown}, whose mask touches text of the rows: {again}"
            )


def _add(store: BlockStore, block: StoredBlock, words: Sequence[str], backend: Backend, encoder: Any) -> None:
    """Find the tokens of words in every segment, score them, and only then store that they are known."""
    found: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    tokens: set[int] = set()
    for name in block.names.values():
        rows, stored = store.read_rows(name)
        contexts = [Context(*context) for context in stored["contexts"]]
        new = find_word_ids(encoder, words, contexts)
        found[name] = rows, {**stored, "words": {**stored["words"], **new}}
        tokens |= {token for token in new.values() if isinstance(token, int)}
    score_from_states(backend, store, sorted(tokens - set(store.read().columns)))
    for name, (rows, metadata) in found.items():
        store.write_rows(name, rows, {key: value for key, value in metadata.items() if key != "schema_version"})
