"""Planned block -> the token of each word, then stored rows: which prompt answers for each row, what must be scored.

Words come first, for all blocks, because a word that cannot be scored is told before any forward pass; they need
rendered prompts and no encoded ones. Prompts are rendered and encoded window by window, so that memory does not grow
with the rows; encodings are kept for the scoring that follows while they are few, and made again where they are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.blocks import KEY_BYTES, BlockScores, BlockStore, PromptRows
from promptlab.calibration import ROWS
from promptlab.encoding import Encoder, check_text
from promptlab.errors import DataError
from promptlab.label_words import Context, find_word_ids, slot_contexts
from promptlab.planning import PlannedBlock
from promptlab.rendering import CompiledTemplate, check_one_mask, render
from promptlab.types import EncodedPrompt, Example, Prompt, Unscorable

if TYPE_CHECKING:
    from jaxtyping import Bool

WINDOW = 8192  # rows whose prompts are planned into batches together
MAX_KEPT = 16384  # encoded prompts of one block that are held between encoding and scoring
MAX_CONTEXTS = 16  # distinct surroundings of a slot that are stored

Encoded = EncodedPrompt | Unscorable


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where the prompts of one segment come from, and the name of the file that says so."""

    stored: str
    examples: Sequence[Example]
    template: CompiledTemplate


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A block whose words are known, with the surroundings of its slot in each segment that is not stored yet."""

    planned: PlannedBlock
    sources: Mapping[str, Source]
    words: Mapping[str, Mapping[str, int | str]]
    contexts: Mapping[str, Sequence[Context]]

    @property
    def names(self) -> dict[str, str]:
        """The file of each segment."""
        return {name: source.stored for name, source in self.sources.items()}

    @property
    def token_ids(self) -> list[int]:
        """The candidate tokens of the block."""
        found = {token for words in self.words.values() for token in words.values() if isinstance(token, int)}
        return sorted(found)

    @property
    def num_prompts(self) -> int:
        """How many prompts the block has, repeats counted."""
        return sum(len(source.examples) for source in self.sources.values())


@dataclass(slots=True, eq=False)
class EncodedBlock:
    """A block whose rows are stored, and how many of its prompts must be scored.

    `kept` has the encodings of segments that were encoded just now and are few.
    """

    prepared: Prepared
    num_missing: int
    kept: Mapping[str, Sequence[Encoded]]


def prepare_block(planned: PlannedBlock, store: BlockStore, encoder: Encoder, *, seed: int) -> Prepared:
    """Find the token of every candidate word, from the store where the rows are there.

    Raises:
        TemplateError, DataError: a row that cannot be rendered, with its place.
    """
    sources = find_sources(planned)
    words: dict[str, Mapping[str, int | str]] = {}
    contexts: dict[str, Sequence[Context]] = {}
    for name, source in sources.items():
        known = _stored_words(store, source)
        if known is None or not set(planned.candidate_words) <= set(known):
            contexts[name] = _find_contexts(planned, source, seed)
            known = find_word_ids(encoder, planned.candidate_words, contexts[name])
        words[name] = known
    return Prepared(planned, sources, words, contexts)


def encode_block(prepared: Prepared, store: BlockStore, encoder: Encoder, *, seed: int) -> EncodedBlock:
    """Encode and store the rows of the segments that are not stored yet, and count what the block lacks.

    Raises:
        DataError: a row that cannot be encoded, with its place.
    """
    kept: dict[str, Sequence[Encoded]] = {}
    left = MAX_KEPT
    for name in prepared.contexts:
        number = len(prepared.sources[name].examples)
        encoded = _write_rows(prepared, name, store, encoder, seed, is_kept=number <= left)
        if encoded is not None:
            kept[name], left = encoded, left - number
    store.describe(prepared.planned.identity)
    return EncodedBlock(prepared, count_lacking(prepared, store), kept)


def count_missing(prepared: Prepared, store: BlockStore) -> int:
    """How many distinct prompts lack a token, of those that can be scored; all of them where no row is stored yet."""
    if prepared.contexts:
        return prepared.num_prompts
    return count_lacking(prepared, store)


def count_lacking(prepared: Prepared, store: BlockStore) -> int:
    """How many distinct prompts lack a token, of those that can be scored; the rows are stored."""
    return int(store.read().missing(_distinct_keys(prepared, store), prepared.token_ids).sum())


def has_prompts(prepared: Prepared, store: BlockStore) -> bool:
    """Whether a block whose rows are stored has a prompt that can be scored."""
    return len(_distinct_keys(prepared, store)) > 0


def _distinct_keys(prepared: Prepared, store: BlockStore) -> Any:
    keys = np.concatenate([store.read_rows(source.stored)[0].keys for source in prepared.sources.values()])
    return np.unique(keys[keys != b""])


def find_sources(planned: PlannedBlock) -> dict[str, Source]:
    """The segments of a block: its rows first, then what its calibrations ask."""
    sources = {ROWS: Source(planned.rows_name, planned.rows.examples, planned.template)}
    for name, group in planned.groups.items():
        sources[name] = Source(planned.group_name(group), group.examples, group.template or planned.template)
    return sources


def missing_windows(
    block: EncodedBlock, store: BlockStore, stored: BlockScores, encoder: Encoder, *, seed: int
) -> Iterator[list[EncodedPrompt]]:
    """The prompts of every window in which one is missing; each prompt stands in the first window that has it."""
    prepared = block.prepared
    rows = [store.read_rows(source.stored)[0] for source in prepared.sources.values()]
    first = _first_occurrences([one.keys for one in rows])
    for (name, source), one, is_first in zip(prepared.sources.items(), rows, first, strict=True):
        for start in range(0, len(one), WINDOW):
            window = slice(start, start + WINDOW)
            wanted = np.flatnonzero(is_first[window])
            if not stored.missing(one.keys[window][wanted], prepared.token_ids).any():
                continue
            kept = block.kept.get(name)
            if kept is not None:
                encoded = kept[window]
            else:
                encoded = _encode(prepared.planned, source, source.examples[window], encoder, seed)
            found = (encoded[int(number)] for number in wanted)
            yield [prompt for prompt in found if isinstance(prompt, EncodedPrompt)]


def _first_occurrences(keys: Sequence[Any]) -> list[Bool[np.ndarray, " row"]]:
    """Which rows, over all segments, are the first with their prompt."""
    whole = np.concatenate(keys)
    is_first = np.zeros(len(whole), dtype=bool)
    is_first[np.unique(whole, return_index=True)[1]] = True
    is_first &= whole != b""
    return np.split(is_first, np.cumsum([len(one) for one in keys])[:-1])


def _stored_words(store: BlockStore, source: Source) -> dict[str, int | str] | None:
    if not store.has_rows(source.stored):
        return None
    words: dict[str, int | str] = store.read_rows(source.stored)[1]["words"]
    return words


def _find_contexts(planned: PlannedBlock, source: Source, seed: int) -> list[Context]:
    """Every distinct surrounding of the slot over the prompts of a segment."""
    contexts: dict[Context, None] = {}
    for start in range(0, len(source.examples), WINDOW):
        for prompt in _render(planned, source, source.examples[start : start + WINDOW], seed):
            contexts |= dict.fromkeys(slot_contexts(prompt))
    return list(contexts)


def _write_rows(
    prepared: Prepared, name: str, store: BlockStore, encoder: Encoder, seed: int, *, is_kept: bool
) -> list[Encoded] | None:
    """Encode a segment window by window and store its rows and words; its encodings where they may be held."""
    source, contexts = prepared.sources[name], prepared.contexts[name]
    kept: list[Encoded] = []
    columns = _Columns(prepared.planned.task.labels)
    for start in range(0, len(source.examples), WINDOW):
        examples = source.examples[start : start + WINDOW]
        encoded = _encode(prepared.planned, source, examples, encoder, seed)
        columns.add(examples, encoded)
        kept += encoded if is_kept else []
    metadata: dict[str, Any] = {"words": dict(prepared.words[name])}
    if len(contexts) <= MAX_CONTEXTS and all(context.is_literal for context in contexts):
        metadata["contexts"] = [context.stored() for context in contexts]
    store.write_rows(source.stored, columns.rows(), metadata)
    return kept if is_kept else None


def _render(planned: PlannedBlock, source: Source, examples: Sequence[Example], seed: int) -> list[Prompt]:
    """Prompts that have one mask and whose text can be told from it."""
    template = source.template
    prompts = [render(template, example, options=planned.options, seed=seed) for example in examples]
    for example, prompt in zip(examples, prompts, strict=True):
        check_one_mask(template, example, prompt)
        try:
            check_text(prompt)
        except DataError as error:
            raise DataError(f"{template.shown}, row {example.id}: {error}") from None
    return prompts


def _encode(
    planned: PlannedBlock, source: Source, examples: Sequence[Example], encoder: Encoder, seed: int
) -> list[Encoded]:
    """Render and encode some examples; what one of them is refused for is said with its template and row."""
    prompts = _render(planned, source, examples, seed)
    try:
        return list(encoder.encode(prompts))
    except DataError:
        for example, prompt in zip(examples, prompts, strict=True):
            try:
                encoder.encode([prompt])
            except DataError as error:
                raise DataError(f"{source.template.shown}, row {example.id}: {error}") from None
        raise


class _Columns:
    """Rows that grow window by window, as arrays."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._gold = {label: number for number, label in enumerate(labels)}
        self._windows: list[tuple[Any, ...]] = []
        self._reasons: dict[int, str] = {}
        self._number = 0

    def add(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> None:
        """Take a window in."""
        import pyarrow as pa

        for offset, one in enumerate(encoded):
            if isinstance(one, Unscorable):
                self._reasons[self._number + offset] = one.reason
        keys = [one.key.encode() if isinstance(one, EncodedPrompt) else b"" for one in encoded]
        cut = [one.num_truncated if isinstance(one, EncodedPrompt) else 0 for one in encoded]
        gold = [self._gold.get(example.label, -1) if example.label is not None else -1 for example in examples]
        self._windows.append(
            (
                pa.array([example.id for example in examples], type=pa.string()),
                np.array([example.index for example in examples], dtype=np.int32),
                np.array(keys, dtype=f"S{KEY_BYTES}"),
                np.array(cut, dtype=np.int32),
                np.array(gold, dtype=np.int32),
            )
        )
        self._number += len(encoded)

    def rows(self) -> PromptRows:
        """All windows together."""
        import pyarrow as pa

        ids, index, keys, cut, gold = zip(*self._windows, strict=True)
        return PromptRows(
            row_ids=pa.concat_arrays(ids),
            row_index=np.concatenate(index),
            keys=np.concatenate(keys),
            num_truncated=np.concatenate(cut),
            gold=np.concatenate(gold),
            reasons=self._reasons,
        )
