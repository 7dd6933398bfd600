"""Fitted soft tokens -> the words nearest to them: a backend that asks prompts with those words in their places.

Nothing stays of the fit but the choice of words, so the model is the pretrained one and the prompt a hard prompt again
(what Khashabi et al. 2022 ask of continuous prompts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from promptlab.backends.base import Backend
from promptlab.errors import ModelError
from promptlab.methods.attaching import AttachedBackend
from promptlab.types import EncodedPrompt, Role


def projected_backend(backend: Backend, record: Mapping[str, Any]) -> tuple[Backend, list[str]]:
    """What scores prompts with the nearest word in the place of each soft token, and these words.

    Args:
        backend: the model, with nothing attached.
        record: what was stored of the fit.

    Raises:
        ModelError: the record does not say which tokens they are.
    """
    tokens = record.get("facts", {}).get("soft_tokens") or []
    if not tokens or any("nearest_id" not in token for token in tokens):
        raise ModelError(
            "the stored fit of a soft prompt does not say which words its tokens are nearest to: leave them out with "
            "--no-projection, or fit anew under another --name."
        )
    nearest = np.array([token["nearest_id"] for token in tokens], dtype=np.int32)

    def mark(prompt: EncodedPrompt) -> EncodedPrompt:
        role = Role.SOFT if (prompt.roles == Role.SOFT).any() else Role.LITERAL
        ids = prompt.input_ids.copy()
        ids[prompt.roles == role] = nearest
        return replace(prompt, input_ids=ids)

    return AttachedBackend(backend, mark), [token["nearest"][0][0] for token in tokens]
