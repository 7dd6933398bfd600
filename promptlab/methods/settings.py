"""What a user says about hyper-parameters -> the grid of settings that is searched for a method.

`steps=50` holds for every method, `soft_prompt.learning_rate=0.01|0.03` for one; several values are tried each, and
take the place of those that the method would try. A value of several names is written `lora.targets=query+value`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from promptlab.errors import UsageError, did_you_mean
from promptlab.methods.base import Method, Setting

_FIELDS = tuple(one.name for one in dataclasses.fields(Setting) if one.name != "options")


def amended_grid(method: Method, said: Mapping[str, str]) -> tuple[Setting, ...]:
    """The settings of a method with what the user says about them, each once, the method's order kept.

    Raises:
        UsageError: a value that the key cannot have.
    """
    mine = {key.rpartition(".")[2]: value for key, value in said.items() if key.rpartition(".")[0] in ("", method.name)}
    known = {*_FIELDS, *_options(method)}
    values = {key: _parse(method, key, text) for key, text in mine.items() if key in known}
    grid: dict[str, Setting] = {}
    for setting in method.grid():
        for chosen in itertools.product(*values.values()):
            made = _amended(setting, dict(zip(values, chosen, strict=True)))
            grid.setdefault(str(made.described()), made)
    return tuple(grid.values())


def check_settings(methods: tuple[Method, ...], said: Mapping[str, str]) -> None:
    """Refuse what is said about a method that is not run, or about a key that no method has.

    Raises:
        UsageError: with the keys that there are.
    """
    names = [method.name for method in methods]
    for key in said:
        owner, _, name = key.rpartition(".")
        if owner and owner not in names:
            raise UsageError(f"--setting {key}: method '{owner}' is not among --methods {', '.join(names)}.")
        asked = [method for method in methods if owner in ("", method.name)]
        known = list(dict.fromkeys([*_FIELDS, *(option for method in asked for option in _options(method))]))
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"--setting {key}: '{name}' is no setting.{hint} Known: {', '.join(known)}.")
    for method in methods:
        amended_grid(method, said)


def _options(method: Method) -> list[str]:
    return [*method.options]


def _parse(method: Method, key: str, text: str) -> list[Any]:
    """The values of a key, as its kind."""
    example = getattr(method.grid()[0], key) if key in _FIELDS else method.options[key]
    return [_value(method, key, part.strip(), type(example)) for part in text.split("|")]


def _value(method: Method, key: str, text: str, kind: type) -> Any:
    allowed = get_args(get_type_hints(Setting)[key]) if key in _FIELDS else ()
    words = {"true": True, "false": False, "yes": True, "no": False}
    try:
        value: Any = words[text.lower()] if kind is bool else _names(text) if kind is tuple else kind(text)
    except (KeyError, ValueError):
        value = None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (allowed and value not in allowed) or (is_number and not 0 <= value < float("inf")):
        kinds = {bool: "true or false", int: "a whole number", float: "a number from 0"}
        wanted = f"one of {', '.join(allowed)}" if allowed else kinds.get(kind, "a word")
        raise UsageError(f"--setting {key}={text}: method '{method.name}' needs {wanted}.")
    if key in ("steps", "batch_size", "accumulate") and value < 1:
        raise UsageError(f"--setting {key}={text}: write a whole number from 1.")
    return value


def _names(text: str) -> tuple[str, ...]:
    """Several names that are one value, `query+value`."""
    return tuple(part.strip() for part in text.split("+"))


def _amended(setting: Setting, values: Mapping[str, Any]) -> Setting:
    fields = {key: value for key, value in values.items() if key in _FIELDS}
    options = {**setting.options, **{key: value for key, value in values.items() if key not in _FIELDS}}
    return dataclasses.replace(setting, **fields, options=options)
