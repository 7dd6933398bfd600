"""The whole model, tuned by its label words at the mask (PET, Schick and Schuetze 2021; LM-BFF, Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.weights import attach_weights

if TYPE_CHECKING:
    import torch


class PromptFineTune(Method):
    """Moves every weight of the model."""

    name: ClassVar[str] = "prompt_fine_tune"

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates; the model's own dropout is on."""
        return tuple(Setting(learning_rate=rate, dropout=True, weight_decay=0.01) for rate in (1e-4, 3e-5, 3e-4, 1e-3))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        return fit_at_mask(_attach(context), shots, setting, context)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        return load_at_mask(_attach(context), tensors, context)


def _attach(context: Context) -> Attachment:
    return attach_weights(context.backend.model, lambda name, parameter: True, what="weights")
