"""Names to things: lazy registries of backends, metrics, calibrations and methods, open to other packages.

A target is an object or the text "module:object", so that nothing heavy is imported before it is used.
Entry points in the group `promptlab.<kind>` add names without a change here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from promptlab.errors import UsageError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from name to thing of one kind."""

    def __init__(self, kind: str, home: str | None = None) -> None:
        self.kind = kind
        self._home = home
        self._targets: dict[str, T | str] = {}
        self._is_complete = False

    def register(self, name: str, target: T | str | None = None) -> Callable[[T], T]:
        """Register `target` under `name`, or decorate what follows; a name is taken once."""
        if target is not None:
            self._add(name, target)

        def decorate(thing: T) -> T:
            self._add(name, thing)
            return thing

        return decorate

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._complete()
        return sorted(self._targets)

    def get(self, name: str) -> T:
        """The thing of that name; an unknown name gets the nearest one and the command that lists all."""
        self._complete()
        if name not in self._targets:
            hint = did_you_mean(name, self._targets)
            known = ", ".join(self.names())
            raise UsageError(f"{self.kind} '{name}' is unknown.{hint} Known: {known}.")
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = getattr(importlib.import_module(module), attribute)
            self._targets[name] = target
        return target

    def _add(self, name: str, target: T | str) -> None:
        if name in self._targets:
            raise ValueError(f"{self.kind} '{name}' is registered already")
        self._targets[name] = target

    def _complete(self) -> None:
        """Import the module whose decorators fill the table, and add what other packages announce."""
        if self._is_complete:
            return
        self._is_complete = True
        if self._home is not None:
            importlib.import_module(self._home)
        for point in entry_points(group=f"promptlab.{self.kind}s"):
            self._targets.setdefault(point.name, point.value)


BACKENDS: Registry[Any] = Registry("backend")
METRICS: Registry[Any] = Registry("metric", home="promptlab.metrics")
CALIBRATIONS: Registry[Any] = Registry("calibration", home="promptlab.calibration")

BACKENDS.register("mlm", "promptlab.backends.mlm:MaskedBackend")
BACKENDS.register("replaced_token", "promptlab.backends.replaced_token:ReplacedTokenBackend")

METHODS: Registry[Any] = Registry("method")

for _name, _class in {
    "adapter": "Adapter",
    "bitfit": "BitFit",
    "demonstrations": "Demonstrations",
    "head_fine_tune": "HeadFineTune",
    "ia3": "Ia3",
    "layer_norm": "LayerNorm",
    "linear_probe": "LinearProbe",
    "lora": "Lora",
    "prefix": "Prefix",
    "prompt_fine_tune": "PromptFineTune",
    "prototypical": "Prototypical",
    "soft_prompt": "SoftPrompt",
    "soft_verbalizer": "SoftVerbalizer",
}.items():
    METHODS.register(_name, f"promptlab.methods.{_name}:{_class}")
