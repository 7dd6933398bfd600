"""Filters let through what has all that was asked for, and name what nothing has."""

from __future__ import annotations

from typing import Any

import pytest

from promptlab.errors import UsageError
from promptlab.listing import Listing
from promptlab.narrowing import Filters, applies, kinds_for, narrow, some

TASKS: list[dict[str, Any]] = [
    {
        "name": "films",
        "title": "Films",
        "family": "mood",
        "labels": ["bad", "good"],
        "fields": ["text"],
        "language": "en",
    },
    {
        "name": "filme",
        "title": "Filme",
        "family": "mood",
        "labels": ["good", "bad"],
        "fields": ["text"],
        "language": "de",
    },
    {
        "name": "pairs",
        "title": "Pairs",
        "family": "pair",
        "labels": ["no", "yes"],
        "fields": ["a", "b"],
        "language": "en",
    },
]
TEMPLATES: list[dict[str, Any]] = [
    {"name": "mood/it_was", "family": "mood", "tags": ["instructive"], "fields": ["text"], "text": "{{ text }} It was"},
    {
        "name": "mood/null",
        "family": "mood",
        "tags": ["null"],
        "fields": ["text"],
        "text": "{{ text }}",
        "reference": "Smith 2020",
    },
    {"name": "pair/both", "family": "pair", "tags": ["instructive"], "fields": ["a", "b"], "text": "{{ a }}? {{ b }}"},
    {"name": "pair/null", "family": "pair", "tags": ["null"], "fields": ["a"], "text": "{{ a }}"},
]
VERBALIZERS: list[dict[str, Any]] = [
    {"name": "mood/words", "family": "mood", "labels": {"bad": {"Terrible": 1.0}, "good": {"great": 0.5}}},
    {"name": "mood/three", "family": "mood", "labels": {"bad": {"x": 1.0}, "good": {"y": 1.0}, "so": {"z": 1.0}}},
    {"name": "pair/words", "family": "pair", "labels": {"yes": {"Yes": 1.0}, "no": {"No": 1.0}}},
]
RECORDS = {"tasks": TASKS, "templates": TEMPLATES, "verbalizers": VERBALIZERS}


def names(kind: str, **filters: Any) -> list[str]:
    """What a listing of one kind is narrowed to."""
    patterns, task, search = (filters.pop(key, None) for key in ("patterns", "task", "search"))
    having = {name: (value,) if isinstance(value, str) else value for name, value in filters.items()}
    narrowed = narrow({kind: Listing(tuple(RECORDS[kind]), {})}, Filters(patterns or (), having, task, search))
    return [record["name"] for record in narrowed[kind]]


@pytest.mark.parametrize(
    ("expected", "kind", "filters"),
    [
        (["films", "filme", "pairs"], "tasks", {}),
        (["films", "filme"], "tasks", {"family": "mood"}),
        (["films", "filme", "pairs"], "tasks", {"family": ("mood", "pair")}),
        (["filme"], "tasks", {"language": "de"}),
        (["films", "filme"], "tasks", {"label": ("good", "bad")}),
        ([], "tasks", {"label": ("good", "yes")}),
        (["pairs"], "tasks", {"field": ("a", "b")}),
        (["films"], "tasks", {"family": "mood", "language": "en"}),
        (["mood/null", "pair/null"], "templates", {"tag": "null"}),
        (["pair/null"], "templates", {"tag": "null", "field": "a"}),
        (["mood/words", "mood/three"], "verbalizers", {"label": "good"}),
        (["mood/it_was", "mood/null"], "templates", {"patterns": ("mood/*",)}),
        (["mood/null", "pair/null"], "templates", {"patterns": ("null",)}),
        (["mood/it_was", "pair/both"], "templates", {"patterns": ("pair/both", "it_was")}),
        (["pair/null"], "templates", {"patterns": ("*/null",), "family": "pair"}),
        ([], "templates", {"patterns": ("mood/*",), "family": "pair"}),
    ],
)
def test_a_thing_stays_if_it_fits_every_filter(expected: list[str], kind: str, filters: dict[str, Any]) -> None:
    """Of families, languages and tags one of those named is enough; labels and fields must all be there."""
    assert expected == names(kind, **filters)


@pytest.mark.parametrize(
    ("expected", "kind", "text"),
    [
        (["films"], "tasks", "FILMS"),
        (["mood/it_was"], "templates", "it was"),
        (["mood/null"], "templates", "smith"),
        (["mood/words"], "verbalizers", "terrible"),
        (["mood/words", "pair/words"], "verbalizers", "words"),
        ([], "verbalizers", "good"),
        ([], "templates", "None"),
    ],
)
def test_a_text_is_sought_in_name_title_text_words_and_reference(expected: list[str], kind: str, text: str) -> None:
    """Case does not count; labels are no words, and what is missing says nothing."""
    assert expected == names(kind, search=text)


@pytest.mark.parametrize(
    ("expected", "kind", "task"),
    [
        (["mood/it_was", "mood/null"], "templates", 0),
        (["pair/both", "pair/null"], "templates", 2),
        (["mood/words"], "verbalizers", 0),
        (["mood/words"], "verbalizers", 1),
        (["pair/words"], "verbalizers", 2),
    ],
)
def test_what_applies_to_a_task_has_its_family_and_its_fields_or_labels(
    expected: list[str], kind: str, task: int
) -> None:
    """A template reads none but the task's fields; a verbalizer has exactly its labels, in any order."""
    assert expected == names(kind, task=TASKS[task])


def test_a_text_without_a_family_applies_to_every_task_with_its_fields() -> None:
    """So does a run read it."""
    inline = {**TEMPLATES[0], "family": None}
    assert [True, True, False] == [applies(inline, task) for task in TASKS]


@pytest.mark.parametrize(
    ("message", "kind", "filters"),
    [
        ("--family moood: no tasks have it. Did you mean 'mood'? Known: mood, pair.", "tasks", {"family": "moood"}),
        ("--language fr: no tasks have it. Known: de, en.", "tasks", {"language": "fr"}),
        (
            "--tag nul: no templates have it. Did you mean 'null'? Known: instructive, null.",
            "templates",
            {"tag": "nul"},
        ),
        ("--field txt: no templates have it. Did you mean 'text'? Known: a, b, text.", "templates", {"field": "txt"}),
        (
            "--label god: no verbalizers have it. Did you mean 'good'? Known: bad, good, no, so, yes.",
            "verbalizers",
            {"label": ("bad", "god")},
        ),
        (
            "no template matches 'moods/*'. `promptlab ls templates` lists them.",
            "templates",
            {"patterns": ("moods/*",)},
        ),
        (
            "template 'mood' is unknown, but there is a family of that name: write 'mood/*'.",
            "templates",
            {"patterns": ("mood",)},
        ),
        (
            "template 'it_wsa' is unknown. Did you mean 'it_was'? `promptlab ls templates` lists them.",
            "templates",
            {"patterns": ("mood/*", "it_wsa")},
        ),
    ],
)
def test_what_nothing_has_is_named_with_the_nearest(message: str, kind: str, filters: dict[str, Any]) -> None:
    """A misspelt value is a fault, not an empty listing."""
    with pytest.raises(UsageError) as fault:
        names(kind, **filters)
    assert message == str(fault.value)


def test_a_broken_file_is_a_name_that_is_known() -> None:
    """Its fault is told after the listing; the pattern was right."""
    narrowed = narrow({"tasks": Listing((), {"broken": "its fault."})}, Filters(patterns=("broken",)))
    assert {"tasks": []} == narrowed


@pytest.mark.parametrize(
    ("expected", "asked", "kind"),
    [
        (("tasks", "templates", "verbalizers", "models", "metrics", "calibrations", "methods"), [], None),
        (("tasks", "templates", "verbalizers"), ["family"], None),
        (("templates", "verbalizers"), ["family", "task"], None),
        (("tasks",), ["language", "field"], None),
        (("templates",), ["tag"], "templates"),
    ],
)
def test_kinds_are_those_that_all_filters_know(expected: tuple[str, ...], asked: list[str], kind: str | None) -> None:
    """Without a kind, what cannot be asked is left out of the count."""
    assert expected == kinds_for(asked, kind)


@pytest.mark.parametrize(
    ("message", "asked", "kind"),
    [
        ("--family: only tasks, templates, verbalizers have families.", ["family"], "models"),
        ("--tag: only templates have tags.", ["tag"], "tasks"),
        ("--task: only templates, verbalizers apply to a task.", ["task"], "tasks"),
        ("--language, --tag: no kind can be narrowed by all of them.", ["language", "tag"], None),
    ],
)
def test_a_filter_that_a_kind_does_not_know_is_refused(message: str, asked: list[str], kind: str | None) -> None:
    """The kinds that do know it are named."""
    with pytest.raises(UsageError) as fault:
        kinds_for(asked, kind)
    assert message == str(fault.value)


def test_a_message_shows_no_more_names_than_can_be_read() -> None:
    """The rest is counted."""
    assert "a, b" == some("ab")
    assert "a, b, c, d, e, f, g, h, i, j, k, l and 3 more" == some("abcdefghijklmno")
