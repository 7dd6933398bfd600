"""Signals -> a wish to stop, which the training heeds after the step it is in."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """Whether somebody has asked the training to stop."""

    def __init__(self) -> None:
        self.is_made = False

    def make(self, number: int, frame: FrameType | None) -> None:
        """Take the signal; a second one stops at once."""
        if self.is_made:
            raise KeyboardInterrupt
        self.is_made = True


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
