"""Planning: which blocks a grid needs, which cells read them, and ids that are made of what decides the numbers."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptlab.backends.base import Scorer
from promptlab.calibration_prompts import PromptGroup
from promptlab.deciding import Cell
from promptlab.errors import UsageError
from promptlab.grids import load_all_rows, make_grid
from promptlab.hashing import content_hash
from promptlab.planning import PlannedBlock, plan_blocks, plan_digest, plan_ensembles
from promptlab.registry import CALIBRATIONS
from promptlab.scoring import SCORING_VERSION
from promptlab.specs.run import RunSpec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from tests.tiny_library import spec_of, write_library, write_text

SCORER = Scorer("tiny", None, "weights", "tokenizer", "BertForMaskedLM", "float32", "cpu", "default")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


def plan(spec: RunSpec, scorer: Scorer = SCORER, *, max_length: int = 64) -> list[PlannedBlock]:
    """The blocks of a run."""
    grid = make_grid(spec)
    return plan_blocks(grid, load_all_rows(spec, grid), scorer, max_length=max_length, seed=spec.seed)


def digest(blocks: list[PlannedBlock], *, seed: int = 0) -> str:
    """What identifies a plan of these blocks."""
    return plan_digest((cell.cell_id for block in blocks for cell in block.cells), seed=seed)


def cells_of(blocks: list[PlannedBlock]) -> dict[tuple[str, str, str], Cell]:
    """The cells that were asked for, by template, verbalizer and calibration."""
    cells = [cell for block in blocks if not block.is_baseline for cell in block.cells]
    return {(cell.template, cell.verbalizer.name, cell.calibration): cell for cell in cells}


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
    assert content_hash([block.block_id, named, block.rows.hash, words.hash, "none", None])[:16] == cell.cell_id


@pytest.mark.parametrize("name", ["weights_hash", "tokenizer_hash", "dtype", "device_class", "attention"])
def test_what_changes_the_numbers_changes_the_id(library: Path, name: str) -> None:
    """Other weights, tokenizer, dtype, device or attention path make another block."""
    other = dataclasses.replace(SCORER, **{name: "other"})
    assert plan(spec_of(library))[0].block_id != plan(spec_of(library), other)[0].block_id


@pytest.mark.parametrize("name", ["model", "revision", "architecture"])
def test_what_a_model_is_called_does_not_change_the_id(library: Path, name: str) -> None:
    """The same files under another name find the same blocks and cells."""
    other = dataclasses.replace(SCORER, **{name: "other"})
    assert digest(plan(spec_of(library))) == digest(plan(spec_of(library), other))
    assert digest(plan(spec_of(library))) != digest(plan(spec_of(library)), seed=7)


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
        digests.add(digest(blocks))
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


NEW_ROWS = [{"text": f"a new opinion {number}", "label": "positive"} for number in range(5)]
ALL = "*"


def write_train(library: Path, rows: Sequence[Mapping[str, str]] = NEW_ROWS) -> None:
    """Train rows of the opinions that are not scored as well."""
    path = library / "tasks" / "data" / "views" / "train.jsonl"
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_domain_prompt(library: Path, name: str = "opinions/it_was") -> None:
    path = library / "templates" / f"{name}.jinja"
    write_text(path, f'---\ndomain_prompt: "It was {{{{ mask }}}}."\n---\n{path.read_text()}')


def test_a_calibrated_cell_is_known_by_what_it_asks(library: Path) -> None:
    """The id of a cell holds the prompts of its calibration; other train rows are another cell of two of the six."""
    write_train(library)
    write_domain_prompt(library)
    before = plan(spec_of(library, calibrations=ALL))
    block, cells = before[0], cells_of(before)
    words = Verbalizer.from_labels({"positive": "great", "negative": "terrible"})
    named = ["views", "negative", "positive"]
    asked = {"none": None, "batch": None, "contextual": "content_free", "pmi_dc": "domain_prompt",
             "domain": "domain", "support": "support"}  # fmt: skip
    for calibration, group in asked.items():
        prompts = block.groups[group].hash if group else None
        expected = content_hash([block.block_id, named, block.rows.hash, words.hash, calibration, prompts])[:16]
        assert expected == cells["opinions/it_was", "opinions/great_terrible", calibration].cell_id
    write_train(library, NEW_ROWS[:-1])
    after = cells_of(plan(spec_of(library, calibrations=ALL)))
    moved = {key[2] for key, cell in cells.items() if cell.cell_id != after[key].cell_id}
    assert {"domain", "support"} == moved


def test_prompts_of_calibrations_are_planned_with_the_block(library: Path) -> None:
    """The cheap ones are there always, those of train rows where they are asked for or prepared."""
    write_train(library)
    write_domain_prompt(library)
    cheap = ["content_free", "domain_prompt"]
    assert cheap == list(plan(spec_of(library))[0].groups)
    prepared = plan(spec_of(library, prepare="support"))
    assert [*cheap, "support"] == list(prepared[0].groups)
    assert ["none"] == [cell.calibration for cell in prepared[0].cells]
    asked = plan(spec_of(library, calibrations=["none", "domain"]))
    assert ["content_free", "domain", "domain_prompt"] == sorted(asked[0].groups)
    assert [3, 1, 20] == [len(asked[0].groups[name].examples) for name in (*cheap, "domain")]
    assert all(set(block.groups) | set(block.faults) == set(asked[0].groups) for block in asked)


def test_prompts_that_do_not_depend_on_the_template_are_made_once(library: Path) -> None:
    """Two templates of a task share their bags; each has a domain prompt of its own."""
    write_train(library)
    write_domain_prompt(library)
    write_domain_prompt(library, "opinions/in_brackets")
    templates = ["opinions/it_was", "opinions/in_brackets"]
    one, other, *_ = plan(spec_of(library, templates=templates, calibrations=["domain", "pmi_dc"]))
    assert one.groups["domain"] is other.groups["domain"]
    assert one.groups["domain_prompt"] is not other.groups["domain_prompt"]
    assert isinstance(one.groups["domain"], PromptGroup)


def test_the_files_of_a_block_are_named_by_what_they_hold(library: Path) -> None:
    """Rows and prompts have a name each, in which task, split or calibration and a hash stand."""
    block = plan(spec_of(library))[0]
    group = block.groups["content_free"]
    assert f"rows-views-test-{block.rows.hash[:12]}" == block.rows_name
    assert f"calibration-views-content_free-{group.hash[:12]}" == block.group_name(group)


def test_why_a_block_has_no_prompts_is_kept(library: Path) -> None:
    """A template without a domain prompt, a task whose train rows are all scored too."""
    block = plan(spec_of(library, calibrations=ALL))[0]
    reason = "needs train rows that are not scored too, and there are none."
    assert block.faults == {
        "domain_prompt": "needs a domain_prompt in the head of the template, and it has none.",
        "domain": reason,
        "support": reason,
    }
    assert set(CALIBRATIONS.names()) == {cell.calibration for cell in block.cells}


def test_a_calibration_that_nothing_can_use_is_refused_where_it_was_named(library: Path) -> None:
    """A glob only tries it; one block that can use it is enough."""
    expected = (
        "task 'views', template 'opinions/it_was': calibration 'pmi_dc' needs a domain_prompt in the head of the "
        "template, and it has none."
    )
    with pytest.raises(UsageError) as fault:
        plan(spec_of(library, calibrations=["none", "pmi_dc"]))
    assert expected == str(fault.value)
    with pytest.raises(UsageError, match=r"calibration 'support' needs train rows that are not scored too"):
        plan(spec_of(library, calibrations="support"))
    assert plan(spec_of(library, calibrations="p*"))
    write_domain_prompt(library, "opinions/in_brackets")
    assert plan(spec_of(library, calibrations="pmi_dc", templates=["opinions/it_was", "opinions/in_brackets"]))


def ensembles(library: Path, asked: Mapping[str, Sequence[str]], **changes: Any) -> list[Cell]:
    """The ensembles over the cells of a run of three templates."""
    templates = ["opinions/it_was", "opinions/in_brackets", "opinions/null"]
    blocks = plan(spec_of(library, **{"templates": templates, "calibrations": ["none", "contextual"], **changes}))
    return plan_ensembles(asked, list(cells_of(blocks).values()))


def test_an_ensemble_is_a_cell_a_task_verbalizer_and_calibration(library: Path) -> None:
    """A glob takes instructive templates only; its members are the cells of that verbalizer and calibration."""
    cells = cells_of(
        plan(spec_of(library, templates=["opinions/it_was", "opinions/in_brackets"], verbalizers="opinions/g*",
                     calibrations=["none", "contextual"]))
    )  # fmt: skip
    found = ensembles(library, {"both": ["opinions/*"]}, verbalizers="opinions/g*")
    rules = [(one.verbalizer.name, one.calibration) for one in found]
    both = ("opinions/good_bad", "opinions/great_terrible")
    assert [(name, calibration) for name in both for calibration in ("none", "contextual")] == rules
    for one in found:
        wanted = {cells[name, one.verbalizer.name, one.calibration].cell_id
                  for name in ("opinions/it_was", "opinions/in_brackets")}  # fmt: skip
        assert wanted == set(one.members)
    (first, *_) = found
    assert ("ensemble:both", ("ensemble",), "views", "test") == (
        first.template, first.template_tags, first.task.name, first.split,
    )  # fmt: skip
    assert f"views-ensemble-{first.cell_id}" == first.samples
    assert 4 == len({one.cell_id for one in found})


def test_a_name_takes_whatever_it_names(library: Path) -> None:
    """A control is a member where it is named, whole or by its last name."""
    sizes = {
        "opinions/*|opinions/null": 3,
        "opinions/*|null": 3,
        "it_was|in_brackets": 2,
        "it_was|opinions/it_was|null": 2,
    }
    for text, size in sizes.items():
        found = ensembles(library, {"some": text.split("|")})
        assert [size] * 2 == [len(one.members) for one in found], text


def test_the_id_of_an_ensemble_is_its_name_and_its_members(library: Path) -> None:
    """Not the order in which they are named, in the ensemble or in the run."""
    known, named, other = (
        ensembles(library, {name: selectors})[0].cell_id
        for name, selectors in (
            ("some", ["it_was", "in_brackets"]),
            ("else", ["it_was", "in_brackets"]),
            ("some", ["in_brackets", "null"]),
        )
    )
    turned = ensembles(
        library, {"some": ["in_brackets", "it_was"]}, templates=["opinions/in_brackets", "opinions/it_was"]
    )
    assert known == turned[0].cell_id
    assert 3 == len({known, other, named})


@pytest.mark.parametrize(
    ("selectors", "sentence"),
    [
        (["it_was", "null", "in_brakets"], "'in_brakets' is no template of the run. Did you mean 'in_brackets'?"),
        (["it_was", "null", "opinions/z*"], "no instructive template of the run matches 'opinions/z*'."),
        (["opinions/nul*"], "no instructive template of the run matches 'opinions/nul*'."),
        (["it_was"], "needs two templates of the run at least, it_was gives 1."),
    ],
)
def test_an_ensemble_of_too_few_or_unknown_templates_is_refused(
    library: Path, selectors: list[str], sentence: str
) -> None:
    """What is there is listed."""
    with pytest.raises(UsageError) as fault:
        ensembles(library, {"some": selectors})
    known = "It has: opinions/it_was, opinions/in_brackets, opinions/null."
    assert f"--ensemble some: {sentence} {known}" == str(fault.value)
