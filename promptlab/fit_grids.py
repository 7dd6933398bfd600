"""Run spec -> what methods are fitted with: their names, templates and verbalizers, and the shots of every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.registry import METHODS
from promptlab.rendering import CompiledTemplate, compile_template
from promptlab.rows import RowSet, load_rows
from promptlab.shots import Pool, Shots, ShotsShort, draw_shots, make_pool
from promptlab.specs.run import ZERO_SHOT, RunSpec
from promptlab.specs.task import Task
from promptlab.specs.template import load_templates
from promptlab.specs.verbalizer import Verbalizer, load_verbalizers


@dataclass(frozen=True, slots=True, eq=False)
class FitGrid:
    """What methods are fitted with: their names, and the templates and verbalizers that were named for them.

    Where none is named, a method takes the first instructive template and the first verbalizer of a task. `settings` is
    what the user says about hyper-parameters; `projects` says whether soft tokens are scored as words too.
    """

    methods: tuple[str, ...] = ()
    templates: tuple[CompiledTemplate, ...] = ()
    verbalizers: tuple[Verbalizer, ...] = ()
    selection: str = "cross_validation"
    num_folds: int = 4
    has_zero_shot: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    projects: bool = True


def make_fit_grid(spec: RunSpec) -> FitGrid:
    """What methods are fitted with.

    Raises:
        UsageError: a method is unknown.
    """
    methods = [name for name in spec.methods if name != ZERO_SHOT]
    for name in methods:
        if name not in METHODS.names():
            known = [ZERO_SHOT, *METHODS.names()]
            raise UsageError(f"--methods {name}: unknown.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return FitGrid(
        methods=tuple(dict.fromkeys(methods)),
        templates=tuple(map(compile_template, load_templates(spec.fit_templates, include=spec.include))),
        verbalizers=tuple(load_verbalizers(spec.fit_verbalizers, include=spec.include)),
        selection=spec.selection,
        num_folds=spec.folds,
        has_zero_shot=ZERO_SHOT in spec.methods,
        settings=spec.settings or {},
        projects=not spec.no_projection,
    )


def draw_all(spec: RunSpec, task: Task, scored: RowSet) -> tuple[Pool, tuple[Shots, ...]]:
    """What the shots of a task are drawn from, and those of every number and draw, smallest number first.

    Raises:
        DataError: there are no labelled train rows, or too few of a label.
    """
    if spec.rows is not None and spec.train_rows is None:
        raise DataError("--shots needs labelled train rows: name a file of them with --train-rows.")
    # The whole split that is scored, so that --limit does not move the shots.
    whole = load_rows(task, spec.split, data=spec.data) if spec.limit is not None else scored
    pool = make_pool(load_rows(task, "train", data=spec.data), whole)
    short: ShotsShort = "all" if spec.shots_short == "all" else "refuse"
    drawn = (
        draw_shots(pool, number, draw, seed=spec.seed, short=short)
        for number in spec.shots
        for draw in range(spec.seeds)
    )
    return pool, tuple(drawn)
