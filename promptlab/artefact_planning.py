"""Run spec + artefacts -> what the run is asked for on their behalf, and the blocks that are scored with them.

What an artefact was fitted with is its own: model, template, words and length. A run that names artefacts and nothing
else takes all of that from them, and the tasks that they were fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from promptlab.artefact_folders import check_base, read_artefact
from promptlab.artefacts import Artefact
from promptlab.backends.base import Backend, Scorer
from promptlab.errors import ModelError, UsageError
from promptlab.examples import Examples
from promptlab.fit_planning import make_fitted_block
from promptlab.grids import Grid, LoadedRows
from promptlab.planning import PlannedBlock, PlannedFit
from promptlab.rendering import compile_template
from promptlab.rows import RowSet
from promptlab.shots import Shots
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task

T = TypeVar("T")


def read_artefacts(spec: RunSpec) -> list[Artefact]:
    """The artefacts of a run, each once.

    Raises:
        StoreError: a folder holds none.
    """
    found: dict[str, Artefact] = {}
    for name in spec.artefacts:
        artefact = read_artefact(Path(name).expanduser())
        found.setdefault(artefact.hash, artefact)
    return list(found.values())


def settle(spec: RunSpec) -> RunSpec:
    """The spec with what its artefacts say about everything that the user left open; the same where there are none.

    Raises:
        UsageError: two artefacts want something else, or the user another length than they were fitted with.
        StoreError: a folder holds no artefact.
    """
    artefacts = read_artefacts(spec)
    if not artefacts:
        return spec
    given, taken = spec.model_fields_set, dict[str, Any]()
    if "models" not in given:
        taken["models"] = tuple(dict.fromkeys(one.base.model for one in artefacts))
        taken["revision"] = _same([one.base.revision for one in artefacts], "revision")
    if "methods" not in given:
        taken["methods"] = ()
    if "dtype" not in given:
        taken["dtype"] = _same([one.base.dtype for one in artefacts], "dtype")
    if spec.rows is not None:
        taken |= {} if spec.labels else {"labels": artefacts[0].labels}
        taken |= {} if spec.family is not None else {"family": artefacts[0].family}
    elif "tasks" not in given:
        taken["tasks"] = tuple(dict.fromkeys(one.task for one in artefacts))
    length = _same([one.max_length for one in artefacts], "max_length")
    if spec.max_length not in (None, length):
        raise UsageError(
            f"--max-length {spec.max_length}: {artefacts[0].shown} was fitted with prompts of {length} tokens at most: "
            "leave --max-length out."
        )
    return spec.model_copy(update={**taken, "max_length": length})


def refuse_homeless(artefacts: Sequence[Artefact], scorers: Sequence[Scorer]) -> None:
    """Refuse an artefact that was fitted inside none of the models of the run.

    Raises:
        ModelError: with both hashes where there is one model, with the names where there are several.
    """
    for artefact in artefacts:
        if any(_is_home(artefact, scorer) for scorer in scorers):
            continue
        if len(scorers) == 1:
            check_base(artefact, scorers[0])
        names = ", ".join(scorer.model for scorer in scorers)
        raise ModelError(
            f"{artefact.shown}: was fitted inside '{artefact.base.model}', and none of the models {names} has its "
            "weights and tokenizer: name that model."
        )


def plan_artefacts(
    grid: Grid, loaded: LoadedRows, artefacts: Sequence[Artefact], backend: Backend, planned: Sequence[PlannedBlock]
) -> list[PlannedBlock]:
    """The blocks of one model that are scored with artefacts.

    Args:
        grid: of the run.
        loaded: the rows of its tasks.
        artefacts: all of the run; those of other models are passed over.
        backend: the model.
        planned: the blocks that it has beside these.

    Raises:
        UsageError: a task does not have an artefact's labels or fields, or two results could not be told apart.
    """
    templates, verbalizers = _names(grid, planned)
    blocks = list[PlannedBlock]()
    for artefact in artefacts:
        if _is_home(artefact, backend.scorer):
            for task in grid.tasks:
                _refuse_task(artefact, task)
                blocks.append(_block(artefact, task, loaded, backend.scorer, templates, verbalizers))
    _refuse_twins([*planned, *blocks])
    return blocks


def count_seen(artefact: Artefact, rows: RowSet) -> int:
    """How many of some rows have the content of a shot that an artefact was fitted to."""
    shots = {name.rpartition("-")[0] for name in artefact.row_ids}
    return sum(name.rpartition("-")[0] in shots for name in rows.examples.id_texts())


def _same(values: Iterable[T], key: str) -> T:
    """The one value that all artefacts have."""
    several = list(dict.fromkeys(values))
    if len(several) > 1:
        shown = " and ".join(map(str, several))
        raise UsageError(f"--artefact: they were fitted with {key} {shown}: score them in a run each.")
    return several[0]


def _is_home(artefact: Artefact, scorer: Scorer) -> bool:
    parts = scorer.identity()
    return all(artefact.base.identity[part] == parts[part] for part in ("weights", "tokenizer"))


def _refuse_task(artefact: Artefact, task: Task) -> None:
    if task.labels != artefact.labels:
        raise UsageError(
            f"{artefact.shown}: was fitted to the labels {', '.join(artefact.labels)}, and task '{task.name}' has "
            f"{', '.join(task.labels)}: name a task with its labels, in their order."
        )
    missing = sorted(artefact.compiled.fields - set(task.fields))
    if missing:
        raise UsageError(
            f"{artefact.shown}: its template reads the field '{missing[0]}', and task '{task.name}' has "
            f"{', '.join(task.fields)}."
        )


def _names(grid: Grid, planned: Iterable[PlannedBlock]) -> tuple[dict[str, str], dict[str, str]]:
    """The hashes of the templates and verbalizers of a run by the names that its manifest keeps them under."""
    templates = {block.template.template.name: block.template.template.hash for block in planned}
    words = {cell.verbalizer.name: cell.verbalizer.hash for block in planned for cell in block.cells}
    return templates, words | {one.name: one.hash for one in grid.verbalizers}


def _block(
    artefact: Artefact,
    task: Task,
    loaded: LoadedRows,
    scorer: Scorer,
    templates: dict[str, str],
    verbalizers: dict[str, str],
) -> PlannedBlock:
    """One block; a template or verbalizer that a run has under the name with another text gets a name of its own."""
    template = artefact.template.model_copy(update={"name": _free(artefact.template, templates)})
    words = artefact.words
    if words is not None:
        words = words.model_copy(update={"name": _free(words, verbalizers)})
    # Nothing is fitted to them, so their texts are not needed.
    none = Examples.collect([], fields=task.fields, labels=task.labels)
    shots = Shots(task.name, artefact.num_shots, artefact.draw, none)
    fit = PlannedFit(
        artefact.make_method(), (artefact.setting,), shots, words, "default", 0, artefact.fit_seed, artefact
    )
    return make_fitted_block(
        fit,
        task,
        loaded.rows[task.name],
        compile_template(template),
        scorer,
        max_length=artefact.max_length,
        seed=artefact.seed,
        has_draw=_is_draw_of(artefact, task, loaded),
    )


def _free(named: Any, taken: dict[str, str]) -> str:
    """The name of a template or verbalizer, with the start of its hash where another one has it already."""
    is_free = taken.setdefault(named.name, named.hash) == named.hash
    return str(named.name) if is_free else f"{named.name}@{named.hash[:8]}"


def _is_draw_of(artefact: Artefact, task: Task, loaded: LoadedRows) -> bool:
    """Whether an artefact was fitted to the shots that the run has under its number and draw, if it has some."""
    if task.name != artefact.task:
        return False
    drawn = [
        one
        for one in loaded.shots.get(task.name, ())
        if (one.num_shots, one.draw) == (artefact.num_shots, artefact.draw)
    ]
    return all(sorted(one.examples.id_texts()) == sorted(artefact.row_ids) for one in drawn)


def _refuse_twins(blocks: Sequence[PlannedBlock]) -> None:
    """Refuse an artefact whose result would have the names of another: a report would take it for one more draw."""
    seen: dict[tuple[Any, ...], PlannedBlock] = {}
    for block in (block for block in blocks if block.fit is not None):
        (cell,) = block.cells
        key = (cell.task.name, cell.method, cell.template, cell.verbalizer.name, cell.num_shots, cell.draw)
        other = seen.setdefault(key, block)
        if other is not block and _artefact_of(block) is not None:
            raise UsageError(
                f"--artefact: {_source(block)} and {_source(other)} are both {cell.method} with {cell.num_shots} shots "
                f"of task '{cell.task.name}', one template, words and draw, so a report could not tell them apart: "
                "score them in a run each."
            )


def _artefact_of(block: PlannedBlock) -> Artefact | None:
    return block.fit.artefact if block.fit is not None else None


def _source(block: PlannedBlock) -> str:
    artefact = _artefact_of(block)
    return artefact.shown if artefact is not None else "a fit of this run"
