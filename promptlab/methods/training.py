"""One plain training loop: a loss over some of the shots -> parameters that moved, and what happened step by step.

Everything random derives from the seed; the same shots, setting and seed give the same parameters on the same machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.errors import ModelError
from promptlab.methods.base import FitRecord, Setting
from promptlab.seeding import derive_generator, derive_seed

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64

BatchLoss = Callable[["Int64[np.ndarray, ' place']"], "Float[torch.Tensor, '']"]


@dataclass(frozen=True, slots=True)
class Step:
    """One update: the mean loss of its examples in nats, the rate it was made with, and the norm before clipping."""

    loss: float
    learning_rate: float
    gradient_norm: float


def train(
    batch_loss: BatchLoss,
    parameters: Mapping[str, torch.nn.Parameter],
    setting: Setting,
    *,
    num_examples: int,
    seed: int,
    on_step: Callable[[Step], None] = lambda step: None,
) -> FitRecord:
    """Move parameters down a loss with AdamW (Loshchilov and Hutter 2019).

    Args:
        batch_loss: the mean loss, in nats, of the examples at some places.
        parameters: what moves, by name; matrices decay, vectors and scalars do not.
        setting: how.
        num_examples: how many examples there are; each pass goes through all of them in a new seeded order.
        seed: of the order and of dropout.
        on_step: told of every update.

    Returns:
        What happened; `without_gradient` among the facts names parameters that no step gave a gradient other than zero.

    Raises:
        ModelError: the loss or a gradient is no number.
    """
    import torch

    moving = list(parameters.values())
    optimizer = torch.optim.AdamW(_groups(moving, setting))
    batches = _batches(num_examples, setting, seed)
    steps, passes, silent = list[Step](), 0, dict(parameters)
    with _seeded(seed):
        for number in range(setting.steps):
            rate = setting.learning_rate * rate_factor(setting, step=number)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            together = [next(batches) for _ in range(setting.accumulate)]
            size, loss = sum(map(len, together)), 0.0
            for places in together:
                part = batch_loss(places) * (len(places) / size)
                part.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                loss += float(part.detach())
            norm = float(torch.nn.utils.clip_grad_norm_(moving, setting.clip_norm))
            _refuse_divergence(loss, norm, number, setting)
            silent = {name: one for name, one in silent.items() if one.grad is None or not one.grad.any()}
            optimizer.step()
            steps.append(Step(loss, rate, norm))
            passes += size
            on_step(steps[-1])
            if _is_done(steps, num_examples, setting):
                break
    return FitRecord(
        num_parameters=sum(parameter.numel() for parameter in moving),
        steps=len(steps),
        example_passes=passes,
        losses=tuple(_pass_losses(steps, num_examples, setting)),
        facts={
            "log": [[step.loss, step.learning_rate, step.gradient_norm] for step in steps],
            **({"without_gradient": sorted(silent)} if silent else {}),
        },
    )


def planned_passes(num_examples: int, setting: Setting) -> int:
    """Forward passes of single examples that a fit takes where nothing ends it early."""
    sizes = itertools.cycle(_sizes(num_examples, setting.batch_size))
    return sum(itertools.islice(sizes, setting.steps * setting.accumulate))


def rate_factor(setting: Setting, *, step: int) -> float:
    """The share of the peak rate at a step: a linear rise over `warm_up` of the steps, then the schedule's course."""
    rise = math.ceil(setting.warm_up * setting.steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, setting.steps - rise)
    courses = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "constant": 1.0}
    return courses[setting.schedule]


@contextmanager
def prepared_model(model: Any, parameters: Mapping[str, torch.nn.Parameter], *, dropout: bool) -> Iterator[None]:
    """A model of which some parameters alone take gradients; as it was afterwards."""
    moving = {id(parameter) for parameter in parameters.values()}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training = model.training
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in moving)
    model.train(dropout)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter, needed in before:
            parameter.requires_grad_(needed)
            parameter.grad = None


def _groups(moving: list[torch.nn.Parameter], setting: Setting) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in moving if parameter.ndim > 1]
    vectors = [parameter for parameter in moving if parameter.ndim <= 1]
    groups = [(matrices, setting.weight_decay), (vectors, 0.0)]
    return [{"params": several, "weight_decay": decay} for several, decay in groups if several]


def _batches(num_examples: int, setting: Setting, seed: int) -> Iterator[Int64[np.ndarray, " place"]]:
    """Places of the examples of each batch, pass after pass; the last batch of a pass may be smaller."""
    number = 0
    while True:
        order = derive_generator(seed, "order", number).permutation(num_examples)
        yield from np.split(order, np.cumsum(_sizes(num_examples, setting.batch_size))[:-1])
        number += 1


def _sizes(num_examples: int, batch_size: int) -> list[int]:
    """The sizes of the batches of a pass."""
    return [min(batch_size, num_examples - start) for start in range(0, num_examples, batch_size)]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Dropout draws from a generator of its own; torch's is as it was afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "dropout"))
        yield


def _refuse_divergence(loss: float, norm: float, number: int, setting: Setting) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ModelError(
            f"the fit diverged at step {number + 1} (loss {loss}, gradient {norm}): use a learning rate below "
            f"{setting.learning_rate:g}."
        )


def _steps_of_a_pass(num_examples: int, setting: Setting) -> int:
    return math.ceil(math.ceil(num_examples / setting.batch_size) / setting.accumulate)


def _is_done(steps: list[Step], num_examples: int, setting: Setting) -> bool:
    """Whether the mean loss of the pass that just ended is low enough."""
    length = _steps_of_a_pass(num_examples, setting)
    if setting.stop_loss <= 0 or len(steps) % length:
        return False
    return float(np.mean([step.loss for step in steps[-length:]])) <= setting.stop_loss


def _pass_losses(steps: list[Step], num_examples: int, setting: Setting) -> Iterator[float]:
    length = _steps_of_a_pass(num_examples, setting)
    for start in range(0, len(steps), length):
        yield float(np.mean([step.loss for step in steps[start : start + length]]))
