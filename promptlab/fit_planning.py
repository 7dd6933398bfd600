"""Grid + shots + scorer -> the blocks of methods that are fitted, each with a stable id.

A method is fitted once for every task, template, verbalizer, number of shots and draw. One that looks at no template
gets the fields of the row alone, one that looks at no words the labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from promptlab.artefacts import CALIBRATION, labels_alone
from promptlab.backends.base import Backend, Scorer
from promptlab.calibration import CONTENT_FREE
from promptlab.calibration_prompts import content_free
from promptlab.deciding import Cell
from promptlab.errors import UsageError
from promptlab.grids import Grid, LoadedRows, applies, fits, verbalizes
from promptlab.hashing import content_hash
from promptlab.methods.base import Method
from promptlab.methods.settings import amended_grid, check_settings
from promptlab.planning import PlannedBlock, PlannedFit, cell_id
from promptlab.registry import METHODS
from promptlab.rendering import CompiledTemplate, compile_template
from promptlab.rows import RowSet
from promptlab.scoring import SCORING_VERSION
from promptlab.seeding import derive_seed
from promptlab.shots import Shots
from promptlab.specs.run import PROJECTED
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

UNCALIBRATED = CALIBRATION
FIELDS_ALONE = "fields"  # what a method without a template is named with


def plan_fits(grid: Grid, loaded: LoadedRows, backend: Backend, *, max_length: int, seed: int) -> list[PlannedBlock]:
    """Every block of one model that something is fitted for.

    Raises:
        UsageError: a method cannot work with the model, or has no template or verbalizer to work with.
    """
    methods = tuple(METHODS.get(name)() for name in grid.fits.methods)
    check_settings(methods, grid.fits.settings)
    for method in methods:
        reason = method.refusal(backend)
        if reason is not None:
            raise UsageError(f"--methods {method.name}: model '{backend.scorer.model}': {reason}")
    blocks = list[PlannedBlock]()
    for task in grid.tasks:
        for method, shots in itertools.product(methods, loaded.shots.get(task.name, ())):
            for template, verbalizer in _pairs(grid, task, method):
                setting = _Setting(backend.scorer, max_length, seed)
                blocks.append(_block(grid, loaded, task, method, shots, template, verbalizer, setting))
                if method.has_projection and grid.fits.projects:
                    blocks.append(_projected(blocks[-1]))
    return blocks


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all blocks of a model share."""

    scorer: Scorer
    max_length: int
    seed: int


def _pairs(grid: Grid, task: Task, method: Method) -> Iterator[tuple[CompiledTemplate, Verbalizer | None]]:
    """The templates and verbalizers that a method is fitted with on a task."""
    templates = [_fields_alone(task)] if not method.uses_template else _templates(grid, task)
    words_of_task: list[Verbalizer | None] = [*_verbalizers(grid, task)] if method.uses_words else [None]
    for template in templates:
        words = [one for one in words_of_task if one is None or fits(template.num_masks, one)]
        if not words:
            raise UsageError(
                f"--methods {method.name}: no verbalizer of task '{task.name}' has words for {template.shown}: name "
                "one by --fit-verbalizers."
            )
        yield from ((template, verbalizer) for verbalizer in words)


def _templates(grid: Grid, task: Task) -> list[CompiledTemplate]:
    """Those that were named for methods, or the first instructive one of the run."""
    named = [one for one in grid.fits.templates if applies(one, task)]
    instructive = [one for one in grid.templates if applies(one, task) and "instructive" in one.template.tags]
    found = named or instructive[:1]
    if not found:
        raise UsageError(f"--methods: no template to fit with applies to task '{task.name}': name --fit-templates.")
    return found


def _verbalizers(grid: Grid, task: Task) -> list[Verbalizer]:
    """Those that were named for methods, or the first one of the run."""
    named = [one for one in grid.fits.verbalizers if verbalizes(one, task)]
    return named or [one for one in grid.verbalizers if verbalizes(one, task)][:1]


def _fields_alone(task: Task) -> CompiledTemplate:
    """The fields of a row as a classifier reads them, two as a pair, and a mask that the method takes out again."""
    fields = [f"{{{{ {name} }}}}" for name in task.fields]
    text = "{{ sep }}".join(fields) if len(fields) == 2 else " ".join(fields)
    return compile_template(Template(name=FIELDS_ALONE, family=None, path="the fields", text=f"{text} {{{{ mask }}}}"))


def _block(
    grid: Grid,
    loaded: LoadedRows,
    task: Task,
    method: Method,
    shots: Shots,
    template: CompiledTemplate,
    words: Verbalizer | None,
    setting: _Setting,
) -> PlannedBlock:
    """One block for what is fitted to some shots."""
    fit_seed = derive_seed(setting.seed, "fit", task.name, method.name, shots.num_shots, shots.draw)
    grid_of_method = amended_grid(method, grid.fits.settings)
    fit = PlannedFit(method, grid_of_method, shots, words, grid.fits.selection, grid.fits.num_folds, fit_seed)
    return make_fitted_block(
        fit, task, loaded.rows[task.name], template, setting.scorer, max_length=setting.max_length, seed=setting.seed
    )


def make_fitted_block(
    fit: PlannedFit,
    task: Task,
    rows: RowSet,
    template: CompiledTemplate,
    scorer: Scorer,
    *,
    max_length: int,
    seed: int,
    has_draw: bool = True,
) -> PlannedBlock:
    """The block of a fit: its id, the cell that reads it, and what is fitted for it.

    `has_draw` says whether the shots of the fit are those of this run's task and draw.
    """
    method, shots, words = fit.method, fit.shots, fit.verbalizer
    bound = words if method.answers == "mask" and words is not None else labels_alone(task.labels, words)
    identity = {
        "scorer": scorer.identity(),
        "scoring_version": SCORING_VERSION,
        "template": template.template.hash,
        "max_length": max_length,
        "demonstrations": None,
        "verbalizer": bound.hash,
        "fit": fit.identity(),
        "labels": list(task.labels),
    }
    block_id = content_hash(identity)
    varied = [seed] if template.uses_choice else []
    rows_hash = content_hash([rows.hash, *varied]) if varied else rows.hash
    cell = Cell(
        cell_id=cell_id(block_id, task, rows_hash, bound, UNCALIBRATED, None),
        block_id=block_id,
        model=scorer.model,
        task=task,
        split=rows.split,
        template=template.template.name,
        template_tags=template.template.tags,
        verbalizer=bound,
        calibration=UNCALIBRATED,
        samples=f"{task.name}-{block_id[:16]}",
        answers=method.answers,
        method=method.name,
        num_shots=shots.num_shots,
        draw=shots.draw if has_draw else None,
    )
    return PlannedBlock(
        block_id=block_id,
        identity=identity,
        scorer=scorer,
        task=task,
        rows=rows,
        rows_hash=rows_hash,
        template=template,
        bound=bound,
        cells=(cell,),
        candidate_words=bound.words,
        is_baseline=False,
        groups={CONTENT_FREE: content_free(task.fields)},
        faults={},
        fit=fit,
    )


def _projected(block: PlannedBlock) -> PlannedBlock:
    """The block that asks the same prompts with every soft token put back to its nearest word."""
    identity = {**block.identity, "projects": block.block_id}
    block_id, (cell,) = content_hash(identity), block.cells
    assert block.bound is not None
    named = replace(
        cell,
        cell_id=cell_id(block_id, block.task, block.rows_hash, block.bound, UNCALIBRATED, None),
        block_id=block_id,
        samples=f"{block.task.name}-{block_id[:16]}",
        method=PROJECTED,
    )
    return replace(block, block_id=block_id, identity=identity, cells=(named,), fit=None, projects=block.block_id)
