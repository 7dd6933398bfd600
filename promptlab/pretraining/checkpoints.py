"""The state of a run <-> one safetensors file.

The rule guarded here: the file is whole or is the one before (written beside, flushed, renamed), holds no pickle, and
restores a run to the bit: parameters, both moments of the optimizer and the place in the data.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from promptlab.errors import StoreError

_MODEL, _FIRST, _SECOND = "model/", "first_moment/", "second_moment/"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        stage: Index of the stage.
        step: Steps done in this stage.
        tokens: Tokens read in all stages.
        seconds: Time spent training, over all sittings.
    """

    stage: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


Stand = TypeVar("Stand", bound=Progress)


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: dict[str, Any],
) -> None:
    """Write the state of a run.

    Args:
        path: The file.
        model: The net; all its parameters are kept.
        optimizer: AdamW; its moments are kept under the names of their parameters.
        progress: Where the run stands.
        identity: What the run is of (recipe, corpora, seed); compared when it goes on.
    """
    tensors = {_MODEL + name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter)
        if moments:
            tensors[_FIRST + name] = moments["exp_avg"]
            tensors[_SECOND + name] = moments["exp_avg_sq"]
    metadata = {"progress": json.dumps(asdict(progress)), "identity": json.dumps(identity)}
    write_safely(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)


def read_progress(path: Path) -> tuple[Progress, dict[str, Any]]:
    """Read where a run stands and what it is of."""
    return read_standing(path, Progress)


def read_standing(path: Path, kind: type[Stand]) -> tuple[Stand, dict[str, Any]]:
    """Read where a run stands, of a kind that may say more than `Progress`, and what it is of."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        return kind(**json.loads(metadata["progress"])), json.loads(metadata["identity"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a checkpoint of promptlab pretrain: {error}.") from error


def load_model(path: Path, model: nn.Module) -> None:
    """Copy the stored parameters into the net."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(_MODEL + name))


def load_moments(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int) -> None:
    """Copy the stored moments into an optimizer that has made no step."""
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
        for name, parameter in model.named_parameters():
            if _FIRST + name in stored:
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step), device=parameter.device),
                    "exp_avg": file.get_tensor(_FIRST + name).to(parameter.device),
                    "exp_avg_sq": file.get_tensor(_SECOND + name).to(parameter.device),
                }


def write_safely(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write a safetensors file beside the place where it belongs, flush it and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=metadata)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.chmod(0o644)  # safetensors leaves it readable by its owner alone
    partial.replace(path)
