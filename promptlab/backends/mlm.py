"""Masked language models of transformers: encoded prompts -> log-probabilities at the masks.

Only the states at masks go through the vocabulary head, by a hook on the base model that hands the head those states
alone; a probe at load compares this with the plain forward, and falls back to it where they differ.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.base import NUM_TOP, Backend, Scorer, Tying
from promptlab.backends.checkpoints import find_checkpoint
from promptlab.backends.loading import find_limits, load_model, load_tokenizer, resolve_device
from promptlab.encoding import Encoder
from promptlab.errors import ModelError, UsageError
from promptlab.specs.run import DTYPES
from promptlab.types import EncodedPrompt, MaskScores

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float32, Int64

DEFAULT_MAX_LENGTH = 512
LARGE_BYTES = 1 << 24
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
        if dtype not in DTYPES:
            raise UsageError(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}.")
        self._checkpoint = find_checkpoint(model, revision)
        self._dtype = dtype
        self._device = resolve_device(device)
        self._head_path = "not loaded"

    @property
    def scorer(self) -> Scorer:
        """What scores, from the files alone."""
        return Scorer(
            model=self._checkpoint.name,
            revision=self._checkpoint.revision,
            weights_hash=self._checkpoint.weights_hash,
            tokenizer_hash=self._checkpoint.tokenizer_hash,
            architecture=self._checkpoint.architecture,
            dtype=self._dtype,
            device_class=self._device.partition(":")[0],
            attention="default",
        )

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies on disk."""
        return self._checkpoint.folder

    @property
    def device(self) -> str:
        """The resolved device."""
        return self._device

    @property
    def num_workers(self) -> int:
        """On the CPU, as many batches side by side as torch may use threads; one after the other elsewhere."""
        import torch

        return torch.get_num_threads() if self._device == "cpu" else 1

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Load the weights, and let each batch on the CPU have one thread.

        A batch then gives the same bytes whatever the number of threads, and no thread waits for another: on a machine
        that others use too, threads that share one product spend most of their time waiting.
        """
        import torch

        assert self._model is not None
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1 if self._device == "cpu" else num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint."""
        return load_tokenizer(self._checkpoint)

    def encoder(self, max_length: int | None) -> Encoder:
        """The encoder of this model's tokenizer."""
        limit, num_segment_types = find_limits(self._checkpoint)
        if max_length is not None and max_length > limit:
            raise UsageError(
                f"--max-length {max_length}: model '{self._checkpoint.name}' reads at most {limit} tokens."
            )
        if max_length is not None and max_length < 4:
            raise UsageError(f"--max-length {max_length}: write a whole number from 4 to {limit}.")
        length = max_length or min(limit, DEFAULT_MAX_LENGTH)
        return Encoder(self.tokenizer, max_length=length, uses_segment_ids=num_segment_types >= 2)

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
                f"model '{self._checkpoint.name}': the head of {self._checkpoint.architecture} is no plain product "
                "with the states at masks, so --store-states cannot keep them."
            )
        try:
            with torch.inference_mode():
                logits = self._mask_logits(prompts, keep_states=keep_states)
                scores = _to_scores(prompts, logits, token_ids)
                return replace(scores, states=self._take_states()) if keep_states else scores
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None
        except RuntimeError as error:
            if "out of memory" in str(error) or "can't allocate memory" in str(error):
                raise MemoryError(str(error)) from None
            raise

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
        import gc

        import torch

        model = self.__dict__.pop("_model", None)
        if model is None:
            return
        is_large = sum(parameter.nbytes for parameter in model.parameters()) > LARGE_BYTES
        self.__dict__.pop("_decoder", None)
        self._head_path = "not loaded"
        del model
        if (
            is_large
        ):  # hooks and weights hold each other; looking for such cycles takes longer than a small model is worth
            gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        _trim_heap()

    def plain_log_probs(
        self,
        prompts: Sequence[EncodedPrompt],
        token_ids: Int64[np.ndarray, " candidate"],
        *,
        pad_left: bool = False,
    ) -> Float32[np.ndarray, "mask candidate"]:
        """Log-probabilities by the forward of transformers; see `Backend.plain_log_probs`."""
        import torch

        model, arrays = self._model, self._pad(prompts)
        width = arrays["input_ids"].shape[1]
        shifts = [width - len(prompt) if pad_left else 0 for prompt in prompts]
        for row, shift in enumerate(shifts):
            for array in arrays.values():
                array[row] = np.roll(array[row], shift)
        rows = self._rows(prompts, shifts)
        inputs = {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}
        with torch.inference_mode():
            logits = _float(model(**inputs).logits[rows])
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
        found = self._checkpoint
        return MaskedBackend(found.name, revision=found.revision, device=self._device, dtype=dtype)

    def facts(self) -> dict[str, Any]:
        """What effectively runs; the weights are loaded for it."""
        import torch

        model = self._model
        return {
            "architecture": type(model).__name__,
            "attention": str(getattr(model.config, "_attn_implementation", None) or "eager"),
            "head": self._head_path,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": self._device,
            "device_name": torch.cuda.get_device_name(self._device) if self._device.startswith("cuda") else "CPU",
            "dtype": self._dtype,
            "num_threads": torch.get_num_threads(),
        }

    @functools.cached_property
    def _model(self) -> Any:
        model = load_model(self._checkpoint, self._dtype).to(self._device)
        num_rows = len(model.get_input_embeddings().weight)
        if len(self.tokenizer) > num_rows:
            raise ModelError(
                f"model '{self._checkpoint.name}': its tokenizer has {len(self.tokenizer)} tokens and its embeddings "
                f"{num_rows} rows: they do not belong together."
            )
        self._kept = threading.local()
        self._accepts_segment_ids = int(getattr(model.config, "type_vocab_size", 0) or 0) >= 2
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

        inputs = {"input_ids": torch.arange(12, device=self._device).reshape(2, 6) % model.config.vocab_size}
        rows = (torch.tensor([0, 1], device=self._device), torch.tensor([2, 4], device=self._device))
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
        inputs = {"input_ids": torch.arange(6, device=self._device).reshape(1, 6) % model.config.vocab_size}
        self._kept.rows = tuple(torch.tensor([index], device=self._device) for index in (0, 2))
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

    def _mask_logits(
        self, prompts: Sequence[EncodedPrompt], *, keep_states: bool = False
    ) -> Float[torch.Tensor, "mask vocabulary"]:
        import torch

        model = self._model
        inputs = {name: torch.from_numpy(array).to(self._device) for name, array in self._pad(prompts).items()}
        rows = self._rows(prompts)
        if self._head_path == "all positions":
            return _float(model(**inputs).logits[rows])
        self._kept.rows, self._kept.wants_states = rows, keep_states
        try:
            return _float(model(**inputs).logits[0])
        finally:
            self._kept.rows, self._kept.wants_states = None, False

    def _rows(
        self, prompts: Sequence[EncodedPrompt], shifts: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the masks of a batch stand: rows and positions, the latter shifted by the padding on the left."""
        import torch

        moved = zip(prompts, shifts or [0] * len(prompts), strict=True)
        batch = [row for row, prompt in enumerate(prompts) for _ in prompt.mask_positions]
        positions = [position + shift for prompt, shift in moved for position in prompt.mask_positions]
        return torch.tensor(batch, device=self._device), torch.tensor(positions, device=self._device)

    def _pad(self, prompts: Sequence[EncodedPrompt]) -> dict[str, Int64[np.ndarray, "prompt token"]]:
        """Right-padded inputs: positions that start at the left are the same alone and in a batch."""
        shape = (len(prompts), max(len(prompt) for prompt in prompts))
        pad_id = self.tokenizer.pad_token_id
        ids = np.full(shape, 0 if pad_id is None else pad_id, dtype=np.int64)
        attention, segment_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt.input_ids
            attention[row, : len(prompt)] = 1
            segment_ids[row, : len(prompt)] = prompt.segment_ids
        inputs = {"input_ids": ids, "attention_mask": attention}
        return inputs | {"token_type_ids": segment_ids} if self._accepts_segment_ids else inputs


def _trim_heap() -> None:
    """Ask the C library to give back what is free; some keep it for themselves otherwise."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


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
