"""A block on disk: parts that only add, the scores of all of them as one array, and which prompt answers for a row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.blocks import BlockStore, PromptRows
from promptlab.errors import StoreError
from promptlab.files import SCHEMA_VERSION, read_json, read_table
from promptlab.types import Fill, FillScores, MaskScores, WordTokens
from tests.stored import key_array

GREAT = WordTokens(((7,),))
META = {"schema_version": SCHEMA_VERSION}
P, Q, R, X = (letter * KEY_BYTES for letter in "pqrx")


def scores_of(
    keys: list[str], token_ids: list[int], start: float = 0.0, *, mask: int = 0, fill: int = 0, dim: int | None = None
) -> MaskScores:
    """Scores that count down from `start`, one number a key and token; states where they have a width."""
    number = len(keys)
    log_probs = start - np.arange(number * len(token_ids), dtype=np.float32).reshape(number, len(token_ids))
    return MaskScores(
        keys=tuple(keys),
        fills=np.full(number, fill, dtype=np.int32),
        masks=np.full(number, mask, dtype=np.int32),
        log_normalizers=np.arange(1, number + 1, dtype=np.float32),
        token_ids=np.array(token_ids, dtype=np.int64),
        log_probs=log_probs,
        top_ids=np.tile(np.array([5, 6], dtype=np.int64), (number, 1)),
        top_log_probs=np.tile(np.array([-0.5, -1.5], dtype=np.float32), (number, 1)),
        states=None if dim is None else start + np.arange(number * dim, dtype=np.float32).reshape(number, dim),
    )


def no_links(*_: Any) -> None:
    """A file system without hard links."""
    raise OSError(95, "Operation not supported")


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "block")


def test_parts_are_added_and_merge(store: BlockStore) -> None:
    """A second part adds prompts, a third adds tokens; what stood in the first file is never touched."""
    store.append([scores_of([P, Q], [7, 9])])
    first = (store.folder / "part-00000.parquet").read_bytes()
    store.append([scores_of([R], [7, 9], start=-10)])
    store.append([scores_of([Q], [11], start=-20)])
    stored = store.read()
    assert first == (store.folder / "part-00000.parquet").read_bytes()
    assert {7: 0, 9: 1, 11: 2} == stored.columns
    expected = [[0, -1, np.nan], [-2, -3, -20], [-10, -11, np.nan], [np.nan] * 3]
    np.testing.assert_array_equal(np.array(expected), stored.take(key_array([P, Q, R, ""]), [7, 9, 11]))


def test_tokens_are_taken_in_the_order_they_are_asked_for(store: BlockStore) -> None:
    """Any order, any repeats, and NaN for a token that nobody scored."""
    store.append([scores_of([P, Q], [7, 9])])
    taken = store.read().take(key_array([Q, P, Q]), [9, 8, 7, 9])
    np.testing.assert_array_equal([[-3, np.nan, -2, -3], [-1, np.nan, 0, -1], [-3, np.nan, -2, -3]], taken)
    assert np.float64 == taken.dtype


def test_a_later_part_wins_where_two_have_the_same_number(store: BlockStore) -> None:
    """Scored again, by the same command run twice or after a back-off, a prompt has its last numbers."""
    store.append([scores_of([P, Q], [7, 9])])
    store.append([scores_of([Q], [9], start=-50)])
    np.testing.assert_array_equal([[0, -1], [-2, -50]], store.read().take(key_array([P, Q]), [7, 9]))


def test_masks_and_fills_are_apart(store: BlockStore) -> None:
    """A prompt has numbers of its own at each mask; what stands in the slot already makes it another question."""
    store.append([scores_of([P], [7]), scores_of([P], [7], start=-3, mask=1)])
    store.append([scores_of([P], [7], start=-8, fill=1)])
    stored = store.read()
    assert {(0, 0), (0, 1), (1, 0)} == set(stored.planes)
    assert ([[0.0]], [[-3.0]]) == tuple(stored.take(key_array([P]), [7], mask).tolist() for mask in (0, 1))
    assert [True] == stored.missing(key_array([P]), [7], mask=2).tolist()


def test_many_parts_read_as_a_dictionary_would(store: BlockStore) -> None:
    """Parts of random prompts, masks and tokens are what a dictionary filled part by part holds."""
    draw = np.random.default_rng(3)
    keys, tokens = [f"{number:032x}" for number in range(12)], list(range(20, 28))
    naive: dict[tuple[str, int, int], float] = {}
    for _ in range(15):
        chosen = [keys[number] for number in draw.choice(12, size=draw.integers(1, 6), replace=False)]
        asked = [tokens[number] for number in draw.choice(8, size=draw.integers(1, 4), replace=False)]
        mask = int(draw.integers(2))
        part = scores_of(chosen, asked, start=float(draw.normal()), mask=mask)
        store.append([part])
        naive |= {
            (key, mask, token): float(part.log_probs[row, column])
            for row, key in enumerate(chosen)
            for column, token in enumerate(asked)
        }
    for stored in (store.read(), BlockStore(store.folder).read()):
        for mask in (0, 1):
            expected = [[naive.get((key, mask, token), np.nan) for token in [*tokens, 99]] for key in keys]
            np.testing.assert_array_equal(expected, stored.take(key_array(keys), [*tokens, 99], mask))
            for asked in (tokens[:1], tokens[2:4], []):
                is_there = [all((key, mask, token) in naive for token in asked) for key in keys]
                has_prompt = [any(place[:2] == (key, mask) for place in naive) for key in keys]
                missing = [not (there and known) for there, known in zip(is_there, has_prompt, strict=True)]
                assert missing == stored.missing(key_array(keys), asked, mask).tolist()


def test_words_of_several_tokens_and_slots_come_back(store: BlockStore) -> None:
    """A word of one token is stored as its id, as it always was; others with their slots and how they split."""
    words = {
        "great": GREAT,
        "unreal": WordTokens(((4, 5),), "splits into 2 tokens (un ##real) in '… ___.'"),
        "so + good": WordTokens(((1,), (2,))),
        "odd": "label word 'odd' is unknown.",
    }
    store.write_rows("test", rows_of(2), words, {})
    assert words == store.read_rows("test").words
    stored = read_table(store.folder / "test.parquet")[1]["words"]
    assert 7 == stored["great"]
    split = "splits into 2 tokens (un ##real) in '… ___.'"
    assert {"slots": [[4, 5]], "split": split} == stored["unreal"]
    found = store.read_rows("test").words["unreal"]
    assert isinstance(found, WordTokens) and split == found.split


def answers(fill: Fill, values: dict[tuple[str, int, int], float]) -> FillScores:
    """Answers about one fill, by key, position and token."""
    keys, positions, tokens = zip(*values, strict=True)
    return FillScores(
        keys=keys,
        fills=(fill,) * len(values),
        positions=np.array(positions, dtype=np.int32),
        token_ids=np.array(tokens, dtype=np.int32),
        log_probs=np.array(list(values.values()), dtype=np.float32),
    )


def test_answers_about_fills_are_found_by_fill_position_and_token(store: BlockStore) -> None:
    """What stands in the slots, where it is asked and for which token make a question; a later part wins."""
    masked, half, two = Fill(((None, None),)), Fill(((4, None),)), Fill(((None, 4), (0,)))
    store.append([scores_of([P, Q], [7, 9])])
    store.append_fills([answers(masked, {(P, 0, 4): -1.0, (P, 1, 5): -2.0}), answers(half, {(P, 1, 5): -3.0})])
    store.append_fills([answers(masked, {(Q, 0, 4): -4.0, (P, 0, 4): -5.0}), answers(two, {(Q, 0, 8): -6.0})])
    store.append_fills([])
    store.append_fills([FillScores.of([], np.zeros(0, dtype=np.float32))])
    stored, keys = store.read(), key_array([P, Q, R])

    def taken(fill: Fill, position: int, token: int) -> list[float]:
        return stored.take_fill(keys, (fill, position, token)).tolist()

    nan = pytest.approx(np.nan, nan_ok=True)
    assert [-5.0, -4.0, nan] == taken(masked, 0, 4)
    assert [-2.0, nan, nan] == taken(masked, 1, 5)
    assert [-3.0, nan, nan] == taken(half, 1, 5)
    assert [nan, -6.0, nan] == taken(two, 0, 8)
    assert [nan, nan, nan] == taken(half, 1, 4)
    assert [0.0, -2.0, nan] == taken(Fill(((None,),)), 0, 7)
    assert 3 == len(list(store.folder.glob("fills-*.parquet")))
    table = read_table(store.folder / "fills-00001.parquet")[0].to_pydict()
    assert ["_ _", "_ _", "_ 4 | 0"] == table["fill"]


def test_scores_in_memory_are_those_of_the_disk(store: BlockStore) -> None:
    """Parts that nobody stored are looked up in the same way."""
    parts = [scores_of([P, Q], [7, 9]), scores_of([R], [9], start=-10)]
    for part in parts:
        store.append([part])
    keys = key_array([R, X, P])
    np.testing.assert_array_equal(store.read().take(keys, [7, 9]), BlockScores.of(parts).take(keys, [7, 9]))


@pytest.mark.parametrize("has_links", [True, False])
def test_two_runs_at_once_lose_no_part(store: BlockStore, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    """Where another process writes the same part first, ours becomes the next one; no temporary file stays."""
    theirs, fsync, waiting = BlockStore(store.folder), os.fsync, [scores_of([Q], [7], start=-5)]

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if waiting:
            theirs.append([waiting.pop()])

    monkeypatch.setattr(os, "getpid", iter(range(9)).__next__)
    monkeypatch.setattr(os, "fsync", meanwhile)
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    store.append([scores_of([P], [7])])
    assert [[0.0], [-5.0]] == store.read().take(key_array([P, Q]), [7]).tolist()
    assert {"part-00000.parquet", "part-00001.parquet"} == {path.name for path in store.folder.iterdir()}


def test_a_new_part_stands_behind_the_last_one(store: BlockStore) -> None:
    """A gap that a deleted part left is not filled: a later part would then not be the later one."""
    for number in range(3):
        store.append([scores_of([P], [7], start=-number)])
    (store.folder / "part-00001.parquet").unlink()
    store.append([scores_of([P], [7], start=-9)])
    assert {"part-00000", "part-00002", "part-00003"} == {path.stem for path in store.folder.iterdir()}
    assert [[-9.0]] == store.read().take(key_array([P]), [7]).tolist()


def test_what_is_missing_is_known(store: BlockStore) -> None:
    """A prompt is done for the tokens that were scored at it, and for no others."""
    assert [True] == store.read().missing(key_array([P]), []).tolist()
    store.append([scores_of([P, Q], [7, 9]), scores_of([R], [7, 9])])
    store.append([scores_of([Q], [11])])
    stored, keys = store.read(), key_array([P, Q, R, X])
    assert [False, False, False, True] == stored.missing(keys, [7, 9]).tolist()
    assert [False, False, False, True] == stored.missing(keys, []).tolist()
    assert [True, False, True, True] == stored.missing(keys, [7, 11]).tolist()
    assert [True] * 4 == stored.missing(keys, [8]).tolist()
    assert [True] * 4 == stored.missing(keys, [7], mask=1).tolist()
    assert [] == stored.missing(key_array([]), [7]).tolist()


def test_an_empty_block_is_readable(store: BlockStore) -> None:
    """A block without parts holds nothing, and appending nothing writes nothing."""
    store.append([])
    stored = store.read()
    assert (0, 0) == stored.log_probs.shape
    assert np.isnan(stored.take(key_array([P, ""]), [7, 9])).all()
    assert {} == store.top_fills()
    assert store.read_states() is None
    assert not store.folder.exists()


def test_numbers_are_stored_as_they_are(store: BlockStore) -> None:
    """Float32 in, the same bits out, down to the smallest number; a normaliser a row is beside them."""
    exact = np.array([[-1e-45, -88.7228, -np.float32(0.1)]], dtype=np.float32)
    one = scores_of([P], [7, 8, 9])
    store.append([MaskScores(one.keys, one.fills, one.masks, one.log_normalizers, one.token_ids, exact,
                             one.top_ids, one.top_log_probs)])  # fmt: skip
    assert exact.tobytes() == store.read().log_probs.tobytes()
    assert np.float32 == store.read().log_probs.dtype
    table, metadata = read_table(store.folder / "part-00000.parquet")
    assert {**META, "token_ids": [7, 8, 9]} == metadata
    assert [1.0] == table["log_normalizer"].to_pylist()


def test_a_broken_part_is_named(store: BlockStore) -> None:
    """Whatever is asked of a block, the part that cannot be read is named with what to do."""
    store.append([scores_of([P], [7])])
    store.append([scores_of([Q], [7])])
    (store.folder / "part-00001.parquet").write_bytes(b"PAR1 and then nothing")
    for ask in (store.read, store.top_fills, store.read_states):
        with pytest.raises(StoreError, match=r"part-00001\.parquet: is broken\. Delete it and run the same command"):
            ask()


def test_the_best_fills_are_kept(store: BlockStore) -> None:
    """Each mask's best tokens come back with their log-probabilities, best first."""
    store.append([scores_of([P], [7]), scores_of([P], [7], mask=1)])
    best = [(5, -0.5), (6, -1.5)]
    assert {(P, 0, 0): best, (P, 0, 1): best} == store.top_fills()


def test_states_are_kept_where_there_are_any(store: BlockStore) -> None:
    """States come back with their normalisers and places, from the parts that have them, and no token with them."""
    store.append([scores_of([X], [7])])
    assert "state" not in read_table(store.folder / "part-00000.parquet")[0].column_names
    assert store.read_states() is None
    parts = [scores_of([P, Q], [7], dim=3), scores_of([P], [7], start=50, mask=1, dim=3)]
    store.append(parts)
    store.append([scores_of([R], [7], start=90, dim=3)])
    found = store.read_states()
    assert found is not None
    assert found.states is not None
    assert ((P, Q, P, R), [0, 0, 1, 0], [0] * 4) == (found.keys, found.masks.tolist(), found.fills.tolist())
    assert [[0, 1, 2], [3, 4, 5], [50, 51, 52], [90, 91, 92]] == found.states.tolist()
    assert np.float32 == found.states.dtype
    assert [1, 2, 1, 1] == found.log_normalizers.tolist()
    assert ((0,), (4, 0), (4, 0)) == (found.token_ids.shape, found.log_probs.shape, found.top_ids.shape)


def rows_of(number: int, *, unscorable: tuple[int, ...] = (), gold: bool = True) -> PromptRows:
    """Rows with keys, of which some have none and a reason."""
    keys = ["" if row in unscorable else f"{row:032x}" for row in range(number)]
    return PromptRows(
        row_ids=[f"{row}-0" for row in range(number)],
        row_index=np.arange(number, dtype=np.int32)[::-1].copy(),
        keys=key_array(keys),
        num_truncated=np.arange(number, dtype=np.int32) % 3,
        gold=np.arange(number, dtype=np.int32) % 2 if gold else np.full(number, -1, dtype=np.int32),
        reasons={row: f"row {row} is too long" for row in unscorable},
    )


@pytest.mark.parametrize("unscorable", [(), (1,), (0, 4), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("gold", [True, False])
def test_rows_come_back_equal(store: BlockStore, unscorable: tuple[int, ...], gold: bool) -> None:
    """Which prompt answers for which row is kept, with the reason where none does."""
    rows, words = rows_of(5, unscorable=unscorable, gold=gold), {"great": GREAT, "x y": "splits"}
    assert not store.has_rows("test")
    store.write_rows("test", rows, words, {"contexts": []})
    assert store.has_rows("test")
    stored = store.read_rows("test")
    found = stored.rows
    assert (words, {"contexts": []}) == (stored.words, stored.metadata)
    assert len(rows) == len(found) == 5
    assert rows.reasons == found.reasons
    assert list(rows.row_ids) == [str(row_id) for row_id in found.row_ids]
    for name in ("row_index", "keys", "num_truncated", "gold", "has_prompt"):
        expected, values = getattr(rows, name), getattr(found, name)
        assert expected.dtype == values.dtype
        np.testing.assert_array_equal(expected, values)
    assert [row not in unscorable for row in range(5)] == found.has_prompt.tolist()
    assert (f"row {unscorable[0]} is too long" if unscorable else None) == found.first_reason


def test_rows_without_a_prompt_are_null_on_disk(store: BlockStore) -> None:
    """A reader of the file sees null where there is no prompt, and a text of 32 letters elsewhere."""
    store.write_rows("test", rows_of(3, unscorable=(1,)), {}, {})
    table = read_table(store.folder / "test.parquet")[0].to_pydict()
    assert [f"{0:032x}", None, f"{2:032x}"] == table["prompt_key"]
    assert [None, "row 1 is too long", None] == table["reason"]


def test_rows_that_were_read_can_be_written_again(store: BlockStore) -> None:
    """Words are added to rows as they were read, and the file is then what it would have been."""
    store.write_rows("one", rows_of(5, unscorable=(2,)), {"great": GREAT}, {})
    store.write_rows("other", store.read_rows("one").rows, {"great": GREAT}, {})
    assert (store.folder / "one.parquet").read_bytes() == (store.folder / "other.parquet").read_bytes()


def test_a_block_is_described_once(store: BlockStore) -> None:
    """What the block's id was made of is written by the first run and kept."""
    store.describe({"template": "t"})
    store.describe({"template": "u"})
    assert {**META, "template": "t"} == read_json(store.folder / "block.json")
