"""The tree of faults: exit codes, and the hint at the nearest name."""

from __future__ import annotations

import pytest

from promptlab.errors import (
    CellsFailed,
    DataError,
    FileFault,
    LabelWordError,
    ModelError,
    PromptlabError,
    StoreError,
    TemplateError,
    UsageError,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (1, FileFault),
        (1, DataError),
        (1, TemplateError),
        (1, LabelWordError),
        (1, ModelError),
        (1, StoreError),
        (2, UsageError),
        (3, CellsFailed),
    ],
)
def test_every_fault_has_its_exit_code(exit_code: int, kind: type[PromptlabError]) -> None:
    """Every fault is a PromptlabError and leaves the command line with the documented code."""
    assert exit_code == kind.exit_code
    assert issubclass(kind, PromptlabError)


def test_file_fault_lists_every_fault() -> None:
    """Several faults are one message, one line each, and stay apart as a list."""
    fault = FileFault(["a.yaml:1 x: bad.", "a.yaml:2 y: bad."])
    assert str(fault) == "a.yaml:1 x: bad.\na.yaml:2 y: bad."
    assert fault.faults == ["a.yaml:1 x: bad.", "a.yaml:2 y: bad."]
    assert FileFault("one").faults == ["one"]


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (" Did you mean 'premise'?", "premis"),
        (" Did you mean 'premise'?", "PREMISE"),
        ("", "zzz"),
    ],
)
def test_hint_names_the_nearest_name_or_nothing(hint: str, name: str) -> None:
    """A near name is hinted at whatever its case, a far one is not."""
    assert hint == did_you_mean(name, ["premise", "hypothesis"])
