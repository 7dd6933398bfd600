"""Run spec -> grid: everything that its selectors mean, loaded and checked against each other, and the rows of it.

The grid is the product of what applies: a template applies to tasks of its family that have its fields, a verbalizer to
tasks of its family that have exactly its labels. What was asked for by name and applies nowhere is a fault.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptlab.ad_hoc import ad_hoc_task
from promptlab.calibration import find_calibration
from promptlab.calibration_prompts import ALWAYS, FROM_TRAIN, NAMES, TrainRows, draw_train_rows
from promptlab.errors import DataError, FileFault, LabelWordError, TemplateError, UsageError, did_you_mean
from promptlab.fit_grids import FitGrid, draw_all, make_fit_grid
from promptlab.library import LibraryFile, list_files, shown_path
from promptlab.metrics import check_metric
from promptlab.registry import CALIBRATIONS
from promptlab.rendering import CompiledTemplate, check_fields, compile_template
from promptlab.rows import Limit, RowSet, load_rows
from promptlab.shots import Pool, Shots
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task, load_tasks
from promptlab.specs.template import Template, load_templates
from promptlab.specs.verbalizer import BETWEEN_SLOTS, Verbalizer, load_verbalizers

EVERYTHING = "*"


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What the selectors of a run mean, before any model is looked at.

    `explicit` names what was asked for by name, calibrations too; `groups` are the prompts that are scored for
    calibrations; `ensembles` has the selectors of templates of each ensemble by its name.
    """

    tasks: tuple[Task, ...]
    templates: tuple[CompiledTemplate, ...]
    verbalizers: tuple[Verbalizer, ...]
    explicit: frozenset[str]
    candidates: tuple[Verbalizer, ...]
    baselines: tuple[CompiledTemplate, ...]
    calibrations: tuple[str, ...]
    groups: tuple[str, ...] = ALWAYS
    ensembles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fits: FitGrid = field(default_factory=FitGrid)

    @property
    def has_zero_shot(self) -> bool:
        """Whether anything is scored by a model as it is."""
        return self.fits.has_zero_shot


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """The rows of every task that has them, and for every other task why they could not be read.

    `train` holds the train rows that calibrations look at, where the run asks for any; `shots` the labelled examples of
    each task, smallest number first, then by draw, and `pools` what they were drawn from.
    """

    rows: dict[str, RowSet]
    failures: dict[str, str]
    train: dict[str, TrainRows] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    shots: dict[str, tuple[Shots, ...]] = field(default_factory=dict)


def make_grid(spec: RunSpec) -> Grid:
    """Load everything the selectors mean and check that each fits somewhere.

    Raises:
        UsageError: an unknown name, or something asked for by name that applies to no task.
        FileFault, TemplateError: faults of the data files.
    """
    calibrations = select_calibrations(spec.calibrations)
    prepared = select_calibrations(spec.prepare)
    templates = load_templates(spec.templates, include=spec.include)
    verbalizers = load_verbalizers(spec.verbalizers, include=spec.include)
    tasks = load_tasks(spec.tasks, include=spec.include) if spec.rows is None else [_own_task(spec)]
    _check_metrics(spec, tasks)
    compiled = [compile_template(template) for template in templates]
    grid = Grid(
        tasks=tuple(tasks),
        templates=tuple(compiled),
        verbalizers=tuple(verbalizers),
        explicit=frozenset(_explicit(spec)),
        candidates=tuple(load_verbalizers([EVERYTHING], include=spec.include)),
        baselines=tuple(_null_templates(tasks, compiled, spec)),
        calibrations=calibrations,
        groups=_groups([*calibrations, *prepared]),
        ensembles=spec.ensembles,
        fits=make_fit_grid(spec),
    )
    try:
        _explain(grid)
    except TemplateError as error:
        if spec.rows is None:
            raise
        raise TemplateError(f"{error} Say which column is which field by --text-column or --field.") from None
    return grid


def select_calibrations(selectors: Sequence[str]) -> tuple[str, ...]:
    """Names of calibrations, each once; a glob may mean several.

    Raises:
        UsageError: a name that is unknown, or a glob that matches none.
    """
    found: list[str] = []
    for selector in selectors:
        hits = fnmatch.filter(CALIBRATIONS.names(), selector) if is_glob(selector) else [selector]
        found += hits
        if not hits or not is_glob(selector):
            CALIBRATIONS.get(selector)
    plain = sorted(dict.fromkeys(found), key=lambda name: (name != "none", found.index(name)))
    return tuple(plain) if any(map(is_glob, selectors)) else tuple(dict.fromkeys(found))


def load_all_rows(spec: RunSpec, grid: Grid) -> LoadedRows:
    """The rows of every task; a task whose rows cannot be read does not keep the others from being scored.

    Raises:
        UsageError: the folder of local rows is not there.
        DataError: no task has rows; every reason is named.
    """
    if spec.data is not None and not Path(spec.data).expanduser().is_dir():
        raise UsageError(f"--data {spec.data}: there is no such folder.")
    limit = None if spec.limit is None else Limit.parse(spec.limit)
    rows, failures = dict[str, RowSet](), dict[str, str]()
    pools, shots = dict[str, Pool](), dict[str, tuple[Shots, ...]]()
    for task in grid.tasks:
        try:
            found = load_rows(task, spec.split, data=spec.data, limit=limit, seed=spec.seed)
            if spec.shots:
                pools[task.name], shots[task.name] = draw_all(spec, task, found)
            rows[task.name] = found
        except DataError as error:
            reason = str(error)
            is_named = f"'{task.name}'" in reason or spec.rows is not None
            failures[task.name] = reason if is_named else f"task '{task.name}': {reason}"
    if not rows:
        raise DataError("\n".join(dict.fromkeys(failures.values())))
    wanted = [task for task in grid.tasks if task.name in rows and set(grid.groups) & set(FROM_TRAIN)]
    train = {task.name: _train_rows(spec, task, rows[task.name]) for task in wanted}
    return LoadedRows(rows, failures, train, pools, shots)


def applies(template: CompiledTemplate, task: Task) -> bool:
    """Whether a template speaks about a task: its family (where it has one) and all its fields."""
    is_family = template.template.family in (None, task.family)
    return is_family and template.fields <= set(task.fields)


def verbalizes(verbalizer: Verbalizer, task: Task) -> bool:
    """Whether a verbalizer has exactly the labels of a task, and its family where it has one."""
    return verbalizer.family in (None, task.family) and set(verbalizer.labels) == set(task.labels)


def fits(num_masks: int | None, verbalizer: Verbalizer) -> bool:
    """Whether the words of a verbalizer are for the number of masks of a template, or rows decide that number."""
    return num_masks in (None, verbalizer.num_slots)


def is_glob(selector: Any) -> bool:
    """Whether a selector is a pattern of names; a template or a verbalizer that is written out is none."""
    if not isinstance(selector, str) or "{{" in selector or "=" in selector:
        return False
    return any(character in selector for character in "*?[")


def require_some(task: Task, templates: Sequence[Any], verbalizers: Sequence[Any]) -> None:
    """Refuse a task to which no template or no verbalizer applies.

    Raises:
        UsageError: there is none; the command that lists what does is named.
    """
    for kind, found in (("template", templates), ("verbalizer", verbalizers)):
        if not found:
            wanted = f"fields {', '.join(task.fields)}" if kind == "template" else f"labels {', '.join(task.labels)}"
            of_family = f"family {task.family}, " if task.family else ""
            hint = f" `promptlab ls {kind}s --family {task.family}` lists what does." if task.family else ""
            raise UsageError(f"no {kind} that was asked for applies to task '{task.name}' ({of_family}{wanted}).{hint}")


def check_metrics(metrics: Sequence[str], tasks: Sequence[Task]) -> None:
    """Refuse a metric that none of the tasks can have.

    Raises:
        UsageError: its name is unknown, or it is of a label that no task has.
    """
    for metric in metrics:
        faults = []
        for task in tasks:
            try:
                check_metric(metric, task.labels)
            except UsageError as error:
                faults.append(str(error))
        if len(faults) == len(tasks):
            raise UsageError(f"--metrics: {faults[0]}")


def _train_rows(spec: RunSpec, task: Task, scored: RowSet) -> TrainRows:
    """What calibrations may look at of a task's train split; none where that is the split that is scored."""
    if spec.rows is not None and spec.train_rows is None:
        return TrainRows((), fault="needs train rows: name a file of them with --train-rows.")
    if spec.split == "train":
        return TrainRows((), fault="needs train rows that are not scored, and the train split is scored.")
    try:
        return draw_train_rows(load_rows(task, "train", data=spec.data), scored, seed=spec.seed)
    except DataError as error:
        return TrainRows((), fault=f"needs train rows, which cannot be read: {error}")


def _groups(calibrations: Iterable[str]) -> tuple[str, ...]:
    """The groups of prompts that calibrations need, in a fixed order; cheap ones always."""
    asked = {*ALWAYS, *(find_calibration(name).prompts for name in calibrations)}
    return tuple(name for name in NAMES if name in asked)


def _explicit(spec: RunSpec) -> set[str]:
    """Names of what was not found by a glob."""
    templates = load_templates([one for one in spec.templates if not is_glob(one)], include=spec.include)
    verbalizers = load_verbalizers([one for one in spec.verbalizers if not is_glob(one)], include=spec.include)
    calibrations = (name for name in spec.calibrations if not is_glob(name))
    return {*(one.name for one in templates), *(one.name for one in verbalizers), *calibrations}


def _explain(grid: Grid) -> None:
    """Refuse a template or a verbalizer that was asked for by name and applies to no task."""
    for template in grid.templates:
        if template.template.name in grid.explicit and not any(applies(template, task) for task in grid.tasks):
            _explain_template(template, grid.tasks)
    for verbalizer in grid.verbalizers:
        if verbalizer.name in grid.explicit and not any(verbalizes(verbalizer, task) for task in grid.tasks):
            _explain_verbalizer(verbalizer, grid.tasks)
    for task in grid.tasks:
        _explain_masks(grid, task)


def _explain_masks(grid: Grid, task: Task) -> None:
    """Refuse what was asked for by name and has another number of masks than everything beside it."""
    templates = [one for one in grid.templates if applies(one, task)]
    verbalizers = [one for one in grid.verbalizers if verbalizes(one, task)]
    for template in templates if verbalizers else ():
        number = template.num_masks
        if template.template.name in grid.explicit and not any(fits(number, one) for one in verbalizers):
            word = BETWEEN_SLOTS.join(["word"] * (number or 1))
            raise LabelWordError(
                f"{template.shown} has {_masks(number or 1)}, and no verbalizer that was asked for has words for so "
                f"many: write label={word},label={word}."
            )
    for verbalizer in verbalizers if templates else ():
        if verbalizer.name in grid.explicit and not any(fits(one.num_masks, verbalizer) for one in templates):
            raise LabelWordError(f"{no_such_masks(verbalizer)}, and no template that was asked for has so many.")


def no_such_masks(verbalizer: Verbalizer) -> str:
    """For how many masks the words of a verbalizer are, as the start of a refusal."""
    return f"{verbalizer.path} has words for {_masks(verbalizer.num_slots)}, such as '{verbalizer.words[0]}'"


def _masks(number: int) -> str:
    return "1 mask" if number == 1 else f"{number} masks"


def _own_task(spec: RunSpec) -> Task:
    """The task of a file of rows that no task describes: family and labels come from what was asked for."""
    assert spec.rows is not None
    templates = load_templates([one for one in spec.templates if one != EVERYTHING], include=spec.include)
    verbalizers = load_verbalizers([one for one in spec.verbalizers if one != EVERYTHING], include=spec.include)
    family = spec.family if spec.family is not None else _common_family(templates, verbalizers, spec.include)
    verbalizers = verbalizers or load_verbalizers([EVERYTHING], include=spec.include)
    fitting = [one for one in verbalizers if one.family in (None, family)]
    return ad_hoc_task(
        rows=spec.rows,
        train_rows=spec.train_rows,
        text_column=spec.text_column,
        fields=spec.fields,
        label_column=spec.label_column,
        label_values=spec.label_values,
        labels=spec.labels or _common_labels(fitting, family, spec.include),
        family=family,
    )


def _common_family(templates: Sequence[Template], verbalizers: Sequence[Verbalizer], include: Sequence[str]) -> str:
    """The one family of the templates and verbalizers that were asked for; empty where none of them has one."""
    named: list[Template | Verbalizer] = [*templates, *verbalizers]
    families = dict.fromkeys(one.family for one in named if one.family is not None)
    if len(families) > 1:
        raise UsageError(f"--rows: what was asked for is of the families {', '.join(families)}: name one by --family.")
    if not families and not verbalizers:
        known = dict.fromkeys(str(file.family) for file in list_files("template", include).values())
        raise UsageError(
            "--rows needs to know what is asked of its rows: name --templates and --verbalizers, or a --family "
            f"({', '.join(sorted(known))}) whose templates and verbalizers are used."
        )
    return next(iter(families), "")


def _common_labels(verbalizers: Sequence[Verbalizer], family: str, include: Sequence[str]) -> tuple[str, ...]:
    """The labels that all verbalizers share, in the order of the first."""
    sets: dict[frozenset[str], tuple[str, ...]] = {}
    for one in verbalizers:
        sets.setdefault(frozenset(one.labels), tuple(one.labels))
    if len(sets) == 1:
        return next(iter(sets.values()))
    if not sets:
        known = sorted({str(file.family) for file in list_files("verbalizer", include).values()})
        raise UsageError(
            f"--rows: no verbalizer is of the family '{family}'.{did_you_mean(family, known)} Name another --family "
            f"({', '.join(known)}), or write a verbalizer as label=word,label=word."
        )
    shown = "; ".join(", ".join(labels) for labels in sets.values())
    raise UsageError(
        f"--rows: the verbalizers have several sets of labels ({shown}): name one set by --labels, or the verbalizers."
    )


def _null_templates(tasks: Sequence[Task], chosen: Sequence[CompiledTemplate], spec: RunSpec) -> list[CompiledTemplate]:
    """The templates with the fields and the mask alone, a baseline of every task's table."""
    files = list_files("template", spec.include).values()
    families = [family for family in dict.fromkeys(task.family for task in tasks) if _has_family(files, family)]
    loaded = load_templates([f"{family}/*" for family in families], include=spec.include)
    taken = {template.template.name for template in chosen}
    return [compile_template(t) for t in loaded if "null" in t.tags and t.name not in taken]


def _has_family(files: Iterable[LibraryFile], family: str) -> bool:
    return any(file.family == family for file in files)


def _check_metrics(spec: RunSpec, tasks: Sequence[Task]) -> None:
    """Refuse an unknown metric before anything is scored."""
    for task in tasks:
        for metric in task.metrics:
            try:
                check_metric(metric, task.labels)
            except UsageError as error:
                raise FileFault(f"{shown_path(Path(task.path))} metrics: {error}") from None
    check_metrics(spec.metrics, tasks)


def _explain_template(template: CompiledTemplate, tasks: Sequence[Task]) -> None:
    family = template.template.family
    if family is not None and family not in {task.family for task in tasks}:
        names = ", ".join(f"{task.name} ({task.family})" for task in tasks)
        raise UsageError(f"template '{template.template.name}' is of family '{family}', the tasks are: {names}.")
    task = next(task for task in tasks if family in (None, task.family))
    check_fields(template, task.fields, of=f"task '{task.name}'")


def _explain_verbalizer(verbalizer: Verbalizer, tasks: Sequence[Task]) -> None:
    task = max(tasks, key=lambda task: len(set(task.labels) & set(verbalizer.labels)))
    missing = [label for label in task.labels if label not in verbalizer.labels]
    unknown = [label for label in verbalizer.labels if label not in task.labels]
    if verbalizer.family not in (None, task.family):
        raise UsageError(
            f"verbalizer '{verbalizer.name}' is of family '{verbalizer.family}', task '{task.name}' of '{task.family}'."
        )
    parts = [f"misses {', '.join(map(repr, missing))}"] if missing else []
    parts += [f"has {', '.join(map(repr, unknown))}, which the task has not"] if unknown else []
    raise LabelWordError(
        f"{verbalizer.path} {' and '.join(parts)}: the labels of task '{task.name}' are {', '.join(task.labels)}."
    )
