"""Progress in a notebook: a bar that is redrawn in place, and nothing where there is no notebook."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from promptlab import progress
from promptlab.progress import ConsoleProgress, NotebookProgress, find_progress


class ZMQInteractiveShell:
    """The class by which IPython's kernel is known."""


class Handle:
    """What IPython gives for something that it has displayed."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, what: str) -> None:
        """Show something in its place."""
        self.shown[-1] = what


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a made-up notebook displays, in order."""
    displayed: list[str] = []

    def display(what: str, *, display_id: bool) -> Handle:
        assert display_id
        displayed.append(what)
        return Handle(displayed)

    kernel: Any = types.ModuleType("IPython")
    kernel.get_ipython = ZMQInteractiveShell
    kernel.display = types.ModuleType("IPython.display")
    kernel.display.HTML, kernel.display.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel.display)
    return displayed


def test_a_notebook_shows_one_bar_that_moves(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar is displayed once a model, updated in place, and its names cannot be markup."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    bar = find_progress(quiet=None)
    assert isinstance(bar, NotebookProgress)
    bar.start("<b>mini", 4)
    bar.advance(3)
    bar.advance(1)
    assert 1 == len(shown)
    assert "<progress value='4' max='4'></progress> 4 of 4 prompts with &lt;b&gt;mini" in shown[0]
    bar.start("other", 2)
    assert 2 == len(shown)


def test_quiet_is_quiet_in_a_notebook_too(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Asked to be quiet, nothing is displayed and nothing printed."""
    bar = find_progress(quiet=True)
    bar.start("mini", 4)
    bar.advance(4)
    bar.say("a line")
    assert ([], "", "") == (shown, *capsys.readouterr())


@pytest.mark.parametrize(("quiet", "said"), [(None, ""), (True, ""), (False, "scoring 4 prompts with mini\n")])
def test_elsewhere_progress_is_shown_where_asked_for(
    quiet: bool | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a notebook a call from Python is quiet unless it says otherwise."""
    bar = find_progress(quiet=quiet)
    assert isinstance(bar, ConsoleProgress)
    bar.start("mini", 4)
    assert ("", said) == tuple(capsys.readouterr())
