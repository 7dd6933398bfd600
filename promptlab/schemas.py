"""The models of data files -> JSON Schemas of what an author writes, for editors and other tools.

A schema has the keys that stand in a file, each with its meaning, and every spelling that is read: one word for a list
of one, words with weights, an unquoted `null` among tags. It knows shapes; what needs the whole file, such as two
labels with one word, is checked when promptlab loads it. Draft 7 is what editors understand.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from promptlab import meanings
from promptlab.errors import UsageError, did_you_mean
from promptlab.specs.run import DTYPES, RunSpec
from promptlab.specs.task import HubSource, LabelColumn, Source, Task
from promptlab.specs.template import Tag, Template, TemplateHead
from promptlab.specs.verbalizer import Verbalizer

DRAFT = "http://json-schema.org/draft-07/schema#"
FILES: Mapping[str, tuple[Any, str]] = {
    "task": (Task, "tasks/NAME.yaml"),
    "template": (TemplateHead, "the head of templates/FAMILY/NAME.jinja"),
    "verbalizer": (Verbalizer, "verbalizers/FAMILY/NAME.yaml"),
    "run": (RunSpec, "run.yaml"),
}
MEANINGS: Mapping[Any, Mapping[str, str]] = {
    Task: meanings.TASK,
    Source: meanings.SOURCE,
    HubSource: meanings.HUB_SOURCE,
    LabelColumn: meanings.LABEL_COLUMN,
    TemplateHead: meanings.TEMPLATE,
    Verbalizer: meanings.VERBALIZER,
    RunSpec: meanings.RUN,
}

Schema = dict[str, Any]

_PLACED = {Task: {"name", "path"}, Verbalizer: {"name", "path", "family"}}
_LOADED = {model.__name__ for model in (Task, Template, Verbalizer)}
_WORD: Schema = {"type": "string", "pattern": r"^\S(.*\S)?$"}
_WORDS_OF_MASKS: Schema = {"type": "array", "items": _WORD, "minItems": 2}
_LABELS: Schema = {
    "type": "object",
    "minProperties": 2,
    "additionalProperties": {
        "anyOf": [
            _WORD,
            {"type": "array", "items": {"anyOf": [_WORD, _WORDS_OF_MASKS]}, "minItems": 1},
            {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}, "minProperties": 1},
        ]
    },
}
_TAGS: Schema = {
    "anyOf": [
        {"enum": list(typing.get_args(Tag))},
        {"type": "array", "items": {"enum": [*typing.get_args(Tag), None]}},
    ]
}
_WHOLE: Schema = {"type": "integer", "minimum": 1}
_PAIR: Schema = {"type": "string", "pattern": r"^[^=]*[^=\s][^=]*=.*\S"}
_PAIRS: Schema = {
    "anyOf": [
        {"type": "object", "additionalProperties": {"type": "string"}},
        _PAIR,
        {"type": "array", "items": _PAIR},
        {"type": "null"},
    ]
}
_PART = r"[^|=]*[^|=\s][^|=]*"
_ENSEMBLE: Schema = {"type": "string", "pattern": rf"^{_PART}(\|{_PART})*(={_PART}(\|{_PART})*)?$"}
_ENSEMBLES: Schema = {
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
            },
        },
        _ENSEMBLE,
        {"type": "array", "items": _ENSEMBLE},
    ]
}
# Where a validator reads more or less than the type of its field says.
_WRITTEN: Mapping[Any, Mapping[str, Schema]] = {
    TemplateHead: {"tags": _TAGS},
    Verbalizer: {"labels": _LABELS},
    RunSpec: {
        "verbalizers": {
            "anyOf": [{"type": "string"}, _LABELS, {"type": "array", "items": {"anyOf": [{"type": "string"}, _LABELS]}}]
        },
        "ensembles": _ENSEMBLES,
        "fields": _PAIRS,
        "label_values": _PAIRS,
        "limit": {"anyOf": [_WHOLE, {"type": "string", "pattern": "^(first:)?0*[1-9][0-9]*$"}, {"type": "null"}]},
        "max_length": {"anyOf": [{"type": "integer", "minimum": 4}, {"type": "null"}]},
        "dtype": {"enum": list(DTYPES)},
        "batch_size": {"anyOf": [{"const": "auto"}, _WHOLE]},
        "seed": {"type": "integer", "minimum": 0},
    },
}


def file_schema(kind: str) -> Schema:
    """The JSON Schema of a kind of file: `task`, `template` (its head), `verbalizer` or `run`.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in FILES:
        raise UsageError(f"schema {kind}: there is no such file.{did_you_mean(kind, FILES)} Known: {', '.join(FILES)}.")
    model, title = FILES[kind]
    return {"$schema": DRAFT, "title": title, **_object(model)}


def file_keys(model: Any) -> list[str]:
    """The keys that a file itself holds; name, path and family of whole files come from where it lies."""
    return [name for name in model.model_fields if name not in _PLACED.get(model, ())]


def _object(model: Any) -> Schema:
    """What a file or a nested mapping holds, key by key."""
    made = model.model_json_schema()
    nested = {one.__name__: one for one in MEANINGS}
    keys = file_keys(model)
    return {
        "description": (inspect.getdoc(model) or "").partition("\n")[0],
        "type": "object",
        "properties": {key: _key(model, key, made["properties"][key], nested) for key in keys},
        "required": [key for key in made.get("required", ()) if key in keys],
        "additionalProperties": False,
    }


def _key(model: Any, key: str, made: Schema, nested: Mapping[str, Any]) -> Schema:
    """What stands under one key, what it means, and what holds where it is left out."""
    schema = _WRITTEN.get(model, {}).get(key) or _written(made, nested)
    meaning = MEANINGS[model].get(key)
    default = {"default": made["default"]} if made.get("default") is not None else {}
    return {**({"description": meaning} if meaning else {}), **schema, **default}


def _written(made: Schema, nested: Mapping[str, Any]) -> Schema:
    """A schema made from a type, with nested models in place and a single text where a list of texts is read."""
    if "$ref" in made:
        return _object(nested[made["$ref"].rpartition("/")[2]])
    if "anyOf" in made:
        return _either(_written(one, nested) for one in made["anyOf"] if not _is_loaded(one))
    if made.get("type") != "array":
        return {key: value for key, value in made.items() if key not in ("title", "default", "propertyNames")}
    items = _written(made["items"], nested)
    # The type checker's own word for the length of a list is that of a text.
    least = int(made.get("minItems") or made.get("minLength") or 0)
    several = {"type": "array", "items": items, **({"minItems": least} if least else {})}
    return _either([items, several]) if least < 2 and _reads_text(items) else several


def _either(schemas: typing.Iterable[Schema]) -> Schema:
    flat = [one for schema in schemas for one in schema.get("anyOf", [schema])]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _is_loaded(made: Schema) -> bool:
    """Whether a part of a type is a value that Python code hands over and no file can hold."""
    return str(made.get("$ref", "")).rpartition("/")[2] in _LOADED


def _reads_text(schema: Schema) -> bool:
    return any(one.get("type") == "string" for one in schema.get("anyOf", [schema]))
