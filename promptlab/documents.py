"""YAML text -> plain values with line numbers -> validated models, with all faults of a file at once.

YAML 1.2 words: only `true` and `false` are booleans, so `yes`, `no` and `on` stay the label words that they are.
Duplicate keys, anchors and tags are refused; a fault reads `verbalizers/nli/x.yaml:7 labels.neutral: ...`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from promptlab.errors import FileFault, did_you_mean

Path_ = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its data, and the line (from 1) on which each path of keys and indices stands."""

    data: Any
    lines: Mapping[Path_, int]
    shown: str

    def place(self, path: Path_) -> str:
        """`file:line key.key` for a path, or for its nearest known ancestor."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        dotted = ".".join(str(part) for part in path)
        return f"{self.shown}:{self.lines.get(known, 1)} {dotted}".rstrip()


def parse_yaml(text: str, *, shown: str, first_line: int = 1) -> Document:
    """The document of a YAML text; `shown` is the file's name in messages, `first_line` the line it starts on.

    Raises:
        FileFault: bad syntax, a duplicate key, an anchor or a tag; all of the last three at once.
    """
    loader = _Words(text)
    try:
        _refuse_depth(text, shown, first_line)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first_line + (mark.line if mark else 0)
        raise FileFault(f"{shown}:{line} is not valid YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise FileFault(f"{shown}:{first_line} is not valid YAML: {str(error).splitlines()[0]}.") from None
    finally:
        loader.dispose()
    builder = _Builder(shown, first_line, loader.resolve)
    data = {} if node is None else builder.build(node, ())
    if builder.faults:
        raise FileFault(builder.faults)
    return Document(data, builder.lines, shown)


def validate(model: type[M], document: Document, **more: Any) -> M:
    """The document as a model; `more` are values that the file itself does not hold (its name, its path).

    Raises:
        FileFault: every fault of the file, one line each, with the line it stands on.
    """
    if not isinstance(document.data, dict):
        raise FileFault(f"{document.shown}:1 must hold keys and values, found {_shown_type(document.data)}.")
    hidden = sorted(set(more) & set(document.data))
    if hidden:
        raise FileFault(f"{document.place((hidden[0],))}: is not a key of the file, it comes from the file's place.")
    try:
        return model.model_validate({**document.data, **more})
    except ValidationError as error:
        raise FileFault([_fault(model, document, fault, more) for fault in error.errors()]) from None


def _refuse_depth(text: str, shown: str, first_line: int) -> None:
    """Refuse nesting that no data file needs, before anything walks down it."""
    depth = 0
    events: Iterable[Any] = yaml.parse(text, Loader=_Words)
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = first_line + event.start_mark.line
            raise FileFault(f"{shown}:{line} is nested more than {MAX_DEPTH} levels deep.")


def _fault(model: type[BaseModel], document: Document, fault: Any, more: Container[str]) -> str:
    """One sentence for one pydantic fault; `more` are keys of the model that a file must not hold."""
    path = _data_path(document.data, fault["loc"])
    where, kind = document.place(path), fault["type"]
    if kind == "missing":
        return f"{where}: is required and missing."
    if kind == "extra_forbidden":
        allowed = [name for name in _keys_at(model, path[:-1]) if len(path) > 1 or name not in more]
        hint = did_you_mean(str(path[-1]), allowed)
        return f"{where}: unknown key.{hint} Allowed: {', '.join(sorted(allowed))}."
    if kind == "too_short":
        return f"{where}: needs at least {fault['ctx']['min_length']}, found {len(fault['input'])}."
    message = fault["msg"].removeprefix("Value error, ").removesuffix(".")
    found = "" if kind == "value_error" else f", found {fault['input']!r}"
    return f"{where}: {message}{found}."


def _data_path(data: Any, loc: Path_) -> Path_:
    """The part of a pydantic location that exists in the data: union tags are left out."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        is_last = position == len(loc) - 1
        if isinstance(data, dict) and (part in data or is_last):
            path.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _keys_at(model: type[BaseModel], path: Path_) -> list[str]:
    """Keys that a nested model allows, found by following the annotations along the path."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        current = _model_in(field.annotation) if field is not None else None
    return list(current.model_fields) if current is not None else []


def _model_in(annotation: Any) -> Any:
    """The first pydantic model inside an annotation such as `tuple[Source, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _shown_type(data: Any) -> str:
    return "a list" if isinstance(data, list) else "a text" if isinstance(data, str) else type(data).__name__


class _Words(_Loader):  # type: ignore[misc]  # the C loader has no type information
    """A safe loader whose plain scalars follow YAML 1.2."""


_Words.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    for _character in _first:
        _resolvers = _Words.yaml_implicit_resolvers.setdefault("" if _character == "\0" else _character, [])
        _resolvers.append((_TAG + _name, re.compile(rf"^(?:{_pattern})$")))


class _Builder:
    """Plain values from a YAML node tree, with lines and faults collected on the way."""

    def __init__(self, shown: str, first_line: int, resolve: Callable[..., str]) -> None:
        self.lines: dict[Path_, int] = {}
        self.faults: list[str] = []
        self._shown = shown
        self._first_line = first_line
        self._resolve = resolve
        self._seen: set[int] = set()

    def build(self, node: Any, path: Path_) -> Any:
        self.lines.setdefault(path, self._line(node))
        if id(node) in self._seen:
            self._refuse(node, path, "anchors and aliases are not read, write the value out", self.lines[path])
            return None
        self._seen.add(id(node))
        if not self._has_own_tag(node, path):
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: Any, path: Path_) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be one word")
                continue
            key: Any = self._scalar(key_node, path) if self._has_own_tag(key_node, path) else None
            here = (*path, key)
            if key in data:
                self._refuse(key_node, here, f"the key stands twice, first on line {self.lines[here]}")
                continue
            self.lines[here] = self._line(key_node)
            data[key] = self.build(value_node, here)
        return data

    def _scalar(self, node: Any, path: Path_) -> Any:
        tag, text = node.tag.removeprefix(_TAG), node.value
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        try:
            return int(text) if tag == "int" else float(text)
        except ValueError:  # thousands of digits
            self._refuse(node, path, "is not a number that can be read")
            return None

    def _has_own_tag(self, node: Any, path: Path_) -> bool:
        """Whether the tag is the one that the value has by itself; any other is refused."""
        own = self._resolve(type(node), node.value, (not getattr(node, "style", None), False))
        if node.tag != own:
            self._refuse(node, path, f"the tag {node.tag.replace(_TAG, '!!')} is not read")
        return bool(node.tag == own)

    def _line(self, node: Any) -> int:
        return int(self._first_line + node.start_mark.line)

    def _refuse(self, node: Any, path: Path_, why: str, line: int | None = None) -> None:
        dotted = ".".join(str(part) for part in path)
        self.faults.append(f"{self._shown}:{line or self._line(node)} {dotted}".rstrip() + f": {why}.")
