"""Run spec -> a run folder: score what is missing, decide every cell, store results and say what happened.

The same command again finds everything stored and does no forward pass; a killed run continues where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from promptlab.backends.base import Backend
from promptlab.baselines import find_baselines
from promptlab.batching import BatchSize
from promptlab.calibration import CONTENT_FREE_TEXTS
from promptlab.deciding import BlockRows, decide, skip
from promptlab.encoding import Encoder
from promptlab.errors import DataError, LabelWordError, UsageError
from promptlab.hashing import content_hash
from promptlab.label_words import find_word_ids, require, slot_contexts
from promptlab.planning import Grid, PlannedBlock, load_all_rows, make_grid, plan_blocks, plan_digest
from promptlab.provenance import Cost, find_model_facts, make_manifest, make_timings
from promptlab.registry import BACKENDS
from promptlab.rendering import check_one_mask, content_free_example, render
from promptlab.results import Result, RunResults, write_results
from promptlab.rows import RowSet
from promptlab.scoring import num_missing, score_block
from promptlab.specs.run import RunSpec
from promptlab.store import BlockStore, PromptRow, RunStore, write_json
from promptlab.types import EncodedPrompt, Example, Prompt, Unscorable
from promptlab.verbalizing import check_collisions


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


@dataclass(slots=True)
class Prepared:
    """A block whose rows are known, and what of it must be encoded and scored."""

    planned: PlannedBlock
    rows: BlockRows
    prompts: list[EncodedPrompt]
    num_missing: int


@dataclass(frozen=True, slots=True, eq=False)
class RunPlan:
    """What a run will do. `failures` names the tasks without readable rows, with the reason; `grid` lacks them."""

    name: str
    grid: Grid
    rows: dict[str, RowSet]
    failures: dict[str, str]
    models: list[tuple[Backend, list[PlannedBlock]]]


def plan_run(spec: RunSpec) -> RunPlan:
    """Grid, rows, blocks of every model, and the run's name; nothing is scored."""
    grid = make_grid(spec)
    loaded = load_all_rows(spec, grid)
    grid = replace(grid, tasks=tuple(task for task in grid.tasks if task.name in loaded.rows))
    models, seen = list[tuple[Backend, list[PlannedBlock]]](), dict[str, str]()
    for model in dict.fromkeys(spec.models):
        backend: Backend = BACKENDS.get("mlm")(model, revision=spec.revision, device=spec.device, dtype=spec.dtype)
        other = seen.setdefault(content_hash(backend.scorer.identity()), model)
        if other != model:
            raise UsageError(f"--model {model}: has the same weights and tokenizer as '{other}': name one of them.")
        max_length = backend.encoder(spec.max_length).max_length
        models.append((backend, plan_blocks(grid, loaded.rows, backend.scorer, max_length=max_length, seed=spec.seed)))
    blocks = [block for _, of_model in models for block in of_model]
    return RunPlan(spec.name or _default_name(spec, blocks), grid, loaded.rows, loaded.failures, models)


def execute(spec: RunSpec, *, progress: Progress | None = None, command: str | None = None) -> RunResults:
    """Run what is missing of a spec and store its results.

    Args:
        spec: what was asked for.
        progress: told what happens.
        command: the command line, kept in the manifest so that the run can be repeated.

    Raises:
        PromptlabError: a fault that the user can mend; nothing finished is lost.
    """
    started = time.perf_counter()
    progress = progress or Silence()
    plan = plan_run(spec)
    store = RunStore(Path(spec.output_path).expanduser() / plan.name)
    store.prepare()
    store.event("started", command=command)
    for reason in plan.failures.values():
        progress.say(f"left out: {reason}")
    done, results, facts = Cost(), list[Result](), list[dict[str, Any]]()
    for backend, blocks in plan.models:
        prepared = _prepare_model(spec, plan.grid, backend, blocks, store)
        _score_model(spec, backend, prepared, store, progress, done)
        facts.append(find_model_facts(backend, store, has_scored=any(block.num_missing for block in prepared)))
        results += _decide_model(spec, prepared, store)
    done.seconds["total"] = time.perf_counter() - started
    stored = RunResults(
        folder=store.folder,
        manifest=make_manifest(spec, plan.name, plan.rows, plan.models, facts, command, failures=plan.failures),
        results=tuple(results),
        baselines=tuple(find_baselines(plan.grid.tasks, plan.rows, data=spec.data)),
        timings=make_timings(done, store.last_timings()),
    )
    write_json(store.folder / "manifest.json", stored.manifest)
    write_results(stored)
    store.drop_old_samples(result.cell for result in results)
    store.event("finished", forwards=done.tally.num_forwards)
    return stored


def _default_name(spec: RunSpec, blocks: Sequence[PlannedBlock]) -> str:
    models = "+".join(Path(model).name or model for model in spec.models)
    safe = "".join(character if character.isalnum() or character in "._+-" else "-" for character in models)
    return f"{safe}-{plan_digest(blocks, seed=spec.seed)[:8]}"


def _prepare_model(
    spec: RunSpec, grid: Grid, backend: Backend, blocks: Sequence[PlannedBlock], store: RunStore
) -> list[Prepared]:
    """Rows and words of every block, from the store where they are there; all word faults before any forward."""
    encoder = backend.encoder(spec.max_length)
    prepared = [_prepare(spec, encoder, block, store.block(block.block_id)) for block in blocks]
    _refuse_words(grid, prepared)
    return prepared


def _refuse_words(grid: Grid, blocks: Sequence[Prepared]) -> None:
    """Refuse what was asked for by name and cannot be decided; what only a glob asked for is skipped, in the open.

    A verbalizer asked for by name must work with every template asked for by name, and with at least one of all.

    Raises:
        LabelWordError: every word that splits, collides, is unknown or changes its neighbours.
    """
    faults: list[str] = []
    usable: dict[str, bool] = {}
    reasons: dict[str, list[str]] = {}
    for block in (block for block in blocks if not block.planned.is_baseline):
        for verbalizer in {cell.verbalizer.name: cell.verbalizer for cell in block.planned.cells}.values():
            fault = _word_fault(block, verbalizer)
            usable[verbalizer.name] = usable.get(verbalizer.name, False) or fault is None
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
        raise LabelWordError(f"no label word of {names} is one token of this model: use other words.")


def _word_fault(block: Prepared, verbalizer: Any) -> str | None:
    """Why a verbalizer cannot be used with a block's template, or None."""
    where = f"{verbalizer.path} with {block.planned.template.shown}"
    try:
        check_collisions(verbalizer, require(block.rows.words, verbalizer.words, where=where))
    except LabelWordError as error:
        return str(error)
    return None


def _prior_fault(block: Prepared, calibration: str) -> str | None:
    """Why there is no prior to calibrate with, or None."""
    reason = next((row.reason for row in block.rows.content_free if row.prompt_key is None), None)
    if reason is None or calibration == "none":
        return None
    return f"{block.planned.template.template.name}: the content-free texts of '{calibration}' have no scores: {reason}"


def _prepare(spec: RunSpec, encoder: Encoder, block: PlannedBlock, store: BlockStore) -> Prepared:
    """The rows of a block: read back where they are stored, else rendered and encoded."""
    stored = store.read_rows(block.rows_name)
    if stored is not None and set(block.candidate_words) <= set(stored[1]["words"]):
        rows = _split_rows(stored[0], stored[1]["words"])
        keys = [(row.prompt_key, 1) for row in stored[0] if row.prompt_key]
        missing = num_missing(store, keys, _token_ids(rows.words))
        again = _encode(spec, encoder, block)[1] if missing else []
        return Prepared(block, rows, _scorable(again), missing)
    prompt_rows, encoded, words = _encode(spec, encoder, block)
    store.describe(block.identity)
    store.write_rows(block.rows_name, prompt_rows, {"words": words, "rows": block.rows.hash})
    prompts = _scorable(encoded)
    missing = num_missing(store, [(prompt.key, 1) for prompt in prompts], _token_ids(words))
    return Prepared(block, _split_rows(prompt_rows, words), prompts, missing)


def _scorable(encoded: Sequence[EncodedPrompt | Unscorable]) -> list[EncodedPrompt]:
    return [prompt for prompt in encoded if isinstance(prompt, EncodedPrompt)]


def _encode(
    spec: RunSpec, encoder: Encoder, block: PlannedBlock
) -> tuple[list[PromptRow], list[EncodedPrompt | Unscorable], dict[str, int | str]]:
    """Render and encode the rows and the content-free texts of a block, and find the words of its slot."""
    examples = [*block.rows.examples, *(content_free_example(block.task.fields, text) for text in CONTENT_FREE_TEXTS)]
    prompts = [render(block.template, example, options=block.options, seed=spec.seed) for example in examples]
    for example, rendered in zip(examples, prompts, strict=True):
        check_one_mask(block.template, example, rendered)
    encoded = _encode_prompts(encoder, block, examples, prompts)
    contexts = {context: None for prompt in prompts for context in slot_contexts(prompt)}
    words = find_word_ids(encoder, block.candidate_words, list(contexts))
    rows = []
    for example, prompt in zip(examples, encoded, strict=True):
        if isinstance(prompt, Unscorable):
            rows.append(PromptRow(example.id, example.index, None, 0, prompt.reason))
            continue
        rows.append(PromptRow(example.id, example.index, prompt.key, prompt.num_truncated))
    return rows, encoded, words


def _encode_prompts(
    encoder: Encoder, block: PlannedBlock, examples: Sequence[Example], prompts: Sequence[Prompt]
) -> list[EncodedPrompt | Unscorable]:
    """Token ids of all prompts at once; what one of them is refused for is said with its template and row."""
    try:
        return encoder.encode(prompts)
    except DataError:
        for example, prompt in zip(examples, prompts, strict=True):
            try:
                encoder.encode([prompt])
            except DataError as error:
                raise DataError(f"{block.template.shown}, row {example.id}: {error}") from None
        raise


def _split_rows(rows: Sequence[PromptRow], words: dict[str, int | str]) -> BlockRows:
    """Rows of the split apart from the content-free texts, which are stored behind them."""
    number = len(rows) - len(CONTENT_FREE_TEXTS)
    return BlockRows(rows[:number], rows[number:], words)


def _token_ids(words: dict[str, int | str] | Any) -> list[int]:
    return sorted({token for token in words.values() if isinstance(token, int)})


def _score_model(
    spec: RunSpec,
    backend: Backend,
    blocks: Sequence[Prepared],
    store: RunStore,
    progress: Progress,
    done: Cost,
) -> None:
    """Score what every block of one model lacks."""
    total = sum(block.num_missing for block in blocks)
    if total == 0:
        has_prompts = any(row.prompt_key for block in blocks for row in block.rows.rows)
        why = "every score is stored already" if has_prompts else "no row fits into the length"
        progress.say(f"{backend.scorer.model}: {why}, no forward pass is needed.")
        return
    progress.start(backend.scorer.model, total)
    began = time.perf_counter()
    batch_size = BatchSize.parse(spec.batch_size, backend.device)
    for block in blocks:
        if block.num_missing:
            tally = score_block(
                backend,
                store.block(block.planned.block_id),
                block.prompts,
                _token_ids(block.rows.words),
                batch_size=batch_size,
                on_batch=progress.advance,
            )
            done.tally.num_forwards += tally.num_forwards
            done.tally.num_prompts += tally.num_prompts
            done.tally.num_tokens += tally.num_tokens
            done.tally.num_back_offs += tally.num_back_offs
            store.event("scored", block=block.planned.block_id, prompts=tally.num_prompts)
    done.seconds[f"score {backend.scorer.model}"] = time.perf_counter() - began


def _decide_model(spec: RunSpec, blocks: Sequence[Prepared], store: RunStore) -> list[Result]:
    results = []
    for block in blocks:
        stored = store.block(block.planned.block_id).read()
        gold = [example.label for example in block.planned.rows.examples]
        for cell in block.planned.cells:
            fault = _word_fault(block, cell.verbalizer) or _prior_fault(block, cell.calibration)
            if fault:
                results.append(skip(cell, len(gold), fault))
                continue
            word_ids = {word: int(block.rows.words[word]) for word in cell.verbalizer.words}
            decision = decide(cell, stored, block.rows, gold, seed=spec.seed, word_ids=word_ids)
            store.write_samples(cell.cell_id, decision.samples, {"labels": list(cell.task.labels)})
            results.append(decision.result)
    return results
