"""Planning: what applies to what, stable ids, and an explanation of what applies nowhere."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from promptlab.backends.base import Scorer
from promptlab.errors import DataError, LabelWordError, TemplateError, UsageError
from promptlab.hashing import content_hash
from promptlab.planning import (
    Grid,
    PlannedBlock,
    applies,
    load_all_rows,
    make_grid,
    plan_blocks,
    plan_digest,
    verbalizes,
)
from promptlab.rendering import compile_template
from promptlab.scoring import SCORING_VERSION
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from tests.tiny_library import write_library, write_text

SCORER = Scorer("tiny", None, "weights", "tokenizer", "BertForMaskedLM", "float32", "cpu", "default")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


def spec_of(library: Path, **changes: Any) -> RunSpec:
    """A run over the opinions of the tiny library."""
    values: dict[str, Any] = {
        "tasks": "views", "templates": "opinions/it_was", "verbalizers": "opinions/great_terrible",
        "calibrations": "none", "include": str(library),
    }  # fmt: skip
    return RunSpec(**{**values, **changes})


def plan(spec: RunSpec, scorer: Scorer = SCORER, *, max_length: int = 64) -> list[PlannedBlock]:
    """The blocks of a run."""
    grid = make_grid(spec)
    return plan_blocks(grid, load_all_rows(spec, grid).rows, scorer, max_length=max_length, seed=spec.seed)


def names(blocks: list[PlannedBlock]) -> list[tuple[str, str | None, list[str]]]:
    """Template, bound verbalizer and verbalizers of each block."""
    return [
        (
            block.template.template.name,
            block.bound.name if block.bound else None,
            [cell.verbalizer.name for cell in block.cells],
        )
        for block in blocks
    ]


def test_a_template_applies_to_its_family_with_its_fields(library: Path) -> None:
    """A template of a family applies to that family's tasks, one of no family wherever its fields are."""
    views, follows = (Task.load(name, include=[str(library)]) for name in ("views", "follows"))
    shipped, own = (
        compile_template(template)
        for template in (
            Template.load("opinions/it_was", include=[str(library)]),
            Template.from_text("{{ text }} {{ mask }}"),
        )
    )
    without_fields = compile_template(Template.from_text("It was {{ mask }}."))
    assert [(True, False), (True, False), (True, True)] == [
        (applies(template, views), applies(template, follows)) for template in (shipped, own, without_fields)
    ]
    of_family = dataclasses.replace(
        without_fields, template=without_fields.template.model_copy(update={"family": "pairs"})
    )
    assert [False, True] == [applies(of_family, task) for task in (views, follows)]


def test_a_verbalizer_applies_to_its_family_with_its_labels(library: Path) -> None:
    """A verbalizer needs exactly the labels of a task, in any order, and its family where it has one."""
    views, follows = (Task.load(name, include=[str(library)]) for name in ("views", "follows"))
    shipped = Verbalizer.load("opinions/great_terrible", include=[str(library)])
    own = Verbalizer.from_labels({"positive": "good", "negative": "bad"})
    short = Verbalizer.from_labels({"positive": "good", "neutral": "fine"})
    other = shipped.model_copy(update={"family": "pairs"})
    shown = [(verbalizes(v, views), verbalizes(v, follows)) for v in (shipped, own, short, other)]
    assert [(True, False), (True, False), (False, False), (False, False)] == shown


def test_the_grid_is_the_product_of_what_applies(library: Path) -> None:
    """Every template that applies meets every verbalizer and calibration that do, task by task."""
    spec = spec_of(
        library, tasks=["views", "follows"], templates=["opinions/it_was", "opinions/in_brackets", "pairs/*"],
        verbalizers=["opinions/g*", "pairs/yes_no"], calibrations=["none", "contextual", "none"],
    )  # fmt: skip
    both = ["opinions/good_bad", "opinions/great_terrible"]
    expected = [
        ("opinions/it_was", None, [both[0], both[0], both[1], both[1]]),
        ("opinions/in_brackets", None, [both[0], both[0], both[1], both[1]]),
        ("opinions/null", None, [both[0], both[0], both[1], both[1]]),
        ("pairs/question", None, ["pairs/yes_no", "pairs/yes_no"]),
    ]
    blocks = plan(spec)
    assert expected == names(blocks)
    assert ["none", "contextual"] * 2 == [cell.calibration for cell in blocks[0].cells]


def test_options_bind_a_block_to_its_verbalizer(library: Path) -> None:
    """A template that names its options has a block of its own for each verbalizer, scored for its words alone."""
    blocks = plan(spec_of(library, templates="opinions/with_options", verbalizers="opinions/g*"))[:2]
    expected = [("opinions/with_options", name, [name]) for name in ("opinions/good_bad", "opinions/great_terrible")]
    assert expected == names(blocks)
    assert blocks[0].block_id != blocks[1].block_id
    assert [("bad", "good"), ("terrible", "great")] == [block.candidate_words for block in blocks]


def test_candidates_are_the_words_of_the_family(library: Path) -> None:
    """A block is scored for every word that the family's verbalizers know, those that were asked for first."""
    (block, _) = plan(spec_of(library))
    assert ("terrible", "great") == block.candidate_words[:2]
    assert {"terrible", "great", "good", "bad", "badness"} == set(block.candidate_words)


def test_a_null_template_is_there_as_a_baseline(library: Path) -> None:
    """The family's null template is scored beside what was asked for, and no mere baseline where it was asked for."""
    assert [False, True] == [block.is_baseline for block in plan(spec_of(library))]
    asked = plan(spec_of(library, templates=["opinions/it_was", "opinions/null"]))
    assert [False, False] == [block.is_baseline for block in asked]
    assert ["opinions/null"] == [block.template.template.name for block in asked][1:]


def test_block_ids_are_made_of_what_decides_the_numbers(library: Path) -> None:
    """A block id is the hash of scorer, scoring version, template text, length, demonstrations and bound words."""
    (block, _) = plan(spec_of(library))
    identity = {
        "scorer": {
            "weights": "weights", "tokenizer": "tokenizer", "dtype": "float32", "device_class": "cpu",
            "attention": "default",
        },
        "scoring_version": SCORING_VERSION,
        "template": Template.from_text("{{ text }} It was {{ mask }}.").hash,
        "max_length": 64,
        "demonstrations": None,
        "verbalizer": None,
    }  # fmt: skip
    assert content_hash(identity) == block.block_id
    (cell,) = block.cells
    words = Verbalizer.from_labels({"positive": "great", "negative": "terrible"})
    named = ["views", "negative", "positive"]
    assert content_hash([block.block_id, named, block.rows.hash, words.hash, "none"])[:16] == cell.cell_id


@pytest.mark.parametrize("name", ["weights_hash", "tokenizer_hash", "dtype", "device_class", "attention"])
def test_what_changes_the_numbers_changes_the_id(library: Path, name: str) -> None:
    """Other weights, tokenizer, dtype, device or attention path make another block."""
    other = dataclasses.replace(SCORER, **{name: "other"})
    assert plan(spec_of(library))[0].block_id != plan(spec_of(library), other)[0].block_id


@pytest.mark.parametrize("name", ["model", "revision", "architecture"])
def test_what_a_model_is_called_does_not_change_the_id(library: Path, name: str) -> None:
    """The same files under another name find the same blocks and cells."""
    other = dataclasses.replace(SCORER, **{name: "other"})
    assert plan_digest(plan(spec_of(library)), seed=0) == plan_digest(plan(spec_of(library), other), seed=0)
    assert plan_digest(plan(spec_of(library)), seed=0) != plan_digest(plan(spec_of(library)), seed=7)


def test_limit_and_rows_are_not_in_the_block_id(library: Path) -> None:
    """A prefix of the rows shares the block and has cells of its own; another length has another block."""
    whole, few = plan(spec_of(library))[0], plan(spec_of(library, limit=2))[0]
    assert whole.block_id == few.block_id
    assert whole.cells[0].cell_id != few.cells[0].cell_id
    assert whole.rows_name != few.rows_name
    assert whole.block_id != plan(spec_of(library), max_length=32)[0].block_id


def test_a_template_is_known_by_its_text(library: Path) -> None:
    """Another head or name leaves the block as it is; another text makes another."""
    before = plan(spec_of(library))[0].block_id
    path = library / "templates" / "opinions" / "it_was.jinja"
    write_text(path, "---\nfields: [text]\nnotes: a note\n---\n" + path.read_text())
    assert before == plan(spec_of(library))[0].block_id
    write_text(path, "{{ text }} It was so {{ mask }}.\n")
    assert before != plan(spec_of(library))[0].block_id


def test_ids_do_not_depend_on_order(library: Path) -> None:
    """The same selectors in any order make the same cells and the same digest."""
    digests, cells = set(), set()
    for seed in range(4):
        templates = ["opinions/it_was", "opinions/in_brackets", "opinions/with_options"]
        verbalizers = ["opinions/great_terrible", "opinions/good_bad"]
        random.Random(seed).shuffle(templates)
        random.Random(seed).shuffle(verbalizers)
        blocks = plan(spec_of(library, templates=templates, verbalizers=verbalizers, tasks=["views"]))
        digests.add(plan_digest(blocks, seed=0))
        cells.add(frozenset(cell.cell_id for block in blocks for cell in block.cells))
    assert (1, 1) == (len(digests), len(cells))


def test_a_seed_matters_where_something_is_drawn(library: Path) -> None:
    """Another seed gives a drawing template other rows and cells, and leaves the others as they are."""
    for name, is_same in (("opinions/it_was", True), ("opinions/drawn", False)):
        one, other = (plan(spec_of(library, templates=name, seed=seed))[0] for seed in (0, 1))
        assert one.block_id == other.block_id
        assert is_same == (one.rows_name == other.rows_name) == (one.cells[0].cell_id == other.cells[0].cell_id)


def test_the_order_of_labels_matters_where_options_are_listed(library: Path) -> None:
    """Another label order of the task renders other options, so their rows are others; decisions always are."""
    templates = ["opinions/it_was", "opinions/with_options"]
    before = plan(spec_of(library, templates=templates))
    path = library / "tasks" / "views.yaml"
    write_text(path, path.read_text().replace("[negative, positive]", "[positive, negative]"))
    after = plan(spec_of(library, templates=templates))
    pairs = list(zip(before[:2], after[:2], strict=True))
    assert [True, False] == [one.rows_name == other.rows_name for one, other in pairs]
    assert [False, False] == [one.cells[0].cell_id == other.cells[0].cell_id for one, other in pairs]


def test_two_names_of_the_same_words_are_decided_once(library: Path) -> None:
    """A shipped verbalizer and the same words inline are one set of cells, under the name that came first."""
    words = ["opinions/great_terrible", "negative=terrible,positive=great"]
    (block, *_) = plan(spec_of(library, verbalizers=words))
    assert ["opinions/great_terrible"] == [cell.verbalizer.name for cell in block.cells]


def test_two_names_of_one_text_are_decided_once(library: Path) -> None:
    """A shipped template and the same text inline are one block, under the name that came first."""
    blocks = plan(spec_of(library, templates=["opinions/it_was", "{{ text }} It was {{ mask }}."]))
    assert ["opinions/it_was"] == [block.template.template.name for block in blocks if not block.is_baseline]


def grid_of(library: Path, **changes: Any) -> Grid:
    return make_grid(spec_of(library, **changes))


def test_an_unknown_field_is_explained(library: Path) -> None:
    """A template asked for by name whose field no task has is refused with place, nearest field and what there is."""
    path = library / "templates" / "opinions" / "typo.jinja"
    write_text(path, "---\nfields: [texts]\n---\n{{ texts }} It was {{ mask }}.\n")
    expected = r"typo\.jinja:4 field 'texts' is unknown in task 'views'\. Did you mean 'text'\? Fields: text\."
    with pytest.raises(TemplateError, match=expected):
        grid_of(library, templates="opinions/typo")
    assert "opinions/typo" in {t.template.name for t in grid_of(library, templates="opinions/*").templates}


def test_a_template_of_another_family_is_explained(library: Path) -> None:
    """A template asked for by name that speaks about other tasks is refused with both families."""
    expected = r"template 'pairs/question' is of family 'pairs', the tasks are: views \(opinions\)\."
    with pytest.raises(UsageError, match=expected):
        grid_of(library, templates="pairs/question")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({"positive": "great", "neutral": "so"}, "misses 'negative' and has 'neutral', which the task has not"),
        ({"positive": "great", "negative": "bad", "neutral": "so"}, "has 'neutral', which the task has not"),
    ],
)
def test_labels_that_do_not_fit_are_named(library: Path, labels: dict[str, str], fault: str) -> None:
    """A verbalizer asked for by name names the labels it misses or has too many."""
    with pytest.raises(LabelWordError, match=f"{fault}: the labels of task 'views' are negative, positive"):
        grid_of(library, verbalizers=[labels])


@pytest.mark.parametrize("text", ["positive=what?,neutral=no", "positive=[MASK],neutral=no"])
def test_words_with_the_signs_of_a_glob_are_asked_for_by_name(library: Path, text: str) -> None:
    """A verbalizer written out is no glob, whatever its words hold."""
    with pytest.raises(LabelWordError, match="misses 'negative' and has 'neutral'"):
        grid_of(library, verbalizers=[text])


def test_a_verbalizer_of_another_family_is_explained(library: Path) -> None:
    """A verbalizer asked for by name that speaks about other tasks is refused with both families."""
    expected = r"verbalizer 'pairs/yes_no' is of family 'pairs', task 'views' of 'opinions'\."
    with pytest.raises(UsageError, match=expected):
        grid_of(library, verbalizers="pairs/yes_no")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"templates": "pairs/*"},
            r"no template that was asked for applies to task 'views' \(family opinions, fields text\)",
        ),
        (
            {"verbalizers": "pairs/*"},
            r"no verbalizer .* applies to task 'views' \(family opinions, labels negative, positive\)",
        ),
    ],
)
def test_a_task_without_anything_is_explained(library: Path, changes: dict[str, str], expected: str) -> None:
    """A task to which no template or verbalizer applies is refused with the command that lists what does."""
    with pytest.raises(
        UsageError, match=expected + r"\. `promptlab ls (template|verbalizer)s --family opinions` lists"
    ):
        plan(spec_of(library, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"calibrations": "contextul"}, "calibration 'contextul' is unknown. Did you mean 'contextual'?"),
        ({"tasks": "view"}, "task 'view' is unknown. Did you mean 'views'?"),
        ({"templates": "opinions/it_wa"}, "template 'opinions/it_wa' is unknown. Did you mean 'opinions/it_was'?"),
        ({"verbalizers": "opinions/bad_good"}, "verbalizer 'opinions/bad_good' is unknown."),
        ({"templates": "opinions/z*"}, "no template matches 'opinions/z*'."),
    ],
)
def test_unknown_names_are_explained(library: Path, changes: dict[str, str], expected: str) -> None:
    """An unknown name is refused with the nearest one."""
    with pytest.raises(UsageError) as caught:
        grid_of(library, **changes)
    assert expected in str(caught.value)


def test_a_task_without_rows_does_not_keep_the_others(library: Path) -> None:
    """Where one task of several has no rows its reason is kept; where none has, every reason is raised."""
    (library / "tasks" / "data" / "follows" / "test.jsonl").unlink()
    spec = spec_of(library, tasks=["views", "follows"], templates=["opinions/it_was", "pairs/*"], verbalizers="*/*")
    loaded = load_all_rows(spec, make_grid(spec))
    assert ["views"] == list(loaded.rows)
    assert "has no test{.jsonl,.csv,.parquet,.json,.tsv,.txt} for the split 'test'" in loaded.failures["follows"]
    alone = spec_of(library, tasks="follows", templates="pairs/*", verbalizers="pairs/*")
    with pytest.raises(DataError, match=r"task 'follows': .* has no test"):
        load_all_rows(alone, make_grid(alone))
