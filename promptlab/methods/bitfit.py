"""The biases of the model alone (BitFit, Ben Zaken et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from promptlab.backends.base import Backend
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.weights import attach_weights

if TYPE_CHECKING:
    import torch

_WITHOUT = ("ModernBert",)  # its layers and norms have no biases, and one is left in the head


class BitFit(Method):
    """Moves every bias of the model, of norms and of the head too."""

    name: ClassVar[str] = "bitfit"

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates."""
        return tuple(Setting(learning_rate=rate) for rate in (1e-3, 3e-3, 1e-2, 3e-4))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(context), tensors, context)

    def refusal(self, backend: Backend) -> str | None:
        """Refuses architectures whose layers have no biases."""
        architecture = backend.scorer.architecture
        if architecture.startswith(_WITHOUT):
            return f"the layers of {architecture} have no biases: choose layer_norm or lora."
        return None


def _attach(context: Context) -> Attachment:
    return attach_weights(context.backend.model, lambda name, parameter: name.endswith("bias"), what="biases")
