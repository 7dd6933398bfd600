"""Stored run + more verbalizers, calibrations, metrics or ensembles -> the run that would have been, without a forward.

Everything that is decided comes from the run's folder: neither its rows nor its model are needed, and no torch. New
words are the exception: they are looked up by the model's tokenizer, and scored from the states at masks that
`--store-states` kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.block_scores import BlockScores
from promptlab.blocks import BlockStore
from promptlab.calibration import CONTENT_FREE, ROWS, find_calibration
from promptlab.choosing import Choosing, Draw
from promptlab.deciding import Cell, segment_name, word_fault
from promptlab.errors import LabelWordError, StoreError, UsageError
from promptlab.evaluation import StoredBlock, evaluate
from promptlab.filling import reserve_of, word_sums
from promptlab.fit_planning import UNCALIBRATED
from promptlab.grids import check_metrics, fits, is_glob, no_such_masks, select_calibrations, verbalizes
from promptlab.new_words import add_words
from promptlab.planning import cell_id, first_of_each, plan_digest, plan_ensembles
from promptlab.provenance import Cost, describe_verbalizers, make_timings
from promptlab.results import Agreement, Result, RunResults, read_results, write_results
from promptlab.specs.run import make_run_spec
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer, load_verbalizers
from promptlab.store import RunStore
from promptlab.verbalizing import usable_words


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """The decision rules of the amended run."""

    verbalizers: tuple[Verbalizer, ...]
    calibrations: tuple[str, ...]
    metrics: tuple[str, ...]
    ensembles: Mapping[str, Sequence[str]]


def rescore(
    folder: Path,
    *,
    verbalizers: Sequence[Any] = (),
    calibrations: Sequence[str] = (),
    metrics: Sequence[str] = (),
    ensembles: Any = None,
    include: Sequence[str] = (),
    command: str | None = None,
) -> RunResults:
    """Decide a stored run again, with more decision rules than it had; all of its cells are written anew.

    Args:
        folder: the run.
        verbalizers: selectors of verbalizers, as `promptlab run` takes them.
        calibrations: names or globs.
        metrics: names.
        ensembles: as `promptlab run` takes them.
        include: folders with verbalizers of the user's own.
        command: kept in the manifest.

    Raises:
        StoreError: the folder holds no finished run, or one without what is needed.
        UsageError: a rule that the run cannot be decided by, with the command that makes it possible.
    """
    started = time.perf_counter()
    run = read_results(folder)
    if "blocks" not in run.manifest:
        raise StoreError(f"{folder}: was made by an older promptlab. Run its command again, then rescore it.")
    spec = make_run_spec({"ensembles": ensembles} if ensembles else {})
    old = _stored_rule(run)
    found = load_verbalizers(list(verbalizers), include=include)
    rule = _Rule(
        tuple(first_of_each((one.name, one) for one in [*old.verbalizers, *found])),
        tuple(dict.fromkeys([*old.calibrations, *select_calibrations(calibrations)])),
        tuple(dict.fromkeys([*old.metrics, *metrics])),
        {**old.ensembles, **spec.ensembles},
    )
    _refuse_other_words(run, old.verbalizers, found)
    named = frozenset(str(name) for name in calibrations if not is_glob(name))
    chosen = load_verbalizers([one for one in verbalizers if not is_glob(one)], include=include)
    done = _decide(run, rule, named=named | {one.name for one in chosen}, new=found)
    manifest = _amended(run, rule, done, added={"verbalizers": list(verbalizers)}, command=command)
    cost = Cost(seconds={"total": time.perf_counter() - started})
    results = replace(
        run,
        manifest=manifest,
        results=tuple(done.results),
        agreements=tuple(done.agreements),
        few_shot=tuple(done.few_shot),
        timings=make_timings(cost, run.timings),
    )
    store = RunStore(folder)
    write_results(results)
    store.drop_old_samples(result.samples for result in [*results.results, *results.few_shot])
    store.event("rescored", command=command)
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Decided:
    results: list[Result]
    agreements: list[Agreement]
    cells: list[str]
    verbalizers: list[Verbalizer]
    few_shot: list[Result]


def _stored_rule(run: RunResults) -> _Rule:
    """The rules that a run was decided by, from its manifest."""
    stored: Mapping[str, Any] = run.manifest["verbalizers"]
    spec = run.manifest["spec"]
    return _Rule(
        tuple(_verbalizer(name, stored[name]) for name in run.manifest["verbalizer_order"] if name in stored),
        tuple(dict.fromkeys(result.calibration for result in run.results)),
        tuple(spec.get("metrics", ())),
        {name: tuple(selectors) for name, selectors in spec.get("ensembles", {}).items()},
    )


def _verbalizer(name: str, stored: Mapping[str, Any]) -> Verbalizer:
    words = {
        label: dict(zip(words, stored["weights"][label], strict=True)) for label, words in stored["labels"].items()
    }
    return Verbalizer(
        name=name,
        family=stored["family"],
        path=stored["shown"],
        labels=words,  # type: ignore[arg-type]  # a validator turns words with weights into LabelWords
        pool=stored["pool"],
        multi_token=stored.get("multi_token", "refuse"),
        normalize=stored.get("normalize", "sum"),
        reference=stored["reference"],
    )


def _decide(run: RunResults, rule: _Rule, *, named: frozenset[str], new: Sequence[Verbalizer]) -> _Decided:
    """Every cell of every model under the amended rules; what is named and not found by a glob must work."""
    manifest, store = run.manifest, RunStore(run.folder)
    tasks = {name: _task(name, item["spec"]) for name, item in manifest["tasks"].items()}
    _refuse_verbalizers(new, tasks.values())
    check_metrics(rule.metrics, list(tasks.values()))
    for name in rule.calibrations:
        _refuse_calibration(run, name, is_named=name in named)
    decided, used = _Decided([], [], [], [], []), set[str]()
    for model in dict.fromkeys(entry["model"] for entry in manifest["blocks"]):
        entries = [entry for entry in manifest["blocks"] if entry["model"] == model]
        blocks = [block for entry in entries if (block := _block(manifest, entry, tasks[entry["task"]], rule))]
        add_words(run, store, model, blocks)
        _refuse_words(store, blocks, [one for one in new if one.name in named])
        for block in blocks:
            _refuse_fills(run, store.block(block.block_id), block)
        asked = [cell for block in blocks if not block.is_baseline and not block.is_fitted for cell in block.cells]
        used |= {cell.verbalizer.hash for cell in asked}
        ensembles = plan_ensembles(rule.ensembles, asked)
        choosing = _choosing(manifest)
        found = evaluate(store, blocks, ensembles, seed=manifest["seed"], metrics=rule.metrics, choosing=choosing)
        decided.results.extend(found.results)
        decided.few_shot.extend(found.few_shot)
        decided.agreements.extend(found.agreements)
        cells = [*(cell for block in blocks for cell in block.cells), *ensembles]
        decided.cells.extend(cell.cell_id for cell in cells)
        decided.verbalizers.extend(cell.verbalizer for cell in cells)
    for verbalizer in (one for one in new if one.name in named and one.hash not in used):
        raise LabelWordError(f"{no_such_masks(verbalizer)}, and no template of run '{run.name}' has so many.")
    return decided


def _choosing(manifest: Mapping[str, Any]) -> dict[str, Choosing]:
    """What chooses a hard prompt of each task by its stored shots."""
    rule = manifest["spec"].get("selection", "")
    return {
        name: Choosing([Draw.stored(one) for one in item["shots"]], rule)
        for name, item in manifest["tasks"].items()
        if "shots" in item
    }


def _task(name: str, stored: Mapping[str, Any]) -> Task:
    return Task.model_validate({**stored, "name": name, "path": f"{name}.yaml"})


def _block(manifest: Mapping[str, Any], entry: Mapping[str, Any], task: Task, rule: _Rule) -> StoredBlock | None:
    """A stored block with the cells that the rules give it; a bound block keeps its one verbalizer."""
    template = manifest["templates"][entry["template"]]
    facts = next(item for item in manifest["models"] if item["model"] == entry["model"])
    num_masks = template.get("num_masks")
    is_fitted = "method" in entry
    fitting = [one for one in rule.verbalizers if verbalizes(one, task) and fits(num_masks, one)]
    if entry["bound"] is not None:
        fitting = [one for one in fitting if one.name == entry["bound"]]
    if is_fitted:  # its words are its own, and there is one way to decide it
        fitting = [_verbalizer(entry["bound"], manifest["verbalizers"][entry["bound"]])]
    distinct = first_of_each((one.hash, one) for one in fitting)
    cells = tuple(
        Cell(
            cell_id=cell_id(
                entry["block"],
                task,
                entry["rows_hash"],
                verbalizer,
                calibration,
                None if is_fitted else entry["group_hashes"].get(find_calibration(calibration).prompts or ""),
            ),
            block_id=entry["block"],
            model=entry["model"],
            task=task,
            split=entry["split"],
            template=entry["template"],
            template_tags=tuple(template["tags"]),
            verbalizer=verbalizer,
            calibration=calibration,
            samples=f"{task.name}-{entry['block'][:16]}",
            scoring=facts.get("scoring", "mask"),
            **{key: entry[key] for key in ("method", "answers", "num_shots", "draw") if key in entry},
        )
        for verbalizer in distinct
        for calibration in (rule.calibrations if not is_fitted else (UNCALIBRATED,))
    )
    if not cells:
        return None
    return StoredBlock(
        entry["block"], cells, entry["segments"], entry["faults"], template["shown"], entry["is_baseline"]
    )


def _refuse_verbalizers(new: Sequence[Verbalizer], tasks: Iterable[Task]) -> None:
    """Refuse a verbalizer that fits none of the run's tasks."""
    known = list(tasks)
    for verbalizer in new:
        if not any(verbalizes(verbalizer, task) for task in known):
            shown = "; ".join(f"{task.name}: {', '.join(task.labels)}" for task in known)
            raise UsageError(
                f"verbalizer '{verbalizer.name}' has the labels {', '.join(verbalizer.labels)}, which no task of the "
                f"run has ({shown})."
            )


def _refuse_other_words(run: RunResults, old: Sequence[Verbalizer], new: Sequence[Verbalizer]) -> None:
    """Refuse a verbalizer that has the name of another one of the run."""
    hashes = {one.name: one.hash for one in old}
    for one in new:
        if hashes.get(one.name, one.hash) != one.hash:
            raise UsageError(
                f"verbalizer '{one.name}' has other words, weights or pool than in run '{run.name}': give it another "
                "name."
            )


def _refuse_words(store: RunStore, blocks: Sequence[StoredBlock], named: Sequence[Verbalizer]) -> None:
    """Refuse a verbalizer that was asked for by name and works with none of the templates."""
    for verbalizer in named:
        faults = []
        for block in (block for block in blocks if not block.is_baseline):
            for cell in [cell for cell in block.cells if cell.verbalizer.name == verbalizer.name][:1]:
                words = store.block(block.block_id).read_rows(block.names[ROWS]).words
                faults.append(word_fault(words, verbalizer, cell.rule, block.shown))
        if faults and all(faults):
            raise LabelWordError(str(faults[0]))


def _refuse_fills(run: RunResults, store: BlockStore, block: StoredBlock) -> None:
    """Refuse words that ask about more than the block has, in its rows or in the prompts of a calibration."""
    scores = store.read()
    for cell in first_of_each((cell.verbalizer.hash, cell) for cell in block.cells):
        needed = {ROWS, CONTENT_FREE, *(find_calibration(one.calibration).prompts for one in block.cells)}
        asked = [name for name in block.names if name in needed]
        if not all(_is_scored(store, scores, block, cell, name) for name in asked):
            in_place = cell.scoring == "replaced_token"
            what = "words in their place" if in_place else "words of several tokens"
            raise UsageError(
                f"verbalizer '{cell.verbalizer.name}' asks about {what} that run '{run.name}' did not score with "
                f"{block.shown}: run its command again with --amend and all verbalizers."
            )


def _is_scored(store: BlockStore, scores: BlockScores, block: StoredBlock, cell: Cell, segment: str) -> bool:
    """Whether all is stored that the words of a cell ask about the prompts of a segment, if they can be used."""
    words = store.read_rows(block.names[segment]).words
    if word_fault(words, cell.verbalizer, cell.rule, block.shown) is not None:
        return True
    tokens = list(usable_words(words, cell.verbalizer).values())
    name = block.names.get(segment_name(segment, reserve_of(tokens, cell.rule)))
    if name is None:
        return False
    keys = store.read_rows(name).rows.keys
    return not np.isnan(word_sums(scores, keys[keys != b""], tokens, cell.rule)).any()


def _refuse_calibration(run: RunResults, name: str, *, is_named: bool) -> None:
    """Refuse a calibration whose prompts the run did not score, or that no block of it can use."""
    needed = find_calibration(name).prompts
    if needed is None or needed == ROWS:
        return
    blocks = [entry for entry in run.manifest["blocks"] if "method" not in entry]
    absent = [entry for entry in blocks if needed not in entry["segments"] and needed not in entry["faults"]]
    if absent:
        raise UsageError(
            f"calibration '{name}' needs prompts that run '{run.name}' did not score: run its command again with "
            f"--amend --prepare {name}."
        )
    if is_named and blocks and all(needed in entry["faults"] for entry in blocks):
        raise UsageError(f"calibration '{name}' {blocks[0]['faults'][needed]}")


def _amended(
    run: RunResults, rule: _Rule, done: _Decided, *, added: Mapping[str, Sequence[Any]], command: str | None
) -> dict[str, Any]:
    """The manifest of the run as if it had been asked for with the amended rules, and the commands that amended it."""
    manifest = dict(run.manifest)
    spec = dict(manifest["spec"])
    known = [*spec["verbalizers"]]
    new = [item if isinstance(item, str) else _as_stored(item) for item in added["verbalizers"]]
    spec["verbalizers"] = [*known, *(item for item in new if item not in known)]
    spec["calibrations"] = list(rule.calibrations)
    spec["metrics"] = list(rule.metrics)
    spec["ensembles"] = {name: list(selectors) for name, selectors in rule.ensembles.items()}
    manifest |= {
        "spec": spec,
        "plan": plan_digest(done.cells, seed=manifest["seed"]),
        "verbalizers": {**manifest["verbalizers"], **describe_verbalizers(_new(done, manifest))},
        "verbalizer_order": list(
            dict.fromkeys([*manifest["verbalizer_order"], *(one.name for one in rule.verbalizers)])
        ),
        "rescored": [*manifest.get("rescored", []), *([command] if command else [])],
    }
    return manifest


def _new(done: _Decided, manifest: Mapping[str, Any]) -> list[Verbalizer]:
    return [one for one in done.verbalizers if one.name not in manifest["verbalizers"]]


def _as_stored(item: Any) -> Any:
    return item.model_dump(mode="json") if isinstance(item, Verbalizer) else dict(item)
