"""Labelled train rows -> nested draws of k a label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.errors import DataError
from promptlab.examples import Examples
from promptlab.rows import RowSet
from promptlab.shots import draw_shots, make_pool
from promptlab.types import Example

LABELS = ("bad", "good")


def rows_of(labels: list[str | None], split: str = "train", first: int = 0) -> RowSet:
    """Rows whose content is their number."""
    examples = [
        Example(f"{first + place:032x}-0", place, {"text": f"row {first + place}"}, label)
        for place, label in enumerate(labels)
    ]
    held = Examples.collect(examples, fields=("text",), labels=LABELS)
    return RowSet("views", split, held, {"kind": "local"}, len(held))


TRAIN = rows_of(["bad", "good"] * 20)
TEST = rows_of(["bad"], "test", first=1000)


def test_draws_have_k_a_label_in_the_order_of_the_labels() -> None:
    """Three shots a label are three bad ones, then three good ones."""
    shots = draw_shots(make_pool(TRAIN, TEST), 3, 0, seed=0)
    assert [0, 0, 0, 1, 1, 1] == shots.label_indices.tolist()
    assert ["bad"] * 3 + ["good"] * 3 == shots.examples.gold()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 19), st.integers(0, 4), st.integers(0, 3))
def test_fewer_shots_are_among_more(number: int, draw: int, seed: int) -> None:
    """The k of a draw are within its k + 1, label by label."""
    pool = make_pool(TRAIN, TEST)
    few, more = (set(draw_shots(pool, k, draw, seed=seed).examples.id_texts()) for k in (number, number + 1))
    assert few < more


def test_draws_differ_by_their_number_and_by_the_seed() -> None:
    """Another draw and another seed are other rows."""
    pool = make_pool(TRAIN, TEST)
    found = {draw_shots(pool, 4, draw, seed=seed).hash for draw in range(3) for seed in range(3)}
    assert 9 == len(found)


def test_other_rows_do_not_move_a_draw() -> None:
    """A row's place in the order depends on its own content: taking rows away moves no other one."""
    chosen = set(draw_shots(make_pool(TRAIN, TEST), 3, 0, seed=0).examples.id_texts())
    names = list(TRAIN.examples.id_texts())
    kept = [place for place, name in enumerate(names) if name in chosen or place % 3]
    fewer = RowSet("views", "train", TRAIN.examples.take(kept), {}, len(kept))
    again = set(draw_shots(make_pool(fewer, TEST), 3, 0, seed=0).examples.id_texts())
    assert chosen == again


def test_rows_that_are_scored_are_no_shots() -> None:
    """Train rows whose content stands in the scored split are left out and counted."""
    scored = rows_of(["bad", "good", "bad"], "test")
    pool = make_pool(TRAIN, scored)
    assert 3 == pool.num_in_scored
    assert 37 == len(pool.examples)
    every = set(draw_shots(pool, 18, 0, seed=0).examples.id_texts())
    assert not every & set(scored.examples.id_texts())


def test_rows_without_a_label_are_no_shots() -> None:
    """They are counted."""
    pool = make_pool(rows_of(["bad", None, "good", None]), TEST)
    assert (2, 2) == (len(pool.examples), pool.num_unlabelled)


def test_too_few_rows_are_refused_or_taken() -> None:
    """The label, its rows and the remedy are named; `all` takes what there is and records it."""
    pool = make_pool(rows_of(["bad"] * 5 + ["good"] * 2), TEST)
    with pytest.raises(DataError) as fault:
        draw_shots(pool, 4, 0, seed=0)
    assert str(fault.value) == (
        "task 'views': 4 shots a label were asked for, and of its train rows 'good' has 2: ask for fewer --shots, or "
        "take what there is with --shots-short all."
    )
    taken = draw_shots(pool, 4, 0, seed=0, short="all")
    assert [4, 2] == np.bincount(taken.label_indices).tolist()
    assert (("good", 2),) == taken.short


def test_a_label_without_a_row_is_always_refused() -> None:
    """Nothing can be learned of it."""
    with pytest.raises(DataError, match="'good' has 0: a label without a row cannot be learned"):
        draw_shots(make_pool(rows_of(["bad"] * 5), TEST), 2, 0, seed=0, short="all")


def test_a_train_split_that_is_scored_whole_leaves_nothing() -> None:
    """The reason is said."""
    with pytest.raises(DataError, match="there are no shots, because all rows of its train split are scored too"):
        make_pool(rows_of(["bad", "good"]), rows_of(["bad", "good"], "test"))
    with pytest.raises(DataError, match="all rows of its train split have no gold label"):
        make_pool(rows_of([None, None]), TEST)
