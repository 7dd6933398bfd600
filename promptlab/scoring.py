"""Encoded prompts -> stored mask scores: dedupe, plan, batch, back off, flush.

Batches are planned from all prompts that are given together, not from what is missing, and a flushed part is a whole
number of planned batches: a resumed run forms the same batches and stores the same numbers. Words of several tokens
add prompts with fills in their slots, planned in the same way, one depth after the other.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from promptlab.backends.base import Backend
from promptlab.batching import BatchSize, plan_batches
from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.blocks import BlockStore
from promptlab.errors import ModelError
from promptlab.filling import Asked, Rule, asked_at, fill_prompt
from promptlab.types import EncodedPrompt, Fill, FilledPrompt, FillScores, MaskScores, WordTokens

P = TypeVar("P", bound=EncodedPrompt | FilledPrompt)
S = TypeVar("S", bound=MaskScores | FillScores)

SCORING_VERSION = 1
BATCHES_PER_PART = 16
FILLS_PER_PLAN = 16384  # filled prompts that are planned into batches together


@dataclass(slots=True)
class Tally:
    """What a scoring pass did."""

    num_forwards: int = 0
    num_prompts: int = 0
    num_tokens: int = 0
    num_back_offs: int = 0

    def add(self, batch: Sequence[EncodedPrompt | FilledPrompt], scored: _Scored[Any]) -> None:
        """Count a batch that was scored."""
        self.num_forwards += scored.num_forwards
        self.num_back_offs += scored.num_back_offs
        self.num_prompts += len(batch)
        self.num_tokens += sum(len(prompt) for prompt in batch)

    def add_all(self, other: Tally) -> None:
        """Count what another pass did."""
        self.num_forwards += other.num_forwards
        self.num_back_offs += other.num_back_offs
        self.num_prompts += other.num_prompts
        self.num_tokens += other.num_tokens


def score_block(
    backend: Backend,
    store: BlockStore,
    prompts: Iterable[EncodedPrompt],
    token_ids: Sequence[int],
    *,
    batch_size: BatchSize,
    on_batch: Callable[[int], None] = lambda num_prompts: None,
    stored: BlockScores | None = None,
    keep_states: bool = False,
) -> Tally:
    """Score what the block still lacks of some prompts, and store it.

    Args:
        backend: runs the model.
        store: the block; what it holds already is not scored again.
        prompts: prompts of the block that are planned together, in any order, repeats allowed.
        token_ids: the candidate tokens whose log-probabilities are wanted.
        batch_size: how large a batch may be.
        on_batch: called for each finished batch with the number of its prompts that were missing.
        stored: what the block holds, where the caller has read it.
        keep_states: whether the last states at the masks are stored too.

    Raises:
        ModelError: one prompt alone does not fit into memory, or the model gives NaN.
    """
    unique = list({prompt.key: prompt for prompt in prompts}.values())
    stored = store.read() if stored is None else stored
    wanted = sorted(set(token_ids))
    lacking = _lacking(stored, unique, wanted)
    return _score_missing(
        backend,
        unique,
        [prompt.key in lacking for prompt in unique],
        _mask_scorer(backend, wanted, keep_states=keep_states),
        batch_size=batch_size,
        on_batch=on_batch,
        on_part=store.append,
    )


def score_prompts(
    backend: Backend, prompts: Sequence[EncodedPrompt], token_ids: Sequence[int], *, batch_size: BatchSize
) -> list[MaskScores]:
    """Scores of prompts that nothing stores, each prompt once, in no particular order."""
    unique = list({prompt.key: prompt for prompt in prompts}.values())
    found: list[MaskScores] = []
    score = _mask_scorer(backend, sorted(set(token_ids)))
    everything = [True] * len(unique)
    _score_missing(backend, unique, everything, score, batch_size=batch_size, on_part=found.extend)
    return found


def score_fills(
    backend: Backend,
    prompts: Iterable[EncodedPrompt],
    words: Sequence[tuple[WordTokens, Rule]],
    stored: BlockScores,
    *,
    mask_id: int,
    batch_size: BatchSize,
    on_batch: Callable[[int], None] = lambda num_prompts: None,
    on_part: Callable[[list[FillScores]], None] = lambda part: None,
) -> tuple[BlockScores, Tally]:
    """Score what words of several tokens ask about prompts and is not stored yet.

    Args:
        backend: runs the model.
        prompts: prompts that are planned together, repeats allowed; their plain masks are scored.
        words: tokens and the rule that says which fills they ask about.
        stored: what is known.
        mask_id: the token of a mask.
        batch_size: how large a batch may be.
        on_batch: called for each finished batch with the number of its filled prompts that were missing.
        on_part: called with what is to be stored, a whole number of planned batches.

    Returns:
        What is known afterwards, and what it took.

    Raises:
        ModelError: one prompt alone does not fit into memory, or the model gives NaN.
    """
    unique = list({prompt.key: prompt for prompt in prompts}.values())
    keys = np.array([prompt.key.encode() for prompt in unique], dtype=f"S{KEY_BYTES}")
    tally, depth = Tally(), 0
    while (asked := asked_at(words, keys, stored, depth)) is not None:
        for filled, is_missing in _filled_prompts(unique, asked, mask_id):
            found: list[FillScores] = []
            keep = functools.partial(_keep, found, on_part)
            done = _score_missing(
                backend,
                filled,
                is_missing,
                lambda batch: FillScores.of(batch, backend.score_fills(batch)),
                batch_size=batch_size,
                on_batch=on_batch,
                on_part=keep,
            )
            tally.add_all(done)
            stored = stored.with_fills(found)
        depth += 1
    return stored, tally


def score_from_states(backend: Backend, store: BlockStore, token_ids: Sequence[int]) -> int:
    """Add tokens to every prompt whose last state at the mask is stored; how many prompts that were.

    No forward pass: the decoder's rows of these tokens alone are applied to the states.
    """
    kept = store.read_states()
    if kept is None or kept.states is None or not token_ids:
        return 0
    wanted = np.array(sorted(set(token_ids)), dtype=np.int64)
    weight, bias = backend.decoder_rows(wanted)
    logits = kept.states @ weight.T + bias
    log_probs = (logits - kept.log_normalizers[:, None]).astype(np.float32)
    store.append([replace(kept, token_ids=wanted, log_probs=log_probs, states=None)])
    return len(kept.keys)


def _lacking(stored: BlockScores, prompts: Sequence[EncodedPrompt], token_ids: Sequence[int]) -> set[str]:
    """Keys of the prompts that lack a token at one of their masks."""
    lacking: set[str] = set()
    for mask in range(max((len(prompt.mask_positions) for prompt in prompts), default=0)):
        having = [prompt for prompt in prompts if len(prompt.mask_positions) > mask]
        keys = np.array([prompt.key.encode() for prompt in having], dtype=f"S{KEY_BYTES}")
        missing = stored.missing(keys, token_ids, mask)
        lacking |= {prompt.key for prompt, is_missing in zip(having, missing, strict=True) if is_missing}
    return lacking


def _filled_prompts(
    prompts: Sequence[EncodedPrompt], asked: Sequence[Asked], mask_id: int
) -> Iterator[tuple[list[FilledPrompt], list[bool]]]:
    """Filled prompts that are planned together, each once with all that is asked about it, and which are missing."""
    by_fill: dict[Fill, list[Asked]] = {}
    for one in asked:
        by_fill.setdefault(one.fill, []).append(one)
    each = ((fill, *of_row) for fill, several in by_fill.items() for of_row in _by_row(several))
    while together := list(itertools.islice(each, FILLS_PER_PLAN)):
        filled = [fill_prompt(prompts[row], fill, pairs, mask_id=mask_id) for fill, row, pairs, _ in together]
        yield filled, [is_missing for *_, is_missing in together]


def _by_row(several: Sequence[Asked]) -> Iterator[tuple[int, list[tuple[int, int]], bool]]:
    """Of one fill, all that is asked about each prompt, and whether some of it is missing."""
    questions: dict[int, dict[tuple[int, int], None]] = {}
    missing: set[int] = set()
    for one in several:
        pairs = dict.fromkeys(zip(one.positions, one.token_ids, strict=True))
        missing.update(one.rows[one.is_missing].tolist())
        for row in one.rows.tolist():
            questions.setdefault(row, {}).update(pairs)
    return ((row, list(pairs), row in missing) for row, pairs in questions.items())


def _keep(found: list[FillScores], on_part: Callable[[list[FillScores]], None], part: list[FillScores]) -> None:
    """Hand a part on, and keep it for what is asked next."""
    on_part(part)
    found += part


@dataclass(slots=True)
class _Scored(Generic[S]):
    """The scores of one batch and what they took; made by one thread, added up by the one that stores."""

    scores: list[S]
    num_forwards: int = 1
    num_back_offs: int = 0


def _mask_scorer(
    backend: Backend, wanted: Sequence[int], *, keep_states: bool = False
) -> Callable[[Sequence[EncodedPrompt]], MaskScores]:
    """What scores the plain masks of a batch."""
    token_ids = np.array(wanted, dtype=np.int64)
    return functools.partial(backend.score, token_ids=token_ids, keep_states=keep_states)


def _score_missing(
    backend: Backend,
    prompts: Sequence[P],
    is_missing: Sequence[bool],
    score: Callable[[Sequence[P]], S],
    *,
    batch_size: BatchSize,
    on_part: Callable[[list[S]], None],
    on_batch: Callable[[int], None] = lambda num_prompts: None,
) -> Tally:
    """Plan batches from all prompts, score those in which one is missing, and hand the scores on in whole parts."""
    plan = plan_batches([len(prompt) for prompt in prompts], [prompt.key for prompt in prompts], batch_size)
    missing = [indices for indices in plan if any(is_missing[index] for index in indices)]
    batches = [[prompts[index] for index in indices] for indices in missing]
    numbers = iter(sum(is_missing[index] for index in indices) for indices in missing)
    tally, pending = Tally(), list[S]()
    try:
        for batch, scored in score_batches(backend, batches, score):
            pending += scored.scores
            tally.add(batch, scored)
            on_batch(next(numbers))
            if len(pending) >= BATCHES_PER_PART:
                on_part(pending)
                pending = []
    finally:
        if pending:
            on_part(pending)
    return tally


def score_batches(
    backend: Backend, batches: Sequence[list[P]], score: Callable[[Sequence[P]], S]
) -> Iterator[tuple[list[P], _Scored[S]]]:
    """Every batch with its scores, in order; as many at once as the backend can run side by side."""
    run = functools.partial(_score_with_back_off, backend, score)
    num_workers = backend.num_workers
    if num_workers == 1:
        with backend.session():
            yield from ((batch, run(batch)) for batch in batches)
        return
    with backend.session(), ThreadPoolExecutor(num_workers, thread_name_prefix="score") as pool:
        waiting: deque[tuple[list[P], Future[_Scored[S]]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(run, batch)))
                if len(waiting) > num_workers:
                    yield waiting[0][0], waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        except (Exception, KeyboardInterrupt):
            pool.shutdown(wait=True, cancel_futures=True)
            yield from ((done, future.result()) for done, future in list(waiting)[1:] if _is_finished(future))
            raise


def _is_finished(future: Future[Any]) -> bool:
    """Whether a batch beside the one that was stopped was scored in full."""
    return future.done() and not future.cancelled() and future.exception() is None


def _score_with_back_off(backend: Backend, score: Callable[[Sequence[P]], S], batch: Sequence[P]) -> _Scored[S]:
    """Scores of a batch; where it does not fit into memory, of its halves.

    The halves are scored outside of the `except`, where the error would keep the tensors of the whole batch alive.
    """
    try:
        return _Scored([_checked(backend, score(batch))])
    except MemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                f"one prompt of {len(batch[0])} tokens does not fit into the memory of {backend.device} ({error}): "
                "use a smaller --max-length, --dtype bfloat16, or --device cpu."
            ) from None
    middle = len(batch) // 2
    first = _score_with_back_off(backend, score, batch[:middle])
    second = _score_with_back_off(backend, score, batch[middle:])
    return _Scored(
        scores=[*first.scores, *second.scores],
        num_forwards=1 + first.num_forwards + second.num_forwards,
        num_back_offs=1 + first.num_back_offs + second.num_back_offs,
    )


def _checked(backend: Backend, scores: S) -> S:
    """The scores, refused where the model gave no number: NaN is what a block holds for `not scored yet`."""
    if np.isnan(scores.log_probs).any():
        scorer = backend.scorer
        raise ModelError(
            f"model '{scorer.model}' gave no number (NaN) for a prompt in {scorer.dtype}: its weights are broken, or "
            "too large for that dtype. Try --dtype float32."
        )
    return scores
