"""Masked language models of transformers: encoded prompts -> log-probabilities at the masks.

Only the states at masks go through the vocabulary head, by a hook on the base model that hands the head those states
alone; a probe at load compares this with the plain forward, and falls back to it where they differ.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.base import NUM_TOP, Backend, Scorer, Tying
from promptlab.backends.checkpoints import Checkpoint
from promptlab.backends.loading import load_model
from promptlab.backends.placement import Batch, Placement, is_large_model, memory_errors
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.types import EncodedPrompt, FilledPrompt, MaskScores

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float32, Int64

_PROBE_TOLERANCE = 1e-3


class MaskedBackend(Backend):
    """Scores a masked language model.

    Args:
        model: a bundled name, a folder or a hub name.
        revision: branch, tag or commit of a hub name.
        device: `auto` (CUDA where there is one, else the CPU) or a device in torch's words.
        dtype: the dtype of the weights; log-probabilities are float32 whatever it is.
    """

    def __init__(
        self, model: str, *, revision: str | None = None, device: str = "auto", dtype: str = "float32"
    ) -> None:
        self._placement = Placement.find(model, revision=revision, device=device, dtype=dtype)
        self._head_path = "not loaded"

    @property
    def scorer(self) -> Scorer:
        """What scores, from the files alone."""
        return self._placement.scorer()

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies on disk."""
        return self._placement.checkpoint.folder

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint itself: its files, configuration and hashes."""
        return self._placement.checkpoint

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
        """The encoder of this model's tokenizer."""
        return self._placement.encoder(max_length)

    def score(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        keep_states: bool = False,
    ) -> MaskScores:
        """Scores of a batch; see `Backend.score`."""
        import torch

        if keep_states and self._decoder is None:
            raise ModelError(
                f"model '{self.scorer.model}': the head of {self.scorer.architecture} is no plain product with the "
                "states at masks, so --store-states cannot keep them."
            )
        with memory_errors(), torch.inference_mode():
            logits = self.mask_logits(prompts, keep_states=keep_states)
            scores = _to_scores(prompts, logits, token_ids)
            return replace(scores, states=self._take_states()) if keep_states else scores

    def score_fills(self, prompts: Sequence[FilledPrompt]) -> Float32[np.ndarray, " asked"]:
        """Log-probabilities of the tokens that a batch asks for; see `Backend.score_fills`.

        A place that is asked for several tokens goes through the head once.
        """
        import torch

        places = [sorted(set(prompt.asked)) for prompt in prompts]
        row_of = {place: row for row, place in enumerate((n, at) for n, all_at in enumerate(places) for at in all_at)}
        rows = [row_of[number, at] for number, prompt in enumerate(prompts) for at in prompt.asked]
        token_ids = [token for prompt in prompts for token in prompt.token_ids]
        if not rows:
            return np.zeros(0, dtype=np.float32)
        with memory_errors(), torch.inference_mode():
            logits = self._logits(prompts, places)
            asked, wanted = (torch.tensor(one, device=logits.device) for one in (rows, token_ids))
            log_probs = logits[asked, wanted] - torch.logsumexp(logits, dim=-1)[asked]
            found: Float32[np.ndarray, " asked"] = log_probs.cpu().numpy()
        return found

    def decoder_rows(
        self, token_ids: Int64[np.ndarray, " token"]
    ) -> tuple[Float32[np.ndarray, "token dim"], Float32[np.ndarray, " token"]]:
        """Weights and biases of tokens; see `Backend.decoder_rows`."""
        if self._decoder is None:
            return super().decoder_rows(token_ids)
        weight, bias = self._decoder
        rows = weight.detach()[token_ids].float().cpu().numpy()
        added = np.zeros(len(rows), np.float32) if bias is None else bias.detach()[token_ids].float().cpu().numpy()
        return rows, added

    def release(self) -> None:
        """Let the weights go, and give their memory back to the system."""
        model = self.__dict__.pop("_model", None)
        if model is None:
            return
        self.__dict__.pop("_decoder", None)
        self._head_path = "not loaded"
        is_large = is_large_model(model)
        del model
        self._placement.free(is_large=is_large)

    def plain_log_probs(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        pad_left: bool = False,
    ) -> Float32[np.ndarray, "mask candidate"]:
        """Log-probabilities by the forward of transformers; see `Backend.plain_log_probs`."""
        import torch

        model, places = self._model, [prompt.mask_positions for prompt in prompts]
        rows = self._placement.rows(prompts, places, pad_left=pad_left)
        with torch.inference_mode():
            logits = _float(model(**self._placement.inputs(model, prompts, pad_left=pad_left)).logits[rows])
            return _to_scores(prompts, logits, token_ids).log_probs

    def tying(self) -> Tying | None:
        """Decoder and word embeddings compared; see `Backend.tying`."""
        config = self._model.config
        decoder, words = self._model.get_output_embeddings(), self._model.get_input_embeddings()
        if decoder is None or words is None:
            return None
        is_tied = decoder.weight.data_ptr() == words.weight.data_ptr()
        return Tying(is_tied, bool(getattr(config, "tie_word_embeddings", False)))

    def in_dtype(self, dtype: str) -> MaskedBackend:
        """The same checkpoint in another dtype; see `Backend.in_dtype`."""
        found = self._placement.checkpoint
        return MaskedBackend(found.name, revision=found.revision, device=self.device, dtype=dtype)

    def facts(self) -> dict[str, Any]:
        """What effectively runs; the weights are loaded for it."""
        model = self._model  # which finds the path of the head
        return self._placement.facts(model, self._head_path)

    @property
    def model(self) -> Any:
        """The model of transformers on its device, for what trains it; loaded when first asked for."""
        return self._model

    def mask_logits(
        self, prompts: Sequence[EncodedPrompt], *, keep_states: bool = False
    ) -> Float[torch.Tensor, "mask vocabulary"]:
        """Logits in float32 at the masks of a batch, in order of prompt, then of mask; see `logits_at`."""
        places = [prompt.mask_positions for prompt in prompts]
        return self._logits(prompts, places, keep_states=keep_states)

    def logits_at(
        self, inputs: dict[str, torch.Tensor], rows: tuple[torch.Tensor, torch.Tensor], *, keep_states: bool = False
    ) -> Float[torch.Tensor, "place vocabulary"]:
        """Logits in float32 at places of a batch, through which gradients flow where torch keeps them.

        Args:
            inputs: what the model is given, on its device.
            rows: the row and the position of each place.
            keep_states: whether what the decoder is given is kept for `_take_states`.
        """
        model = self._model
        if self._head_path == "all positions":
            return _float(model(**inputs).logits[rows])
        self._kept.rows, self._kept.wants_states = rows, keep_states
        try:
            return _float(model(**inputs).logits[0])
        finally:
            self._kept.rows, self._kept.wants_states = None, False

    def last_states(self, prompts: Sequence[EncodedPrompt]) -> Float[torch.Tensor, "prompt token dim"]:
        """States of the last layer in float32, before any head, through which gradients flow where torch keeps them.

        Behind the end of a shorter prompt they mean nothing.
        """
        model = self._model
        return _float(model.base_model(**self._placement.inputs(model, prompts))[0])

    @functools.cached_property
    def _model(self) -> Any:
        import torch

        with torch.inference_mode(False):  # whoever asks first may be in it, and such weights could never be tuned
            model = self._placement.admit(load_model(self._placement.checkpoint, self._placement.dtype))
        self._kept = threading.local()
        handle = model.base_model.register_forward_hook(self._keep_mask_states)
        self._head_path = "masks only" if self._probe(model) else "all positions"
        if self._head_path == "all positions":
            handle.remove()
        return model

    def _keep_mask_states(self, module: Any, args: Any, output: Any) -> Any:
        """Forward hook of the base model: the head that follows sees the states at masks and nothing else."""
        rows = getattr(self._kept, "rows", None)
        if rows is None:
            return output
        batch, positions = rows
        output["last_hidden_state"] = output[0][batch, positions].unsqueeze(0)
        return output

    def _probe(self, model: Any) -> bool:
        """Whether the head on mask states alone gives what the plain forward gives."""
        import torch

        inputs = {"input_ids": torch.arange(12, device=self.device).reshape(2, 6) % model.config.vocab_size}
        rows = (torch.tensor([0, 1], device=self.device), torch.tensor([2, 4], device=self.device))
        with torch.inference_mode():
            plain = model(**inputs).logits[rows].float()
            self._kept.rows = rows
            try:
                kept = model(**inputs).logits.float()
            except (TypeError, RuntimeError, KeyError, IndexError):
                return False
            finally:
                self._kept.rows = None
        rounding = 4 * torch.finfo(model.dtype).eps * float(plain.abs().max())  # kernels differ with the number of rows
        tolerance = max(_PROBE_TOLERANCE, rounding)
        return kept.shape == (1, *plain.shape) and bool((kept[0] - plain).abs().max() < tolerance)

    @functools.cached_property
    def _decoder(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Weight and bias of the decoder, where logits are their plain product with what the decoder is given."""
        import torch

        model = self._model
        decoder = model.get_output_embeddings()
        if self._head_path != "masks only" or not isinstance(decoder, torch.nn.Linear):
            return None
        decoder.register_forward_pre_hook(self._keep_states)
        inputs = {"input_ids": torch.arange(6, device=self.device).reshape(1, 6) % model.config.vocab_size}
        self._kept.rows = tuple(torch.tensor([index], device=self.device) for index in (0, 2))
        self._kept.wants_states, self._kept.states = True, None
        try:
            with torch.inference_mode():
                logits, states = model(**inputs).logits[0], self._kept.states
                if states is None:  # the head multiplies by the decoder's weight without calling it
                    return None
                product = torch.nn.functional.linear(states, decoder.weight, decoder.bias)
        finally:
            self._kept.rows, self._kept.wants_states = None, False
        return (decoder.weight, decoder.bias) if (product - logits).abs().max() < _PROBE_TOLERANCE else None

    def _keep_states(self, module: Any, args: Any) -> None:
        """Forward hook of the decoder: what it is given is kept where somebody asked for it."""
        if getattr(self._kept, "wants_states", False):
            self._kept.states = args[0].reshape(-1, args[0].shape[-1])

    def _take_states(self) -> Float32[np.ndarray, "mask dim"]:
        states: Float32[np.ndarray, "mask dim"] = self._kept.states.float().cpu().numpy()
        self._kept.states = None
        return states

    def _logits(
        self,
        prompts: Batch,
        places: Sequence[Sequence[int]],
        *,
        keep_states: bool = False,
    ) -> Float[torch.Tensor, "place vocabulary"]:
        """Logits at the given token indices of each prompt, in order of prompt, then of place."""
        inputs, rows = self._placement.inputs(self._model, prompts), self._placement.rows(prompts, places)
        return self.logits_at(inputs, rows, keep_states=keep_states)


def _float(logits: Any) -> Float[torch.Tensor, "mask vocabulary"]:
    """Logits in float32, whatever the model computes in."""
    converted: torch.Tensor = logits.float()
    return converted


def _to_scores(
    prompts: Sequence[EncodedPrompt],
    logits: Float[torch.Tensor, "mask vocabulary"],
    token_ids: Int64[np.ndarray, " candidate"],
) -> MaskScores:
    """Log-softmax over the full vocabulary in float32, then the candidates' columns and the best fills."""
    import torch

    normalizers = torch.logsumexp(logits, dim=-1)
    wanted = torch.from_numpy(token_ids).to(logits.device)
    log_probs = logits[:, wanted] - normalizers[:, None]
    top = torch.topk(logits, min(NUM_TOP, logits.shape[-1]), dim=-1)
    return MaskScores(
        keys=tuple(prompt.key for prompt in prompts for _ in prompt.mask_positions),
        fills=np.zeros(len(logits), dtype=np.int32),
        masks=np.array([mask for prompt in prompts for mask in range(len(prompt.mask_positions))], dtype=np.int32),
        log_normalizers=normalizers.cpu().numpy(),
        token_ids=token_ids,
        log_probs=log_probs.cpu().numpy(),
        top_ids=top.indices.cpu().numpy(),
        top_log_probs=(top.values - normalizers[:, None]).cpu().numpy(),
    )
