"""Planned block -> stored rows: which prompt answers for each row, which token each word is, and what must be scored.

Prompts are rendered and encoded window by window, so that memory does not grow with the rows; encodings are kept for
the scoring that follows while they are few, and made again where they are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.blocks import KEY_BYTES, BlockScores, BlockStore, PromptRows
from promptlab.calibration import ROWS
from promptlab.encoding import Encoder
from promptlab.errors import DataError
from promptlab.label_words import Context, find_word_ids, slot_contexts
from promptlab.planning import PlannedBlock
from promptlab.rendering import CompiledTemplate, check_one_mask, render
from promptlab.types import EncodedPrompt, Example, Prompt, Unscorable

if TYPE_CHECKING:
    from jaxtyping import Bool

WINDOW = 8192  # rows whose prompts are planned into batches together
MAX_KEPT = 16384  # encoded prompts that are held between preparing and scoring
MAX_CONTEXTS = 16  # distinct surroundings of a slot that are stored

Encoded = EncodedPrompt | Unscorable


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where the prompts of one segment come from, and the name of the file that says so."""

    stored: str
    examples: Sequence[Example]
    template: CompiledTemplate


@dataclass(slots=True, eq=False)
class Prepared:
    """A block whose rows are stored: the words of each segment, and how many prompts must be scored.

    `kept` has the encodings of segments that were encoded just now and are few.
    """

    planned: PlannedBlock
    sources: Mapping[str, Source]
    words: Mapping[str, Mapping[str, int | str]]
    num_missing: int
    has_prompts: bool = True
    kept: dict[str, list[Encoded]] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """The file of each segment."""
        return {name: source.stored for name, source in self.sources.items()}

    @property
    def token_ids(self) -> list[int]:
        """The candidate tokens of the block."""
        found = {token for words in self.words.values() for token in words.values() if isinstance(token, int)}
        return sorted(found)


@dataclass(slots=True)
class Allowance:
    """How many encoded prompts may still be held."""

    left: int = MAX_KEPT

    def take(self, number: int) -> bool:
        """Whether so many more may be held; they are counted if so."""
        is_granted = number <= self.left
        self.left -= number if is_granted else 0
        return is_granted


def prepare_block(
    planned: PlannedBlock, store: BlockStore, encoder: Encoder, *, seed: int, allowance: Allowance
) -> Prepared:
    """Render and encode what is not stored yet, and count the prompts that the block lacks.

    Raises:
        TemplateError, DataError: a row that cannot be rendered or encoded, with its place.
    """
    sources = find_sources(planned)
    words: dict[str, Mapping[str, int | str]] = {}
    kept: dict[str, list[Encoded]] = {}
    for name, source in sources.items():
        known = _stored_words(store, source)
        if known is None or not set(planned.candidate_words) <= set(known):
            known, encoded = _write_rows(planned, source, store, encoder, seed, allowance)
            if encoded is not None:
                kept[name] = encoded
        words[name] = known
    store.describe(planned.identity)
    prepared = Prepared(planned, sources, words, 0, kept=kept)
    prepared.num_missing = count_missing(prepared, store)
    return prepared


def count_missing(prepared: Prepared, store: BlockStore) -> int:
    """How many distinct prompts lack a token, of those that can be scored."""
    keys = np.concatenate([store.read_rows(source.stored)[0].keys for source in prepared.sources.values()])
    distinct = np.unique(keys[keys != b""])
    prepared.has_prompts = len(distinct) > 0
    return int(store.read().missing(distinct, prepared.token_ids).sum())


def find_sources(planned: PlannedBlock) -> dict[str, Source]:
    """The segments of a block: its rows first, then what its calibrations ask."""
    sources = {ROWS: Source(planned.rows_name, planned.rows.examples, planned.template)}
    for name, group in planned.groups.items():
        sources[name] = Source(planned.group_name(group), group.examples, group.template or planned.template)
    return sources


def missing_windows(
    prepared: Prepared, store: BlockStore, stored: BlockScores, encoder: Encoder, *, seed: int
) -> Iterator[list[EncodedPrompt]]:
    """The prompts of every window in which one is missing; each prompt stands in the first window that has it."""
    rows = [store.read_rows(source.stored)[0] for source in prepared.sources.values()]
    first = _first_occurrences([one.keys for one in rows])
    for (name, source), one, is_first in zip(prepared.sources.items(), rows, first, strict=True):
        for start in range(0, len(one), WINDOW):
            window = slice(start, start + WINDOW)
            wanted = np.flatnonzero(is_first[window])
            if not stored.missing(one.keys[window][wanted], prepared.token_ids).any():
                continue
            kept = prepared.kept.get(name)
            encoded = kept[window] if kept is not None else None
            if encoded is None:
                _, encoded = _encode(prepared.planned, source, source.examples[window], encoder, seed)
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


def _write_rows(
    planned: PlannedBlock, source: Source, store: BlockStore, encoder: Encoder, seed: int, allowance: Allowance
) -> tuple[dict[str, int | str], list[Encoded] | None]:
    """Encode a segment window by window and store its rows; its words, and the encodings where they may be held."""
    is_kept = allowance.take(len(source.examples))
    kept: list[Encoded] = []
    contexts: dict[Context, None] = {}
    columns = _Columns(planned.task.labels)
    for start in range(0, len(source.examples), WINDOW):
        examples = source.examples[start : start + WINDOW]
        prompts, encoded = _encode(planned, source, examples, encoder, seed)
        contexts |= {context: None for prompt in prompts for context in slot_contexts(prompt)}
        columns.add(examples, encoded)
        kept += encoded if is_kept else []
    words = find_word_ids(encoder, planned.candidate_words, list(contexts))
    metadata: dict[str, Any] = {"words": words}
    if len(contexts) <= MAX_CONTEXTS and all(context.is_literal for context in contexts):
        metadata["contexts"] = [[context.left, context.right, context.shown] for context in contexts]
    store.write_rows(source.stored, columns.rows(), metadata)
    return words, kept if is_kept else None


def _encode(
    planned: PlannedBlock, source: Source, examples: Sequence[Example], encoder: Encoder, seed: int
) -> tuple[list[Prompt], list[Encoded]]:
    """Render and encode some examples; what one of them is refused for is said with its template and row."""
    template = source.template
    prompts = [render(template, example, options=planned.options, seed=seed) for example in examples]
    for example, prompt in zip(examples, prompts, strict=True):
        check_one_mask(template, example, prompt)
    try:
        return prompts, list(encoder.encode(prompts))
    except DataError:
        for example, prompt in zip(examples, prompts, strict=True):
            try:
                encoder.encode([prompt])
            except DataError as error:
                raise DataError(f"{template.shown}, row {example.id}: {error}") from None
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
