"""A row -> the shots that it is shown, one a label, in several draws.

Which shots these are depends on the seed and on the row's prompt alone, not on the rows beside it; a shot is never
shown to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from promptlab.errors import UsageError
from promptlab.methods.base import LabelledPrompts, Setting
from promptlab.methods.features import check_choice
from promptlab.seeding import derive_generator
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

Choice = Literal["sampled", "nearest"]
Order = Literal["fixed", "seeded"]
Embedding = Literal["mean", "mask"]

_NAME = "demonstrations"


@dataclass(frozen=True, slots=True)
class Showing:
    """How shots are chosen and shown.

    So many draws of a shot a label as `num_samples` says are averaged. `choice` is `sampled`, among all shots of a
    label, or `nearest`, among the half of them (rounded up) whose states have the highest cosine with the row's;
    `embedding` says which state that is: the mean over the row's text, or the mask's. `order` is that of the labels:
    of the task, or seeded for each draw.
    """

    num_samples: int = 4
    choice: Choice = "sampled"
    order: Order = "fixed"
    embedding: Embedding = "mean"

    @classmethod
    def of(cls, setting: Setting) -> Showing:
        """The options of a setting.

        Raises:
            UsageError: an option or its value is unknown.
        """
        for option in setting.options:
            check_choice(_NAME, "option", option, [one.name for one in fields(cls)])
        made = cls(**setting.options)
        for option, known in {"choice": Choice, "order": Order, "embedding": Embedding}.items():
            check_choice(_NAME, option, getattr(made, option), get_args(known))
        if made.num_samples < 1:
            raise UsageError(f"method '{_NAME}': num_samples {made.num_samples} is unknown: write 1 or more.")
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Chooser:
    """Chooses among shots; `states` are theirs, and are looked at where the nearest are wanted."""

    shots: LabelledPrompts
    showing: Showing
    num_labels: int
    seed: int
    states: Float64[np.ndarray, "shot dim"] | None = None

    @property
    def num_draws(self) -> int:
        """How many draws a row has: no more than there are different ones, as far as the shots of a label go."""
        if self.showing.order == "seeded":
            return self.showing.num_samples
        most = int(np.bincount(self.shots.labels).max())
        return min(self.showing.num_samples, _half(most) if self.showing.choice == "nearest" else most)

    def draws(self, row: EncodedPrompt, state: Float64[np.ndarray, " dim"] | None) -> list[list[int]]:
        """The places of the shots of each draw, in the order in which they are shown.

        A label whose only shot is the row itself is not shown.
        """
        decks = [self._deck(row, state, label) for label in range(self.num_labels)]
        return [
            [int(decks[label][number % len(decks[label])]) for label in self._labels(row, number) if len(decks[label])]
            for number in range(self.num_draws)
        ]

    def _deck(
        self, row: EncodedPrompt, state: Float64[np.ndarray, " dim"] | None, label: int
    ) -> Int64[np.ndarray, " shot"]:
        """The shots of a label that may be shown to a row, in the order in which its draws take them."""
        others = [place for place, shot in enumerate(self.shots.prompts) if shot.key != row.key]
        places = np.array([place for place in others if self.shots.labels[place] == label], dtype=np.int64)
        if state is not None and self.states is not None:
            far = -cosines(state, self.states[places])
            places = places[np.argsort(far, kind="stable")[: _half(len(places))]]
        return derive_generator(self.seed, _NAME, row.key, label).permutation(places)

    def _labels(self, row: EncodedPrompt, number: int) -> list[int]:
        """The labels in the order in which a draw shows them."""
        if self.showing.order == "fixed":
            return list(range(self.num_labels))
        generator = derive_generator(self.seed, _NAME, "order", row.key, number)
        return [int(label) for label in generator.permutation(self.num_labels)]


def cosines(
    state: Float64[np.ndarray, " dim"], others: Float64[np.ndarray, "other dim"]
) -> Float64[np.ndarray, " other"]:
    """The cosine of a state with each of some others."""
    found: Float64[np.ndarray, " other"] = others @ state / (np.linalg.norm(others, axis=1) * np.linalg.norm(state))
    return found


def _half(number: int) -> int:
    return (number + 1) // 2
