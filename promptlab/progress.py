"""Telling a person how far a run is: a bar on a terminal or in a notebook, lines in a log, nothing if quiet."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_DRAWINGS = 0.5


def find_progress(*, quiet: bool | None) -> ConsoleProgress | NotebookProgress:
    """What shows progress where this runs: a bar in a notebook, by default nothing elsewhere."""
    if _is_notebook() and not quiet:
        return NotebookProgress()
    return ConsoleProgress(quiet=quiet is not False)


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython is there already if it is."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookProgress:
    """A bar in the output of a notebook's cell, redrawn in place; it needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._name = ""
        self._total = self._done = 0
        self._began = self._drawn = 0.0

    def say(self, sentence: str) -> None:
        """A line for the user."""
        print(sentence)

    def start(self, name: str, num_prompts: int) -> None:
        """So many prompts of a model begin."""
        self.finish()
        self._name, self._total, self._done = name, num_prompts, 0
        self._began, self._drawn = time.monotonic(), 0.0
        self._draw()

    def advance(self, num_prompts: int) -> None:
        """So many prompts are scored."""
        self._done += num_prompts
        if time.monotonic() - self._drawn >= SECONDS_BETWEEN_DRAWINGS or self._done >= self._total:
            self._draw()

    def finish(self) -> None:
        """Leave the bar as it is."""
        self._handle = None

    def _draw(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found]  # only a notebook has it

        self._drawn = time.monotonic()
        rate = self._done / max(self._drawn - self._began, 1e-9)
        left = f", {max(self._total - self._done, 0) / rate:.0f} s left" if self._done else ""
        text = f"{self._done} of {self._total} prompts with {html.escape(self._name)}, {rate:.0f} prompts/s{left}"
        bar = HTML(f"<progress value='{self._done}' max='{self._total}'></progress> {text}")
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        else:
            self._handle.update(bar)


class ConsoleProgress:
    """Tells a person how far a run is: a bar on a terminal, a line every ten seconds elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._task: Any = None
        self._name = ""
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._spoke = 0.0

    def say(self, sentence: str) -> None:
        """A line for the user."""
        if not self._quiet:
            print(sentence, file=sys.stderr)

    def start(self, name: str, num_prompts: int) -> None:
        """So many prompts of a model begin."""
        self.finish()
        self._name, self._total, self._done = name, num_prompts, 0
        self._began = self._spoke = time.monotonic()
        if self._is_terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rate = TextColumn("{task.fields[rate]} prompts/s")
            bar = Progress(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar, self._task = bar, bar.add_task(f"scoring {name}", total=num_prompts, rate="-")
            bar.start()
        else:
            self.say(f"scoring {num_prompts} prompts with {name}")

    def advance(self, num_prompts: int) -> None:
        """So many prompts are scored."""
        self._done += num_prompts
        now = time.monotonic()
        rate = self._done / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=num_prompts, rate=f"{rate:.0f}")
        elif now - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = now
            left = max(self._total - self._done, 0) / max(rate, 1e-9)
            self.say(f"{self._done} of {self._total} prompts, {rate:.0f} prompts/s, {left:.0f} s left")

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
