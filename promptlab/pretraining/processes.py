"""A launcher's processes -> the few things that they do together: sums, turns, and one voice for a fault.

The rule guarded here: what decides the course of a run is a sum over all processes, so that all decide alike, and one
process alone writes and speaks. A launcher (`accelerate launch`, `torchrun`, `mpirun`) says by variables of the
environment how many processes there are; without one there is one, and nothing here costs anything.
"""

import contextlib
import datetime
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from promptlab.errors import PromptlabError, UsageError
from promptlab.pretraining.job import Report

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PLACES = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_LONGEST_WAIT = datetime.timedelta(days=2)  # one process encodes the corpora while the others wait
_NUMBERS_AT_ONCE = 1 << 25  # of gradients, 128 MiB

Made = TypeVar("Made")


@dataclass(frozen=True)
class Processes:
    """The processes that share a run, as one of them sees them.

    Args:
        number: How many they are.
        index: Which one this is, from 0.
        device: The device of this one, in torch's words.
    """

    number: int = 1
    index: int = 0
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.index == 0

    def voice(self, report: Report) -> Report:
        """Lines of progress of the first process; those of the others are not said."""
        return report if self.is_first else lambda line: None

    def sum_numbers(self, *values: float) -> list[float]:
        """The sum of each number over all processes, the same to the bit in all of them."""
        if self.number == 1:
            return list(values)
        total: list[float] = self.sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()
        return total

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients over all processes."""
        if self.number == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in _buckets(gradients):
            left = self.sum(torch.cat([gradient.flatten() for gradient in bucket]))
            for gradient in bucket:
                gradient.copy_(left[: gradient.numel()].view_as(gradient))
                left = left[gradient.numel() :]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.number == 1:
            return tensor
        from accelerate.utils import reduce

        total: Tensor = reduce(tensor, reduction="sum")
        return total

    def in_turn(self, make: Callable[[], Made]) -> Made:
        """Do something in the first process and then in the others, which find what the first has left on the disk.

        Raises:
            PromptlabError: A fault, in the first process that has one; the others leave in silence.
        """
        made: Made | None = None
        for is_turn_of_first in (True, False):
            fault: PromptlabError | None = None
            if self.is_first is is_turn_of_first:
                try:
                    made = make()
                except PromptlabError as error:
                    fault = error
            self._leave_if_any(fault)
        return made  # type: ignore[return-value]  # every process has had its turn

    def leave(self, fault: PromptlabError) -> NoReturn:
        """Leave with a fault that all processes have found: the first one raises it, the others are silent."""
        if self.is_first:
            raise fault
        raise SystemExit(fault.exit_code)

    def _leave_if_any(self, fault: PromptlabError | None) -> None:
        mine = [0.0] * self.number
        mine[self.index] = float(fault.exit_code) if fault else 0.0
        codes = self.sum_numbers(*mine)
        first = next((index for index, code in enumerate(codes) if code), None)
        if fault is not None and first == self.index:
            raise fault
        if first is not None:
            raise SystemExit(int(codes[first]))


ALONE = Processes()


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that a launcher has started, each on a device of its own.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        UsageError: There are more processes than GPUs, or accelerate is not installed.
    """
    number = _find_number(_SIZES, 1)
    if number == 1:
        yield Processes(device=device)
        return
    _check(number, _find_number(_PLACES, 0), device)
    importlib.import_module("torch._dynamo")  # imported later, it keeps the group and its threads beyond their end
    from accelerate import PartialState

    backend = {"backend": "gloo"} if device == "cpu" else {}
    state: Any = PartialState(cpu=device == "cpu", timeout=_LONGEST_WAIT, **backend)
    try:
        yield Processes(state.num_processes, state.process_index, str(state.device))
    except (PromptlabError, SystemExit):  # all have left; what one of them alone falls over is left to the launcher
        state.destroy_process_group()
        raise
    state.destroy_process_group()


def _find_number(names: Iterable[str], fallback: int) -> int:
    """The first whole number among some variables of the environment."""
    found = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in found if text.isdecimal()), fallback)


def _check(number: int, place: int, device: str) -> None:
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError(
            f"{number} processes were started, and they work together by accelerate, which is not installed: "
            "pip install 'promptlab[devices]'."
        )
    if device == "cuda" and place >= torch.cuda.device_count():
        raise UsageError(
            f"{number} processes were started, and torch finds {torch.cuda.device_count()} CUDA devices on this "
            "machine: start one process for each."
        )


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients in order, as many at once as there is room for, one at least."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(one.numel() for one in bucket) + gradient.numel() > _NUMBERS_AT_ONCE:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
