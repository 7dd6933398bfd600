"""Tasks, templates and verbalizers: what a file may say, and that equal rules have equal hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import FileFault, UsageError
from promptlab.specs.run import make_run_spec
from promptlab.specs.task import Task, load_tasks
from promptlab.specs.template import Template, load_templates
from promptlab.specs.verbalizer import Verbalizer, load_verbalizers, slot_words

TASK = """\
title: Toy
family: sentiment
kind: classification
labels: [negative, positive]
sources:
  - local: toy
    splits: {test: test}
    fields: {text: text}
    label: {column: label}
language: en
license: none
citation: none
version: 1
"""
VERBALIZER = "labels:\n  negative: [terrible]\n  positive: [great]\n"


def load_task(folder: Path, old: str = "", new: str = "") -> Task:
    """The toy task with one text replaced."""
    assert old in TASK
    path = folder / "toy.yaml"
    path.write_text(TASK.replace(old, new))
    return Task.load(str(path))


def load_verbalizer(folder: Path, text: str) -> Verbalizer:
    """A verbalizer file of that text."""
    path = folder / "words.yaml"
    path.write_text(text)
    return Verbalizer.load(str(path))


def write_template(folder: Path, text: str) -> Path:
    """A template file of that text."""
    path = folder / "own.jinja"
    path.write_text(text)
    return path


def test_a_task_is_read_whole(tmp_path: Path) -> None:
    """Labels keep their order, fields come from the source, metrics have a default."""
    task = load_task(tmp_path)
    assert (task.name, task.labels, task.fields) == ("toy", ("negative", "positive"), ("text",))
    assert task.metrics == ("accuracy", "macro_f1")


def test_label_names_may_be_yes_and_no(tmp_path: Path) -> None:
    """YAML's old booleans are label names like any other."""
    assert load_task(tmp_path, "[negative, positive]", "[yes, no]").labels == ("yes", "no")


def test_the_hash_of_a_task_is_what_it_says(tmp_path: Path) -> None:
    """A new title keeps the hash, new labels or fields change it."""
    known = load_task(tmp_path).hash
    assert known == load_task(tmp_path, "title: Toy", "title: Another").hash
    assert known != load_task(tmp_path, "[negative, positive]", "[positive, negative]").hash
    assert known != load_task(tmp_path, "{text: text}", "{text: sentence}").hash


def test_a_task_without_files_has_the_hash_that_is_stored(tmp_path: Path) -> None:
    """Files are part of what a task says; where there are none nothing is said of them, as in runs of old."""
    assert "c3de96822d089ea31e2f9c0c29147e9e" == load_task(tmp_path).hash
    new = "files: {test: toy.csv}\n"
    with_files = load_task(tmp_path, "local: toy\n    splits: {test: test}\n", new)
    assert {"test": "test"} == with_files.sources[0].splits
    assert (
        with_files.hash != load_task(tmp_path, "local: toy\n    splits: {test: test}\n", "files: {test: b.csv}\n").hash
    )
    assert with_files == Task.model_validate(with_files.model_dump())


@pytest.mark.parametrize(
    ("message", "old", "new"),
    [
        (
            "6 sources.0: a source has exactly one of local, bundled, files and hub.",
            "splits:",
            "bundled: x\n    splits:",
        ),
        ("6 sources.0: a source has exactly one of local, bundled, files and hub.", "- local: toy\n   ", "-"),
        ("6 sources.0.splits: is required and missing.", "    splits: {test: test}\n", ""),
        ("6 sources.0: a source of files has the splits that files names", "local: toy", "files: {train: toy.csv}"),
        ("6 sources.0.files: needs at least 1, found 0.", "local: toy\n    splits: {test: test}", "files: {}"),
        ("6 sources.0.files.test: Input should be a valid string, found 1.", "local: toy", "files: {test: 1}"),
        ("6 sources.0.fields: is required and missing.", "    fields: {text: text}\n", ""),
        ("6 sources.0: a source needs at least one field.", "{text: text}", "{}"),
        ("8 sources.0.fields: 'mask' has a meaning of its own in templates", "{text: text}", "{mask: text}"),
        ("6 sources.0.hub: verified: true needs the revision", "local: toy", "hub: {path: a/b, verified: true}"),
        ("6 sources.0.hub.verified: is required and missing.", "local: toy", "hub: {path: a/b}"),
        ("6 sources.0.hub.nme: unknown key. Did you mean 'name'?", "local: toy", "hub: {path: a/b, nme: c}"),
        (
            "1: sources.0.label.values names 'neutral', which is not in labels.",
            "{column: label}",
            "{column: label, values: {0: negative, 1: neutral}}",
        ),
        ("4 labels: a label stands twice.", "[negative, positive]", "[a, a]"),
        ("4 labels.1: Input should be a valid string, found 1.", "[negative, positive]", "[zero, 1]"),
        ("2 famly: unknown key. Did you mean 'family'?", "family:", "famly:"),
        ("13 version: Input should be greater than or equal to 1, found 0.", "version: 1", "version: 0"),
        ("3 kind: Input should be 'classification', found 'tagging'.", "classification", "tagging"),
    ],
)
def test_a_wrong_task_is_explained(tmp_path: Path, message: str, old: str, new: str) -> None:
    """Each rule of a task file is told with file, line and key."""
    with pytest.raises(FileFault) as fault:
        load_task(tmp_path, old, new)
    assert f"toy.yaml:{message}" in str(fault.value)


def test_sources_must_give_the_same_fields(tmp_path: Path) -> None:
    """A template must find its fields whichever source is there."""
    other = "  - hub: {path: a/b, verified: false}\n    splits: {}\n    fields: {sentence: s}\nlanguage"
    with pytest.raises(FileFault, match="all sources must give the same fields"):
        load_task(tmp_path, "language", other)


@pytest.mark.parametrize(("load", "text"), [(load_tasks, TASK), (load_verbalizers, VERBALIZER)])
def test_faults_of_several_files_come_together(tmp_path: Path, load: Any, text: str) -> None:
    """Two broken files are one message with the faults of both."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"{text}unknown: x\n")
    with pytest.raises(FileFault) as fault:
        load([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert ["a.yaml", "b.yaml"] == [one.partition(":")[0].rpartition("/")[2] for one in fault.value.faults]


def test_each_item_is_loaded_once(tmp_path: Path) -> None:
    """The same template by two selectors is one template, in the order of the first."""
    path = str(write_template(tmp_path, "{{ mask }}"))
    assert [item.name for item in load_templates([path, "sentiment/just", path])] == ["own", "sentiment/just"]


def test_two_different_items_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nothing is dropped in silence: two texts that share a name cannot be told apart in the results."""
    paths = []
    for folder, text in (("a", "{{ mask }}"), ("b", "It is {{ mask }}")):
        (tmp_path / folder).mkdir()
        paths.append(str(write_template(tmp_path / folder, text)))
    with pytest.raises(FileFault, match=r"two different templates are called 'own': rename .*a/own.* or .*b/own"):
        load_templates(paths)
    for folder, text in (("a", VERBALIZER), ("b", VERBALIZER.replace("great", "good"))):
        load_verbalizer(tmp_path / folder, text)
    files = [str(tmp_path / folder / "words.yaml") for folder in ("a", "b")]
    with pytest.raises(
        FileFault, match=r"two different verbalizers are called 'words': rename .*a/words.* or .*b/words"
    ):
        load_verbalizers(files)


def test_a_selector_of_one_value_means_one() -> None:
    """`load` refuses a glob that means several."""
    with pytest.raises(UsageError, match=r"'sentiment/\*' means \d+ verbalizers, one was wanted: "):
        Verbalizer.load("sentiment/*")


def test_a_template_has_a_head_and_a_text(tmp_path: Path) -> None:
    """The head's keys are read, the text starts behind it, the last newline does not count."""
    text = "---\nfields: [premise]\ntags: [null, misleading]\nreference: me\n---\n{{ premise }}\n{{ mask }}\n"
    template = Template.load(str(write_template(tmp_path, text)))
    assert template.text == "{{ premise }}\n{{ mask }}"
    assert template.first_line == 6
    assert (template.fields, template.tags, template.reference) == (("premise",), ("null", "misleading"), "me")


def test_a_template_says_how_it_is_cut(tmp_path: Path) -> None:
    """`pieces` is read and part of what a template is; whole ones keep the hash that stored scores are filed under."""
    body = "{{ text }} It was {{ mask }}.\n"
    texts = [body, *(f"---\npieces: {pieces}\n---\n{body}" for pieces in ("whole", "lm_bff", "pet"))]
    made = [Template.load(str(write_template(tmp_path, text))) for text in texts]
    assert ["whole", "whole", "lm_bff", "pet"] == [template.pieces for template in made]
    stored = "e42496970f2ad975a7a00e72562cb12a"
    assert [stored, stored] == [template.hash for template in made[:2]]
    assert 3 == len({template.hash for template in made})


def test_a_template_needs_no_head(tmp_path: Path) -> None:
    """A text alone is a template for every task that has its fields; Windows line ends do not matter."""
    template = Template.load(str(write_template(tmp_path, "{{ text }}\r\n{{ mask }}\r\n")))
    assert (template.family, template.fields, template.tags) == (None, None, ("instructive",))
    assert template.hash == Template.from_text("{{ text }}\n{{ mask }}").hash


@pytest.mark.parametrize(
    ("message", "head"),
    [
        ("1 the head that starts with '---' never ends: add a second '---' line.", "fields: [a]\n"),
        ("2 feilds: unknown key. Did you mean 'fields'?", "feilds: [a]\n---\n"),
        (
            "3 tags: Input should be 'instructive', 'irrelevant', 'misleading' or 'null', found 'odd'.",
            "\ntags: odd\n---\n",
        ),
        ("2 pieces: Input should be 'whole', 'lm_bff' or 'pet', found 'lmbff'.", "pieces: lmbff\n---\n"),
        ("2 pieces: Input should be 'whole', 'lm_bff' or 'pet', found None.", "pieces:\n---\n"),
    ],
)
def test_a_wrong_head_is_explained(tmp_path: Path, message: str, head: str) -> None:
    """A fault of the head names the line in the file."""
    with pytest.raises(FileFault) as fault:
        Template.load(str(write_template(tmp_path, f"---\n{head}")))
    assert f"own.jinja:{message}" in str(fault.value)


def test_a_file_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are told with the first wrong one."""
    path = tmp_path / "own.jinja"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(FileFault, match=r"own\.jinja: is not UTF-8 text \(byte 3\)\."):
        Template.load(str(path))


def test_a_text_is_a_template() -> None:
    """Text with `{{ ... }}` is a template named by its hash; text without is refused."""
    template = load_templates(["{{ text }} {{ mask }}"])[0]
    assert template.name == f"inline-{template.hash[:8]}"
    with pytest.raises(UsageError, match=r"template text 'It was' has no '\{\{ \.\.\. \}\}'"):
        Template.from_text("It was")


@pytest.mark.parametrize(
    "labels",
    [
        {"negative": "terrible", "positive": "great"},
        {"negative": ["terrible"], "positive": ["great"]},
        {"negative": {"terrible": 1}, "positive": {"great": 1.0}},
        {"positive": "great", "negative": "terrible"},
    ],
)
def test_every_spelling_of_a_verbalizer_hashes_alike(tmp_path: Path, labels: dict[str, Any]) -> None:
    """A word, a list and weights of 1 are one rule, whatever the order of labels and wherever it is written."""
    known = load_verbalizer(tmp_path, VERBALIZER)
    assert known.hash == Verbalizer.from_labels(labels).hash
    assert known.hash == load_verbalizers([labels])[0].hash
    assert known.hash == load_verbalizers(["negative=terrible, positive=great"])[0].hash


def test_words_weights_and_pool_change_the_hash() -> None:
    """Anything that changes a score changes the hash."""
    made = [
        Verbalizer.from_labels({"a": "x", "b": "y"}),
        Verbalizer.from_labels({"a": "x", "b": "z"}),
        Verbalizer.from_labels({"a": "x", "b": {"y": 0.5}}),
        Verbalizer.from_labels({"a": "x", "b": "y"}, pool="max"),
        Verbalizer.from_labels({"a": ["x", "w"], "b": "y"}),
    ]
    assert len({verbalizer.hash for verbalizer in made}) == 5


def test_inline_words_are_read_in_order() -> None:
    """`label=word|word,label=word` keeps labels and words in order and names itself by its hash."""
    verbalizer = Verbalizer.load("positive=great|superb,negative=bad")
    assert verbalizer.words == ("great", "superb", "bad")
    assert verbalizer.name == f"inline-{verbalizer.hash[:8]}"


@pytest.mark.parametrize(
    ("message", "labels"),
    [
        ("1 labels: the word 'x' stands for both 'a' and 'b'.", "{a: x, b: x}"),
        ("1 labels: the word 'x' stands for 'a' twice.", "{a: [x, x], b: y}"),
        ("1 labels.b: label words are texts, found 3: quote it.", "{a: x, b: [yes, 3]}"),
        ("1 labels.b: label words are texts, found None: quote it.", "{a: x, b: [null]}"),
        ("1 labels.b: write a word, a list of words or words with weights, found 3.", "{a: x, b: 3}"),
        ("1 labels.b: label word ' y' must not be empty or have outer blanks.", "{a: x, b: ' y'}"),
        ("1 labels.b: the weight of 'y' must be above 0, found 0.0.", "{a: x, b: {y: 0}}"),
        ("1 labels.b: the weight of 'y' must be above 0, found inf.", "{a: x, b: {y: 1e999}}"),
        ("1 labels.b: needs at least 1, found 0.", "{a: x, b: []}"),
    ],
)
def test_wrong_words_are_explained(tmp_path: Path, message: str, labels: str) -> None:
    """Each rule of label words names the label that breaks it."""
    with pytest.raises(FileFault) as fault:
        load_verbalizer(tmp_path, f"labels: {labels}")
    assert str(fault.value).endswith(f"words.yaml:{message}")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("verbalizer 'a=x,b': write label=word|word,label=word, found 'b'.", "a=x,b"),
        ("verbalizer 'a=x,b=': write label=word|word,label=word, found 'b='.", "a=x,b="),
        ("verbalizer 'a=x,a=y': label 'a' stands twice.", "a=x,a=y"),
    ],
)
def test_wrong_inline_words_are_explained(message: str, text: str) -> None:
    """A slip in the short form quotes what was typed."""
    with pytest.raises(UsageError) as fault:
        load_verbalizers([text])
    assert message == str(fault.value)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("sentiment/good_bad@max", [("sentiment/good_bad@max", "max")]),
        ("sentiment/good_bad@mean_logprob", [("sentiment/good_bad", "mean_logprob")]),
        ("negative=terrible,positive=great@sum_prob", [("inline-", "sum_prob")]),
        ("negative=terrible,positive=me@home", [("inline-", "mean_logprob")]),
    ],
)
def test_a_selector_may_name_a_pool(selector: str, expected: list[tuple[str, str]]) -> None:
    """Behind the last `@`, and only where it is the name of one; the file's own pool leaves the name as it is."""
    found = load_verbalizers([selector])
    assert len(expected) == len(found)
    for (name, pool), one in zip(expected, found, strict=True):
        assert pool == one.pool
        assert one.name.startswith(name)


def test_a_word_for_several_masks_is_one_text() -> None:
    """However it is spelled, the words of the masks are told apart, and they stand in options side by side."""
    words = Verbalizer.from_labels({"a": [["very", "great"], "so  +  good"], "b": "x + y"}).labels["a"]
    assert [("very", "great"), ("so", "good")] == [slot_words(word.word) for word in words]
    assert ["very great", "so good"] == [word.text for word in words]


def test_the_hash_of_a_verbalizer_is_the_one_that_is_stored() -> None:
    """Rules that came later changed no hash of words that are scored as before."""
    plain = Verbalizer.from_labels({"negative": "terrible", "positive": "great"})
    assert "23fb4610968e47603033468abd795a49" == plain.hash
    assert plain.hash != Verbalizer.from_labels({"negative": "terrible", "positive": "great"}, normalize="mean").hash


def test_the_words_of_two_pools_are_two_verbalizers() -> None:
    """A glob with a pool pools whatever it finds; one name with two pools stands twice, under two names."""
    found = load_verbalizers(["sentiment/good_bad", "sentiment/good_bad@max", "sentiment/*@max"])
    assert ["sentiment/good_bad", "sentiment/good_bad@max"] == [one.name for one in found[:2]]
    assert all(one.name.endswith("@max") or one.name == "sentiment/good_bad" for one in found)
    assert len(found) == len({one.hash for one in found})
    assert found[0].labels == found[1].labels


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("sentiment/good_bad@maxx", "'@maxx' is no pool and no rule. Did you mean 'max'?"),
        ("a=b,c=d@left_right", "'@left_right' is no pool and no rule. Did you mean 'left_to_right'?"),
        ("a=b,c=d@normalize=avg@pet", "'@normalize=avg' is no pool and no rule. Did you mean 'normalize=mean'?"),
        ("sentiment/*@max@sum_prob", "'@max' and '@sum_prob' contradict each other."),
        ("a=b,c=d@pet@max@independent", "'@pet' and '@independent' contradict each other."),
    ],
)
def test_a_selector_with_a_slip_is_explained(selector: str, message: str) -> None:
    """What is nearly a pool or a rule becomes no name and no label word, and two of a kind are not taken for one."""
    with pytest.raises(UsageError) as fault:
        load_verbalizers([selector])
    assert f"verbalizer '{selector}': {message}" == str(fault.value)
    assert 1 == len(load_verbalizers(["sentiment/good_bad@max@max"]))


def test_a_file_may_be_called_like_a_pool(tmp_path: Path) -> None:
    """A path with a pool behind it is that file under another pool."""
    load_verbalizer(tmp_path, VERBALIZER)
    (found,) = load_verbalizers([f"{tmp_path / 'words.yaml'}@sum_prob"])
    assert ("words@sum_prob", "sum_prob") == (found.name, found.pool)


def test_a_config_file_is_overridden_by_arguments(tmp_path: Path) -> None:
    """A file gives the run, an argument replaces its value, one selector is as good as a list."""
    path = tmp_path / "run.yaml"
    path.write_text("templates: sentiment/*\nlimit: first:5\nseed: 3\n")
    spec = make_run_spec({"seed": 4}, config=path)
    assert (spec.templates, spec.limit, spec.seed) == (("sentiment/*",), "first:5", 4)
    path.write_text("seed: 3\n\ntemplats: x\n")
    with pytest.raises(FileFault, match=r"run\.yaml:3 templats: unknown key\. Did you mean 'templates'\?"):
        make_run_spec({}, config=path)


NEW_KEYS = """\
rows: own.csv
train_rows: train.csv
text_column: body
fields: {who: name}
label_column: stars
label_values: {"0": bad, "1": good}
labels: [bad, good]
family: mood
calibrations: [none, domain]
prepare: support
metrics: [brier, f1(good)]
ensembles: {all: [mood/*], two: [it_was, just]}
store_states: true
"""


def test_a_config_file_has_every_key(tmp_path: Path) -> None:
    """The keys of rows that no task describes, of calibrations, metrics, ensembles and states, as flags have them."""
    path = tmp_path / "run.yaml"
    path.write_text(NEW_KEYS)
    spec = make_run_spec({}, config=path)
    assert ("own.csv", "train.csv", "body", "stars") == (
        spec.rows, spec.train_rows, spec.text_column, spec.label_column,
    )  # fmt: skip
    assert ({"who": "name"}, {"0": "bad", "1": "good"}) == (spec.fields, spec.label_values)
    assert (("bad", "good"), "mood", ("support",)) == (spec.labels, spec.family, spec.prepare)
    assert ({"all": ("mood/*",), "two": ("it_was", "just")}, True) == (spec.ensembles, spec.store_states)
    flags = {
        "rows": "own.csv", "train_rows": "train.csv", "text_column": "body", "fields": ["who=name"],
        "label_column": "stars", "label_values": ["0=bad", "1 = good"], "labels": ["bad", "good"], "family": "mood",
        "calibrations": ["none", "domain"], "prepare": ["support"], "metrics": ["brier", "f1(good)"],
        "ensembles": ["all=mood/*", "two=it_was|just"], "store_states": True,
    }  # fmt: skip
    assert spec == make_run_spec(flags)
    assert spec == make_run_spec(spec.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("*", {"*": ("*",)}),
        ("mood/*", {"mood/*": ("mood/*",)}),
        ("both = it_was | just", {"both": ("it_was", "just")}),
        (["*", "two=it_was|mood/j*"], {"*": ("*",), "two": ("it_was", "mood/j*")}),
        ({"all": "mood/*"}, {"all": ("mood/*",)}),
    ],
)
def test_an_ensemble_is_written_in_short_or_in_full(given: Any, expected: dict[str, tuple[str, ...]]) -> None:
    """A glob is its own name; a name, selectors between bars, or a mapping."""
    assert expected == make_run_spec({"ensembles": given}).ensembles


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("--rows and --tasks contradict each other: give the file, or the tasks.", {"rows": "a.csv", "tasks": "sst2"}),
        (
            "--rows and --split contradict each other: the rows of the file are what is scored.",
            {"rows": "a.csv", "split": "train"},
        ),
        (
            "--label-values needs --label-column, whose values it names.",
            {"rows": "a.csv", "label_values": ["0=bad"]},
        ),
        (
            "--text-column and --field text=... contradict each other: give one of them.",
            {"rows": "a.csv", "text_column": "body", "fields": {"text": "title"}},
        ),
        ("--text-column says something about --rows FILE, which is missing.", {"text_column": "body"}),
        ("--field says something about --rows FILE, which is missing.", {"fields": ["a=b"]}),
        ("--label-column says something about --rows FILE, which is missing.", {"label_column": "stars"}),
        ("--label-values says something about --rows FILE, which is missing.", {"label_values": {"0": "bad"}}),
        ("--labels says something about --rows FILE, which is missing.", {"labels": ["a", "b"]}),
        ("--family says something about --rows FILE, which is missing.", {"family": "nli"}),
        ("--train-rows says something about --rows FILE, which is missing.", {"train_rows": "a.csv"}),
        ("--store-states keeps float32 states: leave --dtype out.", {"store_states": True, "dtype": "bfloat16"}),
    ],
)
def test_contradictions_of_a_run_are_explained(message: str, values: dict[str, Any]) -> None:
    """What cannot both be meant is named by its flags."""
    with pytest.raises(UsageError) as fault:
        make_run_spec(values)
    assert message == str(fault.value)


@pytest.mark.parametrize(
    "values",
    [
        {"rows": "a.csv"},
        {"rows": "a.csv", "text_column": "body", "fields": {"who": "name"}},
        {"rows": "a.csv", "label_column": "stars", "label_values": {"0": "bad"}},
        {"rows": "a.csv", "split": "test"},
        {"store_states": True, "dtype": "float32"},
        {"prepare": [], "metrics": [], "labels": []},
    ],
)
def test_what_goes_together_is_taken(values: dict[str, Any]) -> None:
    """The neighbours of every contradiction are none."""
    assert make_run_spec(values)


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("argument 'modls' is unknown. Did you mean 'models'? Known: models, ", {"modls": "x"}),
        ("--seed: write a whole number from 0, found -1.", {"seed": -1}),
        ("--limit: write a whole number from 1, or first:N for the first N rows, found 'last:5'.", {"limit": "last:5"}),
        ("--dtype: choose one of float32, bfloat16, float16, found 'fp8'.", {"dtype": "fp8"}),
        ("--templates: name at least one.", {"templates": []}),
        ("--max-length: write a whole number from 4, found 2.\n--name: write", {"max_length": 2, "name": "a/b"}),
        ("--field: write name=value, found 'who'.", {"rows": "a.csv", "fields": ["who"]}),
        ("--field: 'who' stands twice.", {"rows": "a.csv", "fields": ["who=a", "who=b"]}),
        ("--label-values: write name=value, found '=bad'.", {"rows": "a.csv", "label_values": "=bad"}),
        ("--ensemble: write a glob, or name=selector|selector, found 'a='.", {"ensembles": "a="}),
        ("--ensemble: write a glob, or name=selector|selector, found 'a=b||c'.", {"ensembles": "a=b||c"}),
        ("--ensemble: 'a' stands twice.", {"ensembles": ["a=b|c", "a=d|e"]}),
        ("--ensemble: name at least one.", {"ensembles": {"a": []}}),
        ("--metrics: each must be a name, a glob, a path or a text, found 3.", {"metrics": [3]}),
        ("--prepare: each must be a name, a glob, a path or a text, found ''.", {"prepare": ""}),
        ("--rows: must be a text, found 3.", {"rows": 3}),
        ("--store-states: ", {"store_states": "yes"}),
    ],
)
def test_wrong_arguments_of_a_run_are_explained(message: str, values: dict[str, Any]) -> None:
    """Every wrong value is one sentence under its flag, all at once."""
    with pytest.raises(UsageError) as fault:
        make_run_spec(values)
    assert str(fault.value).startswith(message)
