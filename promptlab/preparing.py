"""Planned block -> the token of each word, then stored rows: which prompt answers for each row, what must be scored.

Words come first, for all blocks, because a word that cannot be scored is told before any forward pass; they need
rendered prompts and no encoded ones. Prompts are rendered and encoded window by window, so that memory does not grow
with the rows; encodings are kept for the scoring that follows while they are few, and made again where they are many.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.blocks import BlockStore, PromptRows, is_outdated
from promptlab.calibration import ROWS
from promptlab.choosing import SHOTS
from promptlab.deciding import segment_name, word_fault
from promptlab.encoding import Encoder, check_text
from promptlab.errors import DataError
from promptlab.filling import Rule, count_fills, count_missing_fills, is_simple, plain_tokens, reserve_of
from promptlab.label_words import Context, find_word_ids, slot_contexts
from promptlab.planning import PlannedBlock
from promptlab.rendering import CompiledTemplate, check_masks, count_masks, render
from promptlab.types import EncodedPrompt, Example, Prompt, Unscorable, WordTokens

if TYPE_CHECKING:
    from jaxtyping import Bool

    from promptlab.block_scores import Keys

WINDOW = 8192  # rows whose prompts are planned into batches together
MAX_KEPT = 16384  # encoded prompts of one block that are held between encoding and scoring
MAX_CONTEXTS = 16  # distinct surroundings of a slot that are stored

Encoded = EncodedPrompt | Unscorable
Contexts = tuple[Context, ...]  # one a slot


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where the prompts of one segment come from, the name of the file that says so, and how much room they leave."""

    stored: str
    examples: Sequence[Example]
    template: CompiledTemplate
    reserve: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A block whose words are known, with the surroundings of its slot in each segment that is not stored yet."""

    planned: PlannedBlock
    sources: Mapping[str, Source]
    words: Mapping[str, Mapping[str, WordTokens | str]]
    contexts: Mapping[str, Sequence[Contexts]]

    @property
    def names(self) -> dict[str, str]:
        """The file of each segment."""
        return {name: source.stored for name, source in self.sources.items()}

    @property
    def token_ids(self) -> list[int] | None:
        """The candidate tokens of the block; None where no mask is asked about."""
        if self.planned.scoring != "mask":
            return None
        words = [tokens for of_segment in self.words.values() for tokens in of_segment.values()]
        found = {tokens.pieces[0] for tokens in words if isinstance(tokens, WordTokens) and len(tokens.pieces) == 1}
        for of_segment in self.words.values():
            for asked in _asked_words(self.planned, of_segment):
                found |= plain_tokens(*asked)
        return sorted(found)

    @property
    def num_prompts(self) -> int:
        """How many prompts are scored at most, repeats and fills counted."""
        plain = 0 if self.token_ids is None else sum(len(source.examples) for source in self.sources.values())
        return plain + self.num_filled

    @property
    def num_filled(self) -> int:
        """How many filled prompts words ask about at most, repeats counted."""
        return sum(len(source.examples) * count_fills(self.fills(name)) for name, source in self.sources.items())

    def fills(self, name: str) -> list[tuple[WordTokens, Rule]]:
        """The words that ask about fills of the prompts of a segment, each with its rule."""
        found: dict[tuple[WordTokens, Rule], None] = {}
        for words, rule in _asked_words(self.planned, self.words[name]):
            if reserve_of(words, rule) == self.sources[name].reserve:
                found |= dict.fromkeys((word, rule) for word in words if not is_simple(word, rule))
        return list(found)


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
    sources: dict[str, Source] = {}
    words: dict[str, Mapping[str, WordTokens | str]] = {}
    contexts: dict[str, Sequence[Contexts]] = {}
    for base, source in find_sources(planned).items():
        surroundings = functools.cache(functools.partial(_find_contexts, planned, source, seed))
        known = _stored_words(store, source, planned)
        if known is None:
            contexts[base] = surroundings()
            known = _find_words(planned, encoder, contexts[base])
        sources[base], words[base] = source, known
        for reserve in sorted({reserve_of(*asked) for asked in _asked_words(planned, known)} - {0}):
            name, more = segment_name(base, reserve), _with_reserve(source, reserve)
            sources[name], words[name] = more, known
            if _stored_words(store, more, planned) is None:
                contexts[name] = surroundings()
    return Prepared(planned, sources, words, contexts)


def _find_words(planned: PlannedBlock, encoder: Encoder, contexts: Sequence[Contexts]) -> dict[str, WordTokens | str]:
    """The tokens of the words of a block; where labels are scored, the token of a label is its place."""
    if planned.fit is not None and planned.fit.method.answers == "label":
        return {label: WordTokens(((place,),)) for place, label in enumerate(planned.task.labels)}
    return find_word_ids(encoder, planned.candidate_words, contexts)


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
    """How many distinct prompts lack a token, and how many filled ones an answer; the rows are stored."""
    keys, scores, token_ids = _keys_of_segments(prepared, store), store.read(), prepared.token_ids
    every = np.unique(np.concatenate([*keys.values()]))
    plain = 0 if token_ids is None else int(scores.missing(every, token_ids).sum())
    return plain + sum(count_missing_fills(prepared.fills(name), one, scores) for name, one in keys.items())


def has_prompts(prepared: Prepared, store: BlockStore) -> bool:
    """Whether a block whose rows are stored has a prompt that can be scored."""
    return any(len(keys) for keys in _keys_of_segments(prepared, store).values())


def _keys_of_segments(prepared: Prepared, store: BlockStore) -> dict[str, Keys]:
    """The distinct prompts of every segment."""
    rows = {name: store.read_rows(source.stored).rows for name, source in prepared.sources.items()}
    return {name: np.unique(one.keys[one.keys != b""]) for name, one in rows.items()}


def encode_shots(planned: PlannedBlock, encoder: Encoder, *, seed: int) -> tuple[list[EncodedPrompt], list[Contexts]]:
    """The prompts of the shots of a block, and the surroundings of their slots.

    Raises:
        DataError: a shot does not fit into the length.
    """
    assert planned.fit is not None
    source = Source(SHOTS, planned.fit.shots.examples, planned.template)
    encoded = _encode(planned, source, source.examples, encoder, seed)
    for example, one in zip(source.examples, encoded, strict=True):
        if isinstance(one, Unscorable):
            raise DataError(f"{planned.template.shown}, shot {example.id} of task '{planned.task.name}': {one.reason}.")
    return [one for one in encoded if isinstance(one, EncodedPrompt)], _find_contexts(planned, source, seed)


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
    prepared, token_ids = block.prepared, block.prepared.token_ids
    if token_ids is None:
        return
    rows = [store.read_rows(source.stored).rows for source in prepared.sources.values()]
    first = _first_occurrences([one.keys for one in rows])
    for name, one, is_first in zip(prepared.sources, rows, first, strict=True):
        for window in _windows(one):
            wanted = np.flatnonzero(is_first[window])
            if stored.missing(one.keys[window][wanted], token_ids).any():
                yield _prompts(block, name, window, wanted, encoder, seed)


def fill_windows(
    block: EncodedBlock, store: BlockStore, encoder: Encoder, *, seed: int
) -> Iterator[tuple[list[EncodedPrompt], list[tuple[WordTokens, Rule]], BlockScores]]:
    """The prompts of every window of which a fill is missing, the words that ask about fills, and what is stored.

    No prompt stands in two windows of a segment, so what is stored is read once for all of them.
    """
    prepared = block.prepared
    for name, source in prepared.sources.items():
        words = prepared.fills(name)
        if not words:
            continue
        rows, stored = store.read_rows(source.stored).rows, store.read()
        (first,) = _first_occurrences([rows.keys])
        for window in _windows(rows):
            wanted = np.flatnonzero(first[window])
            if count_missing_fills(words, rows.keys[window][wanted], stored):
                yield _prompts(block, name, window, wanted, encoder, seed), words, stored


def _windows(rows: PromptRows) -> Iterator[slice]:
    return (slice(start, start + WINDOW) for start in range(0, len(rows), WINDOW))


def _prompts(
    block: EncodedBlock, name: str, window: slice, wanted: Any, encoder: Encoder, seed: int
) -> list[EncodedPrompt]:
    """Some prompts of a window, as they were kept or encoded once more."""
    source, kept = block.prepared.sources[name], block.kept.get(name)
    if kept is not None:
        encoded = kept[window]
    else:
        encoded = _encode(block.prepared.planned, source, source.examples[window], encoder, seed)
    found = (encoded[int(number)] for number in wanted)
    return [prompt for prompt in found if isinstance(prompt, EncodedPrompt)]


def _first_occurrences(keys: Sequence[Any]) -> list[Bool[np.ndarray, " row"]]:
    """Which rows, over all segments, are the first with their prompt."""
    whole = np.concatenate(keys)
    is_first = np.zeros(len(whole), dtype=bool)
    is_first[np.unique(whole, return_index=True)[1]] = True
    is_first &= whole != b""
    return np.split(is_first, np.cumsum([len(one) for one in keys])[:-1])


def _asked_words(planned: PlannedBlock, found: Mapping[str, WordTokens | str]) -> list[tuple[list[WordTokens], Rule]]:
    """The words of every verbalizer of the cells that can be used, with the rule that scores them."""
    asked = {cell.verbalizer.hash: cell for cell in planned.cells}.values()
    usable = [cell for cell in asked if word_fault(found, cell.verbalizer, cell.rule, planned.template.shown) is None]
    return [([found[word] for word in cell.verbalizer.words], cell.rule) for cell in usable]  # type: ignore[misc]  # no word has a fault


def _with_reserve(source: Source, reserve: int) -> Source:
    return replace(source, stored=f"{source.stored}-reserve{reserve}", reserve=reserve)


def _stored_words(store: BlockStore, source: Source, planned: PlannedBlock) -> dict[str, WordTokens | str] | None:
    """The words of a stored segment; None where it is not stored, or does not know the tokens of all of them."""
    if not store.has_rows(source.stored):
        return None
    words = store.read_rows(source.stored).words
    known = {word for word, found in words.items() if not is_outdated(found)}
    return words if set(planned.candidate_words) <= known else None


def _find_contexts(planned: PlannedBlock, source: Source, seed: int) -> list[Contexts]:
    """Every distinct surrounding of the slots over the prompts of a segment."""
    contexts: dict[Contexts, None] = {}
    for start in range(0, len(source.examples), WINDOW):
        examples = source.examples[start : start + WINDOW]
        for example, prompt in zip(examples, _render(planned, source, examples, seed), strict=True):
            found = slot_contexts(prompt)
            check_masks(source.template, example, prompt, number=len(next(iter(contexts), found)))
            contexts[found] = None
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
    metadata: dict[str, Any] = {}
    if len(contexts) <= MAX_CONTEXTS and all(context.is_literal for slots in contexts for context in slots):
        metadata["contexts"] = [[slot.stored() for slot in slots] for slots in contexts]
    store.write_rows(source.stored, columns.rows(), prepared.words[name], metadata)
    return kept if is_kept else None


def _render(planned: PlannedBlock, source: Source, examples: Sequence[Example], seed: int) -> list[Prompt]:
    """Prompts that have as many masks as the first, and whose text can be told from their masks."""
    template = source.template
    is_fitted = planned.fit is not None or planned.projects is not None
    prompts = [render(template, one, options=planned.options, seed=seed, is_fitted=is_fitted) for one in examples]
    for example, prompt in zip(examples, prompts, strict=True):
        check_masks(template, example, prompt, number=count_masks(prompts[0]))
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
        return list(encoder.encode(prompts, reserve=source.reserve))
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
