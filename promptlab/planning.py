"""Run spec -> plan: which blocks must be scored and which cells decided, each with a stable id.

The grid is the product of what applies: a template applies to tasks of its family that have its fields, a verbalizer to
tasks of its family that have exactly its labels. What was asked for by name and applies nowhere is a fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from promptlab.backends.base import Scorer
from promptlab.deciding import Cell
from promptlab.errors import DataError, FileFault, LabelWordError, UsageError
from promptlab.hashing import content_hash
from promptlab.library import LibraryFile, list_files, shown_path
from promptlab.metrics import check_metric
from promptlab.registry import CALIBRATIONS
from promptlab.rendering import CompiledTemplate, check_fields, compile_template
from promptlab.rows import Limit, RowSet, load_rows
from promptlab.scoring import SCORING_VERSION
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task, load_tasks
from promptlab.specs.template import load_templates
from promptlab.specs.verbalizer import Verbalizer, load_verbalizers

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What the selectors of a run mean, before any model is looked at."""

    tasks: tuple[Task, ...]
    templates: tuple[CompiledTemplate, ...]
    verbalizers: tuple[Verbalizer, ...]
    explicit: frozenset[str]
    candidates: tuple[Verbalizer, ...]
    baselines: tuple[CompiledTemplate, ...]
    calibrations: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedBlock:
    """One model x task split x template (x bound verbalizer), and the cells that read it."""

    block_id: str
    identity: dict[str, Any]
    scorer: Scorer
    task: Task
    rows: RowSet
    rows_hash: str
    template: CompiledTemplate
    bound: Verbalizer | None
    cells: tuple[Cell, ...]
    candidate_words: tuple[str, ...]
    is_baseline: bool

    @property
    def rows_name(self) -> str:
        """Names the rows of this split inside the block's folder."""
        return f"{self.task.name}-{self.rows.split}-{self.rows_hash[:12]}"

    @property
    def options(self) -> list[str] | None:
        """The first word of each label, in label order, for a template that lists them; None for every other."""
        return [self.bound.labels[label][0].word for label in self.task.labels] if self.bound else None


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """The rows of every task that has them, and for every other task why they could not be read."""

    rows: dict[str, RowSet]
    failures: dict[str, str]


def make_grid(spec: RunSpec) -> Grid:
    """Load everything the selectors mean and check that each fits somewhere.

    Raises:
        UsageError: an unknown name, or something asked for by name that applies to no task.
        FileFault, TemplateError: faults of the data files.
    """
    for name in spec.calibrations:
        CALIBRATIONS.get(name)
    tasks = load_tasks(spec.tasks, include=spec.include)
    _check_metrics(tasks)
    templates = [compile_template(template) for template in load_templates(spec.templates, include=spec.include)]
    verbalizers = load_verbalizers(spec.verbalizers, include=spec.include)
    named_templates = [selector for selector in spec.templates if not _is_glob(selector)]
    named_verbalizers = [selector for selector in spec.verbalizers if not _is_glob(selector)]
    explicit = {item.name for item in load_templates(named_templates, include=spec.include)}
    explicit |= {item.name for item in load_verbalizers(named_verbalizers, include=spec.include)}
    for template in templates:
        if template.template.name in explicit and not any(applies(template, task) for task in tasks):
            _explain_template(template, tasks)
    for verbalizer in verbalizers:
        if verbalizer.name in explicit and not any(verbalizes(verbalizer, task) for task in tasks):
            _explain_verbalizer(verbalizer, tasks)
    return Grid(
        tasks=tuple(tasks),
        templates=tuple(templates),
        verbalizers=tuple(verbalizers),
        explicit=frozenset(explicit),
        candidates=tuple(load_verbalizers(["*"], include=spec.include)),
        baselines=tuple(_null_templates(tasks, templates, spec)),
        calibrations=tuple(dict.fromkeys(spec.calibrations)),
    )


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
    for task in grid.tasks:
        try:
            rows[task.name] = load_rows(task, spec.split, data=spec.data, limit=limit, seed=spec.seed)
        except DataError as error:
            reason = str(error)
            failures[task.name] = reason if f"'{task.name}'" in reason else f"task '{task.name}': {reason}"
    if not rows:
        raise DataError("\n".join(dict.fromkeys(failures.values())))
    return LoadedRows(rows, failures)


def plan_blocks(
    grid: Grid, rows: dict[str, RowSet], scorer: Scorer, *, max_length: int, seed: int
) -> list[PlannedBlock]:
    """Every block of one model.

    Raises:
        UsageError: a task to which no template or no verbalizer applies.
    """
    blocks = []
    for task in grid.tasks:
        fitting = [verbalizer for verbalizer in grid.verbalizers if verbalizes(verbalizer, task)]
        verbalizers = _first_of_each((verbalizer.hash, verbalizer) for verbalizer in fitting)
        templates = [template for template in grid.templates if applies(template, task)]
        _require(task, templates, verbalizers)
        chosen = [(template, False) for template in templates]
        if not any("null" in template.template.tags for template in templates):
            chosen += [(template, True) for template in grid.baselines if applies(template, task)]
        for template, is_baseline in chosen:
            groups = [[verbalizer] for verbalizer in verbalizers] if template.uses_options else [verbalizers]
            blocks += [
                _block(grid, task, rows[task.name], template, group, _Setting(scorer, max_length, seed, is_baseline))
                for group in groups
            ]
    return _first_of_each(((block.task.name, block.block_id), block) for block in blocks)


def plan_digest(blocks: Sequence[PlannedBlock], *, seed: int) -> str:
    """Identifies the plan: the seed and every cell, and with the cells tasks, rows, templates, words and weights."""
    return content_hash([seed, sorted(cell.cell_id for block in blocks for cell in block.cells)])


def applies(template: CompiledTemplate, task: Task) -> bool:
    """Whether a template speaks about a task: its family (where it has one) and all its fields."""
    is_family = template.template.family in (None, task.family)
    return is_family and template.fields <= set(task.fields)


def verbalizes(verbalizer: Verbalizer, task: Task) -> bool:
    """Whether a verbalizer has exactly the labels of a task, and its family where it has one."""
    return verbalizer.family in (None, task.family) and set(verbalizer.labels) == set(task.labels)


def _first_of_each(named: Iterable[tuple[Any, T]]) -> list[T]:
    """The first value of each key, in order: two names of one text or of one set of words are decided once."""
    first: dict[Any, T] = {}
    for key, value in named:
        first.setdefault(key, value)
    return list(first.values())


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all blocks of a model share, and whether this one is there as a baseline only."""

    scorer: Scorer
    max_length: int
    seed: int
    is_baseline: bool


def _block(
    grid: Grid,
    task: Task,
    rows: RowSet,
    template: CompiledTemplate,
    verbalizers: Sequence[Verbalizer],
    setting: _Setting,
) -> PlannedBlock:
    """One block: its id, the cells that read it, and the words that it is scored for."""
    bound = verbalizers[0] if template.uses_options else None
    identity = {
        "scorer": setting.scorer.identity(),
        "scoring_version": SCORING_VERSION,
        "template": template.template.hash,
        "max_length": setting.max_length,
        "demonstrations": None,
        "verbalizer": bound.hash if bound else None,
    }
    block_id = content_hash(identity)
    # A template that draws renders other prompts under another seed, one that lists options in another label order.
    varied: list[Any] = [setting.seed] if template.uses_choice else []
    varied += [list(task.labels)] if template.uses_options else []
    rows_hash = content_hash([rows.hash, *varied]) if varied else rows.hash
    known = [v for v in grid.candidates if v.family == task.family and bound is None]
    words = dict.fromkeys(word for verbalizer in [*verbalizers, *known] for word in verbalizer.words)
    named = [task.name, *task.labels]
    cells = tuple(
        Cell(
            cell_id=content_hash([block_id, named, rows_hash, verbalizer.hash, calibration])[:16],
            block_id=block_id,
            model=setting.scorer.model,
            task=task,
            split=rows.split,
            template=template.template,
            verbalizer=verbalizer,
            calibration=calibration,
        )
        for verbalizer in verbalizers
        for calibration in grid.calibrations
    )
    return PlannedBlock(
        block_id=block_id,
        identity=identity,
        scorer=setting.scorer,
        task=task,
        rows=rows,
        rows_hash=rows_hash,
        template=template,
        bound=bound,
        cells=cells,
        candidate_words=tuple(words),
        is_baseline=setting.is_baseline,
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


def _is_glob(selector: Any) -> bool:
    """Whether a selector is a pattern of names; a template or a verbalizer that is written out is none."""
    if not isinstance(selector, str) or "{{" in selector or "=" in selector:
        return False
    return any(character in selector for character in "*?[")


def _require(task: Task, templates: Sequence[Any], verbalizers: Sequence[Any]) -> None:
    for kind, found in (("template", templates), ("verbalizer", verbalizers)):
        if not found:
            wanted = f"fields {', '.join(task.fields)}" if kind == "template" else f"labels {', '.join(task.labels)}"
            raise UsageError(
                f"no {kind} that was asked for applies to task '{task.name}' (family {task.family}, {wanted}). "
                f"`promptlab ls {kind}s --family {task.family}` lists what does."
            )


def _check_metrics(tasks: Sequence[Task]) -> None:
    """Refuse an unknown metric, or one of no label of its task, before anything is scored."""
    for task in tasks:
        for metric in task.metrics:
            try:
                check_metric(metric, task.labels)
            except UsageError as fault:
                raise FileFault(f"{shown_path(Path(task.path))} metrics: {fault}") from None


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
