"""The nearest class prototype: means of the mask states of the shots (Snell et al. 2017; at the mask Cui et al. 2022).

Nothing is trained by gradient, so this is ProtoVerb without its contrastive projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from scipy.special import log_softmax

from promptlab.deciding import Answers
from promptlab.methods.attaching import LabelBackend, check_shapes
from promptlab.methods.base import Context, FitRecord, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.features import check_choice, check_every_label, last_states
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float64

Metric = Literal["cosine", "euclidean"]


class Prototypical(Method):
    """Compares the state at the mask with the mean state of each label's shots.

    States are first centred on the mean of the prototypes: those of one template point nearly all the same way.
    Options: `metric` is `cosine` or `euclidean` (minus the mean squared distance over the dimensions); `temperature`
    divides the similarity before the softmax over labels (Snell et al. 2017, equation 2, whose sum of squares is ours
    at a temperature of 1 over the number of dimensions).
    """

    name: ClassVar[str] = "prototypical"
    options: ClassVar[Mapping[str, Any]] = {"metric": "euclidean", "temperature": 0.05}
    answers: ClassVar[Answers] = "label"
    uses_words: ClassVar[bool] = False

    def grid(self) -> tuple[Setting, ...]:
        """Metrics and temperatures."""
        tried = (("euclidean", 0.05), ("cosine", 0.2), ("euclidean", 0.2), ("cosine", 0.5))
        return tuple(Setting(steps=0, options={"metric": metric, "temperature": heat}) for metric, heat in tried)

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        import torch

        check_every_label(shots, context.labels)
        states = last_states(context.backend, shots.prompts, "mask")
        means = np.stack([states[shots.labels == label].mean(axis=0) for label in range(len(context.labels))])
        fitted = self.load({"prototypes": torch.from_numpy(means).float()}, setting, context)
        return replace(fitted, record=FitRecord(means.size, steps=0, example_passes=len(shots)))

    def example_passes(self, num_examples: int, setting: Setting) -> int:
        """See `Method.example_passes`: the frozen model runs once."""
        return num_examples

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        chosen = {**self.options, **setting.options}
        metric, temperature = (chosen[name] for name in self.options)
        check_choice(self.name, "metric", metric, get_args(Metric))
        check_shapes(tensors, {"prototypes": (len(context.labels), int(context.backend.model.config.hidden_size))})
        prototypes = tensors["prototypes"].double().numpy()

        def predict(prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt label"]:
            near = similarities(last_states(context.backend, prompts, "mask"), prototypes, metric)
            log_probs: Float64[np.ndarray, "prompt label"] = log_softmax(near / temperature, axis=1)
            return log_probs

        record = FitRecord(prototypes.size, steps=0, example_passes=0)
        return Fitted(LabelBackend(context.backend, predict), record, tensors)


def similarities(
    states: Float64[np.ndarray, "prompt dim"], prototypes: Float64[np.ndarray, "label dim"], metric: Metric
) -> Float64[np.ndarray, "prompt label"]:
    """How near each state is to each prototype: the cosine, or minus the mean squared distance over the dimensions.

    Both are centred on the mean of the prototypes first, which moves no distance.
    """
    middle = prototypes.mean(axis=0)
    ours, theirs = states - middle, prototypes - middle
    near: Float64[np.ndarray, "prompt label"] = -((ours[:, None] - theirs[None]) ** 2).mean(axis=2)
    return _directions(ours) @ _directions(theirs).T if metric == "cosine" else near


def _directions(vectors: Float64[np.ndarray, "row dim"]) -> Float64[np.ndarray, "row dim"]:
    """Vectors of length 1; one of length 0 stays so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Float64[np.ndarray, "row dim"] = vectors / np.where(lengths > 0, lengths, 1.0)
    return directions
