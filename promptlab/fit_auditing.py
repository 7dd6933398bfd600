"""A method and a model -> whether the one works in the other, seen in a fit of two steps before time is spent.

A method that is wired wrongly raises nothing: a prefix that no layer reads or a tensor outside the graph leave a model
that answers as before, and the table says that the method does not help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from promptlab.errors import ModelError
from promptlab.methods.attaching import AttachedBackend
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.probing import SLACK, Subject
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

STEPS = 2  # LoRA's and an adapter's first matrix have no gradient before the second one has moved
MOST_SHOTS = 8
RATE = 1e-3  # where the setting's is 0, which moves nothing


def preflight_method(method: Method, shots: LabelledPrompts, setting: Setting, context: Context) -> None:
    """Refuse a method that has no effect on a model, or whose answers depend on the batch.

    Args:
        method: what is to be fitted.
        shots: what it is to be fitted to; a few of them are used, some of each label.
        setting: whose options are used.
        context: the model and the words; the model is afterwards as it was.

    Raises:
        ModelError: a tensor gets no gradient, the answers do not change, differ alone and in a batch or from the
            model's own forward, or masks are not where they are read.
    """
    few = shots.take(_some_of_each(shots.labels))
    before = None
    if method.answers == "mask":
        before = context.backend.score(few.prompts, context.label_words.token_ids).log_probs
    quick = replace(setting, steps=STEPS, batch_size=MOST_SHOTS, accumulate=1, warm_up=0.0, schedule="constant")
    quick = replace(quick, learning_rate=setting.learning_rate or RATE)
    with method.fit(few, quick, context) as fitted:
        fault = next(_faults(method, fitted, few.prompts, context, before), None)
    if fault is not None:
        raise ModelError(
            f"method '{method.name}' fails the preflight on model '{context.backend.scorer.model}': {fault}. "
            "Leave it out of --methods; --skip-preflight fits it all the same."
        )


def _some_of_each(labels: Int64[np.ndarray, " shot"]) -> list[int]:
    """Places of shots, the first ones of every label, in turn."""
    present = np.unique(labels)
    number = max(1, MOST_SHOTS // len(present))
    return sorted(int(place) for label in present for place in np.flatnonzero(labels == label)[:number])


def _faults(
    method: Method,
    fitted: Fitted,
    prompts: Sequence[EncodedPrompt],
    context: Context,
    before: Float[np.ndarray, "prompt word"] | None,
) -> Iterator[str]:
    """What is wrong with something fitted, one clause a fault."""
    silent = fitted.record.facts.get("without_gradient", ())
    if silent:
        yield f"{len(silent)} of its tensors get no gradient, the first is '{silent[0]}'"
    if not _masks_stand(fitted, prompts, context):
        yield "masks are not where they are read"
    tolerance = SLACK * Subject(context.backend).tolerance
    together = _ask(method, fitted, prompts, context)
    alone = np.concatenate([_ask(method, fitted, [prompt], context) for prompt in prompts])
    difference = float(np.abs(together - alone).max())
    if not difference <= tolerance:
        yield f"its answers alone and in a batch differ by {difference:.1e}, tolerance {tolerance:.0e}"
    if before is None:
        return
    if np.array_equal(before, together):
        yield f"{STEPS} steps leave every answer as it was"
    plain = fitted.backend.plain_log_probs(prompts, context.label_words.token_ids)
    if plain is None:
        return
    difference = float(np.abs(together - plain).max())
    if not difference <= tolerance:
        yield f"its answers differ from those of the model's own forward by {difference:.1e}, tolerance {tolerance:.0e}"


def _ask(
    method: Method, fitted: Fitted, prompts: Sequence[EncodedPrompt], context: Context
) -> Float[np.ndarray, "prompt token"]:
    """Log-probabilities of the label words, or of the labels, by what was fitted."""
    wanted = context.label_words.token_ids if method.answers == "mask" else np.arange(len(context.labels))
    found: Float[np.ndarray, "prompt token"] = fitted.backend.score(prompts, wanted).log_probs
    return found


def _masks_stand(fitted: Fitted, prompts: Sequence[EncodedPrompt], context: Context) -> bool:
    """Whether what the model is given has a mask at each place that is read."""
    if not isinstance(fitted.backend, AttachedBackend):
        return True
    mask_id = context.backend.tokenizer.mask_token_id
    marked = fitted.backend.marked(prompts)
    return all(one.input_ids[place] == mask_id for one in marked for place in one.mask_positions)
