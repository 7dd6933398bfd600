"""Shots shown inside the prompt, one a label, their masks filled (LM-BFF, Gao et al. 2021, section 6).

Nothing is trained. A row is scored with several draws of shots, and the label probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import log_softmax, logsumexp

from promptlab.deciding import Answers
from promptlab.methods.attaching import LabelBackend
from promptlab.methods.base import Context, FitRecord, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.choosing import Chooser, Showing
from promptlab.methods.features import last_states
from promptlab.methods.joining import Demonstration, Joiner
from promptlab.methods.shot_tensors import shots_to_tensors, tensors_to_shots
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float64

_STATES = "states"


class Demonstrations(Method):
    """Shows one shot of each label behind the row.

    The options are those of `Showing`.
    """

    name: ClassVar[str] = "demonstrations"
    options: ClassVar[Mapping[str, Any]] = {one.name: one.default for one in fields(Showing)}
    answers: ClassVar[Answers] = "label"

    def grid(self) -> tuple[Setting, ...]:
        """How shots are chosen, and the order of the labels."""
        tried = (("sampled", "fixed"), ("nearest", "fixed"), ("sampled", "seeded"), ("nearest", "seeded"))
        return tuple(
            Setting(steps=0, options={"num_samples": 4, "choice": choice, "order": order}) for choice, order in tried
        )

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        import torch

        showing, tensors = Showing.of(setting), shots_to_tensors(shots)
        is_nearest = showing.choice == "nearest"
        if is_nearest:
            states = last_states(context.backend, shots.prompts, showing.embedding)
            tensors[_STATES] = torch.from_numpy(states).float()
        fitted = self.load(tensors, setting, context)
        return replace(fitted, record=FitRecord(0, 0, example_passes=self.example_passes(len(shots), setting)))

    def example_passes(self, num_examples: int, setting: Setting) -> int:
        """See `Method.example_passes`: nothing is fitted, but the nearest shots are found by their states."""
        return num_examples if Showing.of(setting).choice == "nearest" else 0

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        showing = Showing.of(setting)
        dim = int(context.backend.model.config.hidden_size)
        shots = tensors_to_shots(tensors, more={_STATES: (dim,)} if showing.choice == "nearest" else {})
        states = tensors[_STATES].double().numpy() if _STATES in tensors else None
        shower = Shower(context, Chooser(shots, showing, len(context.labels), context.seed, states))
        backend = LabelBackend(context.backend, shower.predict, shower.counted)
        return Fitted(backend, FitRecord(0, steps=0, example_passes=0), tensors)


@dataclass(slots=True, eq=False)
class Shower:
    """Scores rows with shots shown behind them, and counts what of these did not fit.

    A label's word is its first, or the one of the largest weight.
    """

    context: Context
    chooser: Chooser
    _joiner: Joiner = field(init=False)
    _shown: list[Demonstration] = field(init=False)
    _short: dict[tuple[str, int], tuple[int, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._joiner = Joiner(self.context.backend.encoder(None))
        words, shots = self.context.label_words, self.chooser.shots
        best = words.token_ids[words.shares().argmax(axis=1)]
        pairs = zip(shots.prompts, shots.labels, strict=True)
        self._shown = [self._joiner.demonstrate(shot, int(best[label])) for shot, label in pairs]

    def predict(self, prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt label"]:
        """Log of the mean, over the draws, of p(label | prompt with demonstrations)."""
        words, draws = self.context.label_words, self._draws(prompts)
        found = []
        for number in range(self.chooser.num_draws):
            joined = [self._join(prompt, of_row[number], number) for prompt, of_row in zip(prompts, draws, strict=True)]
            log_probs = self.context.backend.score(joined, words.token_ids).log_probs.astype(np.float64)
            found.append(log_softmax(words.scores(log_probs), axis=1))
        mean: Float64[np.ndarray, "prompt label"] = logsumexp(found, axis=0) - np.log(len(found))
        return mean

    def counted(self) -> Mapping[str, Any]:
        """Of the longer prompts so far: how many lost text of a demonstration, how many tokens, how many whole ones."""
        cut, left_out = np.array([*self._short.values(), (0, 0)]).T
        return {
            "prompts_with_cut_demonstrations": int((cut > 0).sum()),
            "demonstration_tokens_cut": int(cut.sum()),
            "demonstrations_left_out": int(left_out.sum()),
        }

    def _draws(self, prompts: Sequence[EncodedPrompt]) -> list[list[list[int]]]:
        """For each row its draws: the places of the shots that are shown, in order."""
        if self.chooser.states is None:
            return [self.chooser.draws(prompt, None) for prompt in prompts]
        states = last_states(self.context.backend, prompts, self.chooser.showing.embedding)
        return [self.chooser.draws(prompt, state) for prompt, state in zip(prompts, states, strict=True)]

    def _join(self, prompt: EncodedPrompt, shots: Sequence[int], number: int) -> EncodedPrompt:
        """The prompt with some shots behind it; what did not fit is counted once."""
        joined = self._joiner.join(prompt, [self._shown[shot] for shot in shots])
        if joined.num_cut or joined.num_left_out:
            self._short[prompt.key, number] = joined.num_cut, joined.num_left_out
        return joined.prompt
