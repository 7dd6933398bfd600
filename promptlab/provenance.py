"""What was run, by what and at what cost: the manifest, the effective facts of each model, and the timings."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from promptlab._version import __version__
from promptlab.adaptations import read_adaptation
from promptlab.backends.base import Backend
from promptlab.deciding import Cell
from promptlab.evaluation import StoredBlock
from promptlab.files import SCHEMA_VERSION, read_json, write_json
from promptlab.grids import Grid, LoadedRows
from promptlab.planning import PlannedBlock, plan_digest
from promptlab.scoring import Tally
from promptlab.specs.base import Spec
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import RunStore


@dataclass(slots=True)
class Cost:
    """What one call did and how long it took; `fits` has the cost of each fit, by its block."""

    tally: Tally = field(default_factory=Tally)
    seconds: dict[str, float] = field(default_factory=dict)
    fits: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def make_manifest(
    spec: RunSpec,
    name: str,
    loaded: LoadedRows,
    grid: Grid,
    planned: Sequence[PlannedBlock],
    facts: list[dict[str, Any]],
    command: str | None,
    stored: Sequence[StoredBlock],
    ensembles: Sequence[Cell],
) -> dict[str, Any]:
    """The plan and every input of a run, and the tasks whose rows could not be read: equal for two equal runs."""
    cells = [cell for block in planned for cell in block.cells]
    return {
        "schema_version": SCHEMA_VERSION,
        "run": name,
        "command": command,
        "plan": plan_digest((cell.cell_id for cell in [*cells, *ensembles]), seed=spec.seed),
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "max_length": {block.scorer.model: block.identity["max_length"] for block in planned},
        "models": facts,
        "tasks": {task.name: describe_task(task, loaded) for task in grid.tasks},
        "templates": {
            block.template.template.name: {
                "hash": block.template.template.hash,
                **_dump(block.template.template, without=("name", "path", "first_line", "notes")),
                "shown": block.template.shown,
                "tags": list(block.template.template.tags),
                "num_masks": block.template.num_masks,
            }
            for block in planned
        },
        "verbalizers": describe_verbalizers(cell.verbalizer for cell in cells),
        "verbalizer_order": list(dict.fromkeys(one.name for one in grid.verbalizers)),
        "blocks": [describe_block(block, one) for block, one in zip(planned, stored, strict=True)],
        "failures": loaded.failures,
        "versions": find_versions(),
    }


def describe_task(task: Task, loaded: LoadedRows) -> dict[str, Any]:
    """A task and its rows, as the manifest keeps them; its own text is whole, so that it can be made again."""
    rows = loaded.rows[task.name]
    train = loaded.train.get(task.name)
    return {
        "hash": task.hash,
        "split": rows.split,
        "rows": rows.hash,
        "num_rows": len(rows.examples),
        "num_in_source": rows.num_in_source,
        "gold_counts": rows.gold_counts(),
        "metrics": list(task.metrics),
        "source": dict(rows.source),
        "train_in_scored": train.num_in_scored if train is not None else None,
        **_describe_shots(loaded, task),
        "spec": _dump(task, without=("name", "path")),
    }


def _describe_shots(loaded: LoadedRows, task: Task) -> dict[str, Any]:
    """The shots of a task: each draw's rows of the largest number, and what they were drawn from."""
    pool, drawn = loaded.pools.get(task.name), loaded.shots.get(task.name, ())
    if pool is None or not drawn:
        return {}
    draws = [
        {
            "num_shots": one.num_shots,
            "draw": one.draw,
            "rows": list(one.examples.id_texts()),
            "gold": one.label_indices.tolist(),
        }
        for one in drawn
    ]
    return {
        "shots": draws,
        "pool": {"rows": len(pool.examples), "in_scored": pool.num_in_scored, "unlabelled": pool.num_unlabelled},
    }


def describe_verbalizers(verbalizers: Iterable[Verbalizer]) -> dict[str, Any]:
    """Verbalizers by name, as the manifest keeps them."""
    return {
        one.name: {
            "hash": one.hash,
            "pool": one.pool,
            "multi_token": one.multi_token,
            "normalize": one.normalize,
            "labels": {label: [word.word for word in words] for label, words in one.labels.items()},
            "weights": {label: [word.weight for word in words] for label, words in one.labels.items()},
            "family": one.family,
            "shown": one.path,
            "reference": one.reference,
        }
        for one in verbalizers
    }


def describe_block(block: PlannedBlock, stored: StoredBlock) -> dict[str, Any]:
    """A block and the files that its decisions are made from, so that they can be made again without the rows."""
    return {
        "block": block.block_id,
        "model": block.scorer.model,
        "task": block.task.name,
        "split": block.rows.split,
        "template": block.template.template.name,
        "bound": block.bound.name if block.bound is not None else None,
        "is_baseline": block.is_baseline,
        "rows_hash": block.rows_hash,
        "segments": dict(stored.names),
        "group_hashes": {name: group.hash for name, group in block.groups.items()},
        "faults": dict(stored.faults),
        **_describe_fit(block),
    }


def _describe_fit(block: PlannedBlock) -> dict[str, Any]:
    """What is fitted for a block; the block's folder has what came of it."""
    if block.fit is None and block.projects is None:
        return {}
    (cell,), words = block.cells, block.bound if block.fit is None else block.fit.verbalizer
    return {
        "method": cell.method,
        "answers": cell.answers,
        "num_shots": cell.num_shots,
        "draw": cell.draw,
        "fit_words": words.name if words is not None else None,
        **({"artefact": block.fit.artefact.hash} if block.fit is not None and block.fit.artefact is not None else {}),
    }


def _dump(spec: Spec, *, without: Sequence[str]) -> dict[str, Any]:
    dumped: dict[str, Any] = spec.model_dump(mode="json", exclude=set(without), exclude_none=True)
    return dumped


def find_model_facts(backend: Backend, store: RunStore, *, has_scored: bool, preflight: str) -> dict[str, Any]:
    """What effectively ran, read back from the blocks where nothing was scored by this call, and what it was made of.

    Args:
        backend: what ran.
        store: the run.
        has_scored: whether this call scored anything.
        preflight: whether the model was looked at before, `passed` or `skipped`.
    """
    scorer = backend.scorer
    named = {"model": scorer.model, "revision": scorer.revision, "architecture": scorer.architecture}
    path = store.folder / "blocks" / f"facts-{scorer.weights_hash[:12]}-{scorer.dtype}-{scorer.device_class}.json"
    if has_scored or not path.is_file():
        write_json(path, {**backend.facts(), "preflight": preflight if has_scored else "not needed"})
    adaptation = read_adaptation(backend.folder, weights_hash=scorer.weights_hash)
    made_of = {} if adaptation is None else {"adaptation": adaptation}
    return {**named, **scorer.identity(), "ran": read_json(path), **made_of}


def find_versions() -> dict[str, Any]:
    """Versions of promptlab and of the libraries that decide its numbers, as this process began."""
    return {"promptlab": __version__, "git": _git_commit(), "python": platform.python_version(), **_library_versions()}


@functools.cache
def _library_versions() -> dict[str, str]:
    names = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "jinja2")
    return {name: importlib.metadata.version(name) for name in names}


def make_timings(cost: Cost, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in which two equal runs may differ: what this call cost, and all finished calls of the run together.

    Args:
        cost: what this call did.
        previous: the timings that the call before it left, empty for the first.
    """
    peak = None
    if sys.platform != "win32":
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    seconds = {name: round(value, 3) for name, value in cost.seconds.items()}
    counts = {
        "forwards": cost.tally.num_forwards,
        "prompts": cost.tally.num_prompts,
        "tokens": cost.tally.num_tokens,
        "back_offs": cost.tally.num_back_offs,
    }
    before = previous.get("all_calls", {})
    all_calls: dict[str, Any] = {name: value + before.get(name, 0) for name, value in counts.items()}
    all_calls["calls"] = 1 + before.get("calls", 0)
    old = before.get("seconds", {})
    all_calls["seconds"] = {name: round(seconds.get(name, 0) + old.get(name, 0), 3) for name in {**old, **seconds}}
    fits = {**previous.get("fits", {}), **cost.fits}
    return {
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        **counts,
        "all_calls": all_calls,
        "peak_memory_bytes": peak,
        **({"fits": fits} if fits else {}),
        "platform": platform.platform(terse=True),
    }


@functools.cache
def _git_commit() -> str | None:
    """The commit of the checkout that promptlab runs from, None outside of one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
