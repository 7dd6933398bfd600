"""Records of everything that has a name: whole, read once, and never lost because of a neighbour that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptlab import listing
from promptlab.cache import cache_dir
from promptlab.errors import PromptlabError
from promptlab.library import select_files
from promptlab.listing import KINDS, Record, file_record, list_things
from promptlab.registry import CALIBRATIONS, METHODS, METRICS, Registry
from tests.end_to_end.terminal import write_moods

IT_WAS = "templates/mood/it_was.jinja"


@pytest.fixture
def moods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, seen from outside, with a cache of its own."""
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_moods(tmp_path / "own")


def find(kind: str, name: str) -> Record:
    """The record of one thing of the user's own."""
    return next(record for record in list_things(kind, ["own"]).records if record["name"] == name)


def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, whoever parses a file fails."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a file was parsed")

    for module in ("task", "template", "verbalizer"):
        monkeypatch.setattr(f"promptlab.specs.{module}.parse_yaml", refuse)
    monkeypatch.setattr("promptlab.rendering.compile_template", refuse)


@pytest.mark.usefixtures("moods")
def test_a_record_says_all_that_a_file_says() -> None:
    """Template, verbalizer and task, with what is not in the file itself: name, family, hash and path."""
    template, verbalizer, task = (
        find("templates", "mood/it_was"),
        find("verbalizers", "mood/great_terrible"),
        find("tasks", "moods"),
    )
    assert {
        "name": "mood/it_was",
        "family": "mood",
        "fields": ["text"],
        "uses_options": False,
        "tags": ["instructive"],
        "text": "{{ text }} It was {{ mask }}.",
        "domain_prompt": None,
        "pieces": "whole",
        "reference": None,
        "notes": None,
        "hash": template["hash"],
        "path": "own/templates/mood/it_was.jinja",
    } == template
    assert {"bad": {"terrible": 1.0}, "good": {"great": 1.0}} == verbalizer["labels"]
    assert ("mean_logprob", "refuse", "own/verbalizers/mood/great_terrible.yaml") == tuple(
        verbalizer[key] for key in ("pool", "multi_token", "path")
    )
    assert (["bad", "good"], ["text"], "own") == (task["labels"], task["fields"], task["license"])
    assert {"0": "bad", "1": "good"} == task["sources"][0]["label"]["values"]
    assert all(len(record["hash"]) == 32 for record in (template, verbalizer, task))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("moods")
def test_a_record_is_json_and_the_same_warm_as_cold(kind: str) -> None:
    """What is read from the memory is what was read from the file."""
    cold = list_things(kind, ["own"])
    assert cold.records
    assert json.loads(json.dumps(cold.records)) == list(cold.records)
    assert cold == list_things(kind, ["own"])


@pytest.mark.usefixtures("moods")
def test_a_warm_listing_parses_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second listing reads the memory alone, of the shipped library as well."""
    cold = [list_things(kind, ["own"]) for kind in ("tasks", "templates", "verbalizers")]
    no_parsing(monkeypatch)
    assert cold == [list_things(kind, ["own"]) for kind in ("tasks", "templates", "verbalizers")]


def test_a_warm_listing_imports_no_parser(moods: Path) -> None:
    """Neither YAML nor pydantic nor Jinja is loaded, which costs more than the listing itself."""
    code = (
        "import sys\nfrom promptlab.listing import list_things\n"
        "print(len(list_things('templates', ['own']).records))\n"
        "print([name for name in ('yaml', 'pydantic', 'jinja2', 'numpy') if name in sys.modules])"
    )
    cold, warm = (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=moods.parent)
        for _ in range(2)
    )
    assert cold.stdout.splitlines()[0] == warm.stdout.splitlines()[0]
    assert warm.stdout.splitlines()[1] == "[]"


def test_a_changed_file_alone_is_read_again(moods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours stay remembered."""
    list_things("templates", ["own"])
    (moods / IT_WAS).write_text("{{ text }} All was {{ mask }}.\n", encoding="utf-8")
    read: list[str] = []
    original = listing._READERS["template"]

    def counted(file: Any) -> Record:
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(listing, "_READERS", {**listing._READERS, "template": counted})
    assert "{{ text }} All was {{ mask }}." == find("templates", "mood/it_was")["text"]
    assert ["mood/it_was"] == read


def test_new_files_come_and_deleted_ones_go(moods: Path) -> None:
    """The folder is looked at every time."""
    list_things("templates", ["own"])
    (moods / IT_WAS).rename(moods / "templates/mood/it_is.jinja")
    names = [name for name in list_things("templates", ["own"]).names if name.startswith("mood/")]
    assert ["mood/all_in_all", "mood/it_is"] == names


@pytest.mark.parametrize(
    ("kind", "name", "text", "fault"),
    [
        ("templates", "mood/broken.jinja", "---\ntags: [fine]\n---\n{{ mask }}\n", "mood/broken.jinja:2 tags.0: "),
        ("templates", "mood/broken.jinja", "{{ text }} {{ mask\n", "mood/broken.jinja:1 is not valid Jinja"),
        ("templates", "mood/broken.jinja", "{{ text }}\n", "own/templates/mood/broken.jinja:1 has no {{ mask }}"),
        ("verbalizers", "mood/broken.yaml", "labels: {bad: [no], good: [no]}\n", "the word 'no' stands for both"),
        ("tasks", "broken.yaml", "title: x\n", "own/tasks/broken.yaml:1 family: is required and missing."),
    ],
)  # fmt: skip
def test_a_broken_file_does_not_hide_the_others(moods: Path, kind: str, name: str, text: str, fault: str) -> None:
    """It is named with its fault, warm as cold, and it is there as soon as it is mended."""
    whole = list_things(kind, ["own"])
    path = moods / kind / name
    path.write_text(text, encoding="utf-8")
    for _ in range(2):
        found = list_things(kind, ["own"])
        assert whole.records == found.records
        assert [name.rpartition(".")[0]] == list(found.faults)
        assert fault in found.faults[name.rpartition(".")[0]]
    mended = {"templates": IT_WAS, "verbalizers": "verbalizers/mood/yes_no.yaml", "tasks": "tasks/moods.yaml"}[kind]
    path.write_text((moods / mended).read_text(encoding="utf-8"), encoding="utf-8")
    assert (len(whole.records) + 1, {}) == (len(list_things(kind, ["own"]).records), list_things(kind, ["own"]).faults)


def test_a_link_to_nothing_is_a_fault_of_its_own(moods: Path) -> None:
    """A file that cannot even be looked at keeps no other one away."""
    (moods / "templates/mood/gone.jinja").symlink_to("nowhere.jinja")
    found = list_things("templates", ["own"])
    assert {"mood/gone": "own/templates/mood/gone.jinja: cannot be read: No such file or directory."} == found.faults
    assert "mood/it_was" in found.names


@pytest.mark.parametrize("harm", [lambda path: path.write_text("{}"), lambda path: path.write_bytes(b"\xff")])
@pytest.mark.usefixtures("moods")
def test_a_broken_memory_is_built_anew(harm: Callable[[Path], object]) -> None:
    """Nobody has to know that there is one."""
    cold = list_things("templates", ["own"])
    memories = list((cache_dir() / "listing").iterdir())
    for memory in memories:
        harm(memory)
    assert cold == list_things("templates", ["own"])
    assert sorted(memories) == sorted((cache_dir() / "listing").iterdir())
    assert all(len(memory.read_text(encoding="utf-8")) > 10 for memory in memories)


@pytest.mark.usefixtures("moods")
def test_a_record_of_an_older_shape_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of promptlab or of its records reads the files again."""
    list_things("templates", ["own"])
    no_parsing(monkeypatch)
    monkeypatch.setattr(listing, "RECORD_VERSION", 0)
    with pytest.raises(AssertionError, match="a file was parsed"):
        list_things("templates", ["own"])


def test_a_cache_that_cannot_be_written_changes_nothing(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands in the way of the cache folder."""
    (tmp_path / "in_the_way").write_text("", encoding="utf-8")
    cold = list_things("templates", ["own"])
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path / "in_the_way"))
    assert cold == list_things("templates", ["own"])


def test_a_path_is_shown_from_where_one_stands(moods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of a file is not remembered, only what it says."""
    assert "own/templates/mood/it_was.jinja" == find("templates", "mood/it_was")["path"]
    monkeypatch.chdir(moods)
    found = next(record for record in list_things("templates", ["."]).records if record["name"] == "mood/it_was")
    assert IT_WAS == found["path"]


def test_a_file_that_is_read_now_has_the_same_record(moods: Path) -> None:
    """`show` of a path and the listing agree; a fault is raised."""
    file = select_files("template", "mood/it_was", ["own"])[0]
    assert find("templates", "mood/it_was") == file_record(file)
    (moods / IT_WAS).write_text("{{ text }}", encoding="utf-8")
    with pytest.raises(PromptlabError, match="there is nothing to predict"):
        file_record(file)


def test_a_family_that_is_a_link_has_the_name_of_the_link(moods: Path, tmp_path: Path) -> None:
    """A folder is called as the user sees it."""
    elsewhere = tmp_path / "elsewhere"
    (moods / "templates/mood").rename(elsewhere)
    (moods / "templates/mood").symlink_to(elsewhere)
    assert "mood/it_was" in list_things("templates", ["own"]).names


def test_registries_are_listed_by_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a registry holds is there; a thing that cannot be imported is a fault and hides nothing."""

    def brier() -> None:
        """Mean squared distance.

        In more words.
        """

    registry: Registry[Any] = Registry("metric")
    registry.register("brier", brier)
    registry.register("gone", "promptlab.nowhere:metric")
    monkeypatch.setattr("promptlab.registry.METRICS", registry)
    found = list_things("metrics")
    assert [("brier", "Mean squared distance.", "Mean squared distance.\n\nIn more words.", __name__)] == [
        tuple(record[key] for key in ("name", "what", "docstring", "module")) for record in found.records
    ]
    assert {"gone": "metric 'gone' cannot be imported: No module named 'promptlab.nowhere'."} == found.faults


@pytest.mark.parametrize(
    ("kind", "registry"), [("metrics", METRICS), ("calibrations", CALIBRATIONS), ("methods", METHODS)]
)
def test_every_registered_name_is_listed_with_what_it_is(kind: str, registry: Registry[Any]) -> None:
    """A new metric, calibration or method is picked up, and has a docstring."""
    found = list_things(kind)
    more = ["zero_shot"] if kind == "methods" else []  # fits nothing, and so is in no registry
    assert ([*registry.names(), *more], {}) == (found.names, found.faults)
    assert all(record["what"] for record in found.records)


def test_methods_are_listed_with_what_they_look_at() -> None:
    """Every registered method and zero_shot: whether it looks at template and words, and which settings it searches."""
    found = {record["name"]: record for record in list_things("methods").records}
    assert [*METHODS.names(), "zero_shot"] == list(found)
    assert all(record["what"] for record in found.values())
    seen = {name: (one["uses_template"], one["uses_words"], one["answers"]) for name, one in found.items()}
    assert (True, True, "mask") == seen["soft_prompt"] == seen["zero_shot"]
    assert (False, False, "label") == seen["head_fine_tune"]
    assert ["0.03", "0.1", "0.01", "0.003"] == found["soft_prompt"]["settings"]["learning_rate"]
    assert ["words"] == found["soft_prompt"]["settings"]["start"]
    assert "steps" not in found["soft_prompt"]["settings"]


def test_the_bundled_model_is_listed() -> None:
    """One model is at hand; any folder or hub name is a model too, and the listing says so."""
    (mini,) = list_things("models").records
    assert "mini" == mini["name"]
    assert "any folder or hub name" in mini["what"]


def test_each_folder_has_a_memory_of_its_own(moods: Path) -> None:
    """The memory of a folder holds its files and no others, so a listing reads what it lists."""
    for name in ("first", "second"):
        folder = moods / "templates" / name
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.jinja").write_text("{{ text }} {{ mask }}\n", encoding="utf-8")
    list_things("templates", ["own"])
    texts = [path.read_text(encoding="utf-8") for path in (cache_dir() / "listing").iterdir()]
    assert 1 == sum(f"templates{os.sep}first{os.sep}" in text for text in texts)
    assert not any(f"{os.sep}first{os.sep}" in text and f"{os.sep}second{os.sep}" in text for text in texts)
