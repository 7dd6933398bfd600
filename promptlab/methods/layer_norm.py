"""The scales and shifts of the model's norms alone (Zhao et al. 2024, "Tuning LayerNorm in Attention").

Freed by our own table of names. peft's layer norm tuning is not used: it finds none of the norms of ModernBERT, whose
first layer has a placeholder in the place of one, and raises `StopIteration` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from promptlab.backends.base import Backend
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.modules import modules_of, refusal_of
from promptlab.methods.weights import attach_weights

if TYPE_CHECKING:
    import torch


class LayerNorm(Method):
    """Moves the parameters of every norm: those of the embeddings, of the layers and of the head."""

    name: ClassVar[str] = "layer_norm"

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates."""
        return tuple(Setting(learning_rate=rate) for rate in (1e-2, 3e-3, 3e-2, 1e-3))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures whose norms have unknown names."""
        return refusal_of(backend, method=self.name)


def _attach(context: Context) -> Attachment:
    norms = modules_of(context.backend, method=LayerNorm.name).norms

    def is_of_norm(name: str, parameter: torch.nn.Parameter) -> bool:
        return name.split(".")[-2] in norms

    return attach_weights(context.backend.model, is_of_norm, what="norms")
