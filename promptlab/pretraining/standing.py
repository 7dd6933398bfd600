"""Where a run that goes on from a checkpoint stands: its steps, and each measurement of its held-out loss so far.

The rule guarded here: whether a run stops early follows from the stored measurements alone, so a resumed run stops
where one that was not killed does.
"""

from dataclasses import dataclass

from promptlab.pretraining.checkpoints import Progress


@dataclass(frozen=True)
class Measured:
    """Losses after a step, nats a hidden token; `general` is None where no other text was named."""

    step: int
    held_out: float
    general: float | None


@dataclass(frozen=True)
class Standing(Progress):
    """Where a run stands, and each measurement so far as (step, held-out loss, general loss)."""

    measured: tuple[tuple[int, float, float | None], ...] = ()

    @property
    def measurements(self) -> list[Measured]:
        """The measurements in order; the first is of the base."""
        return [Measured(*one) for one in self.measured]

    @property
    def best(self) -> Measured:
        """The measurement of the lowest held-out loss, the earliest of equals."""
        return min(self.measurements, key=lambda one: one.held_out)

    def is_exhausted(self, patience: int) -> bool:
        """Whether so many measurements in a row have not been better than the best before them."""
        since = [one for one in self.measurements if one.step > self.best.step] if self.measured else []
        return patience > 0 and len(since) >= patience
