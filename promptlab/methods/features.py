"""Encoded prompts -> what the frozen model makes of them: one vector a prompt.

Nothing here takes gradients, so what is computed of the shots is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from promptlab.backends.placement import memory_errors
from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import LabelledPrompts
from promptlab.types import EncodedPrompt, Role

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from promptlab.backends.mlm import MaskedBackend

State = Literal["first", "mask", "mean"]

_BATCH = 32


def last_states(
    backend: MaskedBackend, prompts: Sequence[EncodedPrompt], state: State
) -> Float64[np.ndarray, "prompt dim"]:
    """The last layer's state of each prompt: of its first token, of its first mask, or the mean over the row's text."""
    import torch

    found = list["Float64[np.ndarray, 'prompt dim']"]()
    with memory_errors(), torch.inference_mode():
        for batch in _batches(prompts):
            states = backend.last_states(batch)
            wanted = [states[row, _places(prompt, state)].mean(dim=0) for row, prompt in enumerate(batch)]
            found.append(torch.stack(wanted).double().cpu().numpy())
    return np.concatenate(found)


def decoder_states(backend: MaskedBackend, prompts: Sequence[EncodedPrompt]) -> Float64[np.ndarray, "prompt dim"]:
    """What the decoder of the head is applied to at the first mask of each prompt.

    Raises:
        ModelError: the head has no plain decoder.
    """
    nothing = np.zeros(0, dtype=np.int64)
    found = list["Float64[np.ndarray, 'prompt dim']"]()
    for batch in _batches(prompts):
        scores = backend.score(batch, nothing, keep_states=True)
        assert scores.states is not None
        found.append(scores.states[scores.masks == 0].astype(np.float64))
    return np.concatenate(found)


def check_choice(method: str, option: str, chosen: object, known: Sequence[str]) -> None:
    """Refuse a value of an option that is none of those that a method knows.

    Raises:
        UsageError: the value is unknown.
    """
    if chosen not in known:
        raise UsageError(f"method '{method}': {option} '{chosen}' is unknown. Known: {', '.join(known)}.")


def check_state(method: str, state: object) -> None:
    """Refuse a state that is none of a prompt's.

    Raises:
        UsageError: the state is unknown.
    """
    check_choice(method, "state", state, get_args(State))


def check_every_label(shots: LabelledPrompts, labels: Sequence[str]) -> None:
    """Refuse shots that lack a label: nothing can be said of it.

    Raises:
        ModelError: a label has no shot.
    """
    counts = np.bincount(shots.labels, minlength=len(labels))
    lacking = [f"'{label}'" for label, count in zip(labels, counts, strict=True) if not count]
    if lacking:
        raise ModelError(f"there is no shot of {', '.join(lacking)}: a label without a row cannot be learned.")


def _batches(prompts: Sequence[EncodedPrompt]) -> Iterator[Sequence[EncodedPrompt]]:
    for start in range(0, len(prompts), _BATCH):
        yield prompts[start : start + _BATCH]


def _places(prompt: EncodedPrompt, state: State) -> Int64[np.ndarray, " place"]:
    """The tokens whose states are averaged; a prompt without text of a row gives all of its tokens."""
    if state == "first":
        return np.array([0])
    if state == "mask":
        return np.array(prompt.mask_positions[:1])
    of_row = np.flatnonzero(prompt.roles == Role.FIELD)
    return of_row if len(of_row) else np.arange(len(prompt))
