"""Calibration errors against plain loops over bins."""

from __future__ import annotations

import numpy as np
import pytest

from promptlab.statistics.reliability import NUM_BINS, calibration_error, debiased_calibration_error


def sample(num_rows: int, seed: int, shift: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and hits that are rarer by `shift` than the confidences say."""
    generator = np.random.default_rng(seed)
    confidence = 0.4 + 0.6 * generator.beta(2, 1, size=num_rows)
    return confidence, generator.random(num_rows) < confidence - shift


def naive_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    total = 0.0
    for number in range(NUM_BINS):
        inside = (confidence > number / NUM_BINS) & (confidence <= (number + 1) / NUM_BINS)
        if inside.any():
            total += inside.mean() * abs(is_right[inside].mean() - confidence[inside].mean())
    return total


def naive_debiased(confidence: np.ndarray, is_right: np.ndarray, sizes: list[int]) -> float:
    square, order, start = 0.0, np.argsort(confidence), 0
    for size in sizes:
        inside = order[start : start + size]
        share = is_right[inside].mean()
        gap = share - confidence[inside].mean()
        square += size / len(confidence) * (gap**2 - share * (1 - share) / (size - 1))
        start += size
    return max(0.0, square) ** 0.5


@pytest.mark.parametrize("num_rows", [2, 31, 500])
def test_the_calibration_error_is_the_loops(num_rows: int) -> None:
    """15 bins of equal width, each with its share of rows times the gap of accuracy and confidence."""
    confidence, is_right = sample(num_rows, num_rows)
    found = calibration_error(confidence, is_right, seed=0)
    assert naive_error(confidence, is_right) == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize(("num_rows", "sizes"), [(30, [2] * 15), (300, [20] * 15), (8, [2] * 4), (3, [3])])
def test_the_debiased_error_is_the_loops(num_rows: int, sizes: list[int]) -> None:
    """15 bins of equal mass, fewer where a bin would have one row; the noise of a bin's accuracy is subtracted."""
    confidence, is_right = sample(num_rows, num_rows, shift=0.6)
    found = debiased_calibration_error(confidence, is_right, seed=0)
    assert naive_debiased(confidence, is_right, sizes) == pytest.approx(found.value, abs=1e-12)


def test_a_confidence_on_an_edge_is_in_the_bin_below() -> None:
    """The bin m holds ((m - 1) / 15, m / 15], so 1/3 and a bit less are together, a bit more is not."""
    is_right = np.array([True, False])
    together = calibration_error(np.array([5 / 15, 5 / 15 - 1e-9]), is_right, seed=0)
    apart = calibration_error(np.array([5 / 15, 5 / 15 + 1e-9]), is_right, seed=0)
    assert (1 / 6, 1 / 2) == pytest.approx((together.value, apart.value), abs=1e-6)


@pytest.mark.parametrize("error", [calibration_error, debiased_calibration_error])
def test_the_order_of_rows_does_not_matter(error: object) -> None:
    """Rows of equal confidence share a bin, so no number depends on which of them comes first."""
    assert callable(error)
    confidence = np.round(sample(200, 0)[0], 1)
    is_right = np.random.default_rng(1).random(200) < 0.5
    order = np.argsort(is_right, kind="stable")
    expected = error(confidence, is_right, seed=0).value
    assert expected == pytest.approx(error(confidence[order], is_right[order], seed=0).value, abs=1e-12)


@pytest.mark.parametrize("error", [calibration_error, debiased_calibration_error])
@pytest.mark.parametrize("num_rows", [1, 2, 20, 300])
def test_the_interval_holds_the_value_and_says_that_it_is_approximate(error: object, num_rows: int) -> None:
    """Lower, value and upper are in order and between 0 and 1; equal seeds give equal intervals."""
    assert callable(error)
    for shift in (0.0, 0.3):
        found = error(*sample(num_rows, num_rows, shift), seed=3)
        assert 0 <= found.interval.low <= found.value <= found.interval.high <= 1
        assert "bootstrap, approximate" == found.interval.kind
        assert found == error(*sample(num_rows, num_rows, shift), seed=3)


def test_without_its_bias_the_error_of_calibrated_rows_is_near_zero() -> None:
    """Where confidence is right the plain error is well above 0 in every sample, the debiased square around 0."""
    plain = [calibration_error(*sample(300, seed, 0.0), seed=0) for seed in range(20)]
    debiased = [debiased_calibration_error(*sample(300, seed, 0.0), seed=0) for seed in range(20)]
    assert 0.02 < min(error.value for error in plain)
    assert 5 <= sum(error.value == 0 for error in debiased)
    assert 18 <= sum(error.interval.low == 0 for error in debiased)
    assert all(error.interval.low <= error.value <= error.interval.high for error in plain + debiased)
