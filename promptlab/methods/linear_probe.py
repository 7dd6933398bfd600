"""Logistic regression on states of the frozen model (a linear probe, Alain and Bengio 2016).

The features are standardised by the shots; scikit-learn fits, and is not needed to load what it fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import log_softmax

from promptlab.deciding import Answers
from promptlab.methods.attaching import LabelBackend, check_shapes
from promptlab.methods.base import Context, FitRecord, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.features import State, check_every_label, check_state, last_states
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float64, Int64

_MOST_ITERATIONS = 2000


class LinearProbe(Method):
    """Weighs the state of the mask, or of the first token.

    Options: `state` is `mask`, `first` or `mean` (over the text of the row); `C` is the inverse strength of the
    penalty on the weights, as scikit-learn counts it.
    """

    name: ClassVar[str] = "linear_probe"
    options: ClassVar[Mapping[str, Any]] = {"state": "mask", "C": 0.01}
    answers: ClassVar[Answers] = "label"
    uses_words: ClassVar[bool] = False

    def grid(self) -> tuple[Setting, ...]:
        """Strengths of the penalty on the mask's state, and the other states."""
        tried = (("mask", 0.01), ("mask", 0.1), ("mean", 0.01), ("first", 0.1))
        return tuple(Setting(steps=0, options={"state": state, "C": strength}) for state, strength in tried)

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        check_every_label(shots, context.labels)
        states = last_states(context.backend, shots.prompts, _state(setting))
        strength = float(setting.options.get("C", self.options["C"]))
        tensors, steps = _fit(states, shots.labels, len(context.labels), strength=strength)
        fitted = self.load(tensors, setting, context)
        number = tensors["weights"].numel() + tensors["bias"].numel()
        return replace(fitted, record=FitRecord(number, steps, example_passes=len(shots)))

    def example_passes(self, num_examples: int, setting: Setting) -> int:
        """See `Method.example_passes`: the frozen model runs once."""
        return num_examples

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        state, dim = _state(setting), int(context.backend.model.config.hidden_size)
        num_labels = len(context.labels)
        check_shapes(tensors, {"weights": (num_labels, dim), "bias": (num_labels,), "mean": (dim,), "scale": (dim,)})
        weights, bias, mean, scale = (tensors[name].numpy() for name in ("weights", "bias", "mean", "scale"))

        def predict(prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt label"]:
            features = (last_states(context.backend, prompts, state) - mean) / scale
            log_probs: Float64[np.ndarray, "prompt label"] = log_softmax(features @ weights.T + bias, axis=1)
            return log_probs

        record = FitRecord(weights.size + bias.size, steps=0, example_passes=0)
        return Fitted(LabelBackend(context.backend, predict), record, tensors)


def _state(setting: Setting) -> State:
    state: State = setting.options.get("state", LinearProbe.options["state"])
    check_state(LinearProbe.name, state)
    return state


def _fit(
    states: Float64[np.ndarray, "shot dim"], labels: Int64[np.ndarray, " shot"], num_labels: int, *, strength: float
) -> tuple[dict[str, torch.Tensor], int]:
    """Weights and bias of each label for standardised states, and how many steps that took.

    Of two labels scikit-learn weighs the second alone; the first one's weights are then zero, which is the same.
    """
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(states)
    model = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS).fit(scaler.transform(states), labels)
    rows = slice(num_labels - len(model.coef_), None)
    weights, bias = np.zeros((num_labels, states.shape[1])), np.zeros(num_labels)
    weights[rows], bias[rows] = model.coef_, model.intercept_
    found = {"weights": weights, "bias": bias, "mean": scaler.mean_, "scale": scaler.scale_}
    return {name: torch.from_numpy(array).float() for name, array in found.items()}, int(model.n_iter_.max())
