"""Packed passes -> the rows of each training step."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from promptlab.errors import DataError
from promptlab.pretraining.packing import Rows


class Batches:
    """The rows of each step; a pass is packed when its first row is wanted.

    Args:
        pack: Gives the rows of a pass by its number.
        rows_a_step: Rows of a step.
        remedy: What to change where a pass has fewer rows than a step takes.
    """

    def __init__(self, pack: Callable[[int], Rows], *, rows_a_step: int, remedy: str) -> None:
        self.pack = pack
        self.rows_a_step = rows_a_step
        self.remedy = remedy
        self.first_step = 0
        self.rows = self._pack(0)
        self.pass_index = 0

    def at(self, step: int) -> Tensor:
        """Give the rows of a step, shape (row, token); steps are asked for in rising order."""
        while (step - self.first_step + 1) * self.rows_a_step > len(self.rows):
            self.first_step += len(self.rows) // self.rows_a_step
            self.pass_index += 1
            self.rows = self._pack(self.pass_index)
        start = (step - self.first_step) * self.rows_a_step
        rows = self.rows[start : start + self.rows_a_step]
        return torch.from_numpy(rows.astype(np.int64))

    def _pack(self, pass_index: int) -> Rows:
        rows = self.pack(pass_index)
        if len(rows) < self.rows_a_step:
            raise DataError(
                f"A pass over the corpora has {len(rows)} rows of {rows.shape[1]} tokens, "
                f"but a step takes {self.rows_a_step}; {self.remedy}."
            )
        return rows
