"""How much memory something takes while it runs: what tensors hold on a CUDA device, else what the process holds.

On the CPU nothing says which bytes belong to what, so the honest number is that of the whole process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

EVERY_S = 0.02
_PAGES = Path("/proc/self/statm")


@dataclass(slots=True)
class Peak:
    """The most bytes, and whose they are: those of tensors on the `device`, or those of the `process`.

    `num_bytes` is None until it is known, and where the system does not say.
    """

    memory: Literal["device", "process"]
    num_bytes: int | None = None


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Watch memory until the block is left.

    Args:
        device: `cpu`, `cuda`, `cuda:1` and so on; on a CUDA device its counter of the highest number starts anew.
    """
    if device.partition(":")[0] == "cuda":
        import torch

        peak = Peak("device")
        torch.cuda.reset_peak_memory_stats(device)
        try:
            yield peak
        finally:
            peak.num_bytes = int(torch.cuda.max_memory_allocated(device))
        return
    peak, done = Peak("process", resident_bytes()), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            _look(peak)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        _look(peak)


def resident_bytes() -> int | None:
    """What the process has resident now; None where the system does not say."""
    try:
        pages = int(_PAGES.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _look(peak: Peak) -> None:
    now = resident_bytes()
    if now is not None:
        peak.num_bytes = max(now, peak.num_bytes or 0)
