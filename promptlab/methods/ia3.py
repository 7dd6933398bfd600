"""Scales of keys, values and inner states of the feed-forward maps of a frozen model (IA3, Liu et al. 2022), by peft.

A key and a value are multiplied by a learned vector after their map, an inner state before the map that leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from promptlab.backends.base import Backend
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.injecting import inject
from promptlab.methods.modules import Modules, modules_of, refusal_of

if TYPE_CHECKING:
    import torch


class Ia3(Method):
    """Scales what passes between the linear maps inside the layers.

    ModernBERT makes queries, keys and values by one map, so that queries are scaled there too; ALBERT's layers share
    their scales as they share their maps.
    """

    name: ClassVar[str] = "ia3"

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates."""
        return tuple(Setting(learning_rate=rate) for rate in (3e-2, 1e-2, 1e-1, 3e-3))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures whose maps have unknown names."""
        return refusal_of(backend, method=self.name)


def ia3_config(modules: Modules) -> Any:
    """What is scaled as peft's `IA3Config`."""
    from peft import IA3Config

    leaving = modules.paths(["feed_forward_out"])
    targets = (*modules.paths(["key", "value"]), *leaving)
    return IA3Config(target_modules=modules.pattern(targets), feedforward_modules=modules.pattern(leaving))


def _attach(context: Context) -> Attachment:
    config = ia3_config(modules_of(context.backend, method=Ia3.name))
    return inject(context.backend.model, config, seed=context.seed)
