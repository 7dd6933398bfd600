"""A name, a path or a text means one thing, which is shown with all that belongs to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptlab.errors import FileFault, ModelError, PromptlabError, UsageError
from promptlab.registry import Registry
from promptlab.showing import SINGULARS, find_thing, model_facts
from tests.end_to_end.terminal import write_moods


@pytest.fixture
def moods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, seen from outside."""
    monkeypatch.chdir(tmp_path)
    return write_moods(tmp_path / "own")


def find(name: str, kind: str | None = None) -> dict[str, Any]:
    """What a name means where the user's own folder is included."""
    return find_thing(name, kind, ["own"])


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        (("task", "moods"), "moods"),
        (("template", "mood/it_was"), "mood/it_was"),
        (("template", "mood/all_in_all"), "own/templates/mood/all_in_all.jinja"),
        (("verbalizer", "mood/yes_no"), "own/verbalizers/mood/yes_no.yaml"),
        (("task", "moods"), "own/tasks/moods.yaml"),
        (("verbalizer", "topic/two_words"), "two_words"),
        (("metric", "accuracy"), "accuracy"),
        (("calibration", "contextual"), "contextual"),
        (("model", "mini"), "mini"),
    ],
)
@pytest.mark.usefixtures("moods")
def test_names_and_paths_mean_what_they_are_called(expected: tuple[str, str], name: str) -> None:
    """Every kind is found by its name, without its family where it is the only one, and data files by their path."""
    thing = find(name)
    assert expected == (thing["type"], thing["name"])


@pytest.mark.usefixtures("moods")
def test_a_task_comes_with_what_applies_to_it_and_the_other_way_round() -> None:
    """Only what has its family and its fields or labels is there."""
    assert ["mood/all_in_all", "mood/it_was"] == find("moods")["templates"]
    assert ["mood/great_terrible", "mood/yes_no"] == find("moods")["verbalizers"]
    assert ["moods"] == find("mood/it_was")["tasks"]
    assert ["moods"] == find("mood/yes_no")["tasks"]


@pytest.mark.usefixtures("moods")
def test_a_text_is_shown_like_a_file() -> None:
    """It has a name made of its hash, no family and no path, and applies to whatever has its fields or labels."""
    template = find("{{ text }}, so {{ mask }}.")
    assert ("template", None, None, ["text"]) == tuple(template[key] for key in ("type", "family", "path", "fields"))
    assert {"moods", "sst2", "agnews"} <= set(template["tasks"])
    verbalizer = find("good=great|fine,bad=awful")
    assert ("verbalizer", {"good": {"great": 1.0, "fine": 1.0}, "bad": {"awful": 1.0}}, ["moods"]) == tuple(
        verbalizer[key] for key in ("type", "labels", "tasks")
    )
    assert template["name"].startswith("inline-")


def test_a_yaml_file_outside_of_a_library_is_what_its_keys_say(moods: Path, tmp_path: Path) -> None:
    """A file with sources is a task, another one a verbalizer; a path with an equals sign is still a path."""
    task, verbalizer = tmp_path / "a=b.yaml", tmp_path / "c=d.yaml"
    task.write_text((moods / "tasks/moods.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    verbalizer.write_text("labels: {bad: no, good: yes}\n", encoding="utf-8")
    assert ("task", ["bad", "good"]) == tuple(find("a=b.yaml")[key] for key in ("type", "labels"))
    assert ("verbalizer", {"no": 1.0}) == (find("c=d.yaml")["type"], find("c=d.yaml")["labels"]["bad"])


@pytest.mark.parametrize(
    ("message", "name", "kind"),
    [
        (
            "'it_was' is one of several: template mood/it_was, template sentiment/it_was. Give the whole name.",
            "it_was",
            None,
        ),
        ("'moodz' is unknown. Did you mean 'moods'? `promptlab ls` counts what there is.", "moodz", None),
        (
            "template 'moods' is unknown. Did you mean 'mood/it_was'? `promptlab ls templates` lists them.",
            "moods",
            "template",
        ),
        (
            "metric 'acuracy' is unknown. Did you mean 'accuracy'? `promptlab ls metrics` lists them.",
            "acuracy",
            "metric",
        ),
        (
            "--kind tasks: there is no such kind. Did you mean 'task'? "
            "Known: task, template, verbalizer, model, metric, calibration, method.",
            "moods",
            "tasks",
        ),
        ("./none.jinja: there is no such file.", "./none.jinja", None),
        ("own/none.yaml: there is no such file.", "own/none.yaml", None),
        (
            "own/data/moods/test.jsonl: files of a library end in .yaml and .jinja, found '.jsonl'.",
            "own/data/moods/test.jsonl",
            None,
        ),
        ("own/tasks/moods.yaml: files of a template end in .jinja, found '.yaml'.", "own/tasks/moods.yaml", "template"),
    ],
)
@pytest.mark.usefixtures("moods")
def test_a_name_that_means_nothing_or_several_things(message: str, name: str, kind: str | None) -> None:
    """All that a name could mean, or the nearest one, is in the message."""
    with pytest.raises(UsageError) as fault:
        find(name, kind)
    assert message == str(fault.value)


def test_one_name_of_two_kinds_is_told_apart_by_the_kind(moods: Path) -> None:
    """A task and a metric may be called the same."""
    (moods / "tasks/moods.yaml").rename(moods / "tasks/accuracy.yaml")
    with pytest.raises(UsageError, match=r"several: task accuracy, metric accuracy\. Give --kind as well\.$"):
        find("accuracy")
    assert "Moods" == find("accuracy", "task")["title"]
    assert "docstring" in find("accuracy", "metric")


def test_a_metric_with_an_argument_is_that_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """`f1(spam)` is explained by what `f1` says."""
    registry: Registry[Any] = Registry("metric")
    registry.register("f1", test_a_metric_with_an_argument_is_that_metric)
    monkeypatch.setattr("promptlab.registry.METRICS", registry)
    assert "`f1(spam)` is explained by what `f1` says." == find_thing("f1(spam)")["what"]


def test_a_broken_file_is_told_its_own_fault_alone(moods: Path) -> None:
    """Neither does it hide others, nor do others hide it."""
    (moods / "templates/mood/broken.jinja").write_text("{{ text }}\n", encoding="utf-8")
    (moods / "templates/mood/worse.jinja").write_text("{{\n", encoding="utf-8")
    with pytest.raises(FileFault, match=r"^own/templates/mood/broken\.jinja:1 has no \{\{ mask \}\}"):
        find("mood/broken")
    with pytest.raises(PromptlabError, match="there is nothing to predict"):
        find("own/templates/mood/broken.jinja")
    assert "mood/it_was" == find("mood/it_was")["name"]


@pytest.mark.parametrize("kind", SINGULARS)
def test_what_is_shown_is_json(kind: str) -> None:
    """`--output json` can print any of them."""
    name = {"task": "sst2", "template": "nli/null", "verbalizer": "nli/yes_no", "model": "mini", "metric": "accuracy"}
    thing = find_thing(name.get(kind, "lora" if kind == "method" else "none"), kind)
    assert thing == json.loads(json.dumps(thing))
    assert kind == thing["type"]


def test_a_model_is_described_by_its_config_and_the_head_of_its_card(tmp_path: Path) -> None:
    """Front matter, code and tables of the card stay out; nothing is loaded."""
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "README.md").write_text("---\nlicense: x\n---\n\n# Small\n\nA small one.\n\n```\ncode\n```\n# More\n")
    thing = find_thing(str(tmp_path), "model")
    assert ("Small\n\nA small one.", "BertForMaskedLM", 2, 8, None, 5) == tuple(
        thing[key] for key in ("docstring", "class", "layers", "width", "heads", "weights_bytes")
    )
    assert tmp_path.name == thing["name"]
    (tmp_path / "README.md").unlink()
    assert "" == model_facts(tmp_path)["docstring"]
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json: is no config of a checkpoint"):
        find_thing(str(tmp_path))
