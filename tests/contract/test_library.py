"""Every shipped task, template and verbalizer loads, says where it comes from, and fits the others of its family.

A new data file is picked up by its place alone. The library is read from the checkout, without PROMPTLAB_PATH.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from promptlab.library import library_root
from promptlab.rendering import check_fields, compile_template, render
from promptlab.rows import load_rows
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.types import Example

ROOT = library_root()
TASKS = sorted(path.stem for path in (ROOT / "tasks").glob("*.yaml"))
TEMPLATES = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "templates").glob("*/*.jinja"))
VERBALIZERS = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "verbalizers").glob("*/*.yaml"))
FAMILIES = {"sentiment", "topic", "nli", "subjectivity", "question_type"}
OWN = "promptlab's own"


@pytest.fixture(autouse=True)
def _only_the_shipped_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTLAB_PATH", raising=False)


def load_task(name: str) -> Task:
    """The task of that shipped name."""
    return Task.load(name)


def tasks_of(family: str) -> list[Task]:
    """Every shipped task of a family."""
    return [task for task in map(load_task, TASKS) if task.family == family]


def templates_for(task: Task) -> list[Template]:
    """Templates of the task's family that read none but its fields."""
    family = [Template.load(name) for name in TEMPLATES if name.startswith(f"{task.family}/")]
    return [template for template in family if compile_template(template).fields <= set(task.fields)]


def verbalizers_for(task: Task) -> list[Verbalizer]:
    """Verbalizers of the task's family with exactly its labels."""
    family = [Verbalizer.load(name) for name in VERBALIZERS if name.startswith(f"{task.family}/")]
    return [verbalizer for verbalizer in family if set(verbalizer.labels) == set(task.labels)]


def sample(task: Task) -> Example:
    """An example with a sentence in each field, whose last character is a full stop as in most rows."""
    fields = {name: f"A plain sentence stands in the {name}." for name in task.fields}
    return Example("sample", 0, fields, task.labels[0])


def has_source(reference: str | None) -> bool:
    """Whether a reference names a publication with its year, or says that the file is promptlab's own."""
    return reference is not None and (reference.startswith(OWN) or re.search(r"\b(19|20)\d\d\b", reference) is not None)


@pytest.mark.parametrize("name", TASKS)
def test_task_loads_and_says_what_it_is(name: str) -> None:
    """A task loads, belongs to a known family, and states licence, citation, metrics and notes."""
    task = load_task(name)
    assert task.family in FAMILIES
    assert task.metrics == ("accuracy", "macro_f1")
    assert all([task.title, task.license, task.citation, task.notes])
    assert "\n" not in task.citation


@pytest.mark.parametrize("name", TASKS)
def test_every_source_of_a_task_has_labelled_train_and_test(name: str) -> None:
    """Each source names a train and a test split, and maps raw labels onto all of the task's labels."""
    task = load_task(name)
    for source in task.sources:
        assert {"train", "test"} <= set(source.splits)
        assert source.label is not None
        if source.label.values is not None:
            assert set(task.labels) == set(source.label.values.values())


@pytest.mark.parametrize("name", TASKS)
def test_task_has_its_rows_or_two_places_for_them(name: str) -> None:
    """A task ships its rows, or can be read from a local folder of its name before the hub."""
    task = load_task(name)
    kinds = [next(kind for kind in ("bundled", "local", "hub") if getattr(source, kind)) for source in task.sources]
    assert kinds in (["bundled"], ["local", "hub"])
    folder = task.sources[0].bundled or task.sources[0].local
    assert folder == (f"data/{name}" if kinds == ["bundled"] else name)


@pytest.mark.parametrize("name", [name for name in TASKS if load_task(name).sources[0].bundled])
@pytest.mark.parametrize("split", ["train", "test"])
def test_bundled_rows_load(name: str, split: str) -> None:
    """The rows of a task that ships them give every field a text and use every label."""
    task = load_task(name)
    examples = load_rows(task, split).examples
    assert set(task.labels) == {example.label for example in examples}
    assert all(example.fields[field] for example in examples for field in task.fields)


@pytest.mark.parametrize("name", TASKS)
def test_hub_source_carries_a_commit_only_if_it_was_checked(name: str) -> None:
    """A verified hub source carries a commit of 40 hexadecimal digits, an unverified one carries none."""
    for source in load_task(name).sources:
        if source.hub is not None and source.hub.verified:
            assert re.fullmatch(r"[0-9a-f]{40}", source.hub.revision or "")
        elif source.hub is not None:
            assert source.hub.revision is None


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_says_where_it_comes_from(name: str) -> None:
    """A template has one tag, and names its publication or says that it is promptlab's own."""
    template = Template.load(name)
    assert template.family in FAMILIES
    assert len(template.tags) == 1
    assert has_source(template.reference)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_one_line_of_plain_text(name: str) -> None:
    """The text is one line without outer or double blanks and without a blank before a sentence boundary."""
    text = Template.load(name).text
    assert text == text.strip()
    assert "\n" not in text
    assert "  " not in text
    assert " {{ sep }}" not in text


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_declares_what_it_reads(name: str) -> None:
    """The head names exactly the fields that the text reads, and some task of the family has them."""
    template = Template.load(name)
    compiled = compile_template(template)
    assert set(template.fields or ()) == compiled.fields
    assert any(compiled.fields <= set(task.fields) for task in tasks_of(name.partition("/")[0]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_renders_one_mask_for_every_task_it_applies_to(name: str) -> None:
    """Rendered for a sample of each task, the prompt has one mask, all fields and no double blank."""
    compiled = compile_template(Template.load(name))
    tasks = [task for task in tasks_of(name.partition("/")[0]) if compiled.fields <= set(task.fields)]
    for task in tasks:
        check_fields(compiled, task.fields, of=task.name)
        prompt = render(compiled, sample(task))
        kinds = [segment.kind for segment in prompt.segments]
        assert kinds.count("mask") == 1
        assert kinds.count("sep") <= 1
        assert kinds.count("field") == len(compiled.fields)
        assert prompt.text == prompt.text.strip()


@pytest.mark.parametrize("name", VERBALIZERS)
def test_verbalizer_says_where_it_comes_from(name: str) -> None:
    """A verbalizer names its publication or is promptlab's own, and fits a task of its family."""
    verbalizer = Verbalizer.load(name)
    assert has_source(verbalizer.reference)
    assert any(set(verbalizer.labels) == set(task.labels) for task in tasks_of(name.partition("/")[0]))


@pytest.mark.parametrize("name", VERBALIZERS)
def test_verbalizer_has_single_words_in_quotes(name: str) -> None:
    """Every label word is one word without blanks, stands in quotes in the file, and labels have equally many."""
    verbalizer = Verbalizer.load(name)
    text = (ROOT / "verbalizers" / f"{name}.yaml").read_text(encoding="utf-8")
    assert all(f'"{word}"' in text and " " not in word for word in verbalizer.words)
    assert len({len(words) for words in verbalizer.labels.values()}) == 1


@pytest.mark.parametrize("name", TASKS)
def test_task_has_templates_controls_and_verbalizers(name: str) -> None:
    """A task has four instructive templates, one null, one irrelevant and one misleading, and two verbalizers."""
    task = load_task(name)
    counts = Counter(template.tags[0] for template in templates_for(task))
    assert counts["instructive"] >= 4
    assert counts["null"] == counts["irrelevant"] == counts["misleading"] == 1
    assert len(verbalizers_for(task)) >= 2


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_family_has_no_text_and_no_rule_twice(family: str) -> None:
    """Two templates of a family never have the same text, and two verbalizers never the same rule."""
    templates = [Template.load(name).hash for name in TEMPLATES if name.startswith(f"{family}/")]
    verbalizers = [Verbalizer.load(name).hash for name in VERBALIZERS if name.startswith(f"{family}/")]
    assert len(templates) == len(set(templates))
    assert len(verbalizers) == len(set(verbalizers))
