"""The batches of a step + processes -> the rows that each process takes, and the dropout that is drawn for them.

The rule guarded here: what is drawn for a row depends on the seed, the step, the batch and the place in the batch,
never on the process. Where the processes take whole batches that holds by itself; where they cut each batch, the
dropout of the whole batch is drawn and the share's part of it is taken.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from promptlab.errors import UsageError
from promptlab.pretraining.processes import Processes


@dataclass(frozen=True)
class Share:
    """Rows of one batch of a step, from `first` up to and without `last`; the batch has `batch_rows`."""

    batch: int
    first: int
    last: int
    batch_rows: int

    @property
    def is_whole(self) -> bool:
        """Whether this is the batch itself."""
        return self.last - self.first == self.batch_rows


def share_step(processes: Processes, *, batch_rows: int, accumulate: int) -> list[Share]:
    """Give a process its share of each step: whole batches where their number can be divided, else rows of each.

    Raises:
        UsageError: Neither can be divided.
    """
    number, index = processes.number, processes.index
    if accumulate % number == 0:
        return [Share(batch, 0, batch_rows, batch_rows) for batch in range(index, accumulate, number)]
    if batch_rows % number == 0:
        rows = batch_rows // number
        return [Share(batch, index * rows, (index + 1) * rows, batch_rows) for batch in range(accumulate)]
    raise UsageError(
        f"--batch-rows {batch_rows}: {number} processes cannot share a batch evenly; make it a multiple of {number}, "
        f"or --accumulate, which is {accumulate}."
    )


@contextlib.contextmanager
def seeded_dropout(seed: int, share: Share, *, row_length: int, device: str) -> Iterator[None]:
    """Draw what torch draws by itself, which is dropout, as for the whole batch, and leave torch's state as it was.

    On a GPU the dropout of a cut batch is drawn for the share alone, by a seed of its own.

    Args:
        seed: The seed of the batch.
        share: The rows that go through the model.
        row_length: Tokens of a row.
        device: Where, in torch's words.
    """
    is_gpu = device.startswith("cuda")
    is_drawn_whole = share.is_whole or not is_gpu
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if is_gpu else []))
        torch.manual_seed(seed if is_drawn_whole else (seed + share.first) % 2**63)
        if not share.is_whole and not is_gpu:
            stack.enter_context(_PartOfDropout(share, row_length))
        yield


class _PartOfDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the class untyped
    """Fills what torch's dropout on the CPU fills by `bernoulli_` with the share's part of the batch's draws.

    Rows are outermost in what is dropped, though heads may be folded into them, and tokens are the last axis but one.
    What has no rows, such as DeBERTa's vectors of distances, is drawn as it is: every process has the same of it.
    """

    def __init__(self, share: Share, row_length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._share = share
        self._row_length = row_length

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.ops.aten.bernoulli_.float or not self._has_rows(args[0]):
            return func(*args, **(kwargs or {}))
        noise, share = args[0], self._share
        times = len(noise) // (share.last - share.first)
        whole = noise.new_empty((share.batch_rows * times, *noise.shape[1:])).bernoulli_(args[1])
        return noise.copy_(whole[share.first * times : share.last * times])

    def _has_rows(self, noise: Tensor) -> bool:
        is_by_token = noise.ndim > 2 and noise.shape[-2] == self._row_length
        return is_by_token and len(noise) % (self._share.last - self._share.first) == 0
