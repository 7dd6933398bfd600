"""A planned fit -> a setting chosen inside the shots, the method fitted to all of them, and the record of both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from promptlab.artefact_folders import restore
from promptlab.artefacts import Artefact
from promptlab.backends.base import Backend
from promptlab.backends.mlm import MaskedBackend
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError, ModelError
from promptlab.fit_auditing import preflight_method
from promptlab.label_words import find_word_ids
from promptlab.memory import peak_memory
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Setting, Words
from promptlab.methods.selecting import Choice, choose_setting, planned_passes
from promptlab.planning import PlannedBlock, PlannedFit
from promptlab.preparing import Contexts, encode_shots
from promptlab.verbalizing import require_words

SMALL_MODEL = 20_000_000  # parameters up to which one thread fits as fast as several, and faster on a shared machine


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was fitted for a block: `record` as plain values; `cost` is what two equal fits may differ in.

    The cost has the seconds of the search and of the fit itself, and the most memory that both took, with whose that
    is. `context` is what it was fitted with; None where it was fitted before and is loaded.
    """

    fitted: Fitted
    setting: Setting
    record: Mapping[str, Any]
    cost: Mapping[str, Any]
    context: Context | None = None


def fit_block(
    planned: PlannedBlock,
    backend: Backend,
    encoder: Encoder,
    *,
    seed: int,
    on_fit: Callable[[int], None] = lambda passes: None,
    look_first: bool = False,
) -> Fit:
    """Choose a setting by the shots alone and fit to all of them.

    Args:
        planned: a block with a fit.
        backend: the model, which is changed until what was fitted is detached.
        encoder: of that model.
        seed: the user's seed, for templates that draw.
        on_fit: told of the example passes of every fit that is done.
        look_first: whether it is checked first, in a few steps, that the method works with the model.

    Raises:
        ModelError: the method cannot work with this model, or every setting diverged.
        LabelWordError: the label words are not one token each.
        DataError: a shot cannot be encoded.
    """
    fit = _require(planned)
    if fit.artefact is not None:
        return _load(fit.artefact, backend)
    with _threads(backend):
        return _fit(planned, fit, backend, encoder, seed, on_fit, look_first=look_first)


def _fit(
    planned: PlannedBlock,
    fit: PlannedFit,
    backend: Backend,
    encoder: Encoder,
    seed: int,
    on_fit: Callable[[int], None],
    *,
    look_first: bool,
) -> Fit:
    """See `fit_block`."""
    shots, context = _make_context(planned, fit, backend, encoder, seed)
    if look_first:
        preflight_method(fit.method, shots, fit.grid[0], context)
    began = time.perf_counter()
    with peak_memory(backend.device) as peak:
        choice = choose_setting(
            fit.method, fit.grid, shots, context, rule=fit.selection, num_folds=fit.num_folds, on_fit=on_fit
        )
        chosen_at = time.perf_counter()
        setting = fit.grid[choice.place]
        try:
            fitted = fit.method.fit(shots, setting, context)
        except ModelError as error:
            raise ModelError(f"method '{fit.method.name}', task '{planned.task.name}': {error}") from None
        done = time.perf_counter()
    on_fit(fitted.record.example_passes)
    record = _describe(fit, fitted, setting, choice, len(shots))
    seconds = {"search_s": round(chosen_at - began, 3), "fit_s": round(done - chosen_at, 3)}
    cost = {**seconds, "peak_memory_bytes": peak.num_bytes, "memory": peak.memory}
    return Fit(fitted, setting, record, cost, context)


@contextlib.contextmanager
def _threads(backend: Backend) -> Iterator[None]:
    """Let a small model on the CPU have one thread while it is fitted.

    Its products are small, and threads that share one spend most of their time waiting where somebody else uses the
    cores too. What is fitted then does not depend on the number of threads either.
    """
    import torch

    assert isinstance(backend, MaskedBackend)
    num_threads = torch.get_num_threads()
    is_small = backend.device == "cpu" and backend.model.num_parameters() <= SMALL_MODEL
    torch.set_num_threads(1 if is_small else num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _load(artefact: Artefact, backend: Backend) -> Fit:
    """What was fitted before; its record says which artefact it comes from."""
    began = time.perf_counter()
    with peak_memory(backend.device) as peak:
        fitted = restore(artefact, backend)
    record = {**artefact.record, "artefact": artefact.hash}
    seconds = {"search_s": 0.0, "fit_s": round(time.perf_counter() - began, 3)}
    return Fit(
        fitted, artefact.setting, record, {**seconds, "peak_memory_bytes": peak.num_bytes, "memory": peak.memory}
    )


def count_passes(planned: PlannedBlock) -> list[int]:
    """The example passes that each fit of a block takes at most, search and all; none where nothing is fitted."""
    if planned.fit is None or planned.fit.artefact is not None:
        return []
    fit = planned.fit
    labels, rule = fit.shots.label_indices, fit.selection
    return planned_passes(fit.method, fit.grid, labels, rule=rule, num_folds=fit.num_folds, seed=fit.seed)


def _require(planned: PlannedBlock) -> PlannedFit:
    assert planned.fit is not None
    return planned.fit


def _make_context(
    planned: PlannedBlock, fit: PlannedFit, backend: Backend, encoder: Encoder, seed: int
) -> tuple[LabelledPrompts, Context]:
    assert isinstance(backend, MaskedBackend)
    prompts, contexts = encode_shots(planned, encoder, seed=seed)
    shots = LabelledPrompts(tuple(prompts), fit.shots.label_indices)
    words = _find_words(planned, fit, encoder, contexts) if fit.verbalizer is not None else None
    return shots, Context(backend, planned.task.labels, words, fit.seed)


def _find_words(planned: PlannedBlock, fit: PlannedFit, encoder: Encoder, contexts: list[Contexts]) -> Words:
    """The label words in the template of the shots.

    Raises:
        LabelWordError: one is unknown, changes its neighbours or has several tokens, or there are several masks.
    """
    assert fit.verbalizer is not None
    found = find_word_ids(encoder, fit.verbalizer.words, contexts)
    where = f"{fit.verbalizer.path} with {planned.template.shown}"
    tokens = require_words(found, fit.verbalizer, where=where)
    for word, one in tokens.items():
        if len(one.pieces) != 1:
            raise LabelWordError(
                f"{where}: '{word}' stands for {len(one.pieces)} tokens, and method '{fit.method.name}' works with one "
                "mask and words of one token: name another verbalizer by --fit-verbalizers."
            )
    return Words.of(fit.verbalizer, planned.task.labels, tokens)


def _describe(fit: PlannedFit, fitted: Fitted, setting: Setting, choice: Choice, num_examples: int) -> dict[str, Any]:
    """What is stored of a fit: equal for two equal fits."""
    record, facts = fitted.record, dict(fitted.record.facts)
    log = facts.pop("log", [])
    return {
        "method": fit.method.name,
        "setting": setting.described(),
        "place": choice.place,
        "rule": choice.rule,
        "grid": [one.described() for one in fit.grid],
        "tried": [[one.accuracy, one.log_loss, one.fault] for one in choice.tried],
        "num_folds": fit.num_folds,
        "num_examples": num_examples,
        "short": dict(fit.shots.short),
        "num_parameters": record.num_parameters,
        "steps": record.steps,
        "selection_passes": choice.example_passes,
        "example_passes": record.example_passes,
        "losses": list(record.losses),
        "facts": facts,
        "log": log,
    }
