"""What a check of a model is: a small function of the subject, registered in order under its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from promptlab.probing import Need, Subject

Status = Literal["pass", "warn", "fail", "not applicable"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what helps where it is not as it should be."""

    name: str
    status: Status
    found: str
    remedy: str = ""


Run = Callable[[Subject], Check]


@dataclass(frozen=True, slots=True)
class Registered:
    """A check, what must be there for it, and whether a run does it too."""

    name: str
    run: Run
    needs: tuple[Need, ...]
    is_cheap: bool


CHECKS: list[Registered] = []


def check(name: str, *needs: Need, is_cheap: bool = False) -> Callable[[Run], Run]:
    """A decorator that puts a check behind those before it; a cheap one is part of a run's preflight."""

    def decorate(run: Run) -> Run:
        CHECKS.append(Registered(name, run, needs, is_cheap))
        return run

    return decorate


def passed(found: str) -> Check:
    """All is as it should be, or is told for information; the name comes from the register."""
    return Check("", "pass", found)


def warned(found: str, remedy: str) -> Check:
    """Scores are right, and something should be known."""
    return Check("", "warn", found, remedy)


def failed(found: str, remedy: str) -> Check:
    """Scores would be wrong."""
    return Check("", "fail", found, remedy)


def absent(found: str) -> Check:
    """There is nothing that could be looked at."""
    return Check("", "not applicable", found)
