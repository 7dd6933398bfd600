"""One method on one draw of shots -> what was fitted: the same block as a run's, so the same numbers.

Nothing is scored but the canaries; the rows of the split that a run would score are kept out of the shots, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.artefact_folders import Loaded, check_folder, read_artefact
from promptlab.artefacts import Artefact
from promptlab.auditing import preflight
from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import DataError, StoreError, UsageError, did_you_mean
from promptlab.fitting import fit_block
from promptlab.harness import PlannedModel, Progress, RunPlan, Silence, plan_run
from promptlab.keeping import is_kept, make_artefact
from promptlab.planning import PlannedBlock
from promptlab.specs.run import ZERO_SHOT, RunSpec, make_run_spec

# What a fit takes of a run, as its keys are called there.
SHARED = (
    "shots_short", "selection", "folds", "settings", "data", "include", "split", "max_length", "device", "dtype",
    "revision", "seed", "skip_preflight",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PlannedTuning:
    """One block, the model that it is fitted inside and the run that would have it."""

    spec: RunSpec
    model: PlannedModel
    block: PlannedBlock


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long the search for a setting took, and the fit itself."""

    search: float
    fit: float


def plan_tuning(
    *,
    task: Any,
    method: str,
    shots: int | str,
    draw: int = 0,
    template: Any = None,
    verbalizer: Any = None,
    model: Any = None,
    options: Mapping[str, Any],
) -> PlannedTuning:
    """The block of one method, one draw, one template and one verbalizer; nothing is fitted yet.

    Args:
        task: a selector of one task.
        method: its name.
        shots: labelled examples a label.
        draw: the number of the draw, from 0.
        template: a selector of one template; None takes what a run would take.
        verbalizer: a selector of one verbalizer; None takes what a run would take.
        model: a bundled name, a folder or a hub name; None takes the bundled one.
        options: keys of a run, of those in `SHARED`.

    Raises:
        UsageError: an unknown name, or selectors that mean several blocks.
        DataError: the rows cannot be read, or a label has too few.
    """
    for name in options:
        if name not in SHARED:
            raise UsageError(f"argument '{name}' is unknown.{did_you_mean(name, SHARED)} Known: {', '.join(SHARED)}.")
    if method == ZERO_SHOT:
        raise UsageError("--method zero_shot: has nothing to fit: `promptlab run` and `predict` score with it.")
    if not isinstance(draw, int) or draw < 0:
        raise UsageError(f"--draw: write a whole number from 0, found {draw!r}.")
    values = {"tasks": task, "methods": method, "shots": shots, "seeds": draw + 1, **options}
    values |= {} if template is None else {"fit_templates": template}
    values |= {} if verbalizer is None else {"fit_verbalizers": verbalizer}
    values |= {} if model is None else {"models": model}
    spec = make_run_spec(values)
    plan = plan_run(spec)
    for reason in plan.loaded.failures.values():
        raise DataError(reason)
    return PlannedTuning(spec, *_one_block(plan, draw))


def is_there(planned: PlannedTuning, folder: Path) -> bool:
    """Whether a folder has the artefact of this fit already.

    Raises:
        StoreError: it holds something else, another artefact or a broken one.
    """
    check_folder(folder)
    if is_kept(planned.block, folder):
        return True
    if folder.is_dir() and any(path.name == "artefact.json" for path in folder.iterdir()):
        other = read_artefact(folder)
        raise StoreError(f"{folder}: holds another artefact ({other.title}): give another folder, or delete it.")
    return False


def tune(planned: PlannedTuning, *, progress: Progress | None = None) -> tuple[Loaded, Seconds]:
    """Choose a setting by the shots, fit to all of them, and score the canaries.

    Raises:
        ModelError: the model fails its preflight, or the method cannot work with it.
    """
    progress, backend = progress or Silence(), planned.model.backend
    assert isinstance(backend, MaskedBackend)
    if not planned.spec.skip_preflight:
        for check in preflight(backend):
            if check.status == "warn":
                progress.say(f"{backend.scorer.model}, {check.name}: {check.found}. {check.remedy}")
    found = fit_block(planned.block, backend, planned.model.encoder, seed=planned.spec.seed)
    try:
        artefact = make_artefact(planned.block, found, backend, seed=planned.spec.seed)
    except BaseException:
        found.fitted.detach()
        raise
    loaded = Loaded(artefact, backend, planned.model.encoder, found.fitted)
    return loaded, Seconds(search=found.cost["search_s"], fit=found.cost["fit_s"])


def describe_choice(artefact: Artefact) -> dict[str, Any]:
    """What the shots chose, as plain values: the setting in words, how it did, and what the fit took."""
    record = artefact.record
    tried = record["tried"][record["place"]] if record["tried"] else None
    return {
        "setting": _setting(record),
        "num_settings": len(record["grid"]),
        "rule": record["rule"],
        "held_out_accuracy": tried[0] if tried else None,
        "parameters": record["num_parameters"],
        "steps": record["steps"],
        "first_loss": record["losses"][0] if record["losses"] else None,
        "last_loss": record["losses"][-1] if record["losses"] else None,
    }


def _one_block(plan: RunPlan, draw: int) -> tuple[PlannedModel, PlannedBlock]:
    """The block of the draw.

    Raises:
        UsageError: there are several of them.
    """
    fitted = [(model, block) for model in plan.models for block in model.blocks if block.fit is not None]
    found = [(model, block) for model, block in fitted if block.cells[0].draw == draw]
    axes: dict[str, list[Any]] = {
        "--task": [block.task.name for _, block in found],
        "--method": [block.cells[0].method for _, block in found],
        "--shots": [block.cells[0].num_shots for _, block in found],
        "--template": [block.template.template.name for _, block in found],
        "--verbalizer": [block.cells[0].verbalizer.name for _, block in found],
        "--model": [model.backend.scorer.model for model, _ in found],
    }
    for flag, names in axes.items():
        distinct = list(dict.fromkeys(map(str, names)))
        if len(distinct) > 1:
            raise UsageError(f"{flag}: one is fitted at a time, and it means {', '.join(distinct)}: name one of them.")
    ((model, block),) = found
    return model, block


def _setting(record: Mapping[str, Any]) -> str:
    """What tells the chosen setting from the others that were tried, and its learning rate and steps."""
    flat = [{**one, **one["options"]} for one in record["grid"]]
    mine = {**record["setting"], **record["setting"]["options"]}
    told = [key for key in mine if key != "options" and len({str(one.get(key)) for one in flat}) > 1]
    return ", ".join(f"{key.replace('_', ' ')} {_shown(mine[key])}" for key in told) or "the only one"


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
