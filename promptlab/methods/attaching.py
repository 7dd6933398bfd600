"""What a method adds to a model or frees in it -> a fit at the mask, by one loop for all of them.

The loss is the cross-entropy of the label scores that the verbalizer makes of the words' log-probabilities at the mask
(LM-BFF, Gao et al. 2021, section 4.1; PET without its auxiliary loss).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.base import NUM_TOP, Backend, Scorer
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.methods.base import Context, FitRecord, Fitted, LabelledPrompts, Setting
from promptlab.methods.training import BatchLoss, prepared_model, train
from promptlab.types import EncodedPrompt, MaskScores

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float32, Float64, Int64

Predict = Callable[[Sequence[EncodedPrompt]], "Float64[np.ndarray, 'prompt label']"]


def unmarked(prompt: EncodedPrompt) -> EncodedPrompt:
    """A prompt as it is."""
    return prompt


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """What is fitted inside a model, and how it comes out again.

    `parameters` move, by name; `mark` makes of a prompt what the model is given in its place, under the same key;
    `detach` leaves the model as it was.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    detach: Callable[[], None]
    mark: Callable[[EncodedPrompt], EncodedPrompt] = unmarked
    facts: Mapping[str, Any] = field(default_factory=dict)


def fit_at_mask(attachment: Attachment, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
    """Fit what is attached by the label words at the mask; taken out again where that fails."""
    marked = [attachment.mark(prompt) for prompt in shots.prompts]
    loss = _mask_loss(marked, shots.labels, setting, context)
    return fit_attached(attachment, loss, shots, setting, context, attached_backend(attachment, context))


def fit_attached(
    attachment: Attachment,
    loss: BatchLoss,
    shots: LabelledPrompts,
    setting: Setting,
    context: Context,
    backend: Backend,
) -> Fitted:
    """Fit what is attached by any loss over the shots; `backend` is what scores afterwards."""
    model = context.backend.model
    try:
        with prepared_model(model, attachment.parameters, dropout=setting.dropout):
            record = train(loss, attachment.parameters, setting, num_examples=len(shots), seed=context.seed)
    except BaseException:
        attachment.detach()
        raise
    whole = {**record.facts, **attachment.facts}
    return Fitted(backend, replace(record, facts=whole), detached(attachment.parameters), attachment.detach)


def load_at_mask(attachment: Attachment, tensors: Mapping[str, torch.Tensor], context: Context) -> Fitted:
    """What `fit_at_mask` handed back, from its tensors."""
    return load_attached(attachment, tensors, attached_backend(attachment, context))


def load_attached(attachment: Attachment, tensors: Mapping[str, torch.Tensor], backend: Backend) -> Fitted:
    """Put stored tensors where they were fitted.

    Raises:
        ModelError: a tensor is missing, left over or of another shape; the attachment is taken out again.
    """
    import torch

    try:
        check_shapes(tensors, {name: tuple(parameter.shape) for name, parameter in attachment.parameters.items()})
    except ModelError:
        attachment.detach()
        raise
    with torch.no_grad():
        for name, parameter in attachment.parameters.items():
            parameter.copy_(tensors[name])
    number = sum(tensor.numel() for tensor in tensors.values())
    record = FitRecord(num_parameters=number, steps=0, example_passes=0, facts=attachment.facts)
    return Fitted(backend, record, tensors, attachment.detach)


def check_shapes(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse stored tensors that are not the ones that a fit of this model has.

    Raises:
        ModelError: a tensor is missing, left over or of another shape.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found == wanted:
        return
    odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))[0]
    raise ModelError(
        f"the tuned tensors do not fit the model: '{odd}' has the shape {found.get(odd)} and should have "
        f"{wanted.get(odd)}."
    )


def detached(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Copies of parameters on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}


def attached_backend(attachment: Attachment, context: Context) -> AttachedBackend:
    """What scores words at masks while something is attached."""
    return AttachedBackend(context.backend, attachment.mark)


def autocast(setting: Setting, device: str) -> AbstractContextManager[Any]:
    """Products in bfloat16 where the setting says so."""
    import torch

    kind = device.partition(":")[0]
    return torch.autocast(kind, torch.bfloat16) if setting.precision == "bfloat16" else nullcontext()


class AttachedBackend(Backend):
    """A backend that marks prompts before its model sees them."""

    def __init__(self, inner: Backend, mark: Callable[[EncodedPrompt], EncodedPrompt]) -> None:
        self._inner, self._mark = inner, mark

    @property
    def scorer(self) -> Scorer:
        """What scores, before anything was fitted."""
        return self._inner.scorer

    @property
    def device(self) -> str:
        """The device of the model."""
        return self._inner.device

    @property
    def num_workers(self) -> int:
        """As the model's own backend."""
        return self._inner.num_workers

    def session(self) -> AbstractContextManager[None]:
        """As the model's own backend."""
        return self._inner.session()

    def encoder(self, max_length: int | None) -> Encoder:
        """As the model's own backend."""
        return self._inner.encoder(max_length)

    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        keep_states: bool = False,
    ) -> MaskScores:
        """Scores of marked prompts; see `Backend.score`."""
        return self._inner.score(self.marked(prompts), token_ids, keep_states=keep_states)

    def plain_log_probs(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        pad_left: bool = False,
    ) -> Float32[np.ndarray, "mask candidate"] | None:
        """Of marked prompts; see `Backend.plain_log_probs`."""
        return self._inner.plain_log_probs(self.marked(prompts), token_ids, pad_left=pad_left)

    def marked(self, prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
        """What the model is given in the place of some prompts."""
        return [self._mark(prompt) for prompt in prompts]

    def facts(self) -> dict[str, Any]:
        """As the model's own backend."""
        return self._inner.facts()


class LabelBackend(Backend):
    """A backend that answers with labels: the token that is asked for is the place of a label.

    Args:
        inner: runs the model.
        predict: log p(label | prompt) of a batch, natural logarithms.
        counted: what was counted while it answered, for the facts.
    """

    def __init__(self, inner: Backend, predict: Predict, counted: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._inner, self._predict, self._counted = inner, predict, counted

    @property
    def scorer(self) -> Scorer:
        """What scores, before anything was fitted."""
        return self._inner.scorer

    @property
    def device(self) -> str:
        """The device of the model."""
        return self._inner.device

    @property
    def num_workers(self) -> int:
        """As the model's own backend."""
        return self._inner.num_workers

    def session(self) -> AbstractContextManager[None]:
        """As the model's own backend."""
        return self._inner.session()

    def encoder(self, max_length: int | None) -> Encoder:
        """As the model's own backend."""
        return self._inner.encoder(max_length)

    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        keep_states: bool = False,
    ) -> MaskScores:
        """Log-probabilities of labels, in the row of the first mask of each prompt; see `Backend.score`."""
        if keep_states:
            raise ModelError("a method that answers with labels keeps no states at masks: leave --store-states out.")
        log_probs = self._predict(prompts).astype(np.float32)
        best = np.argsort(-log_probs, axis=1, kind="stable")[:, :NUM_TOP]
        return MaskScores(
            keys=tuple(prompt.key for prompt in prompts),
            fills=np.zeros(len(prompts), dtype=np.int32),
            masks=np.zeros(len(prompts), dtype=np.int32),
            log_normalizers=np.zeros(len(prompts), dtype=np.float32),
            token_ids=token_ids,
            log_probs=log_probs[:, token_ids],
            top_ids=best.astype(np.int64),
            top_log_probs=np.take_along_axis(log_probs, best, axis=1),
        )

    def facts(self) -> dict[str, Any]:
        """As the model's own backend, and what was counted."""
        return {**self._inner.facts(), **self._counted()}


def _mask_loss(
    prompts: Sequence[EncodedPrompt], labels: Int64[np.ndarray, " prompt"], setting: Setting, context: Context
) -> BatchLoss:
    """Cross-entropy of the label scores at the masks of some prompts."""
    import torch

    backend, words = context.backend, context.label_words
    wanted = torch.from_numpy(words.token_ids).to(backend.device)
    gold = torch.from_numpy(labels).to(backend.device)

    def loss(places: Int64[np.ndarray, " place"]) -> Float[torch.Tensor, ""]:
        with autocast(setting, backend.device):
            logits = backend.mask_logits([prompts[place] for place in places])
        log_probs = torch.log_softmax(logits, dim=-1)[:, wanted]
        scores = words.torch_scores(log_probs)
        here = torch.from_numpy(places).to(gold.device)
        return torch.nn.functional.cross_entropy(scores, gold[here], label_smoothing=setting.label_smoothing)

    return loss
