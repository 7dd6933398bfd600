"""Steps -> now and then a line that says how far a stage is, how fast it goes and how long it will take."""

import time

from promptlab.pretraining.checkpoints import Progress
from promptlab.pretraining.job import Report

_REPORT_SECONDS = 30.0


class Clock:
    """Counts the time of a stage and says now and then how far it is."""

    def __init__(self, name: str, steps: int, *, report: Report) -> None:
        self.name = name
        self.steps = steps
        self.report = report
        self.begun = self.last = time.monotonic()
        self.losses: list[float] = []
        self.tokens = 0

    @property
    def seconds(self) -> float:
        """Seconds since this sitting of the stage began."""
        return time.monotonic() - self.begun

    def tick(self, progress: Progress, *, loss: float, tokens: int) -> None:
        """Take note of a step; speak at most every half minute, and at the end."""
        self.losses.append(loss)
        self.tokens += tokens
        now = time.monotonic()
        if now - self.last < _REPORT_SECONDS and progress.step < self.steps:
            return
        rate = self.tokens / max(now - self.last, 1e-9)
        left = (self.steps - progress.step) * tokens / rate / 60
        self.report(
            f"{self.name} {progress.step:,}/{self.steps:,} steps  {progress.tokens / 1e6:.1f} M tokens  "
            f"loss {sum(self.losses) / len(self.losses):.3f}  {rate:,.0f} tokens/s  {left:.1f} min left"
        )
        self.last, self.losses, self.tokens = now, [], 0
