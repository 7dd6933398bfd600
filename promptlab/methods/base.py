"""The contract of a method: labelled prompts in, a backend that scores prompts with what was fitted out.

Evaluation, storage and report never ask which method ran: what `fit` hands back scores prompts as any backend does.
A method answers at masks, with the vocabulary, or with labels, and then the tokens that it is asked for are the places
of the labels.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from promptlab.backends.base import Backend
from promptlab.deciding import Answers
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import EncodedPrompt, WordTokens
from promptlab.verbalizing import pool_labels

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64, Int64

    from promptlab.backends.mlm import MaskedBackend

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice of hyper-parameters.

    `steps` are updates of the weights, each on `batch_size` examples times `accumulate`. `dropout` says whether the
    model's own dropout is on while it is fitted. `stop_loss` ends a fit early: the mean loss over one pass of the shots
    that is low enough. `options` are the method's own.
    """

    learning_rate: float = 1e-3
    steps: int = 100
    batch_size: int = 8
    accumulate: int = 1
    warm_up: float = 0.1
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    dropout: bool = False
    stop_loss: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The setting as plain values, for ids and records."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "options"}
        return {**plain, "options": dict(sorted(self.options.items()))}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPrompts:
    """Encoded shots: the prompt of each and the place of its label."""

    prompts: tuple[EncodedPrompt, ...]
    labels: Int64[np.ndarray, " prompt"]

    def take(self, places: Sequence[int] | Int64[np.ndarray, " place"]) -> LabelledPrompts:
        """Those at some places, in that order."""
        chosen = [int(place) for place in places]
        return LabelledPrompts(tuple(self.prompts[place] for place in chosen), self.labels[chosen])

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The label words of a template with one mask: what the model is asked for, and what it means for the labels."""

    verbalizer: Verbalizer
    labels: tuple[str, ...]
    token_ids: Int64[np.ndarray, " word"]

    @classmethod
    def of(cls, verbalizer: Verbalizer, labels: Sequence[str], tokens: Mapping[str, WordTokens]) -> Words:
        """The words of a verbalizer, each one token, in the order of the verbalizer."""
        ids = np.array([tokens[word].pieces[0] for word in verbalizer.words], dtype=np.int64)
        return cls(verbalizer, tuple(labels), ids)

    def shares(self) -> Float64[np.ndarray, "label word"]:
        """The weight of each word among those of its label, 0 for the words of other labels; a row sums to 1."""
        shares, start = np.zeros((len(self.labels), len(self.token_ids))), 0
        for label, words in self.verbalizer.labels.items():
            weights = np.array([word.weight for word in words])
            shares[self.labels.index(label), start : start + len(words)] = weights / weights.sum()
            start += len(words)
        return shares

    def scores(self, log_probs: Float64[np.ndarray, "row word"]) -> Float64[np.ndarray, "row label"]:
        """Label scores from log-probabilities of the words, natural, not normalised over labels."""
        return pool_labels(log_probs, self.verbalizer, self.labels)

    def torch_scores(self, log_probs: Float[torch.Tensor, "row word"]) -> Float[torch.Tensor, "row label"]:
        """The same, through which gradients flow."""
        import torch

        columns, start = dict[str, torch.Tensor](), 0
        for label, words in self.verbalizer.labels.items():
            weights = torch.tensor([word.weight for word in words], dtype=log_probs.dtype, device=log_probs.device)
            found = log_probs[:, start : start + len(words)]
            start += len(words)
            if self.verbalizer.pool == "mean_logprob":
                columns[label] = found @ (weights / weights.sum())
            elif self.verbalizer.pool == "sum_prob":
                columns[label] = torch.logsumexp(found + weights.log(), dim=1)
            else:
                columns[label] = (found + weights.log()).max(dim=1).values
        return torch.stack([columns[label] for label in self.labels], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What a fit works with: the model, the label words, the names of the labels and a seed of its own.

    `words` is None for a method that looks at no words.
    """

    backend: MaskedBackend
    labels: tuple[str, ...]
    words: Words | None
    seed: int

    @property
    def label_words(self) -> Words:
        """The label words of a method that has some."""
        assert self.words is not None
        return self.words


@dataclass(frozen=True, slots=True)
class FitRecord:
    """What a fit did: `losses` has the mean loss of each pass over the shots, natural logarithms, first to last.

    `example_passes` counts forward passes of single examples, which is what a budget is measured in.
    """

    num_parameters: int
    steps: int
    example_passes: int
    losses: tuple[float, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a fit hands back.

    `backend` scores prompts with it; `tensors` is all that was fitted, by name; `detach` takes it out of the model
    again, after which `backend` must not be used.
    """

    backend: Backend
    record: FitRecord
    tensors: Mapping[str, torch.Tensor]
    detach: Callable[[], None] = lambda: None

    def __enter__(self) -> Fitted:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()


class Method(abc.ABC):
    """A way to get label scores from k labelled examples a label.

    `answers` says whether what is fitted scores words at masks or labels; `uses_template` and `uses_words` whether the
    template and the label words matter to it; `has_projection` whether what is fitted can be put back to words, which
    are scored too. `options` are those that a setting may have, with what holds where it does not name them. `version`
    is part of every block id: it grows when the same shots give other numbers.
    """

    name: ClassVar[str]
    answers: ClassVar[Answers] = "mask"
    uses_template: ClassVar[bool] = True
    uses_words: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Any]] = {}
    has_projection: ClassVar[bool] = False
    version: ClassVar[int] = 1

    @abc.abstractmethod
    def grid(self) -> tuple[Setting, ...]:
        """The settings that are searched, the default first."""

    @abc.abstractmethod
    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """Fit to labelled prompts.

        Raises:
            ModelError: the method cannot work with this model.
        """

    @abc.abstractmethod
    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """What a fit handed back, from its tensors.

        Raises:
            ModelError: the tensors do not fit the model.
        """

    def example_passes(self, num_examples: int, setting: Setting) -> int:
        """Forward passes of single examples that `fit` takes for so many shots, where nothing ends it early."""
        from promptlab.methods.training import planned_passes

        return planned_passes(num_examples, setting)

    def refusal(self, backend: Backend) -> str | None:
        """Why the method cannot work with a model, or None; known from its configuration alone."""
        return None
