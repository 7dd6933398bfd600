"""The training loop: AdamW against a naive one, its order, its course and its refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError
from promptlab.methods.base import Setting
from promptlab.methods.training import rate_factor, train

SETTING = Setting(learning_rate=0.1, steps=12, batch_size=3, warm_up=0.25, weight_decay=0.1, clip_norm=0.5)
DATA = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0], [-1.0, 1.0], [0.0, 3.0]])


def loss_of(weight: torch.Tensor, seen: list[list[int]]) -> object:
    """The mean square of a product with some rows; which rows is written down."""

    def loss(places: np.ndarray) -> torch.Tensor:
        seen.append(places.tolist())
        return (DATA[places] @ weight).pow(2).mean()

    return loss


def test_updates_are_those_of_adamw_by_hand() -> None:
    """Decay apart from the gradient, bias-corrected moments, clipping before them, the rate of the course."""
    weight, seen = torch.nn.Parameter(torch.tensor([[1.0], [-2.0]])), list[list[int]]()
    record = train(loss_of(weight, seen), {"weight": weight}, SETTING, num_examples=5, seed=3)  # type: ignore[arg-type]
    mine = np.array([[1.0], [-2.0]])
    first, second = np.zeros((2, 1)), np.zeros((2, 1))
    for number, places in enumerate(seen, start=1):
        rows = DATA.numpy()[places].astype(np.float64)
        gradient = 2 * rows.T @ (rows @ mine) / len(rows)
        gradient *= min(1.0, 0.5 / (np.linalg.norm(gradient) + 1e-6))
        rate = 0.1 * rate_factor(SETTING, step=number - 1)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        mine -= rate * 0.1 * mine
        mine -= rate * (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
    assert 12 == record.steps == len(seen)
    assert np.allclose(mine, weight.detach().numpy(), atol=1e-5)


def test_every_pass_sees_every_example_once() -> None:
    """Batches are planned pass by pass, in another order each, and the last one may be smaller."""
    weight, seen = torch.nn.Parameter(torch.ones(2, 1)), list[list[int]]()
    train(loss_of(weight, seen), {"weight": weight}, replace(SETTING, steps=4), num_examples=5, seed=0)  # type: ignore[arg-type]
    assert [3, 2, 3, 2] == [len(places) for places in seen]
    assert [0, 1, 2, 3, 4] == sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3])
    assert seen[0] + seen[1] != seen[2] + seen[3]


def test_accumulated_batches_are_one_larger_batch() -> None:
    """The loss is the mean over examples, not over batches, so unequal ones weigh as they should."""
    weights = [torch.nn.Parameter(torch.tensor([[1.0], [-2.0]])) for _ in range(2)]
    settings = [replace(SETTING, steps=3, batch_size=3, accumulate=2), replace(SETTING, steps=3, batch_size=5)]
    for weight, setting in zip(weights, settings, strict=True):
        train(loss_of(weight, []), {"weight": weight}, setting, num_examples=5, seed=0)  # type: ignore[arg-type]
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.5 * (1 - math.sqrt(0.5))]),
    ],
)
def test_rate_rises_and_then_follows_the_schedule(schedule: str, expected: list[float]) -> None:
    """Two steps of warm-up in six, then the course."""
    setting = replace(SETTING, steps=6, warm_up=1 / 3, schedule=schedule)
    assert np.allclose(expected, [rate_factor(setting, step=step) for step in range(6)])


def test_a_loss_that_is_low_enough_ends_the_fit() -> None:
    """At the end of a pass, and what was done is counted."""
    weight = torch.nn.Parameter(torch.tensor([[0.1], [0.1]]))
    setting = replace(SETTING, steps=50, stop_loss=10.0)
    record = train(loss_of(weight, []), {"weight": weight}, setting, num_examples=5, seed=0)  # type: ignore[arg-type]
    assert (2, 5) == (record.steps, record.example_passes)
    assert 1 == len(record.losses)


def test_what_is_no_number_is_refused() -> None:
    """The step, the loss and the remedy are named."""
    weight = torch.nn.Parameter(torch.tensor([[1.0], [1.0]]))
    with pytest.raises(ModelError, match=r"diverged at step 1 \(loss nan.*use a learning rate below 0\.1"):
        train(lambda places: weight.sum() * float("nan"), {"weight": weight}, SETTING, num_examples=5, seed=0)


def test_dropout_has_a_generator_of_its_own() -> None:
    """What torch draws elsewhere neither changes a fit nor is changed by it."""
    found = []
    for _ in range(2):
        weight = torch.nn.Parameter(torch.ones(2, 1))
        before = torch.random.get_rng_state()

        def loss(places: np.ndarray, weight: torch.Tensor = weight) -> torch.Tensor:
            return torch.nn.functional.dropout(DATA[places] @ weight, 0.5).pow(2).mean()

        train(loss, {"weight": weight}, SETTING, num_examples=5, seed=0)
        assert torch.equal(before, torch.random.get_rng_state())
        found.append(weight.detach().clone())
        torch.rand(5)
    assert torch.equal(*found)
