"""Replaced-token detectors, ELECTRA and DeBERTa-v3: prompts with words in their slots -> log p(the word is original).

Both were trained on label 1 for a token that was replaced, so p(original) = sigmoid(-logit). The head, one product of
the width of the model, runs at every token: that is under 1 % of a forward pass, and the model's own forward.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from promptlab.backends.base import Backend, Scorer
from promptlab.backends.loading import load_detector, refuse_other_types
from promptlab.backends.placement import Placement, is_large_model, memory_errors
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.filling import fill_prompt
from promptlab.types import EncodedPrompt, Fill, FilledPrompt

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64


class ReplacedTokenBackend(Backend):
    """Scores words in their place by a replaced-token detector (Xia et al. 2022, "Prompting ELECTRA").

    Args:
        model: a folder or a hub name.
        revision: branch, tag or commit of a hub name.
        device: `auto` (CUDA where there is one, else the CPU) or a device in torch's words.
        dtype: the dtype of the weights; log-probabilities are float32 whatever it is.
    """

    def __init__(
        self, model: str, *, revision: str | None = None, device: str = "auto", dtype: str = "float32"
    ) -> None:
        self._placement = Placement.find(model, revision=revision, device=device, dtype=dtype)

    @property
    def scorer(self) -> Scorer:
        """What scores, from the files alone."""
        return self._placement.scorer("replaced_token")

    @property
    def device(self) -> str:
        """The resolved device."""
        return self._placement.device

    @property
    def num_workers(self) -> int:
        """How many batches run side by side; see `Placement.num_workers`."""
        return self._placement.num_workers

    def session(self) -> AbstractContextManager[None]:
        """Load the weights, and let each batch on the CPU have one thread."""
        assert self._model is not None
        return self._placement.session()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint."""
        return self._placement.tokenizer

    def encoder(self, max_length: int | None) -> Encoder:
        """The encoder of this model's tokenizer; its masks are the slots that words are put into."""
        refuse_other_types(self._placement.checkpoint)
        return self._placement.encoder(max_length, fills_with_words=True)

    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        keep_states: bool = False,
    ) -> NoReturn:
        """Refused: there is no vocabulary at a mask.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"model '{self.scorer.model}' is a replaced-token detector, which predicts no words: put each word into "
            "its slot, as --scoring replaced_token does."
        )

    def score_fills(self, prompts: Sequence[FilledPrompt]) -> Float32[np.ndarray, " asked"]:
        """Log p(original) at every place that a batch asks for; see `Backend.score_fills`."""
        return self._log_original(prompts)

    def word_log_probs(
        self, prompts: Sequence[EncodedPrompt], token_ids: Int64[np.ndarray, " candidate"]
    ) -> Float32[np.ndarray, "mask candidate"]:
        """Log p(original) of each token at every mask, all masks of a prompt filled with it; a forward a token."""
        return np.stack([self._log_original(_filled(prompts, token)) for token in token_ids.tolist()], axis=1)

    def plain_log_probs(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        pad_left: bool = False,
    ) -> Float32[np.ndarray, "mask candidate"]:
        """The same, padded on either side; see `Backend.plain_log_probs`."""
        columns = [self._log_original(_filled(prompts, token), pad_left=pad_left) for token in token_ids.tolist()]
        return np.stack(columns, axis=1)

    def release(self) -> None:
        """Let the weights go, and give their memory back to the system."""
        model = self.__dict__.pop("_model", None)
        if model is None:
            return
        is_large = is_large_model(model)
        del model
        self._placement.free(is_large=is_large)

    def in_dtype(self, dtype: str) -> ReplacedTokenBackend:
        """The same checkpoint in another dtype; see `Backend.in_dtype`."""
        found = self._placement.checkpoint
        return ReplacedTokenBackend(found.name, revision=found.revision, device=self.device, dtype=dtype)

    def facts(self) -> dict[str, Any]:
        """What effectively runs; the weights are loaded for it."""
        return self._placement.facts(self._model, "all positions")

    @functools.cached_property
    def _model(self) -> Any:
        return self._placement.admit(load_detector(self._placement.checkpoint, self._placement.dtype))

    def _log_original(
        self, prompts: Sequence[FilledPrompt], *, pad_left: bool = False
    ) -> Float32[np.ndarray, " asked"]:
        """Log sigmoid(-logit), natural, in float32, which keeps the difference of words that are hardly original."""
        import torch

        model = self._model
        with memory_errors(), torch.inference_mode():
            rows = self._placement.rows(prompts, [prompt.asked for prompt in prompts], pad_left=pad_left)
            logits = model(**self._placement.inputs(model, prompts, pad_left=pad_left)).logits[rows]
            found: Float32[np.ndarray, " asked"] = torch.nn.functional.logsigmoid(-logits.float()).cpu().numpy()
        return found


def _filled(prompts: Sequence[EncodedPrompt], token_id: int) -> list[FilledPrompt]:
    """Each prompt with the token in all of its slots, asked for at each of them."""
    return [_fill(prompt, token_id) for prompt in prompts]


def _fill(prompt: EncodedPrompt, token_id: int) -> FilledPrompt:
    """A prompt with the token at every mask."""
    number = len(prompt.mask_positions)
    questions = [(position, token_id) for position in range(number)]
    return fill_prompt(prompt, Fill(((token_id,),) * number), questions, mask_id=token_id)
