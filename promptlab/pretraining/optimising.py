"""Which parameters move, how fast and when: AdamW groups and the course of the learning rate."""

import math
from typing import Any

import torch
from torch import nn
from transformers import ModernBertForMaskedLM

from promptlab.pretraining.recipe import Recipe, Stage
from promptlab.pretraining.vocabulary import MASK

_BETAS = (0.9, 0.98)


def moving_parameters(model: ModernBertForMaskedLM, *, awake: int) -> dict[str, nn.Parameter]:
    """Give the parameters of the embeddings, the head and the layers that are awake, by name."""
    asleep = len(model.model.layers) - awake
    sleeping = {id(parameter) for layer in model.model.layers[:asleep] for parameter in layer.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in sleeping}


def build_optimizer(model: ModernBertForMaskedLM, stage: Stage, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW with three groups: matrices, what does not decay, and word vectors at a rate of their own.

    Each group's `peak` is its rate at the top of the course.
    """
    moving = moving_parameters(model, awake=stage.awake_layers)
    kept_id = id(model.model.layers[-1].attn.Wqkv.weight) if stage.whole_text_heads else None
    vector_ids = {id(model.model.embeddings.tok_embeddings.weight), id(model.decoder.weight)}
    words = [parameter for parameter in moving.values() if id(parameter) in vector_ids]
    others = [parameter for parameter in moving.values() if id(parameter) not in vector_ids]
    groups = [
        (
            [parameter for parameter in others if parameter.ndim > 1 and id(parameter) != kept_id],
            stage.learning_rate,
            recipe.weight_decay,
        ),
        (
            [parameter for parameter in others if parameter.ndim <= 1 or id(parameter) == kept_id],
            stage.learning_rate,
            0.0,
        ),
        (words, stage.learning_rate * stage.vector_rate, 0.0),
    ]
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
            for parameters, peak, decay in groups
            if parameters
        ],
        betas=_BETAS,
        fused=True,
    )


def hold_whole_text_heads(model: ModernBertForMaskedLM, *, heads: int) -> None:
    """Clear the gradients of the queries and keys of the first heads of the last layer, and of the [MASK] vector.

    These heads started by looking at each word of the text in proportion to word2vec's rate of keeping it; trained,
    they turn to the neighbours, which tell most about a word, and the net forgets what the rest of a text says.
    """
    if not heads:
        return
    attention: Any = model.model.layers[-1].attn
    width = model.config.hidden_size
    rows = heads * attention.head_dim
    attention.Wqkv.weight.grad[:rows] = 0.0
    attention.Wqkv.weight.grad[width : width + rows] = 0.0
    embedding: Any = model.model.embeddings.tok_embeddings
    embedding.weight.grad[MASK] = 0.0


def rate_factor(stage: Stage, *, step: int, steps: int) -> float:
    """The share of the peak rate at a step: a rise, a plateau and a linear fall at the end."""
    rise = min(1.0, (step + 1) / max(1.0, stage.warm_up * steps))
    left = 1.0 - step / steps
    fall = 1.0 if left >= stage.decay else stage.final_rate + (1.0 - stage.final_rate) * left / stage.decay
    return min(rise, fall)


def build_plain_optimizer(model: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW for a whole net: matrices decay, biases and norms do not; a group's `peak` is its rate at the top."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        ([parameter for parameter in moving if parameter.ndim > 1], weight_decay),
        ([parameter for parameter in moving if parameter.ndim <= 1], 0.0),
    ]
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": learning_rate, "peak": learning_rate, "weight_decay": decay}
            for parameters, decay in groups
            if parameters
        ],
        betas=_BETAS,
        fused=True,
    )


def scheduled_factor(schedule: str, *, warm_up: float, step: int, steps: int) -> float:
    """The share of the peak rate at a step: a linear rise over `warm_up` of the steps, then the schedule's course.

    Args:
        schedule: `linear` falls to zero in a straight line, `cosine` in half a wave, `constant` stays.
        warm_up: Share of the steps.
        step: The step, from 0.
        steps: Steps of the run.
    """
    rise_steps = warm_up * steps
    if step < rise_steps:
        return min(1.0, (step + 1) / rise_steps)
    done = (step - rise_steps) / max(1.0, steps - rise_steps)
    courses = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "constant": 1.0}
    return courses[schedule]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to a share of its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
