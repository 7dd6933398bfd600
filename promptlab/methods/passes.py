"""Which layer of a text a module is at: its calls are counted from the start of each forward pass, in each thread.

ALBERT runs the same module as every layer, so that a module alone does not say which layer it is. Batches may run side
by side in threads, and each counts its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Passes:
    """Counts what runs in a model; `close` ends it.

    Args:
        model: the model of transformers.
        prepare: makes what all layers of a pass need, once at its start.
    """

    def __init__(self, model: Any, prepare: Callable[[], Any] = lambda: None) -> None:
        self._prepare = prepare
        self._here = threading.local()
        self._handle = model.base_model.register_forward_pre_hook(self._begin)

    @property
    def prepared(self) -> Any:
        """What was made at the start of the pass at hand."""
        return self._here.prepared

    def next(self, what: str) -> int:
        """How often something of that name ran before in the pass at hand: its layer, from 0."""
        counts: dict[str, int] = self._here.counts
        number = counts.get(what, 0)
        counts[what] = number + 1
        return number

    def close(self) -> None:
        """Let the model run uncounted again."""
        self._handle.remove()

    def _begin(self, module: Any, args: Any) -> None:
        """Forward pre-hook of the base model: nothing of it has run yet."""
        self._here.counts, self._here.prepared = dict[str, int](), self._prepare()
