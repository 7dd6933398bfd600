"""Lengths -> batches: longest first, each within a budget of padded tokens or a number of prompts.

The plan depends on the prompts alone, so a resumed run forms the same batches and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptlab.errors import UsageError

TOKEN_BUDGETS = {"cpu": 4096, "mps": 8192, "cuda": 65536}


@dataclass(frozen=True, slots=True)
class BatchSize:
    """How large a batch may be: a number of padded tokens, or a number of prompts."""

    num_tokens: int | None
    num_prompts: int | None

    @classmethod
    def parse(cls, text: str | int, device: str) -> BatchSize:
        """`auto` is a token budget for the kind of device; a number counts prompts."""
        if text == "auto":
            return cls(TOKEN_BUDGETS.get(device.partition(":")[0], 4096), None)
        number = str(text)
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            raise UsageError(f"--batch-size {text}: write auto or a whole number from 1.")
        return cls(None, int(number))

    def admits(self, num_prompts: int, longest: int) -> bool:
        """Whether so many prompts, padded to the longest, make a batch; one prompt always does."""
        if num_prompts <= 1:
            return True
        if self.num_prompts is not None:
            return num_prompts <= self.num_prompts
        return num_prompts * longest <= (self.num_tokens or 0)


def plan_batches(lengths: Sequence[int], keys: Sequence[str], size: BatchSize) -> list[list[int]]:
    """Indices of the prompts of each batch; longest first, equal lengths in the order of their keys."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], keys[index]))
    batches: list[list[int]] = []
    for index in order:
        if batches and size.admits(len(batches[-1]) + 1, lengths[batches[-1][0]]):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
