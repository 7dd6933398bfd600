"""Five made-up rows -> log p(label) of what was fitted: what an artefact must give again wherever it is loaded.

The rows are neutral sentences of our own and never rows of a data set, so that an artefact shows nobody's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.encoding import Encoder
from promptlab.errors import ModelError, TemplateError
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method
from promptlab.methods.selecting import label_log_probabilities
from promptlab.rendering import CompiledTemplate, render
from promptlab.types import EncodedPrompt, Example

if TYPE_CHECKING:
    from jaxtyping import Float64

SENTENCES = (
    "The train from the coast arrives at noon.",
    "She put two spoons and a cup on the table.",
    "Who painted the old bridge near the station?",
    "It rained all night and the streets were quiet!",
    "My brother sells maps, lamps, and a few books.",
)
LOWEST = -100.0  # a log-probability below this counts as this, so that none is infinite
# The largest difference in log p(label), in nats, between two machines, by the less exact of the two dtypes.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 3e-1}


@dataclass(frozen=True, slots=True)
class Canary:
    """A made-up row and its log p(label), natural, in the order of the labels; None where it cannot be scored."""

    fields: Mapping[str, str]
    expected: tuple[float, ...] | None


def canary_rows(fields: Sequence[str]) -> list[dict[str, str]]:
    """The rows for some fields; two fields of a row never say the same where there are at most five."""
    number = len(SENTENCES)
    return [{name: SENTENCES[(row + place) % number] for place, name in enumerate(fields)} for row in range(number)]


def encode_canaries(
    rows: Sequence[Mapping[str, str]],
    template: CompiledTemplate,
    encoder: Encoder,
    *,
    options: Sequence[str] | None,
    seed: int,
) -> list[EncodedPrompt | None]:
    """The prompt of each row; None where the template cannot be rendered with it or it does not fit into the length."""
    found: list[EncodedPrompt | None] = []
    for number, fields in enumerate(rows):
        example = Example(f"canary-{number}", number, dict(fields))
        try:
            prompt = render(template, example, options=options, seed=seed, is_fitted=True)
        except TemplateError:  # a template may count on a number, or on a word that is in every row of its task
            found.append(None)
            continue
        (encoded,) = encoder.encode([prompt])
        found.append(encoded if isinstance(encoded, EncodedPrompt) else None)
    return found


def score_canaries(
    prompts: Sequence[EncodedPrompt | None], fitted: Fitted, context: Context, method: Method
) -> list[tuple[float, ...] | None]:
    """Log p(label), natural, of each prompt, all in one batch; None where there is no prompt."""
    places = [place for place, prompt in enumerate(prompts) if prompt is not None]
    scored = LabelledPrompts(tuple(one for one in prompts if one is not None), np.zeros(len(places), dtype=np.int64))
    found: list[tuple[float, ...] | None] = [None] * len(prompts)
    if not places:
        return found
    log_probs = np.maximum(label_log_probabilities(fitted, scored, context, method), LOWEST)
    for place, row in zip(places, log_probs.tolist(), strict=True):
        found[place] = tuple(row)
    return found


def check_canaries(
    canaries: Sequence[Canary],
    found: Sequence[tuple[float, ...] | None],
    labels: Sequence[str],
    *,
    tolerance: float,
    shown: str,
) -> None:
    """Refuse scores that are not the ones that were expected.

    Raises:
        ModelError: the largest difference is above the tolerance; it is named with its row and label.
    """
    for number, (canary, row) in enumerate(zip(canaries, found, strict=True), start=1):
        if (canary.expected is None) != (row is None):
            what = "cannot be scored any more" if row is None else "can be scored, and could not when it was saved"
            raise ModelError(f"{shown}: canary row {number} {what}: it does not work here as it was fitted.")
    differences = np.stack(
        [_difference(canary.expected, row, len(labels)) for canary, row in zip(canaries, found, strict=True)]
    )
    worst = np.unravel_index(int(differences.argmax()), differences.shape)
    if differences[worst] <= tolerance:
        return
    number, label = int(worst[0]), int(worst[1])
    was, now = canaries[number].expected, found[number]
    assert was is not None and now is not None
    raise ModelError(
        f"{shown}: does not score as it did when it was saved: log p({labels[label]}) of canary row {number + 1} was "
        f"{was[label]:.4f} and is {now[label]:.4f}, a difference of {differences[worst]:.2g} where {tolerance:g} is "
        "allowed: compare the versions of promptlab, torch and transformers with those in its artefact.json, or fit "
        "it anew."
    )


def tolerance_of(*dtypes: str) -> float:
    """How far scores in these dtypes may be apart, in nats."""
    return max(TOLERANCES[one] for one in dtypes)


def _difference(
    expected: Sequence[float] | None, found: Sequence[float] | None, num_labels: int
) -> Float64[np.ndarray, " label"]:
    """Absolute differences, 0 where there is nothing to compare; NaN counts as infinitely far."""
    if expected is None or found is None:
        return np.zeros(num_labels)
    apart: Float64[np.ndarray, " label"] = np.abs(np.array(expected) - np.array(found))
    return np.where(np.isnan(apart), np.inf, apart)
