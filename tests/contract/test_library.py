"""Every shipped task, template and verbalizer loads, says where it comes from, and fits the others of its family.

A new data file is picked up by its place alone. The library is read from the checkout, without PROMPTLAB_PATH. Rows
that are not shipped are read from PROMPTLAB_DATA, else from `shared/datasets` beside the checkout, if they are there.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from promptlab.grids import fits, verbalizes
from promptlab.library import library_root
from promptlab.rendering import check_fields, compile_template, render
from promptlab.rows import SUFFIXES, load_rows
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer, slot_words
from promptlab.types import Example

ROOT = library_root()
TASKS = sorted(path.stem for path in (ROOT / "tasks").glob("*.yaml"))
TEMPLATES = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "templates").glob("*/*.jinja"))
VERBALIZERS = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "verbalizers").glob("*/*.yaml"))
CHINESE = {"sentiment_zh", "topic_zh", "nli_zh"}
FAMILIES = CHINESE | {
    "acceptability", "emotion", "intent", "nli", "paraphrase", "question_type", "sentiment", "spam", "subjectivity",
    "topic", "word_sense", "yes_no_question",
}  # fmt: skip
AWAITED: set[str] = set()
OWN = "promptlab's own"
HEADLINES = {"cola": "matthews", "mrpc": "f1(equivalent)", "sms_spam": "f1(spam)"}  # what the field reports
DATA = Path(os.environ.get("PROMPTLAB_DATA") or ROOT.parent / "shared" / "datasets")


@pytest.fixture(autouse=True)
def _only_the_shipped_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTLAB_PATH", raising=False)


@functools.cache
def load_task(name: str) -> Task:
    """The task of that shipped name."""
    return Task.load(name)


def tasks_of(family: str) -> list[Task]:
    """Every shipped task of a family."""
    return [task for task in map(load_task, TASKS) if task.family == family]


def tasks_or_skip(family: str) -> list[Task]:
    """Every shipped task of a family; skips where the family still waits for its first."""
    tasks = tasks_of(family)
    if not tasks and family in AWAITED:
        pytest.skip(f"no task of the family {family} yet")
    return tasks


def local_splits() -> list[tuple[str, str]]:
    """(task, split) for every split of a local source."""
    tasks = [(task.name, task.sources[0]) for task in map(load_task, TASKS)]
    return [(name, split) for name, source in tasks if source.local for split in source.splits]


def literals(text: str) -> str:
    """A template's text without its expressions."""
    return re.sub(r"\{\{.*?\}\}", "", text)


@functools.cache
def load_template(name: str) -> Template:
    """The template of that shipped name."""
    return Template.load(name)


@functools.cache
def load_verbalizer(name: str) -> Verbalizer:
    """The verbalizer of that shipped name."""
    return Verbalizer.load(name)


def templates_for(task: Task) -> list[Template]:
    """Templates of the task's family that read none but its fields."""
    family = [load_template(name) for name in TEMPLATES if name.startswith(f"{task.family}/")]
    return [template for template in family if compile_template(template).fields <= set(task.fields)]


def verbalizers_for(task: Task) -> list[Verbalizer]:
    """Verbalizers of the task's family with exactly its labels."""
    family = [load_verbalizer(name) for name in VERBALIZERS if name.startswith(f"{task.family}/")]
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
    assert HEADLINES.get(name, "accuracy") == task.metrics[0]
    assert "accuracy" in task.metrics
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
    """A task ships its rows, or can be read from a local folder that its name says before the hub."""
    task = load_task(name)
    kinds = [next(kind for kind in ("bundled", "local", "hub") if getattr(source, kind)) for source in task.sources]
    assert kinds in (["bundled"], ["local", "hub"])
    folder = task.sources[0].bundled or task.sources[0].local
    assert folder in (
        [f"data/{name}"] if kinds == ["bundled"] else [name, name.replace("_", "/", 1), name.partition("_")[0]]
    )


@pytest.mark.parametrize("name", [name for name in TASKS if load_task(name).sources[0].bundled])
@pytest.mark.parametrize("split", ["train", "test"])
def test_bundled_rows_load(name: str, split: str) -> None:
    """The rows of a task that ships them give every field a text and use every label."""
    task = load_task(name)
    examples = load_rows(task, split).examples
    assert set(task.labels) == {example.label for example in examples}
    assert all(example.fields[field] for example in examples for field in task.fields)


@pytest.mark.parametrize(("name", "split"), local_splits())
def test_local_rows_load(name: str, split: str) -> None:
    """Rows of every split of a local source load, use every label, and have a text but for one in 500."""
    task = load_task(name)
    folder = DATA / str(task.sources[0].local)
    if not folder.is_dir():
        pytest.skip(f"no rows of {name} in the folder of test data")
    if ".json" not in SUFFIXES and (folder / f"{task.sources[0].splits[split]}.json").is_file():
        pytest.skip("rows in a .json file are not read yet")
    examples = load_rows(task, split, data=str(DATA)).examples
    assert set(task.labels) == {example.label for example in examples}
    num_empty = sum(not "".join(map(str, example.fields.values())).strip() for example in examples)
    assert 500 * num_empty <= len(examples)


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
    template = load_template(name)
    assert template.family in FAMILIES
    assert len(template.tags) == 1
    assert has_source(template.reference)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_one_line_of_plain_text(name: str) -> None:
    """The text is one line without outer or double blanks and without a blank before a sentence boundary."""
    text = load_template(name).text
    assert text == text.strip()
    assert "\n" not in text
    assert "  " not in text
    assert " {{ sep }}" not in text


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_has_the_blanks_of_its_language(name: str) -> None:
    """A Chinese template has no blank outside of expressions; in any other no row text touches the mask."""
    text = load_template(name).text
    if name.partition("/")[0] in CHINESE:
        assert " " not in literals(text)
    else:
        assert not re.search(r"\}\}\{\{ mask|mask \}\}\{\{ (?!sep)", text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_declares_what_it_reads(name: str) -> None:
    """The head names exactly the fields that the text reads, and some task of the family has them."""
    template = load_template(name)
    compiled = compile_template(template)
    assert set(template.fields or ()) == compiled.fields
    assert any(compiled.fields <= set(task.fields) for task in tasks_or_skip(name.partition("/")[0]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_renders_its_masks_for_every_task_it_applies_to(name: str) -> None:
    """Rendered for a sample of each task, the prompt has the masks that are written, all fields and no double blank."""
    compiled = compile_template(load_template(name))
    tasks = [task for task in tasks_of(name.partition("/")[0]) if compiled.fields <= set(task.fields)]
    for task in tasks:
        check_fields(compiled, task.fields, of=task.name)
        prompt = render(compiled, sample(task))
        kinds = [segment.kind for segment in prompt.segments]
        assert kinds.count("mask") == compiled.num_masks
        of_task = [one for one in map(load_verbalizer, VERBALIZERS) if verbalizes(one, task)]
        assert any(fits(compiled.num_masks, one) for one in of_task)
        assert kinds.count("sep") <= 1
        assert kinds.count("field") == len(compiled.fields)
        assert prompt.text == prompt.text.strip()


@pytest.mark.parametrize("name", VERBALIZERS)
def test_verbalizer_says_where_it_comes_from(name: str) -> None:
    """A verbalizer names its publication or is promptlab's own, and fits a task of its family."""
    verbalizer = load_verbalizer(name)
    assert has_source(verbalizer.reference)
    assert any(set(verbalizer.labels) == set(task.labels) for task in tasks_or_skip(name.partition("/")[0]))


@pytest.mark.parametrize("name", VERBALIZERS)
def test_verbalizer_has_single_words_in_quotes(name: str) -> None:
    """Every label word is one word a mask, without blanks and in quotes in the file; labels have equally many."""
    verbalizer = load_verbalizer(name)
    text = (ROOT / "verbalizers" / f"{name}.yaml").read_text(encoding="utf-8")
    assert all(f'"{one}"' in text and " " not in one for word in verbalizer.words for one in slot_words(word))
    assert len({len(words) for words in verbalizer.labels.values()}) == 1


@pytest.mark.parametrize("name", VERBALIZERS)
def test_verbalizer_has_words_of_its_language(name: str) -> None:
    """A Chinese label word is one character a mask, any other is made of ASCII letters or digits."""
    for word in (one for several in load_verbalizer(name).words for one in slot_words(several)):
        if name.partition("/")[0] in CHINESE:
            assert unicodedata.name(word).startswith("CJK UNIFIED IDEOGRAPH")
        else:
            assert re.fullmatch(r"[A-Za-z]+|\d", word)


@pytest.mark.parametrize("name", VERBALIZERS)
def test_labels_stay_apart_without_case(name: str) -> None:
    """No word of a verbalizer stands in it twice, even where the vocabulary has no capital letters."""
    words = [word.casefold() for word in load_verbalizer(name).words]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", TASKS)
def test_task_has_templates_controls_and_verbalizers(name: str) -> None:
    """A task has six instructive templates, one null, one irrelevant and one misleading, and two verbalizers."""
    task = load_task(name)
    counts = Counter(template.tags[0] for template in templates_for(task))
    assert counts["instructive"] >= 6
    assert counts["null"] == counts["irrelevant"] == counts["misleading"] == 1
    assert len(verbalizers_for(task)) >= 2


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_family_has_no_text_and_no_rule_twice(family: str) -> None:
    """Two templates of a family never have the same text, and two verbalizers never the same rule."""
    templates = [load_template(name).hash for name in TEMPLATES if name.startswith(f"{family}/")]
    verbalizers = [load_verbalizer(name).hash for name in VERBALIZERS if name.startswith(f"{family}/")]
    assert len(templates) == len(set(templates))
    assert len(verbalizers) == len(set(verbalizers))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_domain_prompt_is_the_template_without_its_row(name: str) -> None:
    """It has one mask, reads no field, and every word of it stands in the template."""
    template = Template.load(name)
    if template.domain_prompt is None:
        return
    alone = compile_template(Template.from_text(template.domain_prompt))
    assert set() == alone.fields
    assert 1 == template.domain_prompt.count("{{ mask }}")
    around = template.domain_prompt.split("{{ mask }}")
    assert all(part.strip() in template.text for part in around)


@pytest.mark.parametrize("family", ["sentiment", "topic", "subjectivity", "question_type", "spam", "emotion"])
def test_a_family_can_be_calibrated_by_its_domain(family: str) -> None:
    """Most instructive templates of a family that asks about one text have a domain prompt, for `pmi_dc`."""
    loaded = [Template.load(name) for name in TEMPLATES if name.startswith(f"{family}/")]
    instructive = [template for template in loaded if "instructive" in template.tags]
    assert sum(template.domain_prompt is not None for template in instructive) > len(instructive) / 2


def test_every_english_label_word_is_one_piece_of_the_bundled_vocabulary() -> None:
    """The bundled model refuses no shipped verbalizer of its language; the lengths of its words never decide."""
    from promptlab.backends.mlm import MaskedBackend
    from promptlab.specs.verbalizer import load_verbalizers

    tokenizer = MaskedBackend("mini").tokenizer
    words = {word.word for one in load_verbalizers(["*"]) for several in one.labels.values() for word in several}
    english = sorted(word for word in words if word.isascii())
    assert len(english) > 150
    assert [] == [word for word in english if len(tokenizer.tokenize(word)) != 1]
