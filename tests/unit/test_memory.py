"""The most memory that something takes while it runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from promptlab import memory
from promptlab.memory import EVERY_S, peak_memory, resident_bytes

MIB = 1 << 20


def test_what_is_held_for_a_moment_is_seen() -> None:
    """An array that is gone again before the end counts, and it is said whose memory that is."""
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not say what a process has resident")
    with peak_memory("cpu") as peak:
        held = np.ones(64 * MIB // 8)
        time.sleep(5 * EVERY_S)
        del held
    assert "process" == peak.memory
    assert peak.num_bytes is not None
    assert before + 48 * MIB < peak.num_bytes < before + 256 * MIB


def test_it_is_known_when_the_block_fails() -> None:
    """A fit that is refused leaves no watcher behind, and its peak is there."""
    with pytest.raises(ValueError, match="no"), peak_memory("cpu") as peak:
        raise ValueError("no")
    assert (peak.num_bytes is None) == (resident_bytes() is None)
    assert "memory" not in {thread.name for thread in threading.enumerate()}


def test_a_system_that_does_not_say_gives_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No number is better than an invented one."""
    monkeypatch.setattr(memory, "_PAGES", tmp_path / "missing")
    with peak_memory("cpu") as peak:
        pass
    assert peak.num_bytes is None
