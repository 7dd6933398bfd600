"""What the docs say is supported on an architecture is done there, on its tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import ARCHITECTURES, FEATURES, Subject, cell, frame, written
from tests.tiny_models import FAMILIES

STALE = "docs/reference/support.json is not what is found: `python -m tests.support` writes it again."


METHOD_KINDS = ("bert", "modernbert", "bert_chinese")  # methods on the others are for the slow run
CELLS = [
    pytest.param(
        kind, name, marks=[pytest.mark.slow] if name.startswith("method: ") and kind not in METHOD_KINDS else []
    )
    for kind in ARCHITECTURES
    for name in FEATURES
]


@pytest.mark.parametrize(("kind", "name"), CELLS)
def test_support_is_what_is_written(
    tiny: dict[str, Path], backends: dict[str, Any], models: dict[str, Any], kind: str, name: str
) -> None:
    """Every feature on every architecture has the numbers of its oracle, and the support that the docs say."""
    subject = Subject(kind, tiny[kind], backends[kind], models[kind])
    assert written()["support"].get(kind, {}).get(name) == cell(name, subject), STALE


def test_the_written_table_is_whole() -> None:
    """Every architecture of the tests and every feature is in the table, in order, and nothing else."""
    assert set(FAMILIES) == set(ARCHITECTURES)
    stored = written()
    assert frame() == {name: stored[name] for name in ("features", "architectures")}, STALE
    assert [(kind, [*FEATURES]) for kind in ARCHITECTURES] == [(k, [*cells]) for k, cells in stored["support"].items()]
