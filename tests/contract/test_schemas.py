"""The schemas that editors read say what promptlab reads: of the shipped files, of every spelling, and of mistakes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from promptlab.documents import parse_yaml, validate
from promptlab.errors import FileFault, UsageError
from promptlab.library import LibraryFile, list_files
from promptlab.schemas import _WRITTEN, FILES, MEANINGS, file_keys, file_schema
from promptlab.specs.template import _split_head

SHIPPED = [file for kind in ("task", "template", "verbalizer") for file in list_files(kind).values()]
HEAD: dict[str, Any] = {
    "fields": ["text"], "tags": ["instructive"], "domain_prompt": "It was {{ mask }}.", "pieces": "pet",
    "reference": "r", "notes": "n",
}  # fmt: skip
VERBALIZER: dict[str, Any] = {"labels": {"bad": ["no"], "good": ["yes"]}, "pool": "max", "multi_token": "refuse"}
SOURCE: dict[str, Any] = {
    "local": "x",
    "splits": {"train": "train"},
    "fields": {"text": "body"},
    "label": {"column": "label", "values": {"a": "bad"}},
}
HUB: dict[str, Any] = {"hub": {"path": "a/b", "verified": False}, "splits": {}, "fields": {"text": "body"}}
TASK: dict[str, Any] = {
    "title": "t", "family": "f", "kind": "classification", "labels": ["bad", "good"], "sources": [SOURCE, HUB],
    "metrics": ["accuracy"], "language": "en", "license": "l", "citation": "c", "homepage": None, "version": 1,
}  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {"task": TASK, "template": HEAD, "verbalizer": VERBALIZER, "run": {"tasks": ["x"]}}
OWN: dict[str, Any] = {
    "tasks": ["everyday_nli", "news_topic", "review_sentiment"], "rows": "a.csv", "train_rows": "b.csv",
    "text_column": "body", "label_column": "stars", "labels": ["bad", "good"], "family": "mood",
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "task": {"name": "n", "path": "p"},
    "verbalizer": {"name": "n", "path": "p", "family": None},
}


def data(file: LibraryFile) -> Any:
    """What a shipped file holds, read as promptlab reads it."""
    text = Path(file.path).read_text(encoding="utf-8")
    text = _split_head(text, file.shown)[0] if file.kind == "template" else text
    return parse_yaml(text, shown=file.shown).data


def is_valid(kind: str, document: Any) -> bool:
    """Whether an editor would be content."""
    return bool(Draft7Validator(file_schema(kind)).is_valid(document))


def is_read(kind: str, document: Any) -> bool:
    """Whether promptlab reads the same."""
    parsed = parse_yaml("", shown="file")
    parsed.data.update(copy.deepcopy(document))
    try:
        validate(FILES[kind][0], parsed, **MORE.get(kind, {}))
    except FileFault:
        return False
    return True


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    for item in schema if isinstance(schema, list) else ():
        yield from nodes(item)


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_one_itself(kind: str) -> None:
    """It is draft 7, stands alone, and leaves out what a file does not hold."""
    schema = file_schema(kind)
    Draft7Validator.check_schema(schema)
    assert "http://json-schema.org/draft-07/schema#" == schema["$schema"]
    assert not [node for node in nodes(schema) if "$ref" in node]
    assert file_keys(FILES[kind][0]) == list(schema["properties"])
    assert not {"path", "first_line"} & set(schema["properties"])
    assert kind == "run" or "name" not in schema["properties"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.kind} {file.name}")
def test_every_shipped_file_is_valid_and_one_key_more_makes_it_invalid(file: LibraryFile) -> None:
    """An editor shows no fault in the library, and shows the one that a slip of the pen makes."""
    held = data(file)
    assert [] == [fault.message for fault in Draft7Validator(file_schema(file.kind)).iter_errors(held)]
    assert not is_valid(file.kind, {**held, "unknwon": 1})


@pytest.mark.parametrize("kind", FILES)
def test_every_key_is_explained(kind: str) -> None:
    """Hovering over a key shows the sentence that the reference has."""
    model = FILES[kind][0]
    properties = file_schema(kind)["properties"]
    assert {key: MEANINGS[model][key] for key in file_keys(model)} == {
        key: schema["description"] for key, schema in properties.items()
    }
    nested = [node for node in nodes(file_schema(kind)) if isinstance(node.get("properties"), dict)]
    assert all("description" in schema for node in nested for schema in node["properties"].values())
    assert all(node["additionalProperties"] is False for node in nested)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("template", {"fields": "text"}),
        ("template", {"fields": None}),
        ("template", {"tags": "null"}),
        ("template", {"tags": [None]}),
        ("template", {"tags": ["misleading", "null"]}),
        ("template", {"tags": []}),
        ("template", {"pieces": "whole"}),
        ("template", {"pieces": "lm_bff"}),
        ("verbalizer", {"labels": {"bad": "no", "good": "yes"}}),
        ("verbalizer", {"labels": {"bad": {"no": 1}, "good": {"yes": 0.5, "sure": 2.0}}}),
        ("verbalizer", {"labels": {"bad": "not at all", "good": ["yes"]}}),
        ("verbalizer", {"reference": None}),
        ("verbalizer", {"multi_token": "left_to_right", "normalize": "mean"}),
        ("verbalizer", {"labels": {"bad": [["not", "good"]], "good": [["very", "good"], "so + good"]}}),
        ("verbalizer", {"labels": {"bad": {"not + good": 2.0}, "good": "so + good"}}),
        ("task", {"metrics": "accuracy"}),
        ("task", {"sources": [HUB]}),
        ("task", {"sources": [{**SOURCE, "label": None, "hub": None}]}),
        ("task", {"notes": None}),
        ("run", {"tasks": "x"}),
        ("run", {"templates": ["{{ text }} {{ mask }}", "a/*"]}),
        ("run", {"verbalizers": "a=b,c=d"}),
        ("run", {"verbalizers": {"bad": "no", "good": ["yes"]}}),
        ("run", {"verbalizers": ["x", {"bad": "no", "good": ["yes"]}]}),
        ("run", {"limit": 5}),
        ("run", {"limit": "first:5"}),
        ("run", {"limit": None}),
        ("run", {"batch_size": "auto"}),
        ("run", {"batch_size": 8}),
        ("run", {"calibrations": ["none", "do*"], "prepare": "support", "metrics": ["brier", "f1(good)"]}),
        ("run", {"prepare": [], "metrics": "brier", "store_states": True}),
        ("run", {"ensembles": "*"}),
        ("run", {"ensembles": ["a/*", "both = it_was | just"]}),
        ("run", {"ensembles": {"both": ["it_was", "just"], "all": "a/*"}}),
        ("run", OWN),
        ("run", {**OWN, "label_values": {"0": "bad", "1": "good"}, "fields": {"who": "name"}}),
        ("run", {**OWN, "label_values": ["0=bad", "1=good"], "fields": "who=name"}),
        ("run", {**OWN, "label_column": None, "labels": "bad"}),
        ("run", {"max_length": 64, "seed": 3, "dtype": "bfloat16", "no_text": True, "data": None, "include": "mine"}),
    ],
)
def test_what_promptlab_reads_is_valid(kind: str, change: dict[str, Any]) -> None:
    """Every spelling that is read: one word for a list, an unquoted null, words with weights, texts and mappings."""
    document = {**WHOLE[kind], **change}
    assert (True, True) == (is_read(kind, document), is_valid(kind, document))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("template", {"tags": ["fine"]}),
        ("template", {"tags": None}),
        ("template", {"fields": [1]}),
        ("template", {"name": "x"}),
        ("template", {"text": "x"}),
        ("verbalizer", {"labels": {"bad": ["no"]}}),
        ("verbalizer", {"labels": {"bad": [], "good": ["yes"]}}),
        ("verbalizer", {"labels": {"bad": {"no": 0}, "good": "yes"}}),
        ("verbalizer", {"labels": {"bad": [True], "good": "yes"}}),
        ("verbalizer", {"labels": {"bad": " no", "good": "yes"}}),
        ("verbalizer", {"pool": "mean"}),
        ("verbalizer", {"multi_token": "left"}),
        ("verbalizer", {"normalize": "length"}),
        ("verbalizer", {"labels": {"bad": [["no"]], "good": [["yes"]]}}),
        ("verbalizer", {"labels": {"bad": [["no", 1]], "good": [["yes", "so"]]}}),
        ("verbalizer", {"labels": {"bad": [[]], "good": [["yes", "so"]]}}),
        ("verbalizer", {"family": "mood"}),
        ("task", {"labels": "bad"}),
        ("task", {"labels": ["bad"]}),
        ("task", {"kind": "regression"}),
        ("task", {"version": 0}),
        ("task", {"version": "1"}),
        ("task", {"sources": []}),
        ("task", {"sources": SOURCE}),
        ("task", {"sources": [{**SOURCE, "spilts": {}}]}),
        ("task", {"sources": [{**HUB, "hub": {"path": "a/b"}}]}),
        ("task", {"sources": [{**SOURCE, "label": {"colum": "x"}}]}),
        ("task", {"path": "x"}),
        ("run", {"tasks": 5}),
        ("run", {"limit": "all"}),
        ("run", {"limit": 0}),
        ("run", {"batch_size": "big"}),
        ("run", {"max_length": 3}),
        ("run", {"seed": -1}),
        ("run", {"dtype": "float8"}),
        ("run", {"limt": 5}),
        ("run", {"no_text": "yes"}),
        ("run", {"store_states": "yes"}),
        ("run", {"prepare": {"a": "b"}}),
        ("run", {"metrics": [3]}),
        ("run", {"ensembles": "a="}),
        ("run", {"ensembles": "a=b||c"}),
        ("run", {"ensembles": {"a": []}}),
        ("run", {"ensembles": [3]}),
        ("run", {**OWN, "fields": "who"}),
        ("run", {**OWN, "label_values": ["0="]}),
        ("run", {**OWN, "label_values": {"0": 1}}),
        ("run", {**OWN, "rows": ["a.csv"]}),
        ("template", {"domain_prompt": 3}),
        ("template", {"pieces": "lmbff"}),
        ("template", {"pieces": ["pet"]}),
        ("template", {"pieces": None}),
    ],
)
def test_what_promptlab_refuses_is_invalid(kind: str, change: dict[str, Any]) -> None:
    """A wrong key, word, number or length is a fault in the editor already."""
    document = {**WHOLE[kind], **change}
    assert (False, False) == (is_read(kind, document), is_valid(kind, document))


@pytest.mark.parametrize("kind", ["task", "verbalizer"])
def test_a_key_that_is_required_is_required_in_both(kind: str) -> None:
    """Each key is left out in turn."""
    for key in WHOLE[kind]:
        document = {name: value for name, value in WHOLE[kind].items() if name != key}
        assert is_read(kind, document) == is_valid(kind, document), key


def test_what_is_written_by_hand_belongs_to_keys_that_exist() -> None:
    """A key that is renamed does not leave its spelling behind."""
    assert [] == [
        (model.__name__, key) for model, keys in _WRITTEN.items() for key in keys if key not in model.model_fields
    ]


def test_an_unknown_kind_of_file_is_refused() -> None:
    """The known ones are named."""
    with pytest.raises(UsageError) as fault:
        file_schema("templates")
    assert (
        "schema templates: there is no such file. Did you mean 'template'? Known: task, template, verbalizer, run."
        == str(fault.value)
    )
