"""Two learning curves -> how many labelled examples one is worth over the other, and how sure that is.

The average data advantage of Le Scao and Rush (2021, section 3): over the accuracies that both curves reach, the mean
of what the second needs minus what the first needs. Here the axis of examples is that of their logarithm to base 2, so
that the answer is a factor, or the plain one of the paper.

What a curve needs for an accuracy is where it gets there first, on lines between the numbers that were measured: from
the running maximum, which is what the paper inverts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptlab.seeding import derive_generator
from promptlab.statistics.intervals import CONFIDENCE, Interval
from promptlab.statistics.resampling import draw_rows, quantiles

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

Axis = Literal["log2", "linear"]
Draws = Literal["mean", "max"]

NUM_RESAMPLES = 2000
KIND = "crossed bootstrap"


@dataclass(frozen=True, slots=True, eq=False)
class DrawnCurve:
    """A learning curve with its resamples: accuracy of each draw of the shots, rows drawn with replacement.

    `accuracies` are those of the rows themselves; `resampled` has one table a resample.
    """

    shots: tuple[int, ...]
    accuracies: Float64[np.ndarray, "point draw"]
    resampled: Float64[np.ndarray, "resample point draw"]


@dataclass(frozen=True, slots=True)
class DataAdvantage:
    """How many examples the first curve is worth over the second.

    On the axis `log2` the value is a factor: 3 says that the second needs three times as many. On `linear` it is a
    number of examples a label. `value` is None where the curves share no range of accuracies; `first` and `second` say
    from which accuracy to which each goes. `interval` is of the resamples in which the curves share some; `defined` is
    the share of these.
    """

    value: float | None
    interval: Interval | None
    defined: float
    first: tuple[float, float]
    second: tuple[float, float]
    axis: Axis
    draws: Draws

    @property
    def shared(self) -> tuple[float, float] | None:
        """The accuracies that both curves have, lowest and highest."""
        low, high = max(self.first[0], self.second[0]), min(self.first[1], self.second[1])
        return (low, high) if low < high else None


def resample_curves(
    shots: Sequence[Sequence[int]],
    right: Sequence[Float64[np.ndarray, "point row draw"]],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> list[DrawnCurve]:
    """Curves over the same rows, all resampled alike: a resample draws the same rows for every curve and every number.

    Args:
        shots: the numbers of shots of each curve, smallest first.
        right: whether a row is right, for each curve, as numbers.
        seed: the user's seed.
        num_resamples: how many resamples.
    """
    num_rows = right[0].shape[1]
    flat = [table.transpose(1, 0, 2).reshape(num_rows, -1) for table in right]
    whole = np.concatenate(flat, axis=1)
    drawn = np.concatenate([counts @ whole for counts in draw_rows(num_rows, seed, num_resamples)]) / num_rows
    parts = np.split(drawn, np.cumsum([table.shape[1] for table in flat])[:-1], axis=1)
    return [
        DrawnCurve(tuple(numbers), table.mean(axis=1), part.reshape(num_resamples, table.shape[0], table.shape[2]))
        for numbers, table, part in zip(shots, right, parts, strict=True)
    ]


def data_advantage(
    first: DrawnCurve, second: DrawnCurve, *, seed: int, axis: Axis = "log2", draws: Draws = "mean"
) -> DataAdvantage:
    """The average data advantage of the first curve over the second, its interval by resampling rows and draws.

    Rows and draws are resampled each by itself, and both curves get the same: the pigeonhole bootstrap (Owen 2007).

    Args:
        first: a curve.
        second: another one, over the same rows and draws; its numbers of shots may be others.
        seed: the user's seed, for the draws.
        axis: `log2`, or `linear` as in the paper.
        draws: the `mean` over draws, or their `max` as in the paper, which is optimistic.
    """
    curves = (first, second)
    num_resamples, _, num_draws = first.resampled.shape
    chosen = derive_generator(seed, "data advantage", num_draws).integers(num_draws, size=(num_resamples, num_draws))
    counts = np.stack([(chosen == draw).sum(axis=1) for draw in range(num_draws)], axis=1)
    scale = [np.log2(curve.shots) if axis == "log2" else np.array(curve.shots, dtype=np.float64) for curve in curves]
    here = [_climb(_over_draws(curve.accuracies[None], np.ones((1, num_draws)), draws)) for curve in curves]
    there = [_climb(_over_draws(curve.resampled, counts, draws)) for curve in curves]
    value = float(advantages(scale[0], here[0], scale[1], here[1])[0])
    found = advantages(scale[0], there[0], scale[1], there[1])
    is_defined = np.isfinite(found)
    interval = None
    if is_defined.any() and np.isfinite(value):
        ends = [_unscaled(end, axis) for end in quantiles(found[is_defined], CONFIDENCE)]
        interval = Interval(ends[0], ends[1], KIND)
    ranges = [(float(curve[0, 0]), float(curve[0, -1])) for curve in here]
    known = _unscaled(value, axis) if np.isfinite(value) else None
    return DataAdvantage(known, interval, float(is_defined.mean()), ranges[0], ranges[1], axis, draws)


def advantages(
    first_at: Float64[np.ndarray, " first"],
    first: Float64[np.ndarray, "resample first"],
    second_at: Float64[np.ndarray, " second"],
    second: Float64[np.ndarray, "resample second"],
) -> Float64[np.ndarray, " resample"]:
    """For curves that never fall, the mean over the shared accuracies of where the second is minus where the first is.

    It is the integral itself, to which the paper's mean over 1000 levels comes close; NaN where no range is shared.

    Args:
        first_at: the places of the first curve's points on the axis of examples, smallest first.
        first: its accuracies.
        second_at: the places of the second one's.
        second: its accuracies.
    """
    low, high = _shared_range(first, second)
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = _area(second_at, second, low, high) - _area(first_at, first, low, high)
        found: Float64[np.ndarray, " resample"] = np.where(high > low, gained / (high - low), np.nan)
    return found


def _shared_range(
    first: Float64[np.ndarray, "resample first"], second: Float64[np.ndarray, "resample second"]
) -> tuple[Float64[np.ndarray, " resample"], Float64[np.ndarray, " resample"]]:
    """The accuracies from the higher start to the lower end; none where the first of the two is not the smaller."""
    return np.maximum(first[:, 0], second[:, 0]), np.minimum(first[:, -1], second[:, -1])


def _area(
    at: Float64[np.ndarray, " point"],
    curve: Float64[np.ndarray, "resample point"],
    low: Float64[np.ndarray, " resample"],
    high: Float64[np.ndarray, " resample"],
) -> Float64[np.ndarray, " resample"]:
    """The integral from low to high of the place at which a curve gets to an accuracy, over accuracies."""
    start, end = curve[:, :-1], curve[:, 1:]
    rise = end - start
    ends = [np.clip(bound[:, None], start, end) for bound in (low, high)]
    share = [np.divide(one - start, rise, out=np.zeros_like(rise), where=rise > 0) for one in ends]
    places = [at[:-1] + part * np.diff(at) for part in share]
    total: Float64[np.ndarray, " resample"] = ((places[0] + places[1]) / 2 * (ends[1] - ends[0])).sum(axis=1)
    return total


def _over_draws(
    accuracies: Float64[np.ndarray, "resample point draw"], counts: Int64[np.ndarray, "resample draw"], draws: Draws
) -> Float64[np.ndarray, "resample point"]:
    """The mean or the highest accuracy over the draws of each resample."""
    if draws == "mean":
        found: Float64[np.ndarray, "resample point"] = np.einsum("rpd,rd->rp", accuracies, counts / counts.shape[1])
        return found
    is_drawn = counts[:, None, :] > 0
    highest: Float64[np.ndarray, "resample point"] = np.where(is_drawn, accuracies, -np.inf).max(axis=2)
    return highest


def _climb(curve: Float64[np.ndarray, "resample point"]) -> Float64[np.ndarray, "resample point"]:
    """The running maximum."""
    climbed: Float64[np.ndarray, "resample point"] = np.maximum.accumulate(curve, axis=1)
    return climbed


def _unscaled(value: float, axis: Axis) -> float:
    return float(2**value) if axis == "log2" else value
