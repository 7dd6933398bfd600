"""The contract of a backend: encoded prompts in, log-probabilities at the masks out."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.encoding import Encoder
from promptlab.errors import ModelError, UsageError
from promptlab.registry import BACKENDS
from promptlab.specs.run import Scoring
from promptlab.types import EncodedPrompt, FilledPrompt, MaskScores

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, Int64

NUM_TOP = 5


@dataclass(frozen=True, slots=True)
class Scorer:
    """Everything that decides the numbers of a forward pass; its parts are in every block id."""

    model: str
    revision: str | None
    weights_hash: str
    tokenizer_hash: str
    architecture: str
    dtype: str
    device_class: str
    attention: str
    scoring: Scoring = "mask"

    def identity(self) -> dict[str, Any]:
        """The parts that go into a block id: what changes the numbers, not what the model is called.

        How it is asked is one of them where it is not by its masks, so that older ids stay what they were.
        """
        parts = {
            "weights": self.weights_hash,
            "tokenizer": self.tokenizer_hash,
            "dtype": self.dtype,
            "device_class": self.device_class,
            "attention": self.attention,
        }
        return parts if self.scoring == "mask" else {**parts, "scoring": self.scoring}


@dataclass(frozen=True, slots=True)
class Tying:
    """Whether the decoder of the head is the matrix of the word embeddings, and whether the config says so."""

    is_tied: bool
    is_promised: bool


class Backend(abc.ABC):
    """Runs one pretrained model. Construction must be cheap; weights are loaded by the first `score`."""

    @property
    @abc.abstractmethod
    def scorer(self) -> Scorer:
        """What scores; known without loading the weights into memory."""

    @property
    @abc.abstractmethod
    def device(self) -> str:
        """The device in torch's words, such as `cpu` or `cuda:0`."""

    @property
    def folder(self) -> Path | None:
        """Where the model's files lie on disk; None where it has none."""
        return None

    @property
    def num_workers(self) -> int:
        """How many batches `score` can run side by side, from as many threads."""
        return 1

    def session(self) -> AbstractContextManager[None]:
        """Entered around the scoring of many batches."""
        return nullcontext()

    @abc.abstractmethod
    def encoder(self, max_length: int | None) -> Encoder:
        """The encoder of the model's tokenizer; None takes the model's limit, at most 512.

        Raises:
            UsageError: `max_length` is over the model's limit.
        """

    @abc.abstractmethod
    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        keep_states: bool = False,
    ) -> MaskScores:
        """Log-probabilities of the tokens at every mask of a batch, in order of prompt, then of mask.

        With `keep_states` the scores carry the last states at the masks.

        Raises:
            ModelError: states were asked for and the head has no plain decoder.
            MemoryError: the batch does not fit; the caller tries a smaller one.
        """

    def score_fills(self, prompts: Sequence[FilledPrompt]) -> Float32[np.ndarray, " asked"]:
        """Log-probabilities, natural, of every token that a batch asks for, in order of prompt, then of question.

        For a masked language model log p(token) at that place, after a log-softmax over the full vocabulary; for a
        replaced-token detector log p(original), whatever the token.

        Raises:
            ModelError: the backend fills no slots.
            MemoryError: the batch does not fit; the caller tries a smaller one.
        """
        raise ModelError(f"model '{self.scorer.model}': its backend scores no words of several tokens.")

    def decoder_rows(
        self, token_ids: Int64[np.ndarray, " token"]
    ) -> tuple[Float32[np.ndarray, "token dim"], Float32[np.ndarray, " token"]]:
        """Weights and biases that turn a last state at a mask into the logits of some tokens.

        Raises:
            ModelError: the head has no plain decoder.
        """
        raise ModelError(f"model '{self.scorer.model}': its backend keeps no states at masks.")

    def release(self) -> None:  # noqa: B027  # a backend may have nothing to let go
        """Let the weights go; they are loaded again where somebody asks for scores again."""

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What effectively runs, for the manifest: attention path, head path, parameters, threads."""

    def word_log_probs(
        self, prompts: Sequence[EncodedPrompt], token_ids: Int64[np.ndarray, " candidate"]
    ) -> Float32[np.ndarray, "mask candidate"]:
        """Log-probabilities of single tokens at every mask, as a run reads them from this backend, for audits.

        Rows are in the order of `score`.
        """
        return self.score(prompts, token_ids).log_probs

    def plain_log_probs(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        pad_left: bool = False,
    ) -> Float32[np.ndarray, "mask candidate"] | None:
        """`word_log_probs` by the model's own forward, the head at all positions, for audits; None: there is none.

        Rows are in the order of `score`; `pad_left` puts the padding of shorter prompts on the left.
        """
        return None

    def tying(self) -> Tying | None:
        """How decoder and word embeddings of the loaded model belong together; None where that cannot be said."""
        return None

    def in_dtype(self, dtype: str) -> Backend | None:
        """The same model on the same device in another dtype, nothing loaded; None where there is none."""
        return None


def make_backend(
    model: str,
    *,
    scoring: str = "mask",
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> Backend:
    """The backend that scores a model in a way: `mask` at masks, `replaced_token` words in place by a detector.

    Raises:
        UsageError: there is no such way, model, device or dtype.
        ModelError: the model cannot be read.
    """
    if scoring not in _BACKENDS:
        raise UsageError(f"--scoring {scoring}: choose one of {', '.join(_BACKENDS)}.")
    backend: Backend = BACKENDS.get(_BACKENDS[scoring])(model, revision=revision, device=device, dtype=dtype)
    return backend


_BACKENDS = {"mask": "mlm", "replaced_token": "replaced_token"}
