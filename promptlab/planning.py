"""Grid + scorer -> plan: which blocks must be scored and which cells decided, each with a stable id."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from promptlab.artefacts import Artefact
from promptlab.backends.base import Scorer
from promptlab.calibration import find_calibration
from promptlab.calibration_prompts import DOMAIN_PROMPT, PromptGroup, make_group
from promptlab.choosing import SHOTS
from promptlab.deciding import Cell
from promptlab.errors import UsageError, did_you_mean
from promptlab.grids import Grid, LoadedRows, applies, fits, is_glob, require_some, verbalizes
from promptlab.hashing import content_hash
from promptlab.methods.base import Method, Setting
from promptlab.rendering import CompiledTemplate
from promptlab.rows import RowSet
from promptlab.scoring import SCORING_VERSION
from promptlab.shots import Shots
from promptlab.specs.run import Scoring
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Example

T = TypeVar("T")
ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True, eq=False)
class PlannedFit:
    """A method and the labelled examples that it is fitted to, for one block.

    `grid` has the settings that are searched; `verbalizer` the label words that the method looks at, None where it
    looks at none; `selection` and `num_folds` say how a setting is chosen. An `artefact` was fitted before.
    """

    method: Method
    grid: tuple[Setting, ...]
    shots: Shots
    verbalizer: Verbalizer | None
    selection: str
    num_folds: int
    seed: int
    artefact: Artefact | None = None

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of a fit, for the block's id."""
        if self.artefact is not None:
            return {"artefact": self.artefact.hash}
        return {
            "method": self.method.name,
            "version": self.method.version,
            "settings": [setting.described() for setting in self.grid],
            "shots": self.shots.hash,
            "words": self.verbalizer.hash if self.verbalizer is not None else None,
            "selection": self.selection,
            "num_folds": self.num_folds,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PlannedBlock:
    """One model x task split x template (x bound verbalizer) (x what is fitted), and the cells that read it.

    `groups` are the prompts that calibrations need, `faults` says why there are none of a group; `fit` is what is
    fitted before anything is scored. `projects` is the block of the fitted soft tokens that this one asks about as the
    words nearest to them; nothing is fitted for it.
    """

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
    groups: Mapping[str, PromptGroup] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    fit: PlannedFit | None = None
    projects: str | None = None

    @property
    def scoring(self) -> Scoring:
        """How words are scored: at masks, or in place by a replaced-token detector."""
        return self.scorer.scoring

    @property
    def rows_name(self) -> str:
        """Names the rows of this split inside the block's folder."""
        return f"rows-{self.task.name}-{self.rows.split}-{self.rows_hash[:12]}"

    def group_name(self, group: PromptGroup) -> str:
        """Names the prompts of a calibration inside the block's folder."""
        return f"calibration-{self.task.name}-{group.name}-{group.hash[:12]}"

    @property
    def options(self) -> list[str] | None:
        """The first word of each label, in label order, for a template that lists them; None for every other."""
        return [self.bound.labels[label][0].text for label in self.task.labels] if self.bound else None


def plan_blocks(grid: Grid, loaded: LoadedRows, scorer: Scorer, *, max_length: int, seed: int) -> list[PlannedBlock]:
    """Every block of one model that nothing is fitted for.

    Raises:
        UsageError: a task to which no template or no verbalizer applies, or a calibration that nothing can use.
    """
    blocks = []
    for task in grid.tasks if grid.has_zero_shot else ():
        fitting = [verbalizer for verbalizer in grid.verbalizers if verbalizes(verbalizer, task)]
        verbalizers = first_of_each((verbalizer.hash, verbalizer) for verbalizer in fitting)
        templates = [template for template in grid.templates if applies(template, task)]
        require_some(task, templates, verbalizers)
        chosen = [(template, False) for template in templates]
        if not any("null" in template.template.tags for template in templates):
            chosen += [(template, True) for template in grid.baselines if applies(template, task)]
        make, shots = _group_maker(task, loaded, seed), shots_group(loaded.shots.get(task.name, ()))
        for template, is_baseline in chosen:
            words = [one for one in verbalizers if fits(template.num_masks, one)]
            groups = [[one] for one in words] if template.uses_options else [words] if words else []
            setting = _Setting(scorer, max_length, seed, is_baseline, make, shots)
            blocks += [_block(grid, task, loaded.rows[task.name], template, group, setting) for group in groups]
    found = first_of_each(((block.task.name, block.block_id), block) for block in blocks)
    _refuse_calibrations(grid, found)
    return found


def shots_group(shots: Sequence[Shots]) -> PromptGroup | None:
    """The prompts of all shots of a task, without their labels, each once: zero-shot choices look at them."""
    examples = {one.id: Example(one.id, one.index, one.fields) for each in shots for one in each.examples}
    return PromptGroup(SHOTS, tuple(examples.values())) if examples else None


def plan_ensembles(ensembles: Mapping[str, Sequence[str]], cells: Sequence[Cell]) -> list[Cell]:
    """The ensembles of one model: one cell a task, verbalizer and calibration that two members or more have.

    A glob takes instructive templates only, a name whatever it names.

    Args:
        ensembles: selectors of templates by the name of the ensemble.
        cells: the cells that were asked for, of all tasks.

    Raises:
        UsageError: a selector that names no template of the run, or an ensemble that has no two in any task.
    """
    found: list[Cell] = []
    known = list(dict.fromkeys(cell.template for cell in cells))
    for name, selectors in ensembles.items():
        for selector in selectors:
            if not any(_is_member(cell, selector) for cell in cells):
                raise UsageError(_no_member(name, selector, known))
        members = [cell for cell in cells if any(_is_member(cell, selector) for selector in selectors)]
        made = _ensembles(name, members)
        if not made:
            raise UsageError(
                f"--ensemble {name}: needs two templates of the run at least, {'|'.join(selectors)} gives "
                f"{len({cell.template for cell in members})}. It has: {', '.join(known)}."
            )
        found += made
    return found


def plan_digest(cells: Iterable[str], *, seed: int) -> str:
    """Identifies the plan: the seed and every cell, and with the cells tasks, rows, templates, words and weights."""
    return content_hash([seed, sorted(cells)])


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all blocks of a model share, and whether this one is there as a baseline only."""

    scorer: Scorer
    max_length: int
    seed: int
    is_baseline: bool
    make_group: Callable[[str, CompiledTemplate], PromptGroup | str]
    shots: PromptGroup | None


def first_of_each(named: Iterable[tuple[Any, T]]) -> list[T]:
    """The first value of each key, in order: two names of one text or of one set of words are decided once."""
    first: dict[Any, T] = {}
    for key, value in named:
        first.setdefault(key, value)
    return list(first.values())


def _group_maker(task: Task, loaded: LoadedRows, seed: int) -> Callable[[str, CompiledTemplate], PromptGroup | str]:
    """What makes the prompts of a calibration; those that do not depend on the template are made once a task."""
    train = loaded.train.get(task.name)

    @functools.cache
    def make(name: str, template: CompiledTemplate | None) -> PromptGroup | str:
        return make_group(name, template, task.fields, train, seed=seed)

    return lambda name, template: make(name, template if name == DOMAIN_PROMPT else None)


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
    made = {name: setting.make_group(name, template) for name in grid.groups}
    groups = {name: group for name, group in made.items() if isinstance(group, PromptGroup)}
    if setting.shots is not None and not setting.is_baseline:
        groups[SHOTS] = setting.shots
    cells = tuple(
        Cell(
            cell_id=cell_id(block_id, task, rows_hash, verbalizer, calibration, _asked(calibration, groups)),
            block_id=block_id,
            model=setting.scorer.model,
            task=task,
            split=rows.split,
            template=template.template.name,
            template_tags=template.template.tags,
            verbalizer=verbalizer,
            calibration=calibration,
            samples=f"{task.name}-{block_id[:16]}",
            scoring=setting.scorer.scoring,
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
        groups=groups,
        faults={name: reason for name, reason in made.items() if isinstance(reason, str)},
    )


def cell_id(
    block_id: str, task: Task, rows_hash: str, verbalizer: Verbalizer, calibration: str, group_hash: str | None
) -> str:
    """Identifies a cell: block, task with its labels, rows, decision rule, and what the calibration asks."""
    named = [task.name, *task.labels]
    return content_hash([block_id, named, rows_hash, verbalizer.hash, calibration, group_hash])[:16]


def _asked(calibration: str, groups: Mapping[str, PromptGroup]) -> str | None:
    """The hash of what a calibration asks beside the rows."""
    group = groups.get(find_calibration(calibration).prompts or "")
    return group.hash if group is not None else None


def _refuse_calibrations(grid: Grid, blocks: Sequence[PlannedBlock]) -> None:
    """Refuse a calibration that was asked for by name and that no block can use.

    Raises:
        UsageError: with the reason of the first block.
    """
    for name in grid.calibrations:
        needed = find_calibration(name).prompts
        if name in grid.explicit and blocks and all(needed in block.faults for block in blocks):
            block = blocks[0]
            raise UsageError(
                f"task '{block.task.name}', template '{block.template.template.name}': calibration '{name}' "
                f"{block.faults[str(needed)]}"
            )


def _is_member(cell: Cell, selector: str) -> bool:
    if is_glob(selector):
        return "instructive" in cell.template_tags and fnmatch.fnmatchcase(cell.template, selector)
    return selector in (cell.template, cell.template.rpartition("/")[2])


def _no_member(name: str, selector: str, known: Sequence[str]) -> str:
    """Why a selector of an ensemble names nothing of the run."""
    if is_glob(selector):
        return (
            f"--ensemble {name}: no instructive template of the run matches '{selector}'. It has: {', '.join(known)}."
        )
    hint = did_you_mean(selector, [*known, *(template.rpartition("/")[2] for template in known)])
    return f"--ensemble {name}: '{selector}' is no template of the run.{hint} It has: {', '.join(known)}."


def _ensembles(name: str, cells: Sequence[Cell]) -> list[Cell]:
    """One cell for each task, verbalizer and calibration that several of the cells have."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task.name, cell.verbalizer.hash, cell.calibration), []).append(cell)
    return [_ensemble(name, members) for members in groups.values() if len(members) > 1]


def _ensemble(name: str, cells: Sequence[Cell]) -> Cell:
    first, members = cells[0], tuple(cell.cell_id for cell in cells)
    found = content_hash([ENSEMBLE, "mean_probability", name, sorted(members)])[:16]
    return Cell(
        cell_id=found,
        block_id=content_hash([ENSEMBLE, sorted({cell.block_id for cell in cells})]),
        model=first.model,
        task=first.task,
        split=first.split,
        template=f"{ENSEMBLE}:{name}",
        template_tags=(ENSEMBLE,),
        verbalizer=first.verbalizer,
        calibration=first.calibration,
        samples=f"{first.task.name}-{ENSEMBLE}-{found}",
        members=members,
        scoring=first.scoring,
    )
