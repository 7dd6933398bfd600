"""What was run, by what and at what cost: the manifest, the effective facts of each model, and the timings."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from promptlab._version import __version__
from promptlab.backends.base import Backend
from promptlab.planning import PlannedBlock, plan_digest
from promptlab.rows import RowSet
from promptlab.scoring import Tally
from promptlab.specs.run import RunSpec
from promptlab.store import SCHEMA_VERSION, RunStore, read_json, write_json


@dataclass(slots=True)
class Cost:
    """What one call did and how long it took."""

    tally: Tally = field(default_factory=Tally)
    seconds: dict[str, float] = field(default_factory=dict)


def make_manifest(
    spec: RunSpec,
    name: str,
    rows: dict[str, RowSet],
    planned: Sequence[tuple[Backend, list[PlannedBlock]]],
    facts: list[dict[str, Any]],
    command: str | None,
    *,
    failures: dict[str, str],
) -> dict[str, Any]:
    """The plan and every input of a run, and the tasks whose rows could not be read: equal for two equal runs."""
    blocks = [block for _, of_model in planned for block in of_model]
    cells = [cell for block in blocks for cell in block.cells]
    return {
        "schema_version": SCHEMA_VERSION,
        "run": name,
        "command": command,
        "plan": plan_digest(blocks, seed=spec.seed),
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "max_length": {block.scorer.model: block.identity["max_length"] for block in blocks},
        "models": facts,
        "tasks": {
            name: {
                "hash": next(block.task.hash for block in blocks if block.task.name == name),
                "split": rowset.split,
                "rows": rowset.hash,
                "num_rows": len(rowset.examples),
                "num_in_source": rowset.num_in_source,
                "gold_counts": rowset.gold_counts(),
                "metrics": list(next(block.task.metrics for block in blocks if block.task.name == name)),
                "source": dict(rowset.source),
            }
            for name, rowset in rows.items()
        },
        "templates": {
            block.template.template.name: {
                "hash": block.template.template.hash,
                "tags": list(block.template.template.tags),
                "text": block.template.template.text,
                "reference": block.template.template.reference,
            }
            for block in blocks
        },
        "verbalizers": {
            cell.verbalizer.name: {
                "hash": cell.verbalizer.hash,
                "pool": cell.verbalizer.pool,
                "labels": {label: [w.word for w in words] for label, words in cell.verbalizer.labels.items()},
                "reference": cell.verbalizer.reference,
            }
            for cell in cells
        },
        "failures": failures,
        "versions": find_versions(),
    }


def find_model_facts(backend: Backend, store: RunStore, *, has_scored: bool) -> dict[str, Any]:
    """What effectively ran; read back from the blocks where nothing was scored by this call."""
    scorer = backend.scorer
    named = {"model": scorer.model, "revision": scorer.revision, "architecture": scorer.architecture}
    path = store.folder / "blocks" / f"facts-{scorer.weights_hash[:12]}-{scorer.dtype}-{scorer.device_class}.json"
    if has_scored or not path.is_file():
        write_json(path, backend.facts())
    return {**named, **scorer.identity(), "ran": read_json(path)}


def find_versions() -> dict[str, Any]:
    """Versions of promptlab and of the libraries that decide its numbers."""
    names = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "jinja2")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"promptlab": __version__, "git": _git_commit(), "python": platform.python_version(), **found}


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
    return {
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        **counts,
        "all_calls": all_calls,
        "peak_memory_bytes": peak,
        "platform": platform.platform(terse=True),
    }


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
