"""`promptlab ls`, `show` and `schema` at a terminal: what is there, one thing whole, and what a file may hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.terminal import Call

NAMES = ("--output", "names")


def listed(call: Call, *arguments: object) -> list[str]:
    """The names that a listing prints for scripts."""
    said = call("ls", *arguments, *NAMES)
    assert (0, "") == (said.code, said.err)
    return said.out.splitlines()


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (["moods"], ["tasks", "mood*"]),
        (["mood/all_in_all", "mood/it_was"], ["templates", "mood/*"]),
        (["mood/it_was", "sentiment/it_was"], ["templates", "it_was"]),
        (["mood/it_was", "mood/all_in_all"], ["templates", "mood/it_was", "mood/all_in_all"]),
        (["mood/great_terrible", "mood/yes_no"], ["verbalizers", "--task", "moods"]),
        (["mood/great_terrible"], ["verbalizers", "--labels", "good,bad", "--search", "terrible"]),
        (["sentiment/null"], ["templates", "--family", "sentiment", "--tag", "null", "--field", "text"]),
        (["moods"], ["tasks", "--language", "en", "--label", "good", "--label", "bad"]),
        ([], ["templates", "--search", "nobody writes this"]),
    ],
)
def test_filters_are_combined_and_names_are_for_scripts(
    call: Call, moods: Path, expected: list[str], arguments: list[str]
) -> None:
    """One name a line and nothing else; nothing found is nothing printed."""
    assert sorted(expected) == listed(call, *arguments, "--include", moods)


def test_folders_of_the_environment_count(call: Call, moods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTLAB_PATH is as good as --include, for listing and showing."""
    monkeypatch.setenv("PROMPTLAB_PATH", str(moods))
    assert ["mood/all_in_all", "mood/it_was"] == listed(call, "templates", "mood/*")
    assert "own/tasks/moods.yaml" in call("show", "moods").out


def test_json_holds_whole_records(call: Call, moods: Path) -> None:
    """Lists are lists, texts are whole, and the same again after a change of the file."""
    (template,) = json.loads(call("ls", "templates", "mood/it_was", "--include", moods, "--output", "json").out)
    assert ("mood", ["text"], ["instructive"], "{{ text }} It was {{ mask }}.") == tuple(
        template[key] for key in ("family", "fields", "tags", "text")
    )
    (moods / "templates/mood/it_was.jinja").write_text("{{ text }}\nIt is {{ mask }}.\n", encoding="utf-8")
    (again,) = json.loads(call("ls", "templates", "mood/it_was", "--include", moods, "--output", "json").out)
    assert "{{ text }}\nIt is {{ mask }}." == again["text"]
    counts = json.loads(call("ls", "--family", "mood", "--include", moods, "--output", "json").out)
    assert {"tasks": 1, "templates": 2, "verbalizers": 2} == counts


def test_broken_files_are_told_after_the_others_are_listed(call: Call, moods: Path) -> None:
    """Exit code 1; the listing is whole in every form, the faults are on standard error."""
    whole = call("ls", "templates", "--include", moods)
    (moods / "templates/mood/first.jinja").write_text("---\ntags: [fine]\n---\n{{ mask }}\n", encoding="utf-8")
    (moods / "templates/mood/second.jinja").write_text("{{ text }}\n", encoding="utf-8")
    said = call("ls", "templates", "--include", moods)
    assert (0, "", 1, whole.out) == (whole.code, whole.err, said.code, said.out)
    number = len(whole.out.splitlines()) - 1 + 2
    head, first, second = said.err.splitlines()
    assert f"error: 2 of {number} cannot be read, the others are listed:" == head
    assert first.startswith("own/templates/mood/first.jinja:2 tags.0: ")
    assert "own/templates/mood/second.jinja:1 has no {{ mask }}: there is nothing to predict." == second
    for form in ("json", "names"):
        again = call("ls", "templates", "--include", moods, "--output", form)
        assert (1, said.err) == (again.code, again.err)
        assert "mood/it_was" in again.out
    counted = call("ls", "--include", moods)
    assert (1, True) == (counted.code, "the others are counted:" in counted.err)
    only = call("ls", "templates", "mood/first", "--include", moods)
    assert (1, "No templates fit.\n") == (only.code, only.out)


@pytest.mark.parametrize(
    "name",
    ["moods", "mood/it_was", "mood/yes_no", "sst2", "trec", "nli/pet_rte_p0", "four_adjectives", "accuracy", "mini"],
)
def test_what_is_shown_fits_eighty_columns(call: Call, moods: Path, name: str) -> None:
    """The kind and the name come first; no line is longer than a terminal is wide."""
    said = call("show", name, "--include", moods)
    assert (0, "") == (said.code, said.err)
    assert said.out.splitlines()[0].endswith(name)
    assert max(map(len, said.out.splitlines())) <= 80


def test_a_template_is_shown_whole(call: Call, moods: Path) -> None:
    """Its text as it stands, then where it lies, what its head says, its hash and the tasks it applies to."""
    text = "---\nreference: Somebody 2020\n---\n{{ text }}\n\nIt  was {{ mask }}.\n"
    (moods / "templates/mood/it_was.jinja").write_text(text, encoding="utf-8")
    lines = call("show", "mood/it_was", "--include", moods).out.splitlines()
    assert ["template mood/it_was", "", "  {{ text }}", "", "  It  was {{ mask }}.", ""] == lines[:6]
    facts = dict(line.split(maxsplit=1) for line in lines[6:])
    assert ["path", "family", "fields", "uses_options", "tags", "pieces", "reference", "hash", "tasks"] == list(facts)
    assert ("own/templates/mood/it_was.jinja", "whole", "Somebody 2020", "moods") == tuple(
        facts[key] for key in ("path", "pieces", "reference", "tasks")
    )


def test_a_verbalizer_is_shown_with_its_weights(call: Call, moods: Path) -> None:
    """A line a label, before everything else."""
    path = moods / "verbalizers/mood/weighted.yaml"
    path.write_text("labels: {bad: {bad: 1, awful: 0.5}, good: good}\npool: max\n", encoding="utf-8")
    lines = call("show", "mood/weighted", "--include", moods).out.splitlines()
    assert ["verbalizer mood/weighted", "", "  bad   bad, awful (0.5)", "  good  good", ""] == lines[:5]
    assert "pool         max" in lines
    assert "tasks        moods" in lines


def test_a_task_is_shown_with_its_sources_and_what_applies(call: Call, moods: Path) -> None:
    """Splits, fields and label values as they are mapped, and the templates and verbalizers of a run."""
    out = call("show", "moods", "--include", moods).out
    for line in (
        "source 1     local: moods",
        "             splits: train, test, empty",
        "             fields: text = sentence",
        "             label: column = label, values = (0 = bad, 1 = good)",
        "templates    mood/all_in_all, mood/it_was",
        "verbalizers  mood/great_terrible, mood/yes_no",
    ):
        assert line in out.splitlines()


def test_show_prints_json(call: Call, moods: Path) -> None:
    """The record of the listing, with its kind and what belongs to it."""
    thing: dict[str, Any] = json.loads(call("show", "mood/yes_no", "--include", moods, "--output", "json").out)
    assert ("verbalizer", {"bad": {"no": 1.0}, "good": {"yes": 1.0}}, ["moods"]) == tuple(
        thing[key] for key in ("type", "labels", "tasks")
    )


@pytest.mark.parametrize("kind", ["task", "template", "verbalizer", "run"])
def test_a_schema_is_json(call: Call, kind: str) -> None:
    """It can be written to a file as it is printed."""
    said = call("schema", kind)
    assert (0, "") == (said.code, said.err)
    assert "object" == json.loads(said.out)["type"]


def test_a_cache_that_cannot_be_written_is_no_fault(
    call: Call, moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that is broken."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    expected = call("ls", "templates", "--include", moods)
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path / "file"))
    assert expected == call("ls", "templates", "--include", moods)


def test_signs_that_a_terminal_obeys_are_not_printed(call: Call, moods: Path) -> None:
    """A shared template cannot clear the screen of whoever lists it."""
    (moods / "templates/mood/it_was.jinja").write_text("{{ text }} \x1b[2J {{ mask }}\n", encoding="utf-8")
    for said in (
        call("ls", "templates", "mood/*", "--include", moods),
        call("show", "mood/it_was", "--include", moods),
    ):
        assert "[2J" in said.out
        assert "\x1b" not in said.out


def test_a_warm_listing_opens_no_template(call: Call, moods: Path) -> None:
    """It asks for the state of each file and reads the memory of their folder, however many they are."""
    opened: list[str] = []
    folder = moods / "templates/mood"
    for number in range(50):
        (folder / f"t{number}.jinja").write_text(f"{{{{ text }}}} It was {number} {{{{ mask }}}}.\n", encoding="utf-8")
    first = call("ls", "templates", "mood/*", "--include", moods)
    original = Path.open

    def counted(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(os.fspath(self))
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", counted)
        assert first == call("ls", "templates", "mood/*", "--include", moods)
    assert [] == [path for path in opened if path.endswith(".jinja")]
    assert opened
