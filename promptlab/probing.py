"""A backend under audit: a few fixed prompts, scored alone, together and by the model's own forward.

The prompts are written for promptlab; they are short, of unlike lengths, one is a pair and one has two masks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from promptlab.backends.base import Backend
from promptlab.encoding import Encoder
from promptlab.errors import DataError, ModelError, PromptlabError
from promptlab.filling import fill_prompt
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.types import EncodedPrompt, Fill, Prompt, Segment, WordTokens

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

Need = Literal["encoder", "model"]
T = TypeVar("T")

SMALL_PARAMETERS = 1_000_000  # up to here the tighter promise holds
TOLERANCES = {"small": 1e-5, "float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}  # in log-probability
SLACK = 10  # a difference of so many tolerances is still rounding; more is another computation
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
KNOWN = (  # what stands before a word, the word, what stands after it, and a word that is plainly wrong there
    ("The capital of France is ", "Paris", ".", "seven"),
    ("A week has seven ", "days", ".", "eyes"),
    ("The opposite of hot is ", "cold", ".", "music"),
    ("At night it is dark, and during the day it is ", "light", ".", "seven"),
    ("He is her brother, and she is his ", "sister", ".", "water"),
    ("Birds build nests and lay ", "eggs", ".", "music"),
)
NUM_BEST = 10  # a known word stands among so many fills
NUM_PROBES = 3  # tokens that are compared where each of them takes a forward pass of its own


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact that a model can be asked for: its word, the prompt with a mask in its place, and single tokens."""

    word: str
    prompt: EncodedPrompt
    token_id: int
    wrong_id: int | None


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

    @property
    def predicts_words(self) -> bool:
        """Whether one forward pass gives every token at a mask; else each token is put there and judged."""
        return self.backend.scorer.scoring == "mask"

    @functools.cached_property
    def token_ids(self) -> Int64[np.ndarray, " token"]:
        """The tokens that are compared: every one of the vocabulary, or a few from all over it."""
        num_tokens = len(self.encoder.tokenizer)
        if self.predicts_words:
            return np.arange(num_tokens, dtype=np.int64)
        return np.linspace(0, num_tokens, NUM_PROBES + 2, dtype=np.int64)[1:-1]

    @functools.cached_property
    def alone(self) -> Float32[np.ndarray, "mask token"]:
        """Log-probabilities of the prompts, scored one at a time."""
        return np.concatenate([self.score([prompt]) for prompt in self.prompts])

    @functools.cached_property
    def known_facts(self) -> list[KnownFact]:
        """The facts whose words are single tokens of this vocabulary, wrong ones too where they are asked for."""
        facts: list[KnownFact] = []
        for before, word, after, wrong in KNOWN:
            asked = make_prompt(before, MASK, after)
            found = find_word_ids(self.encoder, [word, wrong], [slot_contexts(asked)])
            token_id, wrong_id = (_single_id(found[text]) for text in (word, wrong))
            prompt = self.encoded(asked)
            if prompt is not None and token_id is not None and (self.predicts_words or wrong_id is not None):
                facts.append(KnownFact(word, prompt, token_id, wrong_id))
        return facts

    def knows(self, fact: KnownFact) -> bool:
        """Whether its word is among the best fills, or more probably original than the wrong one."""
        if self.predicts_words:
            (log_probs,) = self.score([fact.prompt])
            return bool(np.sum(log_probs > log_probs[fact.token_id]) < NUM_BEST)
        ((right, wrong),) = self.score([fact.prompt], token_ids=np.array([fact.token_id, fact.wrong_id]))
        return bool(right > wrong)

    @property
    def tolerance(self) -> float:
        """The promised largest difference in log-probability between two ways to the same number."""
        if self.backend.scorer.dtype != "float32":
            return TOLERANCES[self.backend.scorer.dtype]
        is_small = self.facts.get("num_parameters", math.inf) <= SMALL_PARAMETERS
        return TOLERANCES["small" if is_small and self.backend.device == "cpu" else "float32"]

    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        backend: Backend | None = None,
        *,
        token_ids: Int64[np.ndarray, " token"] | None = None,
    ) -> Float32[np.ndarray, "mask token"]:
        """Log-probabilities of the tokens in one batch, as a run computes them; by another backend if one is given."""
        by, wanted = backend or self.backend, self.token_ids if token_ids is None else token_ids
        with by.session():
            return _forward(lambda: by.word_log_probs(prompts, wanted))

    def score_plainly(
        self, prompts: Sequence[EncodedPrompt], *, pad_left: bool = False
    ) -> Float32[np.ndarray, "mask token"] | None:
        """The same by the model's own forward, the head at all positions; None where the backend has none."""
        with self.backend.session():
            return _forward(lambda: self.backend.plain_log_probs(prompts, self.token_ids, pad_left=pad_left))

    def score_filled(self, asked: Prompt) -> tuple[Float32[np.ndarray, " token"], Float32[np.ndarray, " token"]] | None:
        """Log-probabilities of all tokens at the second of three pieces, the first in place, and the plain ones."""
        prompt = self.encoded(asked)
        if prompt is None or len(prompt) + 2 > self.encoder.max_length:
            return None
        tokens = self.token_ids.tolist()
        fill = Fill(((tokens[len(tokens) // 2], None, None),))
        filled = fill_prompt(prompt, fill, [(1, token) for token in tokens], mask_id=self.encoder.mask_id)
        roles = np.zeros(len(filled), dtype=np.int32)
        written = EncodedPrompt("", filled.input_ids, filled.segment_ids, roles, filled.asked[:1])
        plain = self.score_plainly([written])
        if plain is None:
            return None
        with self.backend.session():
            return _forward(lambda: self.backend.score_fills([filled])), plain[0]

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


def _single_id(found: WordTokens | str) -> int | None:
    """The token of a word that is one token here."""
    return found.pieces[0] if isinstance(found, WordTokens) and not found.is_split else None


def clause(error: BaseException) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
