"""Score, compare and tune prompts for masked language models.

The names below are the public face; heavy libraries are imported when one of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from promptlab._version import __version__

if TYPE_CHECKING:
    from promptlab.api import Run, compare, load_run, predict, register, rescore, run
    from promptlab.backends.base import Backend
    from promptlab.errors import PromptlabError
    from promptlab.fitted import FittedMethod, fit, load
    from promptlab.methods.base import Method
    from promptlab.results import Result
    from promptlab.specs.task import Task
    from promptlab.specs.template import Template
    from promptlab.specs.verbalizer import Verbalizer

__all__ = [
    "Backend",
    "FittedMethod",
    "Method",
    "PromptlabError",
    "Result",
    "Run",
    "Task",
    "Template",
    "Verbalizer",
    "__version__",
    "compare",
    "fit",
    "load",
    "load_run",
    "predict",
    "register",
    "rescore",
    "run",
]

_HOMES = {
    "Backend": "promptlab.backends.base",
    "FittedMethod": "promptlab.fitted",
    "Method": "promptlab.methods.base",
    "PromptlabError": "promptlab.errors",
    "Result": "promptlab.results",
    "Run": "promptlab.api",
    "Task": "promptlab.specs.task",
    "Template": "promptlab.specs.template",
    "Verbalizer": "promptlab.specs.verbalizer",
    "compare": "promptlab.api",
    "fit": "promptlab.fitted",
    "load": "promptlab.fitted",
    "load_run": "promptlab.api",
    "predict": "promptlab.api",
    "register": "promptlab.api",
    "rescore": "promptlab.api",
    "run": "promptlab.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'promptlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
