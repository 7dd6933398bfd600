"""Encoded prompts -> stored mask scores: dedupe, plan, batch, back off, flush.

Batches are planned from all prompts that are given together, not from what is missing, and a flushed part is a whole
number of planned batches: a resumed run forms the same batches and stores the same numbers.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from promptlab.backends.base import Backend
from promptlab.batching import BatchSize, plan_batches
from promptlab.blocks import KEY_BYTES, BlockScores, BlockStore
from promptlab.errors import ModelError
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

    def add(self, batch: Sequence[EncodedPrompt], scored: _Scored) -> None:
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
    plan = plan_batches([len(prompt) for prompt in unique], [prompt.key for prompt in unique], batch_size)
    batches = [[unique[index] for index in indices] for indices in plan]
    missing = [batch for batch in batches if any(prompt.key in lacking for prompt in batch)]
    tally, pending = Tally(), list[MaskScores]()
    try:
        for batch, scored in score_batches(backend, missing, wanted, keep_states=keep_states):
            pending += scored.scores
            tally.add(batch, scored)
            on_batch(sum(prompt.key in lacking for prompt in batch))
            if len(pending) >= BATCHES_PER_PART:
                store.append(pending)
                pending = []
    finally:
        store.append(pending)
    return tally


def score_prompts(
    backend: Backend, prompts: Sequence[EncodedPrompt], token_ids: Sequence[int], *, batch_size: BatchSize
) -> list[MaskScores]:
    """Scores of prompts that nothing stores, each prompt once, in no particular order."""
    unique = list({prompt.key: prompt for prompt in prompts}.values())
    plan = plan_batches([len(prompt) for prompt in unique], [prompt.key for prompt in unique], batch_size)
    batches = [[unique[index] for index in indices] for indices in plan]
    found = score_batches(backend, batches, sorted(set(token_ids)))
    return [scores for _, scored in found for scores in scored.scores]


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


@dataclass(slots=True)
class _Scored:
    """The scores of one batch and what they took; made by one thread, added up by the one that stores."""

    scores: list[MaskScores]
    num_forwards: int = 1
    num_back_offs: int = 0


def score_batches(
    backend: Backend, batches: Sequence[list[EncodedPrompt]], wanted: Sequence[int], *, keep_states: bool = False
) -> Iterator[tuple[list[EncodedPrompt], _Scored]]:
    """Every batch with its scores, in order; as many at once as the backend can run side by side."""
    token_ids = np.array(wanted, dtype=np.int64)
    score = functools.partial(_score_with_back_off, backend, token_ids=token_ids, keep_states=keep_states)
    num_workers = backend.num_workers
    if num_workers == 1:
        with backend.session():
            yield from ((batch, score(batch)) for batch in batches)
        return
    with backend.session(), ThreadPoolExecutor(num_workers, thread_name_prefix="score") as pool:
        waiting: deque[tuple[list[EncodedPrompt], Future[_Scored]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(score, batch)))
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
    backend: Backend,
    batch: Sequence[EncodedPrompt],
    *,
    token_ids: Int64[np.ndarray, " candidate"],
    keep_states: bool,
) -> _Scored:
    """Scores of a batch; where it does not fit into memory, of its halves.

    The halves are scored outside of the `except`, where the error would keep the tensors of the whole batch alive.
    """
    score = functools.partial(_score_with_back_off, backend, token_ids=token_ids, keep_states=keep_states)
    try:
        return _Scored([_checked(backend, backend.score(batch, token_ids, keep_states=keep_states))])
    except MemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                f"one prompt of {len(batch[0])} tokens does not fit into the memory of {backend.device} ({error}): "
                "use a smaller --max-length, --dtype bfloat16, or --device cpu."
            ) from None
    middle = len(batch) // 2
    first, second = (score(half) for half in (batch[:middle], batch[middle:]))
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
