"""Grids: what selectors mean and what applies to what, and an explanation of what applies nowhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import DataError, FileFault, LabelWordError, TemplateError, UsageError
from promptlab.grids import (
    Grid,
    LoadedRows,
    applies,
    is_glob,
    load_all_rows,
    make_grid,
    select_calibrations,
    verbalizes,
)
from promptlab.rendering import compile_template
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from tests.tiny_library import TEXTS, spec_of, write_library, write_text


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


def grid_of(library: Path, **changes: Any) -> Grid:
    return make_grid(spec_of(library, **changes))


def rows_of(library: Path, **changes: Any) -> LoadedRows:
    spec = spec_of(library, **changes)
    return load_all_rows(spec, make_grid(spec))


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


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["contextual", "none", "contextual"], ("contextual", "none")),
        (["*"], ("none", "batch", "contextual", "domain", "pmi_dc", "support")),
        (["support", "b*", "none"], ("none", "support", "batch")),
        (["*o*"], ("none", "contextual", "domain", "support")),
        ([], ()),
    ],
)
def test_calibrations_by_name_and_by_glob(selectors: list[str], expected: tuple[str, ...]) -> None:
    """Each once, in the order in which they are named; where a glob helps, the uncalibrated scores come first."""
    assert expected == select_calibrations(selectors)


@pytest.mark.parametrize("selector", ["contextul", "contextul*"])
def test_a_selector_of_no_calibration_is_explained(selector: str) -> None:
    """A misspelt name and a glob that matches nothing are refused with what there is."""
    with pytest.raises(UsageError) as fault:
        select_calibrations(["none", selector])
    assert f"calibration '{selector}' is unknown. Did you mean 'contextual'? Known: batch, " in str(fault.value)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("*", True),
        ("opinions/*", True),
        ("it_[wx]as", True),
        ("opinions/*@max", True),
        ("opinions/it_was", False),
        ("opinions/good_bad@max", False),
        ("{{ text }} Is it {{ mask }}?", False),
        ("positive=what?,negative=no", False),
        ({"positive": "what?"}, False),
    ],
)
def test_what_is_a_glob(selector: Any, expected: bool) -> None:
    """A template and a verbalizer that are written out may hold the signs of a glob."""
    assert expected == is_glob(selector)


def test_names_are_kept_that_no_glob_found(library: Path) -> None:
    """What was asked for by name must work; what a glob found may be skipped."""
    grid = grid_of(
        library, templates=["opinions/it_was", "opinions/i*"], verbalizers=["opinions/*@max", "opinions/good_bad@max"],
        calibrations=["contextual", "n*"],
    )  # fmt: skip
    assert {"opinions/it_was", "opinions/good_bad@max", "contextual"} == grid.explicit
    assert ["opinions/it_was", "opinions/in_brackets"] == [one.template.name for one in grid.templates]
    assert {"opinions/good_bad@max", "opinions/great_terrible@max", "opinions/splits@max"} == {
        one.name for one in grid.verbalizers
    }


@pytest.mark.parametrize(
    ("calibrations", "prepare", "expected"),
    [
        ("none", (), ("content_free", "domain_prompt")),
        (("none", "support"), "domain", ("content_free", "domain_prompt", "domain", "support")),
        ("*", (), ("content_free", "domain_prompt", "domain", "support")),
        ("batch", "support", ("content_free", "domain_prompt", "support")),
    ],
)
def test_prompts_of_calibrations_have_one_order(
    library: Path, calibrations: Any, prepare: Any, expected: tuple[str, ...]
) -> None:
    """Cheap prompts are scored always, those of train rows where a calibration is asked for or prepared."""
    grid = grid_of(library, calibrations=calibrations, prepare=prepare)
    assert expected == grid.groups
    assert set(select_calibrations(spec_of(library, prepare=prepare).prepare)).isdisjoint(grid.calibrations)


def train_file(library: Path) -> Path:
    return library / "tasks" / "data" / "views" / "train.jsonl"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_train_rows_are_read_where_a_calibration_asks_for_them(library: Path) -> None:
    """A run without such a calibration does not open the file; rows that are scored too are left out and counted."""
    new = [{"text": f"new {number}", "label": "negative"} for number in range(3)]
    known = [{"text": text, "label": label} for text, label in TEXTS[:2]]
    write_rows(train_file(library), [*new, *known])
    (train,) = rows_of(library, calibrations="domain").train.values()
    assert {row["text"] for row in new} == {example.fields["text"] for example in train.examples}
    assert (2, None) == (train.num_in_scored, train.fault)
    write_text(train_file(library), "no rows at all")
    assert {} == rows_of(library).train
    assert {} == rows_of(library, calibrations=["contextual", "pmi_dc", "batch"]).train


@pytest.mark.parametrize("calibrations", ["domain", "support"])
def test_why_there_are_no_train_rows_is_said(library: Path, calibrations: str) -> None:
    """The train split is scored itself, cannot be read, or is not among the rows of the user's own."""
    of_train = rows_of(library, calibrations=calibrations, split="train").train["views"]
    assert "needs train rows that are not scored, and the train split is scored." == of_train.fault
    train_file(library).unlink()
    missing = rows_of(library, calibrations=calibrations).train["views"]
    assert str(missing.fault).startswith("needs train rows, which cannot be read: task 'views': ")
    own = write_rows(library / "own.jsonl", [{"text": "a"}, {"text": "b"}])
    alone = {"rows": str(own), "tasks": ("everyday_nli", "news_topic", "review_sentiment")}
    without = rows_of(library, calibrations=calibrations, **alone).train["own"]
    assert "needs train rows: name a file of them with --train-rows." == without.fault
    train = write_rows(library / "train.jsonl", [{"text": "a"}, {"text": "c"}])
    found = rows_of(library, calibrations=calibrations, train_rows=str(train), **alone).train["own"]
    assert (["c"], 1, None) == ([one.fields["text"] for one in found.examples], found.num_in_scored, found.fault)


def test_metrics_must_fit_a_task(library: Path) -> None:
    """A metric that one of several tasks can have is taken; one that none can have, and an unknown one, are refused."""
    both = {"tasks": ["views", "follows"], "templates": "*", "verbalizers": "*"}
    assert grid_of(library, metrics=["f1(yes)", "brier"], **both)
    with pytest.raises(UsageError) as fault:
        grid_of(library, metrics="f1(maybe)", **both)
    assert str(fault.value).startswith("--metrics: ") and "maybe" in str(fault.value)
    with pytest.raises(UsageError, match=r"--metrics: metric 'acuracy' is unknown\. Did you mean 'accuracy'\?"):
        grid_of(library, metrics="acuracy")
    path = library / "tasks" / "views.yaml"
    write_text(path, path.read_text().replace("macro_f1", "f1(good)"))
    with pytest.raises(FileFault, match=r"tasks/views\.yaml metrics: "):
        grid_of(library)


OWN = [{"text": "a fine day", "stars": 1}, {"text": "a bad day", "stars": 0}]


def own_grid(library: Path, **changes: Any) -> Grid:
    """A grid over a file that no task describes."""
    path = write_rows(library / "own.jsonl", OWN)
    return make_grid(RunSpec(**{"rows": str(path), "include": str(library), "calibrations": "none", **changes}))


@pytest.mark.parametrize(
    ("changes", "family", "labels", "num_templates"),
    [
        ({"templates": "opinions/it_was", "verbalizers": "opinions/good_bad"}, "opinions", ["negative", "positive"], 1),
        ({"templates": "opinions/*"}, "opinions", ["negative", "positive"], 4),
        ({"verbalizers": "pairs/yes_no", "templates": "{{ text }} {{ mask }}"}, "pairs", ["no", "yes"], 1),
        ({"family": "opinions"}, "opinions", ["negative", "positive"], 4),
        ({"templates": "{{ text }} {{ mask }}", "verbalizers": "b=bad,a=good"}, "", ["b", "a"], 1),
        ({"verbalizers": "positive=good,negative=bad", "templates": "{{ text }} {{ mask }}",
          "labels": ["negative", "positive"]}, "", ["negative", "positive"], 1),
    ],
)  # fmt: skip
def test_the_task_of_a_file_is_made_of_what_is_asked(
    library: Path, changes: dict[str, Any], family: str, labels: list[str], num_templates: int
) -> None:
    """Family and labels are those of the templates and verbalizers, or as they are named; labels keep their order."""
    grid = own_grid(library, **changes)
    (task,) = grid.tasks
    assert ("own", family, labels) == (task.name, task.family, list(task.labels))
    fitting = [one for one in grid.templates if applies(one, task) and "null" not in one.template.tags]
    assert num_templates == len(fitting)
    assert [one for one in grid.verbalizers if verbalizes(one, task)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "--rows needs to know what is asked of its rows: name --templates and --verbalizers, or a --family ("),
        (
            {"templates": ["opinions/it_was", "pairs/question"]},
            "--rows: what was asked for is of the families opinions, pairs: name one by --family.",
        ),
        (
            {"templates": "opinions/it_was", "verbalizers": ["a=good,b=bad", "c=good,d=bad"]},
            "--rows: the verbalizers have several sets of labels (a, b; c, d): name one set by --labels, or the "
            "verbalizers.",
        ),
        (
            {"family": "opinion"},
            "--rows: no verbalizer is of the family 'opinion'. Did you mean 'opinions'? Name another --family (",
        ),
    ],
)
def test_a_file_of_which_too_little_is_said_is_explained(library: Path, changes: dict[str, Any], sentence: str) -> None:
    """What is missing or contradictory, and the flag that says it."""
    with pytest.raises(UsageError) as fault:
        own_grid(library, **changes)
    assert str(fault.value).startswith(sentence)


def test_several_sets_of_labels_of_a_family_are_told_apart_by_one_of_them(library: Path) -> None:
    """A family whose verbalizers have several sets of labels lists them; --labels names one."""
    write_text(library / "verbalizers" / "opinions" / "other.yaml", "labels: {bad: [bad], good: [good]}\n")
    with pytest.raises(UsageError, match=r"several sets of labels \(negative, positive; bad, good\)"):
        own_grid(library, family="opinions")
    grid = own_grid(library, family="opinions", labels=["good", "bad"])
    assert ("good", "bad") == grid.tasks[0].labels
    assert ["opinions/other"] == [one.name for one in grid.verbalizers if verbalizes(one, grid.tasks[0])]


def test_a_null_template_is_a_baseline_where_a_family_has_one(library: Path) -> None:
    """Not where it was asked for already, and not of a file whose family has no templates."""
    assert ["opinions/null"] == [one.template.name for one in grid_of(library).baselines]
    assert () == grid_of(library, templates=["opinions/it_was", "opinions/null"]).baselines
    assert () == own_grid(library, templates="{{ text }} {{ mask }}", verbalizers="b=bad,a=good").baselines
