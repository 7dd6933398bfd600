"""The classic classifier: a new linear head on the first token's last state, and every weight of the model moves.

This is the fine-tuning of BERT (Devlin et al. 2019), which prompts are compared with. The model reads the text of the
row as its tokenizer frames it, without template and mask: the prompt is the fields with one mask behind them, which is
taken out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from promptlab.backends.placement import memory_errors
from promptlab.deciding import Answers
from promptlab.encoding import Encoder, encoded_prompt
from promptlab.methods.attaching import Attachment, LabelBackend, autocast, fit_attached, load_attached
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.training import BatchLoss
from promptlab.methods.weights import attach_weights
from promptlab.seeding import derive_generator
from promptlab.types import EncodedPrompt, Role

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Float64, Int64

_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "hidden_dropout_prob", "dropout")
_HEAD = "head."  # no parameter of a base model begins so: theirs begin with the name of the base model


class HeadFineTune(Method):
    """Moves every weight below the vocabulary head, and a new head.

    Option: `dense` puts one more layer with tanh between the state and the head, as RoBERTa's and BERT's classifiers
    do.
    """

    name: ClassVar[str] = "head_fine_tune"
    options: ClassVar[Mapping[str, Any]] = {"dense": False}
    answers: ClassVar[Answers] = "label"
    uses_template: ClassVar[bool] = False
    uses_words: ClassVar[bool] = False

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates; the model's own dropout is on."""
        plain = Setting(dropout=True, weight_decay=0.01)
        return tuple(replace(plain, learning_rate=rate) for rate in (3e-4, 1e-4, 1e-3, 3e-5))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        attachment = _attach(setting, context)
        loss = _loss(attachment, shots, setting, context)
        return fit_attached(attachment, loss, shots, setting, context, _backend(attachment, context))

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        attachment = _attach(setting, context)
        return load_attached(attachment, tensors, _backend(attachment, context))


def without_mask(prompt: EncodedPrompt, encoder: Encoder) -> EncodedPrompt:
    """A prompt without its masks and a blank of the template before each, under the same key."""
    is_kept: Bool[np.ndarray, " token"] = prompt.roles != Role.MASK
    for mask in prompt.mask_positions:
        is_kept[mask - 1] &= not _is_blank(prompt, mask - 1, encoder)
    bare = encoded_prompt(prompt.input_ids[is_kept], prompt.segment_ids[is_kept], prompt.roles[is_kept])
    return replace(bare, key=prompt.key, num_truncated=prompt.num_truncated)


def _is_blank(prompt: EncodedPrompt, place: int, encoder: Encoder) -> bool:
    """Whether a token of the template has no visible character."""
    return prompt.roles[place] == Role.LITERAL and not encoder.words([int(prompt.input_ids[place])])[0]


def _attach(setting: Setting, context: Context) -> Attachment:
    """The weights below the vocabulary head, and the new head's."""
    model = context.backend.model
    below = f"{model.base_model_prefix}."
    body = attach_weights(model, lambda name, parameter: name.startswith(below), what="weights below its head")
    head = _new_head(len(context.labels), context, has_dense=bool(setting.options.get("dense", False)))

    def mark(prompt: EncodedPrompt) -> EncodedPrompt:
        return without_mask(prompt, encoder)

    encoder = context.backend.encoder(None)
    return Attachment({**body.parameters, **head}, body.detach, mark)


def _new_head(num_labels: int, context: Context, *, has_dense: bool) -> dict[str, torch.nn.Parameter]:
    """Matrices drawn from a normal distribution as wide as the model's were, biases 0: as transformers does."""
    import torch

    config = context.backend.model.config
    dim, spread = int(config.hidden_size), float(getattr(config, "initializer_range", 0.02))
    generator = derive_generator(context.seed, "head_fine_tune", "head")
    shapes = ({"dense": (dim, dim)} if has_dense else {}) | {"out": (num_labels, dim)}
    made: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        drawn = generator.normal(scale=spread, size=shape).astype(np.float32)
        made |= {f"{_HEAD}{name}.weight": torch.from_numpy(drawn), f"{_HEAD}{name}.bias": torch.zeros(shape[0])}
    return {name: torch.nn.Parameter(tensor.to(context.backend.device)) for name, tensor in made.items()}


def _scorer(
    attachment: Attachment, context: Context
) -> Callable[[Sequence[EncodedPrompt]], Float[torch.Tensor, "prompt label"]]:
    """Label scores of prompts without masks; dropout is on while the model is in training."""
    from torch.nn.functional import dropout, linear

    model, head = context.backend.model, attachment.parameters
    rate = _dropout(model.config)

    def score(prompts: Sequence[EncodedPrompt]) -> Float[torch.Tensor, "prompt label"]:
        state = dropout(context.backend.last_states(prompts)[:, 0], rate, training=model.training)
        if f"{_HEAD}dense.weight" in head:
            inner = linear(state, head[f"{_HEAD}dense.weight"], head[f"{_HEAD}dense.bias"]).tanh()
            state = dropout(inner, rate, training=model.training)
        return linear(state, head[f"{_HEAD}out.weight"], head[f"{_HEAD}out.bias"])

    return score


def _dropout(config: Any) -> float:
    """The share of a state that the architecture's own classifier drops."""
    found = (getattr(config, name, None) for name in _DROPOUTS)
    return next((float(rate) for rate in found if rate is not None), 0.0)


def _loss(attachment: Attachment, shots: LabelledPrompts, setting: Setting, context: Context) -> BatchLoss:
    """Cross-entropy of the label scores of some shots."""
    import torch

    device, score = context.backend.device, _scorer(attachment, context)
    prompts, gold = [attachment.mark(prompt) for prompt in shots.prompts], torch.from_numpy(shots.labels).to(device)

    def loss(places: Int64[np.ndarray, " place"]) -> Float[torch.Tensor, ""]:
        with autocast(setting, device):
            scores = score([prompts[place] for place in places])
        here = torch.from_numpy(places).to(device)
        return torch.nn.functional.cross_entropy(scores.float(), gold[here], label_smoothing=setting.label_smoothing)

    return loss


def _backend(attachment: Attachment, context: Context) -> LabelBackend:
    """What scores labels by the weights as they are when it is asked."""
    import torch

    score = _scorer(attachment, context)

    def predict(prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt label"]:
        with memory_errors(), torch.inference_mode():
            log_probs = torch.log_softmax(score([attachment.mark(prompt) for prompt in prompts]), dim=1)
            found: Float64[np.ndarray, "prompt label"] = log_probs.double().cpu().numpy()
        return found

    return LabelBackend(context.backend, predict)
