"""Run spec -> a run folder: score what is missing, decide every cell, store results and say what happened.

The same command again finds everything stored and does no forward pass; a killed run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from promptlab.artefact_folders import save_artefact
from promptlab.artefact_planning import count_seen, plan_artefacts, read_artefacts, refuse_homeless, settle
from promptlab.auditing import preflight
from promptlab.backends.base import Backend, make_backend
from promptlab.backends.mlm import MaskedBackend
from promptlab.baselines import find_baselines
from promptlab.batching import BatchSize
from promptlab.blocks import BlockStore
from promptlab.calibration import ROWS, find_calibration
from promptlab.choosing import Choosing, Draw
from promptlab.claiming import claim, refuse_another
from promptlab.deciding import Cell, word_fault
from promptlab.encoding import Encoder
from promptlab.errors import LabelWordError, UsageError
from promptlab.evaluation import StoredBlock, evaluate
from promptlab.fit_planning import plan_fits
from promptlab.fitting import Fit, count_passes, fit_block
from promptlab.grids import Grid, LoadedRows, load_all_rows, make_grid
from promptlab.hashing import content_hash
from promptlab.keeping import folder_of, is_kept, make_artefact
from promptlab.methods.projecting import projected_backend
from promptlab.planning import PlannedBlock, plan_blocks, plan_digest, plan_ensembles
from promptlab.preparing import (
    EncodedBlock,
    Prepared,
    count_missing,
    encode_block,
    fill_windows,
    has_prompts,
    missing_windows,
    prepare_block,
)
from promptlab.provenance import Cost, find_model_facts, make_manifest, make_timings
from promptlab.results import Agreement, Result, RunResults, write_results
from promptlab.scoring import Tally, score_block, score_fills, score_from_states
from promptlab.specs.run import PROJECTED, RunSpec
from promptlab.store import RunStore


class Progress(Protocol):
    """Who is told what happens while a run is under way."""

    def say(self, sentence: str) -> None:
        """A line for the user."""

    def start(self, name: str, num_prompts: int) -> None:
        """A block with so many prompts to score begins."""

    def advance(self, num_prompts: int) -> None:
        """So many prompts are scored."""


class Silence:
    """Progress that nobody is told."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def start(self, name: str, num_prompts: int) -> None:
        """Nothing."""

    def advance(self, num_prompts: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedModel:
    """What one model is asked: its blocks, and the ensembles over them."""

    backend: Backend
    encoder: Encoder
    blocks: tuple[PlannedBlock, ...]
    ensembles: tuple[Cell, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every cell of the model."""
        return [*(cell for block in self.blocks for cell in block.cells), *self.ensembles]


@dataclass(frozen=True, slots=True, eq=False)
class RunPlan:
    """What a run will do; `grid` lacks the tasks without readable rows, which `loaded` names with the reason."""

    name: str
    grid: Grid
    loaded: LoadedRows
    models: tuple[PlannedModel, ...]
    seed: int

    @property
    def blocks(self) -> list[PlannedBlock]:
        """Every block of the run."""
        return [block for model in self.models for block in model.blocks]

    def describe(self) -> dict[str, Any]:
        """The plan as plain values: what applies to what, and how much there is to score."""
        return {
            "run": self.name,
            "models": [_describe_model(model, self.loaded, seed=self.seed) for model in self.models],
            "failures": self.loaded.failures,
        }


def plan_run(spec: RunSpec) -> RunPlan:
    """Grid, rows, blocks of every model, and the run's name; nothing is scored."""
    spec = settle(spec)
    artefacts = read_artefacts(spec)
    grid = make_grid(spec)
    loaded = load_all_rows(spec, grid)
    grid = replace(grid, tasks=tuple(task for task in grid.tasks if task.name in loaded.rows))
    models, backends = list[PlannedModel](), _make_backends(spec)
    refuse_homeless(artefacts, [backend.scorer for backend in backends])
    for backend in backends:
        encoder = backend.encoder(spec.max_length)
        length = encoder.max_length
        blocks = plan_blocks(grid, loaded, backend.scorer, max_length=length, seed=spec.seed)
        asked = [cell for block in blocks if not block.is_baseline for cell in block.cells]
        blocks += plan_fits(grid, loaded, backend, max_length=length, seed=spec.seed)
        blocks += plan_artefacts(grid, loaded, artefacts, backend, blocks)
        models.append(PlannedModel(backend, encoder, tuple(blocks), tuple(plan_ensembles(grid.ensembles, asked))))
    cells = [cell.cell_id for model in models for cell in model.cells]
    return RunPlan(spec.name or _default_name(spec, cells), grid, loaded, tuple(models), spec.seed)


def execute(
    spec: RunSpec, *, progress: Progress | None = None, command: str | None = None, amend: bool = False
) -> RunResults:
    """Run what is missing of a spec and store its results.

    Args:
        spec: what was asked for.
        progress: told what happens.
        command: the command line, kept in the manifest so that the run can be repeated.
        amend: whether a named run that was asked for otherwise may be changed.

    Raises:
        PromptlabError: a fault that the user can mend; nothing finished is lost.
    """
    started = time.perf_counter()
    progress, spec = progress or Silence(), settle(spec)
    plan = plan_run(spec)
    store = RunStore(Path(spec.output_path).expanduser() / plan.name)
    if not amend:
        refuse_another(store.folder, spec)
    store.prepare()
    store.event("started", command=command)
    for reason in plan.loaded.failures.values():
        progress.say(f"left out: {reason}")
    _tell_seen(plan, progress)
    done, facts, stored_blocks = Cost(), list[dict[str, Any]](), list[StoredBlock]()
    results, agreements, few_shot = list[Result](), list[Agreement](), list[Result]()
    for model in plan.models:
        prepared = _prepare_model(spec, plan.grid, model, store)
        claim(store.folder, spec)
        has_scored = _score_model(spec, model, prepared, store, progress, done)
        looked = "skipped" if spec.skip_preflight else "passed"
        facts.append(find_model_facts(model.backend, store, has_scored=has_scored, preflight=looked))
        model.backend.release()
        blocks = [_stored(block) for block in prepared]
        choosing = _choosing(spec, plan)
        found = evaluate(store, blocks, model.ensembles, seed=spec.seed, metrics=spec.metrics, choosing=choosing)
        results += found.results
        agreements += found.agreements
        few_shot += found.few_shot
        stored_blocks += blocks
    found_costs = ((block.block_id, store.block(block.block_id).read_fit_cost()) for block in plan.blocks if block.fit)
    done.fits = {block_id: cost for block_id, cost in found_costs if cost}
    done.seconds["total"] = time.perf_counter() - started
    ensembles = [cell for model in plan.models for cell in model.ensembles]
    manifest = make_manifest(
        spec, plan.name, plan.loaded, plan.grid, plan.blocks, facts, command, stored_blocks, ensembles
    )
    stored = RunResults(
        folder=store.folder,
        manifest=manifest,
        results=tuple(results),
        baselines=tuple(find_baselines(plan.grid.tasks, plan.loaded.rows, data=spec.data)),
        timings=make_timings(done, store.last_timings()),
        agreements=tuple(agreements),
        few_shot=tuple(few_shot),
    )
    write_results(stored)
    store.drop_old_samples(result.samples for result in [*results, *few_shot])
    store.event("finished", forwards=done.tally.num_forwards)
    return stored


def _make_backends(spec: RunSpec) -> list[Backend]:
    """One for each model, none of them loaded; two names of one model are refused."""
    backends, seen = list[Backend](), dict[str, str]()
    for name in dict.fromkeys(spec.models):
        backend = make_backend(name, scoring=spec.scoring, revision=spec.revision, device=spec.device, dtype=spec.dtype)
        other = seen.setdefault(content_hash(backend.scorer.identity()), name)
        if other != name:
            raise UsageError(f"--model {name}: has the same weights and tokenizer as '{other}': name one of them.")
        backends.append(backend)
    return backends


def _tell_seen(plan: RunPlan, progress: Progress) -> None:
    """Say where an artefact is scored on rows that it was fitted to."""
    for block in plan.blocks:
        artefact = block.fit.artefact if block.fit is not None else None
        if artefact is not None and (number := count_seen(artefact, block.rows)):
            rows = f"{number} of the {len(block.rows.examples):,} scored rows of task '{block.task.name}'"
            progress.say(f"{artefact.shown} was fitted to {rows}: its scores there say nothing about new rows.")


def _describe_model(model: PlannedModel, loaded: LoadedRows, *, seed: int) -> dict[str, Any]:
    masked = [block for block in model.blocks if block.scoring == "mask"]
    groups = [group for block in masked for group in block.groups.values()]
    passes = [count_passes(block) for block in model.blocks]
    return {
        "model": model.backend.scorer.model,
        "blocks": len(model.blocks),
        "cells": len(model.cells),
        "prompts": sum(len(block.rows.examples) for block in masked),
        "calibration_prompts": sum(len(group.examples) for group in groups),
        "fits": sum(map(len, passes)),
        "example_passes": sum(map(sum, passes)),
        "filled_prompts": sum(_count_fills(block, model.encoder, seed) for block in model.blocks),
        "tasks": {name: _describe_task(model, name, len(rows.examples)) for name, rows in loaded.rows.items()},
    }


def _count_fills(block: PlannedBlock, encoder: Encoder, seed: int) -> int:
    """How many filled prompts the words of a block ask about at most, before anything is stored."""
    if all(cell.rule == "independent" and cell.verbalizer.multi_token == "refuse" for cell in block.cells):
        return 0
    prepared = prepare_block(block, BlockStore(Path(os.devnull)), encoder, seed=seed)
    return prepared.num_filled


def _describe_task(model: PlannedModel, task: str, num_rows: int) -> dict[str, Any]:
    blocks = [block for block in model.blocks if block.task.name == task]
    verbalizers = {cell.verbalizer.name: cell.verbalizer.labels for block in blocks for cell in block.cells}
    ensembles = [cell for cell in model.ensembles if cell.task.name == task]
    return {
        "rows": num_rows,
        "templates": {block.template.template.name: block.template.template.text for block in blocks},
        "verbalizers": {
            name: ", ".join(f"{label}={'|'.join(word.word for word in words)}" for label, words in labels.items())
            for name, labels in verbalizers.items()
        },
        "ensembles": {cell.template: f"{len(cell.members)} templates" for cell in ensembles},
        "faults": _describe_faults(blocks),
    }


def _describe_faults(blocks: Sequence[PlannedBlock]) -> dict[str, str]:
    """The calibrations that some templates cannot have, with how many and the first reason."""
    faults = {}
    for calibration in dict.fromkeys(cell.calibration for block in blocks for cell in block.cells):
        needed = find_calibration(calibration).prompts or ""
        reasons = [block.faults[needed] for block in blocks if needed in block.faults]
        if reasons:
            faults[calibration] = f"{len(reasons)} of {len(blocks)} templates cannot have it: it {reasons[0]}"
    return faults


def _default_name(spec: RunSpec, cells: Sequence[str]) -> str:
    models = "+".join(Path(model).name or model for model in spec.models)
    safe = "".join(character if character.isalnum() or character in "._+-" else "-" for character in models)
    return f"{safe}-{plan_digest(cells, seed=spec.seed)[:8]}"


def _prepare_model(spec: RunSpec, grid: Grid, model: PlannedModel, store: RunStore) -> list[Prepared]:
    """The words of every block, from the store where they are there; all word faults before any forward."""
    prepared = [
        prepare_block(block, store.block(block.block_id), model.encoder, seed=spec.seed) for block in model.blocks
    ]
    _refuse_words(grid, prepared, model.encoder)
    return prepared


def _refuse_words(grid: Grid, blocks: Sequence[Prepared], encoder: Encoder) -> None:
    """Refuse what was asked for by name and cannot be decided; what only a glob asked for is skipped, in the open.

    A verbalizer asked for by name must work with every template asked for by name, and with at least one of all.

    Raises:
        LabelWordError: every word that splits, collides, is unknown or changes its neighbours.
    """
    faults: list[str] = []
    usable: dict[str, bool] = {}
    reasons: dict[str, list[str]] = {}
    first: str | None = None
    for block in (block for block in blocks if not block.planned.is_baseline):
        for cell in {cell.verbalizer.name: cell for cell in block.planned.cells}.values():
            verbalizer, shown = cell.verbalizer, block.planned.template.shown
            fault = word_fault(block.words[ROWS], verbalizer, cell.rule, shown, spell=encoder.token_text)
            usable[verbalizer.name] = usable.get(verbalizer.name, False) or fault is None
            first = first or fault
            if fault is None or verbalizer.name not in grid.explicit:
                continue
            reasons.setdefault(verbalizer.name, []).append(fault)
            if block.planned.template.template.name in grid.explicit:
                faults.append(fault)
    faults += [reasons[name][0] for name in reasons if not usable[name]]
    if faults:
        raise LabelWordError("\n".join(dict.fromkeys(line for fault in faults for line in fault.splitlines())))
    if usable and not any(usable.values()):
        names = ", ".join(usable)
        raise LabelWordError(f"none of the verbalizers {names} can be used with this model: {first}")


def _score_model(
    spec: RunSpec,
    model: PlannedModel,
    blocks: Sequence[Prepared],
    store: RunStore,
    progress: Progress,
    done: Cost,
) -> bool:
    """Score what every block of one model lacks; whether there was anything."""
    name = model.backend.scorer.model
    expected = [count_missing(block, store.block(block.planned.block_id)) for block in blocks]
    passes = [count_passes(one.planned) if number else [] for one, number in zip(blocks, expected, strict=True)]
    expected = [number + sum(of_block) for number, of_block in zip(expected, passes, strict=True)]
    filled = sum(block.num_filled for block, number in zip(blocks, expected, strict=True) if number)
    if filled:
        words = "words in their place" if spec.scoring == "replaced_token" else "words of several tokens"
        progress.say(f"{name}: {words} ask about {filled:,} filled prompts at most, a forward pass each.")
    if any(passes):
        number, taken = sum(map(len, passes)), sum(map(sum, passes))
        progress.say(f"{name}: {number:,} fits take at most {taken:,} example passes, which count as prompts here.")
    if any(expected):
        progress.start(name, sum(expected))
    began, before, fitted_before = time.perf_counter(), done.tally.num_forwards, _fit_seconds(done)
    looking = _Looking(spec, model, progress, done)
    for block, number in zip(blocks, expected, strict=True):
        if number or block.contexts or _must_keep(spec, block.planned, store):
            _score_block(spec, model, block, store, progress, done, expected=number, looking=looking)
    if done.tally.num_forwards > before:
        done.seconds[f"score {name}"] = time.perf_counter() - began - (_fit_seconds(done) - fitted_before)
        return True
    can_be_scored = any(has_prompts(block, store.block(block.planned.block_id)) for block in blocks)
    why = "every score is stored already" if can_be_scored else "no row fits into the length"
    progress.say(f"{name}: {why}, no forward pass is needed.")
    return False


def _score_block(
    spec: RunSpec,
    model: PlannedModel,
    prepared: Prepared,
    store: RunStore,
    progress: Progress,
    done: Cost,
    *,
    expected: int,
    looking: _Looking,
) -> None:
    """Encode one block and score what it lacks, window by window; the model is looked at before its first one."""
    block_store, left = store.block(prepared.planned.block_id), expected

    def advance(num_prompts: int) -> None:
        nonlocal left
        left -= num_prompts
        progress.advance(num_prompts)

    block = encode_block(prepared, block_store, model.encoder, seed=spec.seed)
    if prepared.planned.fit is not None and (block.num_missing or _must_keep(spec, prepared.planned, store)):
        looking.at_model()
        with _fit(spec, model, prepared.planned, store, done, advance, looking) as fitted:
            _score_encoded(spec, fitted, model.encoder, block, store, done, advance, looking)
    elif block.num_missing and prepared.planned.projects is not None:
        projected, words = projected_backend(model.backend, store.block(prepared.planned.projects).read_fit())
        block_store.write_fit({"method": PROJECTED, "words": words}, {})
        _score_encoded(spec, projected, model.encoder, block, store, done, advance, looking)
    else:
        if block.num_missing:
            _fill_from_states(model, prepared, block_store)
        _score_encoded(spec, model.backend, model.encoder, block, store, done, advance, looking)
    progress.advance(left)  # repeats, rows that do not fit and fills that no prompt took were expected and not scored


def _score_encoded(
    spec: RunSpec,
    backend: Backend,
    encoder: Encoder,
    block: EncodedBlock,
    store: RunStore,
    done: Cost,
    advance: Callable[[int], None],
    looking: _Looking,
) -> None:
    """Score what an encoded block lacks, window by window."""
    prepared = block.prepared
    block_store = store.block(prepared.planned.block_id)
    stored, tally = block_store.read(), Tally()
    size = BatchSize.parse(spec.batch_size, backend.device)
    for prompts in missing_windows(block, block_store, stored, encoder, seed=spec.seed):
        looking.at_model()
        part = score_block(
            backend,
            block_store,
            prompts,
            prepared.token_ids or [],
            batch_size=size,
            on_batch=advance,
            stored=stored,
            keep_states=spec.store_states,
        )
        tally.add_all(part)
    for filled, words, known in fill_windows(block, block_store, encoder, seed=spec.seed):
        looking.at_model()
        _, part = score_fills(
            backend,
            filled,
            words,
            known,
            mask_id=encoder.mask_id,
            batch_size=size,
            on_batch=advance,
            on_part=block_store.append_fills,
        )
        tally.add_all(part)
    done.tally.add_all(tally)
    if tally.num_prompts:
        store.event("scored", block=prepared.planned.block_id, prompts=tally.num_prompts)


@contextlib.contextmanager
def _fit(
    spec: RunSpec,
    model: PlannedModel,
    planned: PlannedBlock,
    store: RunStore,
    done: Cost,
    advance: Callable[[int], None],
    looking: _Looking,
) -> Iterator[Backend]:
    """What a method makes of a model, until its block is scored."""
    is_new = looking.is_new(planned)
    found = fit_block(planned, model.backend, model.encoder, seed=spec.seed, on_fit=advance, look_first=is_new)
    with found.fitted as fitted:
        store.block(planned.block_id).write_fit(found.record, found.cost)
        if _must_keep(spec, planned, store):
            _keep(spec, model, planned, found, store)
        name = f"{model.backend.scorer.model} {found.record['method']}"
        for part in ("search", "fit"):
            key = f"{part} {name}"
            done.seconds[key] = done.seconds.get(key, 0.0) + found.cost[f"{part}_s"]
        yield fitted.backend


def _must_keep(spec: RunSpec, planned: PlannedBlock, store: RunStore) -> bool:
    """Whether the fit of a block is to be kept as an artefact and is not yet."""
    is_fitted_here = planned.fit is not None and planned.fit.artefact is None
    return spec.save_fits and is_fitted_here and not is_kept(planned, folder_of(planned, store.folder))


def _keep(spec: RunSpec, model: PlannedModel, planned: PlannedBlock, found: Fit, store: RunStore) -> None:
    """Save what was fitted for a block, before anything is scored with it."""
    assert isinstance(model.backend, MaskedBackend)
    artefact = make_artefact(planned, found, model.backend, seed=spec.seed)
    save_artefact(artefact, folder_of(planned, store.folder), model.backend)


def _choosing(spec: RunSpec, plan: RunPlan) -> dict[str, Choosing]:
    """What chooses a hard prompt of each task by its shots."""
    return {
        name: Choosing([Draw.of(one) for one in shots], spec.selection) for name, shots in plan.loaded.shots.items()
    }


@dataclass(slots=True, eq=False)
class _Looking:
    """What is looked at before time is spent: the model once, and each method once with each template."""

    spec: RunSpec
    model: PlannedModel
    progress: Progress
    done: Cost
    _has_looked: bool = False
    _methods: set[tuple[str, str]] = field(default_factory=set)

    def at_model(self) -> None:
        """The preflight of a model that has something to score; nothing the second time.

        Raises:
            ModelError: the model fails it.
        """
        if self.spec.skip_preflight or self._has_looked:
            return
        self._has_looked = True
        self.model.backend.facts()  # loads the weights, which is not what is timed
        name, began = self.model.backend.scorer.model, time.perf_counter()
        for check in preflight(self.model.backend):
            if check.status == "warn":
                self.progress.say(f"{name}, {check.name}: {check.found}. {check.remedy}")
        self.done.seconds[f"preflight {name}"] = time.perf_counter() - began

    def is_new(self, planned: PlannedBlock) -> bool:
        """Whether the method of a block has still to be looked at with its template."""
        if self.spec.skip_preflight or planned.fit is None or planned.fit.artefact is not None:
            return False
        key = (planned.fit.method.name, planned.template.template.hash)
        is_new = key not in self._methods
        self._methods.add(key)
        return is_new


def _fit_seconds(done: Cost) -> float:
    """How long searches and fits took so far."""
    return sum(seconds for name, seconds in done.seconds.items() if name.split()[0] in ("search", "fit"))


def _fill_from_states(model: PlannedModel, prepared: Prepared, block_store: BlockStore) -> None:
    """Score new tokens from the last states that are stored, where they are."""
    new = sorted(set(prepared.token_ids or []) - set(block_store.read().columns))
    score_from_states(model.backend, block_store, new)


def _stored(block: Prepared) -> StoredBlock:
    planned = block.planned
    return StoredBlock(
        planned.block_id, planned.cells, block.names, planned.faults, planned.template.shown, planned.is_baseline
    )
