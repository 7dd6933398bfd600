"""Settings -> the one that does best inside the shots: there is no hidden development set.

`cross_validation` holds out each part of the shots once; `mdl` codes the shots part by part with what was fitted to the
parts before (both Perez et al. 2021, sections 2.2 and 2.3); `default` takes the first setting unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from promptlab.errors import ModelError
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.seeding import derive_generator, derive_seed
from promptlab.verbalizing import label_probabilities

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

RULES = ("cross_validation", "mdl", "default")
Part = tuple["Int64[np.ndarray, ' place']", "Int64[np.ndarray, ' place']"]


@dataclass(frozen=True, slots=True)
class Tried:
    """How one setting did on the shots that were held out.

    `accuracy` and `log_loss` (nats an example) are means over held-out shots; None where a fit diverged, and then
    `fault` says so.
    """

    accuracy: float | None
    log_loss: float | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting that was chosen: its place in the grid, how every setting did, and what the search took.

    `rule` is what chose, which is `default` where nothing could be held out.
    """

    place: int
    rule: str
    tried: tuple[Tried, ...]
    num_fits: int
    example_passes: int


def choose_setting(
    method: Method,
    grid: Sequence[Setting],
    shots: LabelledPrompts,
    context: Context,
    *,
    rule: str,
    num_folds: int,
    on_fit: Callable[[int], None] = lambda passes: None,
) -> Choice:
    """Choose a setting by the shots alone.

    `cross_validation` takes the highest accuracy and then the lowest log loss, `mdl` the lowest log loss, which is the
    code length over the examples.

    Args:
        method: what is fitted.
        grid: the settings that are tried, the default first.
        shots: all shots; the ones that are held out are never fitted to.
        context: the model and the words.
        rule: one of `RULES`.
        num_folds: in how many parts the shots are cut, at most as many as the rarest label has shots.
        on_fit: told of the example passes of every fit.
    """
    parts = list(split(shots.labels, rule=rule, num_folds=num_folds, seed=context.seed))
    if len(grid) == 1 or not parts:
        return Choice(0, "default", (), 0, 0)
    tried, passes = list[Tried](), 0
    for place, setting in enumerate(grid):
        found, cost = _try(method, shots, setting, context, parts, place, on_fit)
        tried.append(found)
        passes += cost
    usable = [place for place, one in enumerate(tried) if one.fault is None]
    best = min(usable, key=lambda place: _rank(tried[place], rule), default=0)
    return Choice(best, rule, tuple(tried), len(grid) * len(parts), passes)


def planned_passes(
    method: Method, grid: Sequence[Setting], labels: Int64[np.ndarray, " shot"], *, rule: str, num_folds: int, seed: int
) -> list[int]:
    """Example passes of each fit of a search, in its order, and last those of a fit to all shots.

    Where settings differ in passes, the last one is the dearest that may be chosen.
    """
    parts = list(split(labels, rule=rule, num_folds=num_folds, seed=seed)) if len(grid) > 1 else []
    search = [method.example_passes(len(seen), setting) for setting in grid for seen, _ in parts]
    usable = grid if parts else grid[:1]
    return [*search, max(method.example_passes(len(labels), setting) for setting in usable)]


def split(labels: Int64[np.ndarray, " shot"], *, rule: str, num_folds: int, seed: int) -> Iterator[Part]:
    """Places that are fitted to and places that are held out, part after part; every label in every part.

    Nothing where a label has a single shot, or nothing is to be searched.
    """
    counts = np.bincount(labels)
    number = min(num_folds, int(counts[counts > 0].min()))
    if rule == "default" or number < 2:
        return
    part = np.zeros(len(labels), dtype=np.int64)
    for label in np.flatnonzero(counts):
        members = derive_generator(seed, "parts", int(label)).permutation(np.flatnonzero(labels == label))
        part[members] = np.arange(len(members)) % number
    for held in range(number) if rule == "cross_validation" else range(1, number):
        is_fitted = part != held if rule == "cross_validation" else part < held
        yield np.flatnonzero(is_fitted), np.flatnonzero(part == held)


def label_log_probabilities(
    fitted: Fitted, prompts: LabelledPrompts, context: Context, method: Method
) -> Float64[np.ndarray, "prompt label"]:
    """Log p(label | prompt), natural, of what was fitted."""
    wanted = context.label_words.token_ids if method.answers == "mask" else np.arange(len(context.labels))
    found = fitted.backend.score(prompts.prompts, wanted).log_probs.astype(np.float64)
    return np.log(label_probabilities(context.label_words.scores(found))) if method.answers == "mask" else found


def _try(
    method: Method,
    shots: LabelledPrompts,
    setting: Setting,
    context: Context,
    parts: Sequence[Part],
    place: int,
    on_fit: Callable[[int], None],
) -> tuple[Tried, int]:
    """How a setting does on the parts that are held out, and the example passes of its fits."""
    is_right, losses, passes = list[bool](), list[float](), 0
    for number, (seen, held) in enumerate(parts):
        seeded = Context(context.backend, context.labels, context.words, derive_seed(context.seed, place, number))
        try:
            with method.fit(shots.take(seen), setting, seeded) as fitted:
                taken = fitted.record.example_passes
                found = label_log_probabilities(fitted, shots.take(held), seeded, method)
        except ModelError as error:
            return Tried(None, None, str(error)), passes
        passes, gold = passes + taken, shots.labels[held]
        is_right += (found.argmax(axis=1) == gold).tolist()
        losses += (-found[np.arange(len(held)), gold]).tolist()
        on_fit(taken)
    return Tried(float(np.mean(is_right)), float(np.mean(losses))), passes


def _rank(tried: Tried, rule: str) -> tuple[float, ...]:
    assert tried.accuracy is not None and tried.log_loss is not None
    return (tried.log_loss,) if rule == "mdl" else (-tried.accuracy, tried.log_loss)
