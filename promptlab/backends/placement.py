"""A checkpoint on a device in a dtype: what every backend of transformers has in common, whatever head it ends in.

Batches are padded on the right, so that positions that start at the left are the same alone and in a batch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.base import Scorer
from promptlab.backends.checkpoints import Checkpoint, find_checkpoint
from promptlab.backends.loading import find_limits, load_tokenizer, resolve_device
from promptlab.encoding import Encoder
from promptlab.errors import ModelError, UsageError
from promptlab.specs.run import DTYPES, Scoring
from promptlab.types import EncodedPrompt, FilledPrompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int64

DEFAULT_MAX_LENGTH = 512
LARGE_BYTES = 1 << 24

Batch = Sequence[EncodedPrompt | FilledPrompt]


@dataclass(frozen=True)
class Placement:
    """A checkpoint, the device it runs on in torch's words, and the dtype of its weights."""

    checkpoint: Checkpoint
    device: str
    dtype: str

    @classmethod
    def find(cls, model: str, *, revision: str | None, device: str, dtype: str) -> Placement:
        """The checkpoint by its name, the device by its name or `auto`; nothing is loaded.

        Raises:
            UsageError: there is no such model, device or dtype.
            ModelError: the folder is no checkpoint that can be read.
        """
        if dtype not in DTYPES:
            raise UsageError(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}.")
        return cls(find_checkpoint(model, revision), resolve_device(device), dtype)

    def scorer(self, scoring: Scoring = "mask") -> Scorer:
        """What scores, from the files alone."""
        return Scorer(
            model=self.checkpoint.name,
            revision=self.checkpoint.revision,
            weights_hash=self.checkpoint.weights_hash,
            tokenizer_hash=self.checkpoint.tokenizer_hash,
            architecture=self.checkpoint.architecture,
            dtype=self.dtype,
            device_class=self.device.partition(":")[0],
            attention="default",
            scoring=scoring,
        )

    @property
    def num_workers(self) -> int:
        """On the CPU, as many batches side by side as torch may use threads; one after the other elsewhere."""
        import torch

        return torch.get_num_threads() if self.device == "cpu" else 1

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Let each batch on the CPU have one thread.

        A batch then gives the same bytes whatever the number of threads, and no thread waits for another: on a machine
        that others use too, threads that share one product spend most of their time waiting.
        """
        import torch

        num_threads = torch.get_num_threads()
        torch.set_num_threads(1 if self.device == "cpu" else num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint."""
        return load_tokenizer(self.checkpoint)

    def encoder(self, max_length: int | None, *, fills_with_words: bool = False) -> Encoder:
        """The encoder of this model's tokenizer; see `Backend.encoder` and `Encoder`."""
        limit, num_segment_types = find_limits(self.checkpoint)
        if max_length is not None and max_length > limit:
            raise UsageError(f"--max-length {max_length}: model '{self.checkpoint.name}' reads at most {limit} tokens.")
        if max_length is not None and max_length < 4:
            raise UsageError(f"--max-length {max_length}: write a whole number from 4 to {limit}.")
        length = max_length or min(limit, DEFAULT_MAX_LENGTH)
        return Encoder(
            self.tokenizer,
            max_length=length,
            uses_segment_ids=num_segment_types >= 2,
            fills_with_words=fills_with_words,
        )

    def admit(self, model: Any) -> Any:
        """The loaded model on the device.

        Raises:
            ModelError: the tokenizer has tokens that the model has no embeddings for.
        """
        num_rows = len(model.get_input_embeddings().weight)
        if len(self.tokenizer) > num_rows:
            raise ModelError(
                f"model '{self.checkpoint.name}': its tokenizer has {len(self.tokenizer)} tokens and its embeddings "
                f"{num_rows} rows: they do not belong together."
            )
        return model.to(self.device)

    def inputs(self, model: Any, prompts: Batch, *, pad_left: bool = False) -> dict[str, torch.Tensor]:
        """What the model is given for a batch, on the device."""
        import torch

        arrays = self.pad(prompts, has_segments=int(getattr(model.config, "type_vocab_size", 0) or 0) >= 2)
        for row, shift in enumerate(_shifts(prompts, pad_left)):
            for array in arrays.values():
                array[row] = np.roll(array[row], shift)
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}

    def rows(
        self, prompts: Batch, places: Sequence[Sequence[int]], *, pad_left: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the places of each prompt stand in a batch: rows and positions, in order of prompt, then of place."""
        import torch

        moved = zip(places, _shifts(prompts, pad_left), strict=True)
        batch = [row for row, of_prompt in enumerate(places) for _ in of_prompt]
        positions = [position + shift for of_prompt, shift in moved for position in of_prompt]
        batch_ids, position_ids = (torch.tensor(one, dtype=torch.long) for one in (batch, positions))
        return batch_ids.to(self.device), position_ids.to(self.device)

    def pad(self, prompts: Batch, *, has_segments: bool) -> dict[str, Int64[np.ndarray, "prompt token"]]:
        """Right-padded inputs; attention to what is a token by length, whatever its id."""
        shape = (len(prompts), max(len(prompt) for prompt in prompts))
        pad_id = self.tokenizer.pad_token_id
        ids = np.full(shape, 0 if pad_id is None else pad_id, dtype=np.int64)
        attention, segment_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt.input_ids
            attention[row, : len(prompt)] = 1
            segment_ids[row, : len(prompt)] = prompt.segment_ids
        inputs = {"input_ids": ids, "attention_mask": attention}
        return inputs | {"token_type_ids": segment_ids} if has_segments else inputs

    def facts(self, model: Any, head: str) -> dict[str, Any]:
        """What effectively runs; `head` says which positions go through the head."""
        import torch

        return {
            "architecture": type(model).__name__,
            "attention": str(getattr(model.config, "_attn_implementation", None) or "eager"),
            "head": head,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": self.device,
            "device_name": torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "CPU",
            "dtype": self.dtype,
            "num_threads": torch.get_num_threads(),
        }

    def free(self, *, is_large: bool) -> None:
        """Give the memory of a model that nobody holds any more back to the system."""
        import gc

        import torch

        if is_large:  # hooks and weights hold each other; a small model is not worth the search for such cycles
            gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        _trim_heap()


def is_large_model(model: Any) -> bool:
    """Whether the weights take so much memory that it pays to look for what still holds them."""
    return sum(int(parameter.nbytes) for parameter in model.parameters()) > LARGE_BYTES


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch raises when memory runs out into `MemoryError`; any other error stays itself."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from None
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from None
        raise


def _shifts(prompts: Batch, pad_left: bool) -> list[int]:
    """By how many tokens each prompt of a batch moves to the right: none, or the whole of its padding."""
    width = max(len(prompt) for prompt in prompts)
    return [width - len(prompt) if pad_left else 0 for prompt in prompts]


def _trim_heap() -> None:
    """Ask the C library to give back what is free; some keep it for themselves otherwise."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
