"""Some of a model's own weights, freed for a fit and put back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment

if TYPE_CHECKING:
    import torch


def attach_weights(model: Any, wanted: Callable[[str, torch.nn.Parameter], bool], *, what: str) -> Attachment:
    """Free the parameters of a model that are wanted; `detach` puts their values back.

    A matrix that stands in two places, such as word embeddings that are the decoder too, is one parameter.

    Args:
        model: the model of transformers.
        wanted: whether a parameter of that name is freed.
        what: names the parameters in a refusal.

    Raises:
        ModelError: none is wanted.
    """
    import torch

    freed = {name: parameter for name, parameter in model.named_parameters() if wanted(name, parameter)}
    if not freed:
        raise ModelError(f"{type(model).__name__} has no {what}: choose another method.")
    before = {name: parameter.detach().clone() for name, parameter in freed.items()}

    def detach() -> None:
        with torch.no_grad():
            for name, parameter in freed.items():
                parameter.copy_(before[name])

    return Attachment(freed, detach)
