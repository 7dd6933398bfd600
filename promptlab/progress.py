"""Telling a person how far a run is: a bar on a terminal, plain lines in a log, nothing if quiet."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


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
