"""Signals -> a wish to stop, which the training heeds after the step it is in."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ONE_WISH_SECONDS = 2.0  # a launcher passes the signal on that the terminal has sent as well


class StopWish:
    """Whether somebody has asked the training to stop."""

    def __init__(self) -> None:
        self.is_made = False
        self._made_at = 0.0

    def make(self, number: int, frame: FrameType | None) -> None:
        """Take the signal; another one stops at once, unless it comes so soon that it is the same wish."""
        now = time.monotonic()
        if self.is_made and now - self._made_at > _ONE_WISH_SECONDS:
            raise KeyboardInterrupt
        if not self.is_made:
            self.is_made, self._made_at = True, now


@contextmanager
def listen_for_stop() -> Iterator[StopWish]:
    """Turn Ctrl-C and a polite kill into a wish while the block runs."""
    wish = StopWish()
    before = {number: signal.signal(number, wish.make) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
