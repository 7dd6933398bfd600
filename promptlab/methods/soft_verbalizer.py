"""Learned label vectors at the mask of a frozen model (WARP, Hambardzumyan et al. 2021), without its prompt tokens.

A label's score is the product of its vector with what the decoder of the head is applied to, plus a bias. The vectors
start as the decoder's rows of the label words, so before the first step labels are scored as by those words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from promptlab.deciding import Answers
from promptlab.errors import ModelError
from promptlab.methods.attaching import Attachment, LabelBackend, autocast, fit_attached, load_attached
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.features import decoder_states
from promptlab.methods.training import BatchLoss
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64, Int64


class SoftVerbalizer(Method):
    """Moves a vector and a bias a label; the model runs once over the shots."""

    name: ClassVar[str] = "soft_verbalizer"
    answers: ClassVar[Answers] = "label"

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates."""
        return tuple(Setting(learning_rate=rate) for rate in (3e-3, 1e-3, 1e-2, 3e-4))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        attachment = _attach(context)
        loss = _loss(attachment, shots, setting, context)
        fitted = fit_attached(attachment, loss, shots, setting, context, _backend(attachment, context))
        return replace(fitted, record=replace(fitted.record, example_passes=len(shots)))

    def example_passes(self, num_examples: int, setting: Setting) -> int:
        """See `Method.example_passes`: the frozen model runs once."""
        return num_examples

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        attachment = _attach(context)
        return load_attached(attachment, tensors, _backend(attachment, context))


def _attach(context: Context) -> Attachment:
    """Vectors and biases that stand for the label words: the mean over a label's words, by their weights.

    Raises:
        ModelError: the head has no plain decoder.
    """
    import torch

    words, backend = context.label_words, context.backend
    try:
        rows, added = backend.decoder_rows(words.token_ids)
    except ModelError:
        raise ModelError(
            f"the head of {backend.scorer.architecture} is no plain product with the states at masks, so label vectors "
            "cannot start from its words: choose linear_probe or prototypical."
        ) from None
    start = {"vectors": words.shares() @ rows, "biases": words.shares() @ added}
    parameters = {
        name: torch.nn.Parameter(torch.from_numpy(array).float().to(backend.device)) for name, array in start.items()
    }
    return Attachment(parameters, detach=lambda: None)


def _loss(attachment: Attachment, shots: LabelledPrompts, setting: Setting, context: Context) -> BatchLoss:
    """Cross-entropy of the label scores, from states that are computed once."""
    import torch

    device = context.backend.device
    states = torch.from_numpy(decoder_states(context.backend, shots.prompts)).float().to(device)
    gold = torch.from_numpy(shots.labels).to(device)

    def loss(places: Int64[np.ndarray, " place"]) -> Float[torch.Tensor, ""]:
        here = torch.from_numpy(places).to(device)
        with autocast(setting, device):
            scores = _scores(states[here], attachment)
        return torch.nn.functional.cross_entropy(scores.float(), gold[here], label_smoothing=setting.label_smoothing)

    return loss


def _backend(attachment: Attachment, context: Context) -> LabelBackend:
    """What scores labels by the vectors as they are when it is asked."""
    import torch

    def predict(prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt label"]:
        states = torch.from_numpy(decoder_states(context.backend, prompts)).float().to(context.backend.device)
        with torch.inference_mode():
            log_probs = torch.log_softmax(_scores(states, attachment), dim=1)
            found: Float64[np.ndarray, "prompt label"] = log_probs.double().cpu().numpy()
        return found

    return LabelBackend(context.backend, predict)


def _scores(states: Float[torch.Tensor, "prompt dim"], attachment: Attachment) -> Float[torch.Tensor, "prompt label"]:
    import torch

    return torch.nn.functional.linear(states, attachment.parameters["vectors"], attachment.parameters["biases"])
