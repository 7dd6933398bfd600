"""Data advantage: against a naive mean over many levels, by hand, and how often its interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from promptlab.statistics.data_advantage import DrawnCurve, advantages, data_advantage, resample_curves


def naive(
    first_at: list[float], first: list[float], second_at: list[float], second: list[float], levels: int = 2_000
) -> float | None:
    """The paper's: running maxima, a mean over levels of the shared range, places by linear interpolation."""
    ours, theirs = (list(np.maximum.accumulate(curve)) for curve in (first, second))
    low, high = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
    if high <= low:
        return None
    total = 0.0
    for level in low + (high - low) * (np.arange(levels) + 0.5) / levels:
        places = []
        for at, curve in ((first_at, ours), (second_at, theirs)):
            place = next(i for i in range(1, len(curve)) if curve[i] >= level)
            share = (level - curve[place - 1]) / (curve[place] - curve[place - 1])
            places.append(at[place - 1] + share * (at[place] - at[place - 1]))
        total += places[1] - places[0]
    return total / levels


def drawn(shots: list[int], accuracies: list[list[float]]) -> DrawnCurve:
    """A curve that every resample of the rows leaves alone; accuracies by point and draw."""
    table = np.array(accuracies)
    return DrawnCurve(tuple(shots), table, np.repeat(table[None], 200, axis=0))


@pytest.mark.parametrize("seed", range(20))
def test_mean_over_levels_is_the_naive_one(seed: int) -> None:
    """Curves that fall here and there, of unlike numbers, with plateaus."""
    generator = np.random.default_rng(seed)
    first_at, second_at = [2.0, 3.0, 5.0, 6.0], [1.0, 2.0, 4.0]
    first, second = (list(np.round(generator.uniform(0.4, 0.9, number), 1)) for number in (4, 3))
    expected = naive(first_at, first, second_at, second)
    ours, theirs = (np.maximum.accumulate(np.array([curve]), axis=1) for curve in (first, second))
    (found,) = advantages(np.array(first_at), ours, np.array(second_at), theirs)
    assert (expected is None) == bool(np.isnan(found))
    if expected is not None:
        assert expected == pytest.approx(found, abs=3e-3)


def test_a_curve_that_needs_a_quarter_is_worth_four_times_the_examples() -> None:
    """By hand: the same accuracies at 4, 8, 16 as at 16, 32, 64; 12, 24 and 48 examples apart on the linear axis."""
    first = drawn([4, 8, 16], [[0.5], [0.6], [0.7]])
    second = drawn([16, 32, 64], [[0.5], [0.6], [0.7]])
    found = data_advantage(first, second, seed=0)
    assert found.value == pytest.approx(4)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((4, 4))
    assert (found.defined, found.shared) == (1.0, (0.5, 0.7))
    assert data_advantage(second, first, seed=0).value == pytest.approx(1 / 4)
    assert data_advantage(first, second, seed=0, axis="linear").value == pytest.approx((18 + 36) / 2)


def test_the_maximum_over_draws_is_another_number_than_the_mean() -> None:
    """Of two draws the better one at each number counts in the paper's curves."""
    first = drawn([4, 16], [[0.5, 0.5], [0.9, 0.7]])
    second = drawn([4, 16], [[0.5, 0.5], [0.7, 0.7]])
    mean, highest = (data_advantage(first, second, seed=0, draws=draws) for draws in ("mean", "max"))
    assert mean.value == pytest.approx(2 ** naive([2, 4], [0.5, 0.8], [2, 4], [0.5, 0.7]))  # type: ignore[operator]  # is defined
    assert highest.value == pytest.approx(2 ** naive([2, 4], [0.5, 0.9], [2, 4], [0.5, 0.7]))  # type: ignore[operator]  # is defined


def test_a_curve_that_falls_stays_where_it_has_been() -> None:
    """What it needs for an accuracy is where it gets there first."""
    found = data_advantage(drawn([4, 8, 16], [[0.5], [0.7], [0.6]]), drawn([4, 8, 16], [[0.4], [0.5], [0.8]]), seed=0)
    assert found.value == pytest.approx(2 ** naive([2, 3, 4], [0.5, 0.7, 0.7], [2, 3, 4], [0.4, 0.5, 0.8]))  # type: ignore[operator]  # is defined
    assert found.shared == pytest.approx((0.5, 0.7))


def test_curves_without_a_shared_accuracy_are_undefined() -> None:
    """One is above the other everywhere: there is no number, no interval, and no resample says otherwise."""
    found = data_advantage(drawn([4, 8], [[0.8], [0.9]]), drawn([4, 8], [[0.5], [0.6]]), seed=0)
    assert (found.value, found.interval, found.defined, found.shared) == (None, None, 0.0, None)
    assert (found.first, found.second) == ((0.8, 0.9), (0.5, 0.6))


def test_the_share_of_resamples_that_are_defined_is_counted() -> None:
    """Two draws, of which one alone puts the first curve above the second: a quarter of resamples draws it twice."""
    first = drawn([4, 8], [[0.5, 0.9], [0.7, 0.95]])
    second = drawn([4, 8], [[0.4, 0.4], [0.8, 0.8]])
    found = data_advantage(first, second, seed=0)
    assert found.defined == pytest.approx(0.75, abs=0.1)
    assert found.value is not None


def test_rows_are_resampled_as_a_naive_bootstrap_does() -> None:
    """Each resample has the accuracies of rows that are drawn with replacement, the same ones for every curve."""
    generator = np.random.default_rng(0)
    right = [(generator.random((2, 30, 3)) < 0.6).astype(float), (generator.random((3, 30, 3)) < 0.6).astype(float)]
    first, second = resample_curves([[1, 2], [1, 2, 4]], right, seed=5, num_resamples=50)
    from promptlab.statistics.resampling import draw_rows

    counts = np.concatenate(list(draw_rows(30, 5, 50)))
    for number in (0, 17, 49):
        rows = np.repeat(np.arange(30), counts[number].astype(int))
        for curve, table in ((first, right[0]), (second, right[1])):
            np.testing.assert_allclose(table[:, rows, :].mean(axis=1), curve.resampled[number])
    np.testing.assert_allclose(right[1].mean(axis=1), second.accuracies)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Curves of known accuracies, 0.60 to 0.84 in steps of 0.06 a doubling, the first two doublings ahead: factor 4."""
    shots, held, number = [4, 8, 16, 32, 64], 0, 200
    for seed in range(number):
        generator = np.random.default_rng(seed)
        ease = generator.normal(size=(1, 200, 1))
        tables = []
        for ahead in (2, 0):
            level = 0.3 * (np.arange(5)[:, None, None] + ahead) - 0.2 + generator.normal(scale=0.05, size=(5, 1, 5))
            tables.append((ease + generator.normal(size=(5, 200, 5)) < level).astype(float))
        curves = resample_curves([shots, shots], tables, seed=seed, num_resamples=300)
        found = data_advantage(curves[0], curves[1], seed=seed)
        assert found.interval is not None
        held += found.interval.low <= 4 <= found.interval.high
    assert 0.88 <= held / number


def test_the_same_seed_gives_the_same_interval() -> None:
    """Resampling is seeded by name: the same arguments, the same numbers; another seed, others."""
    right = (np.random.default_rng(1).random((2, 3, 40, 4)) < 0.6 + 0.1 * np.arange(3)[None, :, None, None]).astype(
        float
    )
    both = [resample_curves([[1, 2, 4]] * 2, list(right), seed=seed) for seed in (0, 0, 1)]
    found = [data_advantage(*curves, seed=seed) for curves, seed in zip(both, (0, 0, 1), strict=True)]
    assert found[0] == found[1]
    assert found[0] != found[2]
