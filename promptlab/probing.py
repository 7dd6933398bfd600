"""A backend under audit: a few fixed prompts, scored alone, together and by the model's own forward.

The prompts are written for promptlab; they are short, of unlike lengths, one is a pair and one has two masks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from promptlab.backends.base import Backend
from promptlab.encoding import Encoder
from promptlab.errors import DataError, ModelError, PromptlabError
from promptlab.types import EncodedPrompt, Prompt, Segment

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

Need = Literal["encoder", "model"]
T = TypeVar("T")

SMALL_PARAMETERS = 1_000_000  # up to here the tighter promise holds
TOLERANCES = {"small": 1e-5, "float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}  # in log-probability
MASK, SEP = Segment("mask"), Segment("sep")


def make_prompt(*pieces: str | Segment) -> Prompt:
    """A prompt from literals (texts) and segments."""
    return Prompt(tuple(Segment("literal", piece) if isinstance(piece, str) else piece for piece in pieces))


def row_text(text: str) -> Segment:
    """A text that may be cut, as that of a row."""
    return Segment("field", text, is_shortenable=True)


IT_WAS = make_prompt("It was ", MASK, ".")
SHORT = (
    IT_WAS,
    make_prompt(row_text("The soup was cold and nobody came to ask."), " It was ", MASK, "."),
    make_prompt(row_text("The door is open."), SEP, MASK, ", ", row_text("it is not closed.")),
    make_prompt(
        MASK, " news: ", row_text("the river rose by 2 metres (again), and the old bridge had to be closed at night")
    ),
)
LONGER = (
    make_prompt("It was ", MASK, " and ", MASK, "."),
    make_prompt(
        row_text(
            "We walked along the shore until the sun was gone. The children found a starfish, two crabs and a bottle "
            'without a letter; "put them back," their mother said, and so they did. On the way home nobody spoke.'
        ),
        " All in all, it was ", MASK, ".",
    ),
)  # fmt: skip
SINGLE, PAIR = ("The door is open.",), ("The door is open.", "It is not closed.")
SPACED_WORDS = ("great", "good", "bad", "time", "other", "world")
KNOWN = (
    ("The capital of France is ", "Paris", "."),
    ("A week has seven ", "days", "."),
    ("The opposite of hot is ", "cold", "."),
    ("At night it is dark, and during the day it is ", "light", "."),
    ("He is her brother, and she is his ", "sister", "."),
    ("Birds build nests and lay ", "eggs", "."),
)


class Subject:
    """A backend under audit: what several checks need is made once.

    Args:
        backend: runs the model.
        asked: the prompts that are scored to compare; those that the model cannot hold are left out.
    """

    def __init__(self, backend: Backend, asked: Sequence[Prompt] = (*SHORT, *LONGER)) -> None:
        self.backend = backend
        self._asked = asked
        self._faults: dict[Need, str | None] = {}

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder of the model's own limit."""
        return self.backend.encoder(None)

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What effectively runs; the weights are loaded for it."""
        return self.backend.facts()

    @functools.cached_property
    def prompts(self) -> list[EncodedPrompt]:
        """The prompts as the model reads them."""
        return [one for asked in self._asked if (one := self.encoded(asked)) is not None]

    def encoded(self, asked: Prompt) -> EncodedPrompt | None:
        """A prompt as the model reads it; None where it cannot be framed or is too long."""
        try:
            (one,) = self.encoder.encode([asked])
        except (DataError, ModelError):
            return None
        return one if isinstance(one, EncodedPrompt) else None

    @functools.cached_property
    def token_ids(self) -> Int64[np.ndarray, " token"]:
        """Every token of the vocabulary."""
        return np.arange(len(self.encoder.tokenizer), dtype=np.int64)

    @functools.cached_property
    def alone(self) -> Float32[np.ndarray, "mask token"]:
        """Log-probabilities of the prompts, scored one at a time."""
        return np.concatenate([self.score([prompt]) for prompt in self.prompts])

    @property
    def tolerance(self) -> float:
        """The promised largest difference in log-probability between two ways to the same number."""
        if self.backend.scorer.dtype != "float32":
            return TOLERANCES[self.backend.scorer.dtype]
        is_small = self.facts.get("num_parameters", math.inf) <= SMALL_PARAMETERS
        return TOLERANCES["small" if is_small and self.backend.device == "cpu" else "float32"]

    def score(
        self, prompts: Sequence[EncodedPrompt], backend: Backend | None = None
    ) -> Float32[np.ndarray, "mask token"]:
        """Log-probabilities of every token in one batch, as a run computes them; by another backend if one is given."""
        by = backend or self.backend
        with by.session():
            return _forward(lambda: by.score(prompts, self.token_ids).log_probs)

    def score_plainly(
        self, prompts: Sequence[EncodedPrompt], *, pad_left: bool = False
    ) -> Float32[np.ndarray, "mask token"] | None:
        """The same by the model's own forward, the head at all positions; None where the backend has none."""
        with self.backend.session():
            return _forward(lambda: self.backend.plain_log_probs(prompts, self.token_ids, pad_left=pad_left))

    def fault(self, need: Need) -> str | None:
        """Why the encoder or the model is not there; asked for once, because a large model takes long to fail."""
        if need not in self._faults:
            try:
                _ = self.encoder if need == "encoder" else self.facts
                self._faults[need] = None
            except PromptlabError as error:
                self._faults[need] = str(error)
        return self._faults[need]


def _forward(call: Callable[[], T]) -> T:
    """What a forward pass gives; whatever stops it is a fault of the model."""
    try:
        return call()
    except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as error:
        raise ModelError(f"a forward pass stops with {type(error).__name__}: {clause(error)}") from None


def clause(error: BaseException) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
