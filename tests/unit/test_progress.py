"""Progress in a log: a line at the start and one every ten seconds; a bar on a terminal; nothing if quiet."""

from __future__ import annotations

import sys

import pytest

from promptlab import progress
from promptlab.progress import ConsoleProgress


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """The time that was set."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the progress module."""
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Rate and time left come from the prompts scored so far."""
    told = ConsoleProgress(quiet=False)
    told.start("mini", 100)
    for _ in range(4):
        clock.now += 5
        told.advance(10)
    told.finish()
    assert capsys.readouterr().err.splitlines() == [
        "scoring 100 prompts with mini",
        "20 of 100 prompts, 2 prompts/s, 40 s left",
        "40 of 100 prompts, 2 prompts/s, 30 s left",
    ]


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the start nor a sentence nor the rate."""
    told = ConsoleProgress(quiet=True)
    told.start("mini", 10)
    clock.now += 60
    told.advance(10)
    told.say("a sentence")
    told.finish()
    assert capsys.readouterr() == ("", "")


def test_more_prompts_than_were_announced_leave_no_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole batch is scored again where a part of it is missing, so the count may pass the total."""
    told = ConsoleProgress(quiet=False)
    told.start("mini", 5)
    clock.now += 20
    told.advance(8)
    assert capsys.readouterr().err.splitlines()[-1] == "8 of 5 prompts, 0 prompts/s, 0 s left"


def test_a_terminal_gets_a_bar_that_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar names the model; a new model takes a new bar; finishing twice is no fault."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told = ConsoleProgress(quiet=False)
    told.start("mini", 10)
    told.advance(10)
    told.start("maxi", 10)
    told.finish()
    told.finish()
    assert "prompts with" not in capsys.readouterr().err
