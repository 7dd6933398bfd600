"""Encoded prompts -> stored mask scores: dedupe, plan, batch, back off, flush.

Batches are planned from all prompts of the block, not from what is missing, and a flushed part is a whole number of
planned batches: a resumed run forms the same batches and stores the same numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.backends.base import Backend
from promptlab.batching import BatchSize, plan_batches
from promptlab.errors import ModelError
from promptlab.store import BlockScores, BlockStore
from promptlab.types import EncodedPrompt, MaskScores

if TYPE_CHECKING:
    from jaxtyping import Int64

SCORING_VERSION = 1
BATCHES_PER_PART = 16


@dataclass(slots=True)
class Tally:
    """What a scoring pass did."""

    num_forwards: int = 0
    num_prompts: int = 0
    num_tokens: int = 0
    num_back_offs: int = 0


def score_block(
    backend: Backend,
    store: BlockStore,
    prompts: Iterable[EncodedPrompt],
    token_ids: Sequence[int],
    *,
    batch_size: BatchSize,
    on_batch: Callable[[int], None] = lambda num_prompts: None,
) -> Tally:
    """Score what the block still lacks, and store it.

    Args:
        backend: runs the model.
        store: the block; what it holds already is not scored again.
        prompts: prompts of the block, in any order, repeats allowed.
        token_ids: the candidate tokens whose log-probabilities are wanted.
        batch_size: how large a batch may be.
        on_batch: called for each finished batch with the number of its prompts that were missing.

    Raises:
        ModelError: one prompt alone does not fit into memory, or the model gives NaN.
    """
    unique = list({prompt.key: prompt for prompt in prompts}.values())
    stored = store.read()
    wanted = sorted(set(token_ids))
    plan = plan_batches([len(prompt) for prompt in unique], [prompt.key for prompt in unique], batch_size)
    batches = [[unique[index] for index in indices] for indices in plan]
    missing = [batch for batch in batches if not all(_is_scored(stored, prompt, wanted) for prompt in batch)]
    tally, pending = Tally(), list[MaskScores]()
    try:
        for batch, scored in _score_all(backend, missing, np.array(wanted, dtype=np.int64)):
            pending += scored.scores
            tally.num_forwards += scored.num_forwards
            tally.num_back_offs += scored.num_back_offs
            tally.num_prompts += len(batch)
            tally.num_tokens += sum(len(prompt) for prompt in batch)
            on_batch(sum(not _is_scored(stored, prompt, wanted) for prompt in batch))
            if len(pending) >= BATCHES_PER_PART:
                store.append(pending)
                pending = []
    finally:
        store.append(pending)
    return tally


def num_missing(store: BlockStore, keys: Iterable[tuple[str, int]], token_ids: Sequence[int]) -> int:
    """How many prompts, given as (key, number of masks), the block still lacks for the tokens."""
    stored = store.read()
    return sum(not all(stored.has(key, token_ids, mask) for mask in range(masks)) for key, masks in set(keys))


def _is_scored(stored: BlockScores, prompt: EncodedPrompt, token_ids: Sequence[int]) -> bool:
    has = stored.has
    return all(has(prompt.key, token_ids, mask) for mask in range(len(prompt.mask_positions)))


@dataclass(slots=True)
class _Scored:
    """The scores of one batch and what they took; made by one thread, added up by the one that stores."""

    scores: list[MaskScores]
    num_forwards: int = 1
    num_back_offs: int = 0


def _score_all(
    backend: Backend, batches: Sequence[list[EncodedPrompt]], token_ids: Int64[np.ndarray, " candidate"]
) -> Iterator[tuple[list[EncodedPrompt], _Scored]]:
    """Every batch with its scores, in order; as many at once as the backend can run side by side."""
    num_workers = backend.num_workers
    if num_workers == 1:
        with backend.session():
            yield from ((batch, _score_with_back_off(backend, batch, token_ids)) for batch in batches)
        return
    with backend.session(), ThreadPoolExecutor(num_workers, thread_name_prefix="score") as pool:
        waiting: deque[tuple[list[EncodedPrompt], Future[_Scored]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(_score_with_back_off, backend, batch, token_ids)))
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


def _is_finished(future: Future[_Scored]) -> bool:
    """Whether a batch beside the one that was stopped was scored in full."""
    return future.done() and not future.cancelled() and future.exception() is None


def _score_with_back_off(
    backend: Backend, batch: Sequence[EncodedPrompt], token_ids: Int64[np.ndarray, " candidate"]
) -> _Scored:
    """Scores of a batch; where it does not fit into memory, of its halves.

    The halves are scored outside of the `except`, where the error would keep the tensors of the whole batch alive.
    """
    try:
        return _Scored([_checked(backend, backend.score(batch, token_ids))])
    except MemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                f"one prompt of {len(batch[0])} tokens does not fit into the memory of {backend.device} ({error}): "
                "use a smaller --max-length, --dtype bfloat16, or --device cpu."
            ) from None
    middle = len(batch) // 2
    first, second = (_score_with_back_off(backend, half, token_ids) for half in (batch[:middle], batch[middle:]))
    return _Scored(
        scores=[*first.scores, *second.scores],
        num_forwards=1 + first.num_forwards + second.num_forwards,
        num_back_offs=1 + first.num_back_offs + second.num_back_offs,
    )


def _checked(backend: Backend, scores: MaskScores) -> MaskScores:
    """The scores, refused where the model gave no number: NaN is what a block holds for `not scored yet`."""
    if np.isnan(scores.log_probs).any():
        scorer = backend.scorer
        raise ModelError(
            f"model '{scorer.model}' gave no number (NaN) for a prompt in {scorer.dtype}: its weights are broken, or "
            "too large for that dtype. Try --dtype float32."
        )
    return scores
