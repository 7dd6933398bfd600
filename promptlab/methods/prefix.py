"""Trained keys and values before those of the text in every layer of a frozen model (P-tuning v2, Liu et al. 2022).

They come in through transformers' attention interface: an attention function of ours puts them before the keys and
values of the text and hands on to the usual one. Texts keep their positions, and no place of the text is a prefix, so
that masks stand where they stood. Layers with a sliding window see the prefix from everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from promptlab.backends.base import Backend
from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment, detached, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.modules import modules_of, num_applications, refusal_of
from promptlab.methods.passes import Passes
from promptlab.seeding import derive_generator

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float

OPTIONS: Mapping[str, Any] = {"num_tokens": 8, "reparametrisation": "none"}
SPREAD = 0.02  # the standard deviation of the start
INTERFACE = "promptlab_prefix"
_NO_INTERFACE = (
    "{} does not follow transformers' attention interface, through which a prefix comes in: choose lora or adapter."
)
_SITE = "promptlab_prefix"  # the attribute by which an attention module knows its prefix


class Prefix(Method):
    """Adds keys and values to every layer.

    Options: `num_tokens` (8), the length of the prefix; `reparametrisation`: `none`, or `mlp`, keys and values of all
    layers made of one vector a token by a layer with tanh and a linear one, which are thrown away after the fit.
    """

    name: ClassVar[str] = "prefix"
    options: ClassVar[Mapping[str, Any]] = OPTIONS

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates, and keys and values that a small network makes."""
        rates = tuple(Setting(learning_rate=rate) for rate in (3e-2, 1e-2, 1e-1))
        return (*rates, Setting(learning_rate=3e-3, options={"reparametrisation": "mlp"}))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`; what is handed back has the keys and values alone."""
        prefix = _make_prefix(setting, context)
        fitted = fit_at_mask(attach_prefix(prefix, context), shots, setting, context)
        return replace(fitted, tensors=detached(prefix.collapsed().parameters))

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        prefix = _make_prefix(setting, context).collapsed()
        return load_at_mask(attach_prefix(prefix, context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures that do not follow the attention interface."""
        if refusal_of(backend, method=self.name) is None and modules_of(backend, method=self.name).attention is None:
            return _NO_INTERFACE.format(backend.scorer.architecture)
        return refusal_of(backend, method=self.name)


@dataclass(frozen=True, slots=True, eq=False)
class KeyValues:
    """The keys and values of a prefix: the parameters that move, and how they are made of them.

    `make` gives (2, layer, token, dim), keys first.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    make: Callable[[], Float[torch.Tensor, "two layer token dim"]]

    def collapsed(self) -> KeyValues:
        """The same keys and values, which move themselves and need nothing that made them."""
        import torch

        with torch.no_grad():
            keys, values = self.make().clone()
        return _of({"keys": torch.nn.Parameter(keys), "values": torch.nn.Parameter(values)})


def attach_prefix(prefix: KeyValues, context: Context, *, is_shown: bool = True) -> Attachment:
    """Put a prefix before the texts of a model; with `is_shown` False nothing attends to it.

    Raises:
        ModelError: the model does not follow the attention interface, or has a prefix already.
    """
    model, modules = context.backend.model, modules_of(context.backend, method=Prefix.name)
    if modules.attention is None:
        raise ModelError(_NO_INTERFACE.format(context.backend.scorer.architecture))
    before = model.config._attn_implementation
    if before == INTERFACE:
        raise ModelError("the model has a prefix already: detach it first.")
    _register()
    passes = Passes(model, prefix.make)
    attentions = [module for _, module in modules.find(model, modules.attention)]
    for module in attentions:
        setattr(module, _SITE, (passes, is_shown))
    model.set_attn_implementation(INTERFACE)

    def detach() -> None:
        model.set_attn_implementation(before)
        passes.close()
        for module in attentions:
            vars(module).pop(_SITE, None)

    return Attachment(prefix.parameters, detach)


def attend(
    module: Any,
    query: Float[torch.Tensor, "prompt head token size"],
    key: Float[torch.Tensor, "prompt head token size"],
    value: Float[torch.Tensor, "prompt head token size"],
    attention_mask: Bool[torch.Tensor, "prompt 1 token token"] | None,
    **options: Any,
) -> Any:
    """Attention of the tokens of texts to a prefix and to each other, as the attention interface asks for it.

    `attention_mask` says which token sees which, None that each sees all.
    """
    import torch
    from transformers import AttentionInterface

    passes, is_shown = getattr(module, _SITE)
    before = passes.prepared[:, passes.next(INTERFACE)]
    before = before.unflatten(-1, key.shape[1::2]).transpose(1, 2)[:, None].expand(-1, len(key), -1, -1, -1)
    keys, values = before.to(key.dtype)
    if attention_mask is None and not is_shown:
        attention_mask = torch.ones((1, 1, query.shape[2], key.shape[2]), dtype=torch.bool, device=key.device)
    if attention_mask is not None:
        attention_mask = torch.nn.functional.pad(attention_mask, (keys.shape[2], 0), value=is_shown)
    key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
    return AttentionInterface()["sdpa"](module, query, key, value, attention_mask, **options)


def _register() -> None:
    """Make the interface known under its name, with boolean masks."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(INTERFACE, attend)
    AttentionMaskInterface.register(INTERFACE, AttentionMaskInterface()["sdpa"])


def _make_prefix(setting: Setting, context: Context) -> KeyValues:
    """The prefix of a setting at its start, drawn from the context's seed, in float32."""
    chosen = {**OPTIONS, **setting.options}
    number, kind = (chosen[name] for name in OPTIONS)
    if number < 1:
        raise ModelError(f"prefix: num_tokens is {number}: a prefix has 1 token or more.")
    if kind not in _KINDS:
        raise ModelError(f"prefix: the reparametrisation '{kind}' is unknown: choose one of {', '.join(_KINDS)}.")
    config = context.backend.model.config
    layers, dim = num_applications(context.backend.model), int(config.hidden_size)
    return _KINDS[kind](context, layers, number, dim)


def _direct(context: Context, layers: int, number: int, dim: int) -> KeyValues:
    """Keys and values that move themselves: normal, small."""
    return _of({name: _drawn(context, name, (layers, number, dim), SPREAD) for name in ("keys", "values")})


def _of(held: Mapping[str, torch.nn.Parameter]) -> KeyValues:
    """Keys and values as they are held."""
    import torch

    return KeyValues(held, lambda: torch.stack([held["keys"], held["values"]]))


def _from_network(context: Context, layers: int, number: int, dim: int) -> KeyValues:
    """Keys and values that one vector a token gives, V tanh(W t + w) + v, of all layers at once."""
    import torch
    from torch.nn import functional

    wide = 2 * layers * dim
    held = {
        "tokens": _drawn(context, "tokens", (number, dim), 1.0),
        "inner.weight": _drawn(context, "inner", (dim, dim), dim**-0.5),
        "inner.bias": _drawn(context, "none", (dim,), 0.0),
        "outer.weight": _drawn(context, "outer", (wide, dim), SPREAD * dim**-0.5),
        "outer.bias": _drawn(context, "none", (wide,), 0.0),
    }

    def make() -> Float[torch.Tensor, "two layer token dim"]:
        inner = torch.tanh(functional.linear(held["tokens"], held["inner.weight"], held["inner.bias"]))
        flat = functional.linear(inner, held["outer.weight"], held["outer.bias"])
        return flat.reshape(number, 2, layers, dim).permute(1, 2, 0, 3)

    return KeyValues(held, make)


_KINDS = {"none": _direct, "mlp": _from_network}


def _drawn(context: Context, name: str, shape: tuple[int, ...], spread: float) -> torch.nn.Parameter:
    """A parameter on the model's device, normal with that standard deviation."""
    import torch

    drawn = derive_generator(context.seed, "start", name).normal(0.0, 1.0, shape) * spread
    return torch.nn.Parameter(torch.from_numpy(drawn.astype(np.float32)).to(context.backend.device))
