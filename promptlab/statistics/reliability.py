"""How far confidence is from accuracy: the calibration error, as it is usually reported and without its bias.

Rows are put into bins of like confidence; in each bin the mean confidence is held against the share of right rows.
Both numbers are errors of the binned confidence, which is at most that of the confidence itself (Kumar et al. 2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from promptlab.statistics.intervals import Estimate, Interval
from promptlab.statistics.resampling import draw_rows, quantiles

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

NUM_BINS = 15
_KIND = "bootstrap, approximate"


def calibration_error(
    confidence: Float64[np.ndarray, " row"], is_right: Bool[np.ndarray, " row"], *, seed: int
) -> Estimate:
    """Expected calibration error, sum over bins of n_b / n |acc_b - conf_b|, 15 bins of equal width (Guo et al. 2017).

    Noise in the bins makes it too large, and once more so in every resample. The interval is the basic bootstrap
    (Davison and Hinkley 1997, chapter 5: twice the value minus the quantiles), which takes the second for the first;
    it is cut at 0 and stretched to hold the value.
    """
    order, starts = _group(_equal_width(confidence))
    gaps = (is_right - confidence)[order]

    def statistic(counts: Float64[np.ndarray, "resample row"]) -> Float64[np.ndarray, " resample"]:
        sums = np.add.reduceat(counts * gaps, starts, axis=1)
        errors: Float64[np.ndarray, " resample"] = np.abs(sums).sum(axis=1) / len(gaps)
        return errors

    value = float(statistic(np.ones((1, len(gaps))))[0])
    low, high = quantiles(np.concatenate([statistic(counts) for counts in draw_rows(len(gaps), seed)]))
    bounds = max(0.0, min(value, 2 * value - high)), min(1.0, max(value, 2 * value - low))
    return Estimate(value, Interval(*bounds, _KIND))


def debiased_calibration_error(
    confidence: Float64[np.ndarray, " row"], is_right: Bool[np.ndarray, " row"], *, seed: int
) -> Estimate:
    """Root mean square calibration error without its bias, 15 bins of equal mass (Kumar et al. 2019).

    The square is sum over bins of n_b / n ((acc_b - conf_b)^2 - acc_b (1 - acc_b) / (n_b - 1)), and 0 where this is
    negative; a bin of one row adds nothing. The bins stay those of all rows in every resample. A resample has the
    noise of the rows as its truth, so the quantiles are moved down by what is subtracted from the square.
    """
    order, starts = _group(_equal_mass(confidence))
    gaps, hits = (is_right - confidence)[order], is_right[order].astype(np.float64)

    def squares(counts: Float64[np.ndarray, "resample row"]) -> Float64[np.ndarray, "part resample"]:
        return _square_error(*(np.add.reduceat(counts * values, starts, axis=1) for values in (1.0, gaps, hits)))

    square, bias = (float(part[0]) for part in squares(np.ones((1, len(gaps)))))
    drawn = np.concatenate([squares(counts)[0] for counts in draw_rows(len(gaps), seed)])
    low, high = (math.sqrt(max(0.0, bound - bias)) for bound in quantiles(drawn))
    value = math.sqrt(max(0.0, square))
    return Estimate(value, Interval(min(low, value), min(1.0, max(high, value)), _KIND))


def _square_error(
    sizes: Float64[np.ndarray, "resample bin"],
    gaps: Float64[np.ndarray, "resample bin"],
    hits: Float64[np.ndarray, "resample bin"],
) -> Float64[np.ndarray, "part resample"]:
    """The debiased square of the calibration error, and the bias that was subtracted; from sums over bins."""
    is_known = sizes > 1
    size = np.where(is_known, sizes, 2)
    share = hits / size
    biases = np.where(is_known, size * share * (1 - share) / (size - 1), 0.0).sum(axis=1)
    squares = np.where(is_known, gaps**2 / size, 0.0).sum(axis=1)
    parts: Float64[np.ndarray, "part resample"] = np.stack([squares - biases, biases]) / sizes.sum(axis=1)
    return parts


def _group(bins: Int64[np.ndarray, " row"]) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " bin"]]:
    """The order in which rows of a bin stand together, and where each bin that has rows starts."""
    order = np.argsort(bins, kind="stable")
    return order, np.flatnonzero(np.diff(bins[order], prepend=-1))


def _equal_width(confidence: Float64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """The bin of each row; the bin m holds confidences in ((m - 1) / 15, m / 15]."""
    return np.searchsorted(np.linspace(0, 1, NUM_BINS + 1)[1:-1], confidence, side="left")


def _equal_mass(confidence: Float64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """The bin of each row; bins have equally many rows, at least two, but rows of equal confidence share a bin."""
    num_rows = len(confidence)
    num_bins = max(1, min(NUM_BINS, num_rows // 2))
    last = np.arange(1, num_bins) * num_rows // num_bins - 1
    return np.searchsorted(np.unique(np.sort(confidence)[last]), confidence, side="left")
