"""Batching: a plan made from lengths and keys alone."""

from __future__ import annotations

import random

import pytest

from promptlab.batching import TOKEN_BUDGETS, BatchSize, plan_batches
from promptlab.errors import UsageError


@pytest.mark.parametrize(
    ("text", "device", "expected"),
    [
        ("auto", "cpu", BatchSize(TOKEN_BUDGETS["cpu"], None)),
        ("auto", "cuda:1", BatchSize(TOKEN_BUDGETS["cuda"], None)),
        ("auto", "xpu", BatchSize(TOKEN_BUDGETS["cpu"], None)),
        ("8", "cpu", BatchSize(None, 8)),
        (1, "cuda:0", BatchSize(None, 1)),
    ],
)
def test_a_batch_size_is_auto_or_a_number(text: str | int, device: str, expected: BatchSize) -> None:
    """`auto` is a token budget for the kind of device, a number counts prompts."""
    assert expected == BatchSize.parse(text, device)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "\u0663", ""])
def test_other_batch_sizes_are_refused(text: str) -> None:
    """Anything else is refused with what is allowed."""
    with pytest.raises(UsageError, match=f"--batch-size {text}: write auto or a whole number from 1"):
        BatchSize.parse(text, "cpu")


def test_the_longest_come_first_and_equal_lengths_by_key() -> None:
    """The order is by length, then by key, so that the first batch shows whether the largest fits."""
    assert [[3, 1], [2, 0]] == plan_batches([5, 9, 5, 9], ["d", "c", "b", "a"], BatchSize(None, 2))


def test_a_token_budget_counts_padding() -> None:
    """A batch holds as many prompts as its longest allows, and one prompt always makes a batch."""
    assert [[0], [1, 2], [3, 4]] == plan_batches([30, 10, 9, 8, 8], list("abcde"), BatchSize(20, None))


def test_the_plan_depends_on_the_prompts_alone() -> None:
    """Shuffled prompts form the same batches of keys, and every prompt stands in one of them."""
    lengths = {f"{number:02d}": 3 + number % 7 for number in range(40)}
    plans = set()
    for seed in range(5):
        keys = sorted(lengths, key=lambda key: random.Random(f"{seed}{key}").random())
        plan = plan_batches([lengths[key] for key in keys], keys, BatchSize(32, None))
        plans.add(tuple(tuple(keys[index] for index in batch) for batch in plan))
    assert 1 == len(plans)
    assert sorted(lengths) == sorted(key for batch in plans.pop() for key in batch)


def test_nothing_makes_no_batch() -> None:
    """A block without prompts has an empty plan."""
    assert [] == plan_batches([], [], BatchSize(None, 4))
