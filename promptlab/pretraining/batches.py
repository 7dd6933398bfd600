"""Packed passes -> the rows of each training step."""

import numpy as np
import torch
from torch import Tensor

from promptlab.errors import DataError
from promptlab.pretraining.job import Job
from promptlab.pretraining.packing import Rows, pack_pass
from promptlab.pretraining.recipe import Stage
from promptlab.pretraining.token_store import TokenStore
from promptlab.seeding import derive_seed


class Batches:
    """The rows of each step; a pass is packed when its first row is wanted."""

    def __init__(self, job: Job, store: TokenStore, stage: Stage, stage_index: int, rows_a_step: int) -> None:
        self.job = job
        self.store = store
        self.stage = stage
        self.stage_index = stage_index
        self.rows_a_step = rows_a_step
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
        seed = derive_seed(self.job.seed, "stage", self.stage_index)
        rows = pack_pass(self.store, self.job.weights, length=self.stage.length, seed=seed, pass_index=pass_index)
        if len(rows) < self.rows_a_step:
            raise DataError(
                f"A pass over the corpora has {len(rows)} rows of {self.stage.length} tokens, "
                f"but a step of stage {self.stage.name} takes {self.rows_a_step}; lower batch_tokens."
            )
        return rows
