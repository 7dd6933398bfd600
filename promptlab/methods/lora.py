"""Products of two thin matrices beside linear maps of a frozen model (LoRA, Hu et al. 2022), by peft.

Of a map W x + b LoRA makes W x + b + (alpha / rank) B A x, with A (rank, in) and B (out, rank).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from promptlab.backends.base import Backend
from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.injecting import inject
from promptlab.methods.modules import ROLES, Modules, modules_of, refusal_of

if TYPE_CHECKING:
    import torch

OPTIONS: Mapping[str, Any] = {"rank": 8, "alpha": 16, "lora_dropout": 0.0, "targets": ("query", "value")}


class Lora(Method):
    """Adds to linear maps inside the layers.

    Options: `rank` (8); `alpha` (16); `lora_dropout` (0), the share of a pair's input that is zeroed while it is
    fitted, which needs the setting's `dropout`; `targets`, the roles of the maps, queries and values by default.
    ModernBERT makes queries, keys and values by one map, which has one pair; ALBERT's layers share a pair as they share
    the map.
    """

    name: ClassVar[str] = "lora"
    options: ClassVar[Mapping[str, Any]] = OPTIONS

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates, and pairs beside every map."""
        rates = tuple(Setting(learning_rate=rate) for rate in (3e-3, 1e-3, 1e-2))
        return (*rates, Setting(learning_rate=3e-3, options={"targets": ROLES}))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(setting, context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(setting, context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures whose maps have unknown names."""
        return refusal_of(backend, method=self.name)


def lora_config(setting: Setting, modules: Modules) -> Any:
    """The setting as peft's `LoraConfig`.

    Raises:
        ModelError: there is no such rank or role, or LoRA's dropout is asked for where the setting has dropout off.
    """
    from peft import LoraConfig

    chosen = {**OPTIONS, **setting.options}
    rank, alpha, dropout, targets = (chosen[name] for name in OPTIONS)
    if rank < 1:
        raise ModelError(f"lora: its option rank is {rank}: a rank is 1 or more.")
    if not targets or not set(targets) <= set(ROLES):
        raise ModelError(f"lora: its option targets is {list(targets)}: choose some of {', '.join(ROLES)}.")
    if dropout and not setting.dropout:
        raise ModelError(
            f"lora: its option lora_dropout is {dropout:g}, and the setting has dropout off: set dropout=True."
        )
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=modules.pattern(modules.paths(targets)),
    )


def _attach(setting: Setting, context: Context) -> Attachment:
    config = lora_config(setting, modules_of(context.backend, method=Lora.name))
    return inject(context.backend.model, config, seed=context.seed)
