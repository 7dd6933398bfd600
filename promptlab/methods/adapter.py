"""Bottlenecks in the layers of a frozen model (Houlsby et al. 2019; Pfeiffer et al. 2021), by forward hooks.

A bottleneck makes of a state h (dim) the change U act(D h + d) + u, with D (width, dim) and U (dim, width). U and u
start at zero, so that the model answers as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from promptlab.backends.base import Backend
from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.modules import Modules, modules_of, num_applications, refusal_of
from promptlab.methods.passes import Passes
from promptlab.seeding import derive_generator

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

Placement = Literal["houlsby", "pfeiffer"]
Bottlenecks = Mapping[str, "torch.nn.Parameter"]
Change = Callable[["Float[torch.Tensor, 'prompt token dim']", int], "Float[torch.Tensor, 'prompt token dim']"]

OPTIONS: Mapping[str, Any] = {"placement": "houlsby", "reduction": 16.0, "activation": "gelu"}
_PLACES = {"houlsby": ("attention", "feed_forward"), "pfeiffer": ("feed_forward",)}
_ACTIVATIONS = ("gelu", "relu")


class Adapter(Method):
    """Adds bottlenecks to every layer.

    Options: `placement`; `reduction` (16), the model's width over that of a bottleneck; `activation`, gelu or relu.

    `houlsby`, the default, has two a layer: each reads what the last linear map of attention and of the feed-forward
    part gives, and is added to it, before dropout, the residual sum and the norm. `pfeiffer` has one: where a layer
    ends in a norm, y = norm(s), it reads y and is added to s before the norm, norm(s + bottleneck(y)); ModernBERT
    norms at the start of each part, and there it reads the sum that leaves the layer and is added to it. The norms stay
    as they are. ALBERT runs the same weights as every layer, and each of these layers has bottlenecks of its own.
    """

    name: ClassVar[str] = "adapter"
    options: ClassVar[Mapping[str, Any]] = OPTIONS

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates, and one bottleneck a layer."""
        rates = tuple(Setting(learning_rate=rate) for rate in (3e-3, 1e-3, 1e-2))
        return (*rates, Setting(learning_rate=3e-3, options={"placement": "pfeiffer"}))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(setting, context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(setting, context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures whose layers have unknown names."""
        return refusal_of(backend, method=self.name)


def _attach(setting: Setting, context: Context) -> Attachment:
    modules, model = modules_of(context.backend, method=Adapter.name), context.backend.model
    placement, activation, reduction = _options(setting)
    width = max(1, int(model.config.hidden_size // reduction))
    parameters = _bottlenecks(model, _PLACES[placement], width, context)
    passes = Passes(model)
    handles = [
        module.register_forward_hook(_hook(place, _change(parameters, place, activation), passes, is_norm=is_norm))
        for place in _PLACES[placement]
        for module, is_norm in _sites(modules, model, placement, place)
    ]

    def detach() -> None:
        passes.close()
        for handle in handles:
            handle.remove()

    return Attachment(parameters, detach)


def _options(setting: Setting) -> tuple[Placement, str, float]:
    """Placement, activation and reduction of a setting, those that there are."""
    chosen = {**OPTIONS, **setting.options}
    placement, reduction, activation = (chosen[name] for name in OPTIONS)
    if placement not in _PLACES:
        raise ModelError(f"adapter: the placement '{placement}' is unknown: choose one of {', '.join(_PLACES)}.")
    if activation not in _ACTIVATIONS:
        raise ModelError(f"adapter: the activation '{activation}' is unknown: choose one of {', '.join(_ACTIVATIONS)}.")
    if reduction <= 0:
        raise ModelError(f"adapter: the reduction is {reduction:g}: it is above 0.")
    return placement, activation, reduction


def _bottlenecks(model: Any, places: tuple[str, ...], width: int, context: Context) -> dict[str, torch.nn.Parameter]:
    """The parameters of every layer's bottlenecks in float32, by place, layer and part; D is drawn from the seed."""
    import torch

    dim, made = model.config.hidden_size, dict[str, torch.Tensor]()
    for place in places:
        for layer in range(num_applications(model)):
            name = f"{place}.{layer}"
            drawn = derive_generator(context.seed, "start", name).normal(0.0, dim**-0.5, (width, dim))
            made[f"{name}.down.weight"] = torch.from_numpy(drawn.astype(np.float32))
            made[f"{name}.down.bias"] = torch.zeros(width)
            made[f"{name}.up.weight"] = torch.zeros(dim, width)
            made[f"{name}.up.bias"] = torch.zeros(dim)
    return {name: torch.nn.Parameter(tensor.to(context.backend.device)) for name, tensor in made.items()}


def _sites(modules: Modules, model: Any, placement: Placement, place: str) -> list[tuple[Any, bool]]:
    """The modules whose output is changed at a place, first layer first, and whether they are norms."""
    if placement == "houlsby":
        path = modules.attention_output if place == "attention" else modules.feed_forward_out
        return [(module, False) for _, module in modules.find(model, path)]
    if modules.last_norm is not None:
        return [(module, True) for _, module in modules.find(model, modules.last_norm)]
    return [(module, False) for _, module in modules.layers(model)]


def _change(parameters: Bottlenecks, place: str, activation: str) -> Change:
    """What the bottleneck of a layer adds to states, in their dtype."""
    from torch.nn import functional

    act = getattr(functional, activation)

    def change(states: Float[torch.Tensor, "prompt token dim"], layer: int) -> Float[torch.Tensor, "prompt token dim"]:
        down, d, up, u = (
            parameters[f"{place}.{layer}.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        )
        inner = act(functional.linear(states.float(), down, d))
        return functional.linear(inner, up, u).to(states.dtype)

    return change


def _hook(place: str, change: Change, passes: Passes, *, is_norm: bool) -> Callable[[Any, Any, Any], Any]:
    """The forward hook of a place: of a norm it changes the sum and norms it again, of all else the output."""

    def after_map(module: Any, args: Any, output: Any) -> Any:
        return output + change(output, passes.next(place))

    def after_norm(module: Any, args: Any, output: Any) -> Any:
        return module.forward(args[0] + change(output, passes.next(place)))

    return after_norm if is_norm else after_map
