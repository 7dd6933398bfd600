"""peft's layers around some of a model's linear maps, and out again: no weight of the model is touched.

Tensors are named as peft's files name them, without their `base_model.model.` in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment
from promptlab.seeding import derive_generator

if TYPE_CHECKING:
    import torch

_ADAPTER = "default"  # what peft calls an adapter in a model; its files leave it out


def inject(model: Any, config: Any, *, seed: int) -> Attachment:
    """Wrap what a configuration of peft targets; `detach` puts the bare maps back.

    Of LoRA's pair A starts uniform in +-1/sqrt(width of the input) and B at zero, as in peft but from the seed, so that
    the start is the same on every device; IA3's scales start at one. Either way the model answers as before.

    Args:
        model: the model of transformers.
        config: a configuration of peft with the modules it targets.
        seed: of the start.

    Raises:
        ModelError: the model has layers of peft already.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    if hasattr(model, "peft_config"):
        raise ModelError("the model has an adapter of peft already: detach it first.")
    needed = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with _torch_seed():
        inject_adapter_in_model(config, model, _ADAPTER)
    for parameter, was_needed in needed:
        parameter.requires_grad_(was_needed)
    wrapped: list[tuple[str, Any]] = [
        (name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    ]
    for _, module in wrapped:
        module.train(model.training)

    def detach() -> None:
        for name, module in wrapped:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config

    parameters = _added(model, {id(parameter) for parameter, _ in needed})
    _start(parameters, seed)
    return Attachment(parameters, detach)


def _added(model: Any, known: set[int]) -> dict[str, torch.nn.Parameter]:
    """The parameters that the model did not have before, named as in peft's files."""
    found = model.named_parameters()
    return {_file_name(name): parameter for name, parameter in found if id(parameter) not in known}


def _file_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _ADAPTER)


def _start(parameters: dict[str, torch.nn.Parameter], seed: int) -> None:
    """Hold everything in float32, whatever the model is in, and draw the A of every pair anew."""
    import torch

    for name, parameter in parameters.items():
        parameter.data = parameter.data.float()
        if name.endswith("lora_A.weight"):
            bound = parameter.shape[1] ** -0.5
            drawn = derive_generator(seed, "start", name).uniform(-bound, bound, tuple(parameter.shape))
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(drawn.astype(np.float32)))


def _torch_seed() -> Any:
    """Whatever peft draws leaves torch's generators as they were."""
    import torch

    return torch.random.fork_rng()
