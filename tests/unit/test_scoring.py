"""The scoring loop: each prompt once, batches that fit, parts that outlive an interruption, and tokens from states."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.base import Backend, Scorer
from promptlab.batching import BatchSize, plan_batches
from promptlab.block_scores import BlockScores
from promptlab.blocks import BlockStore
from promptlab.encoding import Encoder
from promptlab.errors import ModelError, StoreError
from promptlab.files import read_table
from promptlab.scoring import BATCHES_PER_PART, score_batches, score_block, score_from_states, score_prompts
from promptlab.types import EncodedPrompt, MaskScores, Role
from tests.oracles import MASK, field, prompt
from tests.stored import block_scores, key_array

FOUR = BatchSize(None, 4)
ONE = BatchSize(None, 1)


class FakeBackend(Backend):
    """Numbers made of the prompt and the token alone; counts what it is asked, and fails as it is told.

    A state at a mask is (number of the prompt, mask, 1), the decoder's row of a token (1, -1, -token / 8), so that
    logits are their product plus the bias 3, and the normaliser is 3.
    """

    def __init__(self, *, fits: int | None = None, stop_after: int | None = None, gives: float | None = None) -> None:
        self.asked: list[list[str]] = []
        self.finished: list[list[str]] = []
        self._fits, self._stop_after, self._gives = fits, stop_after, gives
        self._last: weakref.ref[Any] | None = None
        self.had_memory_of_failed_batch = False

    @property
    def scorer(self) -> Scorer:
        """A name and a dtype."""
        return Scorer("fake", None, "w", "t", "Fake", "float16", "cpu", "default")

    @property
    def device(self) -> str:
        """Named in messages."""
        return "cpu"

    def encoder(self, max_length: int | None) -> Encoder:
        """Not needed: tests bring encoded prompts."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def decoder_rows(self, token_ids: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """What turns a state into logits."""
        weight = np.stack([np.ones(len(token_ids)), -np.ones(len(token_ids)), -token_ids / 8], axis=1)
        return weight.astype(np.float32), np.full(len(token_ids), 3, dtype=np.float32)

    def score(
        self, prompts: Sequence[EncodedPrompt], token_ids: np.ndarray[Any, Any], *, keep_states: bool = False
    ) -> MaskScores:
        """Numbers, or the fault that was asked for."""
        if self._last is not None and self._last() is not None:
            self.had_memory_of_failed_batch = True
        self.asked.append([one.key for one in prompts])
        if self._stop_after is not None and len(self.asked) > self._stop_after:
            raise KeyboardInterrupt
        if self._fits is not None and len(prompts) > self._fits:
            activations = np.zeros((len(prompts), 8))
            self._last = weakref.ref(activations)
            raise MemoryError("no room")
        self.finished.append([one.key for one in prompts])
        rows = [(one, mask) for one in prompts for mask in range(len(one.mask_positions))]
        numbers = [[-int(one.key, 16) % 97 - mask - token / 8 for token in token_ids] for one, mask in rows]
        log_probs = np.array(numbers, dtype=np.float32) if self._gives is None else np.full((len(rows), 1), self._gives)
        states = np.array([[-int(one.key, 16) % 97, mask, 1] for one, mask in rows], dtype=np.float32)
        return MaskScores(
            keys=tuple(one.key for one, _ in rows),
            fills=np.zeros(len(rows), dtype=np.int32),
            masks=np.array([mask for _, mask in rows], dtype=np.int32),
            log_normalizers=np.full(len(rows), 3, dtype=np.float32),
            token_ids=token_ids,
            log_probs=log_probs,
            top_ids=np.zeros((len(rows), 1), dtype=np.int64),
            top_log_probs=np.zeros((len(rows), 1), dtype=np.float32),
            states=states if keep_states else None,
        )


def make_prompt(number: int, *, num_masks: int = 1) -> EncodedPrompt:
    """A prompt with that number as its key; lengths differ."""
    length = 4 + number % 5
    roles = np.full(length, Role.FIELD, dtype=np.int32)
    roles[:num_masks] = Role.MASK
    ids = np.full(length, number, dtype=np.int32)
    return EncodedPrompt(f"{number:032x}", ids, np.zeros(length, dtype=np.int32), roles, tuple(range(num_masks)))


def num_missing(store: BlockStore, prompts: Sequence[EncodedPrompt], token_ids: Sequence[int]) -> int:
    """How many distinct prompts the block lacks a token of, at any of their masks."""
    stored, lacking = store.read(), set()
    for mask in range(max(len(one.mask_positions) for one in prompts)):
        having = [one.key for one in prompts if len(one.mask_positions) > mask]
        missing = stored.missing(key_array(having), token_ids, mask)
        lacking |= {key for key, is_missing in zip(having, missing, strict=True) if is_missing}
    return len(lacking)


def parts_of(store: BlockStore) -> dict[str, bytes]:
    """The parts of a block, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(store.folder.glob("part-*.parquet"))}


PROMPTS = [make_prompt(number) for number in range(1, 41)]


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "block")


def test_a_repeated_prompt_costs_one_row(store: BlockStore) -> None:
    """Prompts with one key are scored once, however often they are asked for."""
    backend = FakeBackend()
    tally = score_block(backend, store, [*PROMPTS, *PROMPTS[:7]], [5, 6], batch_size=FOUR)
    asked = [key for batch in backend.asked for key in batch]
    assert sorted(one.key for one in PROMPTS) == sorted(asked)
    assert (10, 40, sum(map(len, PROMPTS)), 0) == (
        tally.num_forwards, tally.num_prompts, tally.num_tokens, tally.num_back_offs,
    )  # fmt: skip


def test_what_is_stored_is_not_scored_again(store: BlockStore) -> None:
    """The second pass over a block does no forward, the store says that nothing is missing."""
    assert 40 == num_missing(store, PROMPTS, [5, 6])
    score_block(FakeBackend(), store, PROMPTS, [5, 6], batch_size=FOUR)
    assert 0 == num_missing(store, [*PROMPTS, *PROMPTS], [6, 5])
    again = FakeBackend()
    assert 0 == score_block(again, store, PROMPTS, [6], batch_size=FOUR).num_forwards
    assert [] == again.asked


def test_every_mask_of_a_prompt_counts(store: BlockStore) -> None:
    """A prompt with two masks has two rows and is missing until both are there."""
    two = make_prompt(9, num_masks=2)
    score_block(FakeBackend(), store, [two], [5], batch_size=FOUR)
    stored = block_scores(store)
    assert [(two.key, 0, 0), (two.key, 0, 1)] == sorted(stored)
    assert stored[two.key, 0, 0][0] - 1 == stored[two.key, 0, 1][0]
    three = make_prompt(9, num_masks=3)
    assert (0, 1) == (num_missing(store, [two], [5]), num_missing(store, [three], [5]))
    again = FakeBackend()
    score_block(again, store, [two], [5], batch_size=FOUR)
    assert [] == again.asked
    score_block(again, store, [three, make_prompt(8)], [5], batch_size=ONE)
    assert {three.key, make_prompt(8).key} == {key for batch in again.asked for key in batch}


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_back_off_halves_the_batch_and_keeps_the_scores(store: BlockStore, tmp_path: Path, fits: int) -> None:
    """Batches that do not fit are halved until they do, and every number is the same."""
    score_block(FakeBackend(), store, PROMPTS, [5, 6], batch_size=BatchSize(None, 8))
    small = BlockStore(tmp_path / "small")
    backend = FakeBackend(fits=fits)
    tally = score_block(backend, small, PROMPTS, [5, 6], batch_size=BatchSize(None, 8))
    assert block_scores(store) == block_scores(small)
    assert tally.num_back_offs == sum(len(batch) > fits for batch in backend.asked)
    assert len(backend.asked) == tally.num_forwards
    assert 40 == tally.num_prompts


def test_the_failed_batch_is_free_before_its_halves_run(store: BlockStore) -> None:
    """What the failed forward held in memory is let go before a smaller one is tried."""
    backend = FakeBackend(fits=1)
    score_block(backend, store, PROMPTS[:8], [5], batch_size=BatchSize(None, 8))
    assert not backend.had_memory_of_failed_batch


def test_one_prompt_that_does_not_fit_is_an_error_after_which_the_rest_is_stored(store: BlockStore) -> None:
    """The message says how long the prompt is and what to change; finished batches are kept."""
    backend = FakeBackend(fits=0)
    expected = (
        r"one prompt of 8 tokens does not fit into the memory of cpu \(no room\): "
        r"use a smaller --max-length, --dtype bfloat16, or --device cpu\."
    )
    with pytest.raises(ModelError, match=expected):
        score_block(backend, store, PROMPTS, [5], batch_size=FOUR)
    assert [4, 2, 1] == [len(batch) for batch in backend.asked]
    assert {} == block_scores(store)


def test_a_model_that_gives_no_number_is_an_error(store: BlockStore) -> None:
    """NaN is never stored: the message names model and dtype and says what to try."""
    expected = r"model 'fake' gave no number \(NaN\) for a prompt in float16: .* Try --dtype float32\."
    with pytest.raises(ModelError, match=expected):
        score_block(FakeBackend(gives=float("nan")), store, PROMPTS[:1], [5], batch_size=FOUR)
    assert {} == block_scores(store)


def test_progress_counts_what_was_missing(store: BlockStore) -> None:
    """Where a batch holds prompts that are stored already, the numbers still add up to what was announced."""
    score_block(FakeBackend(), store, PROMPTS[::2], [5], batch_size=FOUR)
    announced = num_missing(store, PROMPTS, [5])
    told: list[int] = []
    score_block(FakeBackend(), store, PROMPTS, [5], batch_size=FOUR, on_batch=told.append)
    assert 20 == announced == sum(told)


def test_parts_are_flushed_as_whole_batches(store: BlockStore) -> None:
    """Every sixteen batches become one part on disk while the pass goes on."""
    parts: list[int] = []
    score_block(
        FakeBackend(), store, PROMPTS, [5], batch_size=ONE,
        on_batch=lambda number: parts.append(len(list(store.folder.glob("part-*.parquet")))),
    )  # fmt: skip
    assert [0] * BATCHES_PER_PART + [1] * BATCHES_PER_PART + [2] * 8 == parts
    assert 3 == len(list(store.folder.glob("part-*.parquet")))


@pytest.mark.parametrize("stop_after", [0, 1, 9, 16, 17, 23, 39])
@pytest.mark.parametrize("size", [ONE, BatchSize(None, 3)])
def test_an_interrupted_pass_is_resumed(store: BlockStore, tmp_path: Path, stop_after: int, size: BatchSize) -> None:
    """What was finished is stored, nothing of it is scored again, and the end is the same."""
    straight = BlockStore(tmp_path / "straight")
    score_block(FakeBackend(), straight, PROMPTS, [5, 6], batch_size=size)
    first, second = FakeBackend(stop_after=stop_after), FakeBackend()
    with contextlib.suppress(KeyboardInterrupt):
        score_block(first, store, PROMPTS, [5, 6], batch_size=size)
    assert {key for batch in first.finished for key in batch} == {key for key, _, _ in block_scores(store)}
    score_block(second, store, list(reversed(PROMPTS)), [5, 6], batch_size=size)
    scored = [key for batch in [*first.finished, *second.asked] for key in batch]
    assert sorted(one.key for one in PROMPTS) == sorted(scored)
    assert block_scores(straight) == block_scores(store)


def test_a_lost_part_is_scored_again_in_its_batches(store: BlockStore) -> None:
    """Where a part is gone, the planned batches that it held are scored again and no others."""
    first = FakeBackend()
    score_block(first, store, PROMPTS, [5], batch_size=ONE)
    before = block_scores(store)
    (store.folder / "part-00001.parquet").unlink()
    second = FakeBackend()
    score_block(second, store, PROMPTS, [5], batch_size=ONE)
    assert first.asked[BATCHES_PER_PART : 2 * BATCHES_PER_PART] == second.asked
    assert before == block_scores(store)


def test_new_candidates_become_further_parts(store: BlockStore) -> None:
    """Tokens that a block lacks are added beside what it holds, which is left as it is."""
    score_block(FakeBackend(), store, PROMPTS, [5], batch_size=FOUR)
    (old,) = store.folder.glob("part-*.parquet")
    content = old.read_bytes()
    assert 40 == num_missing(store, PROMPTS, [5, 7])
    score_block(FakeBackend(), store, PROMPTS, [7, 5], batch_size=FOUR)
    assert content == old.read_bytes()
    assert 2 == len(list(store.folder.glob("part-*.parquet")))
    assert {2} == {len(values) for values in block_scores(store).values()}
    assert 0 == num_missing(store, PROMPTS, [5, 7])


def test_batches_are_planned_from_the_whole_block(store: BlockStore, tmp_path: Path) -> None:
    """A batch of which some prompts are stored already is scored as it was planned for the whole block."""
    straight, more = FakeBackend(), FakeBackend()
    score_block(straight, BlockStore(tmp_path / "straight"), PROMPTS, [5], batch_size=FOUR)
    score_block(
        FakeBackend(), store, [one for one in PROMPTS if one.key not in straight.asked[2]][::3], [5], batch_size=FOUR
    )
    score_block(more, store, PROMPTS, [5], batch_size=FOUR)
    assert all(batch in straight.asked for batch in more.asked)
    assert block_scores(store) == block_scores(BlockStore(tmp_path / "straight"))


def test_more_prompts_are_added_to_a_block(store: BlockStore) -> None:
    """A longer run over a block scores the batches with something new and keeps the numbers."""
    score_block(FakeBackend(), store, PROMPTS[:10], [5], batch_size=ONE)
    more = FakeBackend()
    score_block(more, store, PROMPTS, [5], batch_size=ONE)
    assert sorted(one.key for one in PROMPTS[10:]) == sorted(key for batch in more.asked for key in batch)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_a_resumed_block_of_a_real_model_has_the_same_bytes(
    backends: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Killed after some batches and resumed, a block holds the very numbers of a straight pass."""
    texts = ["great", "a good book", "yes", "the world of sports and business", "no", "it was bad !", "maybe so ."]
    encoded = backends[kind].encoder(None).encode([prompt(field(text), " It was ", MASK, ".") for text in texts])
    straight, resumed = BlockStore(tmp_path / "straight"), BlockStore(tmp_path / "resumed")
    score_block(backends[kind], straight, encoded, [7, 9, 11], batch_size=BatchSize(None, 2))
    score, calls = type(backends[kind]).score, []

    def stop(self: Any, prompts: Any, token_ids: Any, **options: Any) -> MaskScores:
        calls.append(len(prompts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, prompts, token_ids, **options)  # type: ignore[no-any-return]  # the class is looked up at run time

    with monkeypatch.context() as patch:
        patch.setattr(type(backends[kind]), "score", stop)
        with pytest.raises(KeyboardInterrupt):
            score_block(backends[kind], resumed, encoded, [7, 9, 11], batch_size=BatchSize(None, 2))
    tally = score_block(backends[kind], resumed, encoded, [7, 9, 11], batch_size=BatchSize(None, 2))
    assert 2 == tally.num_forwards
    assert block_scores(straight) == block_scores(resumed)


class SideBySide(FakeBackend):
    """The fake backend, with two batches at once."""

    num_workers = 2


@pytest.mark.parametrize("size", [ONE, FOUR])
def test_batches_side_by_side_give_what_one_after_the_other_gives(
    store: BlockStore, tmp_path: Path, size: BatchSize
) -> None:
    """Two batches at once are stored in the planned order with the same scores."""
    alone = BlockStore(tmp_path / "alone")
    score_block(FakeBackend(), alone, PROMPTS, [5, 6], batch_size=size)
    score_block(SideBySide(), store, PROMPTS, [5, 6], batch_size=size)
    assert parts_of(alone) == parts_of(store)


def test_an_interrupt_keeps_what_was_finished_beside_it(store: BlockStore) -> None:
    """Where one of two batches is interrupted, every other batch that was scored is stored."""
    backend = SideBySide(stop_after=9)
    with pytest.raises(KeyboardInterrupt):
        score_block(backend, store, PROMPTS, [5, 6], batch_size=ONE)
    assert len(backend.asked) - 1 <= len(block_scores(store)) + backend.num_workers
    score_block(SideBySide(), store, PROMPTS, [5, 6], batch_size=ONE)
    assert len(PROMPTS) == len(block_scores(store))


@pytest.mark.parametrize("backend", [FakeBackend(), SideBySide()])
def test_batches_come_back_in_order(backend: FakeBackend) -> None:
    """Each batch comes with its own scores, in the order in which it was given."""
    batches = [PROMPTS[start : start + 3] for start in range(0, len(PROMPTS), 3)]
    found = list(score_batches(backend, batches, partial(backend.score, token_ids=np.array([5]))))
    assert batches == [batch for batch, _ in found]
    for batch, scored in found:
        assert tuple(one.key for one in batch) == scored.scores[0].keys


def test_batches_side_by_side_do_not_run_ahead() -> None:
    """No more batches wait to be stored than can run at once, so that memory does not grow with the block."""
    backend = SideBySide()
    for number, _ in enumerate(
        score_batches(backend, [[one] for one in PROMPTS], partial(backend.score, token_ids=np.array([5])))
    ):
        assert len(backend.asked) <= number + backend.num_workers + 1


def test_a_prompt_of_which_one_mask_is_stored_is_scored_again(store: BlockStore) -> None:
    """A part that was written by hand, or lost, may hold one of two masks: the prompt is missing then."""
    two = make_prompt(9, num_masks=2)
    whole = FakeBackend().score([two], np.array([5]))
    half = {name: getattr(whole, name)[:1] for name in ("keys", "fills", "masks", "log_normalizers", "log_probs")}
    tops = {name: getattr(whole, name)[:1] for name in ("top_ids", "top_log_probs")}
    store.append([MaskScores(token_ids=whole.token_ids, **half, **tops)])
    assert 1 == score_block(FakeBackend(), store, [two], [5], batch_size=ONE).num_prompts
    assert {(two.key, 0, 0), (two.key, 0, 1)} == set(block_scores(store))


def test_what_the_caller_has_read_is_not_read_again(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one block are scored against what the block held before the first of them."""
    score_block(FakeBackend(), store, PROMPTS[:20], [5], batch_size=ONE)
    stored, backend = store.read(), FakeBackend()
    monkeypatch.setattr(BlockStore, "read", None)
    tally = score_block(backend, store, PROMPTS, [5], batch_size=ONE, stored=stored)
    assert 20 == tally.num_prompts
    assert {one.key for one in PROMPTS[20:]} == {key for batch in backend.asked for key in batch}


def test_a_disk_that_is_full_keeps_the_parts_before(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is told, nothing stored is lost, and the same call afterwards scores what is left."""
    straight = BlockStore(store.folder.with_name("straight"))
    score_block(FakeBackend(), straight, PROMPTS, [5], batch_size=ONE)
    write, number = store.append, []

    def full(parts: Sequence[MaskScores]) -> None:
        number.append(len(parts))
        if len(number) > 1:
            raise StoreError("no space")
        write(parts)

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", full)
        with pytest.raises(StoreError, match="no space"):
            score_block(FakeBackend(), store, PROMPTS, [5], batch_size=ONE)
    assert BATCHES_PER_PART == len(block_scores(store))
    again = FakeBackend()
    score_block(again, store, PROMPTS, [5], batch_size=ONE)
    assert len(PROMPTS) - BATCHES_PER_PART == len(again.asked)
    assert parts_of(straight) == parts_of(store)


@pytest.mark.parametrize("size", [ONE, FOUR])
def test_scores_that_nobody_stores_are_those_of_a_block(store: BlockStore, size: BatchSize) -> None:
    """Each prompt once, whatever order and repeats, in the batches that a block would have."""
    score_block(FakeBackend(), store, PROMPTS, [5, 6], batch_size=size)
    backend = FakeBackend()
    found = BlockScores.of(score_prompts(backend, [*PROMPTS[::-1], *PROMPTS[:5]], [6, 5, 6], batch_size=size))
    keys = key_array(one.key for one in PROMPTS)
    np.testing.assert_array_equal(store.read().take(keys, [5, 6]), found.take(keys, [5, 6]))
    plan = plan_batches([len(one) for one in PROMPTS], [one.key for one in PROMPTS], size)
    assert [[PROMPTS[index].key for index in batch] for batch in plan] == backend.asked
    assert [] == score_prompts(backend, [], [5], batch_size=size)


@pytest.mark.parametrize("fits", [None, 1, 3])
def test_states_are_stored_where_they_are_asked_for(store: BlockStore, fits: int | None) -> None:
    """Every row has its own state, through a back-off too; without the wish no part has any."""
    asked = [*PROMPTS, make_prompt(50, num_masks=2)]
    score_block(FakeBackend(), store, asked, [5], batch_size=BatchSize(None, 8))
    assert store.read_states() is None
    score_block(FakeBackend(fits=fits), store, asked, [6], batch_size=BatchSize(None, 8), keep_states=True)
    kept = store.read_states()
    assert kept is not None
    assert kept.states is not None
    assert 42 == len(kept.keys)
    expected = [[-int(key, 16) % 97, mask, 1] for key, mask in zip(kept.keys, kept.masks, strict=True)]
    assert expected == kept.states.tolist()


def test_tokens_from_states_are_those_of_a_forward_pass(store: BlockStore, tmp_path: Path) -> None:
    """New tokens are added to every prompt without a forward, as a further part; nothing is then missing."""
    asked = [*PROMPTS, make_prompt(50, num_masks=2)]
    straight, backend = BlockStore(tmp_path / "straight"), FakeBackend()
    score_block(FakeBackend(), straight, asked, [5, 6, 7], batch_size=FOUR)
    score_block(backend, store, asked, [5], batch_size=FOUR, keep_states=True)
    before, num_asked = parts_of(store), len(backend.asked)
    assert 42 == score_from_states(backend, store, [7, 6, 7])
    assert num_asked == len(backend.asked)
    assert before == {name: content for name, content in parts_of(store).items() if name in before}
    (added,) = set(parts_of(store)) - set(before)
    assert "state" not in read_table(store.folder / added)[0].column_names  # states are kept once
    assert set(block_scores(straight)) == set(block_scores(store))
    for place, numbers in block_scores(straight).items():
        np.testing.assert_allclose(block_scores(store)[place], numbers, atol=1e-5)
    assert 0 == score_block(backend, store, asked, [5, 6, 7], batch_size=FOUR).num_forwards


def test_without_states_no_token_comes_from_them(store: BlockStore) -> None:
    """A block without states, or no new token, is left as it is."""
    score_block(FakeBackend(), store, PROMPTS, [5], batch_size=FOUR)
    assert 0 == score_from_states(FakeBackend(), store, [6])
    score_block(FakeBackend(), store, [make_prompt(60)], [5], batch_size=FOUR, keep_states=True)
    before = parts_of(store)
    assert 0 == score_from_states(FakeBackend(), store, [])
    assert before == parts_of(store)


def test_prompts_without_a_state_stay_missing(store: BlockStore) -> None:
    """Where only some prompts of a block have states, the others are scored by a forward pass."""
    score_block(FakeBackend(), store, PROMPTS[:30], [5], batch_size=ONE)
    score_block(FakeBackend(), store, PROMPTS, [5], batch_size=ONE, keep_states=True)
    assert 10 == score_from_states(FakeBackend(), store, [6])
    assert 30 == num_missing(store, PROMPTS, [5, 6])
    assert 30 == score_block(FakeBackend(), store, PROMPTS, [5, 6], batch_size=ONE).num_prompts
