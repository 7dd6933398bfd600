"""What a listing says applies to a task is what a run scores; everything that has a name can be shown."""

from __future__ import annotations

import pytest

from promptlab.library import list_files
from promptlab.listing import KINDS, list_things
from promptlab.narrowing import applies as applies_to
from promptlab.planning import applies, verbalizes
from promptlab.rendering import compile_template
from promptlab.showing import find_thing
from promptlab.specs.task import Task
from promptlab.specs.template import load_templates
from promptlab.specs.verbalizer import load_verbalizers

TASKS = list(list_files("task"))


@pytest.mark.parametrize("name", TASKS)
def test_what_is_listed_for_a_task_is_what_a_run_takes(name: str) -> None:
    """The rule that asks records is the rule that asks loaded files, for every pair of the library."""
    task = Task.load(name)
    record = next(record for record in list_things("tasks").records if record["name"] == name)
    templates = {one.name for one in load_templates(["*"]) if applies(compile_template(one), task)}
    verbalizers = {one.name for one in load_verbalizers(["*"]) if verbalizes(one, task)}
    assert templates == {one["name"] for one in list_things("templates").records if applies_to(one, record)}
    assert verbalizers == {one["name"] for one in list_things("verbalizers").records if applies_to(one, record)}
    assert (sorted(templates), sorted(verbalizers)) == (find_thing(name)["templates"], find_thing(name)["verbalizers"])


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_listed_can_be_shown(kind: str) -> None:
    """By its whole name and kind, and it says there what it says in the listing."""
    for record in list_things(kind).records:
        shown = find_thing(record["name"], kind[:-1])
        assert record == {key: shown[key] for key in record}
