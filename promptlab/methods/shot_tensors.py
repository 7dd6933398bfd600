"""Labelled prompts <-> tensors, for methods whose shots are what was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from promptlab.encoding import encoded_prompt
from promptlab.methods.attaching import check_shapes
from promptlab.methods.base import LabelledPrompts

if TYPE_CHECKING:
    import torch

_PADDING = -1
_ARRAYS = ("input_ids", "segment_ids", "roles")


def shots_to_tensors(shots: LabelledPrompts) -> dict[str, torch.Tensor]:
    """Token ids, segment ids and roles of prompts, padded by -1, and their labels."""
    import torch

    shape = (len(shots), max(map(len, shots.prompts)))
    arrays = {name: np.full(shape, _PADDING, dtype=np.int32) for name in _ARRAYS}
    for row, prompt in enumerate(shots.prompts):
        for name, array in arrays.items():
            array[row, : len(prompt)] = getattr(prompt, name)
    return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, "labels": torch.tensor(shots.labels)}


def tensors_to_shots(tensors: Mapping[str, torch.Tensor], more: Mapping[str, tuple[int, ...]]) -> LabelledPrompts:
    """The labelled prompts that were stored.

    Args:
        tensors: what `shots_to_tensors` made, and what else was stored.
        more: what one shot has of each other tensor: its shape without the number of shots.

    Raises:
        ModelError: a tensor is missing, left over or of another shape.
    """
    labels, roles = tensors.get("labels"), tensors.get("roles")
    number = len(labels) if labels is not None else 0
    width = roles.shape[-1] if roles is not None else 0
    shapes = {**dict.fromkeys(_ARRAYS, (number, width)), "labels": (number,)}
    check_shapes(tensors, shapes | {name: (number, *shape) for name, shape in more.items()})
    rows = zip(*(tensors[name].numpy() for name in _ARRAYS), strict=True)
    prompts = [encoded_prompt(*(array[ids != _PADDING] for array in (ids, kinds, roles))) for ids, kinds, roles in rows]
    return LabelledPrompts(tuple(prompts), tensors["labels"].numpy().astype(np.int64))
