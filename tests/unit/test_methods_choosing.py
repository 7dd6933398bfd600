"""Which shots a row is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptlab.errors import UsageError
from promptlab.methods.base import LabelledPrompts, Setting
from promptlab.methods.choosing import Chooser, Showing
from tests.contract.test_methods import UNSEEN, make_shots, prompts_of

LABELS = np.repeat(np.arange(2), 4)


@pytest.fixture
def shots(backends: dict[str, Any]) -> LabelledPrompts:
    """Four of each of two labels."""
    return make_shots(backends["bert"])


def chooser(shots: LabelledPrompts, seed: int = 0, states: Any = None, **options: Any) -> Chooser:
    return Chooser(shots, Showing(**options), 2, seed, states)


def test_a_draw_has_one_shot_of_each_label_and_draws_differ(backends: dict[str, Any], shots: LabelledPrompts) -> None:
    """No shot comes twice before all of its label have come."""
    for row in prompts_of(backends["bert"], UNSEEN):
        draws = chooser(shots).draws(row, None)
        assert [[0, 1]] * 4 == [LABELS[draw].tolist() for draw in draws]
        assert list(range(8)) == sorted(place for draw in draws for place in draw)


def test_draws_depend_on_the_seed_and_the_row_alone(backends: dict[str, Any], shots: LabelledPrompts) -> None:
    """Another seed or another row is shown other shots; fewer draws are the first of more."""
    one, other = prompts_of(backends["bert"], UNSEEN)[:2]
    draws = chooser(shots).draws(one, None)
    assert draws == chooser(shots).draws(one, None)
    assert draws != chooser(shots, seed=1).draws(one, None)
    assert draws != chooser(shots).draws(other, None)
    assert draws[:2] == chooser(shots, num_samples=2).draws(one, None)


def test_a_shot_is_never_shown_to_itself(shots: LabelledPrompts) -> None:
    """Nor is a label whose only shot it is."""
    for place, row in enumerate(shots.prompts):
        assert all(place not in draw for draw in chooser(shots).draws(row, None))
    few = shots.take([0, 4, 5])
    assert [[1], [2]] == sorted(Chooser(few, Showing(), 2, 0).draws(few.prompts[0], None))


def test_no_more_draws_than_shots_of_a_label(shots: LabelledPrompts) -> None:
    """The same shots in the same order would be scored again; in another order they are not the same."""
    few = shots.take([0, 4, 5])
    assert 2 == Chooser(few, Showing(num_samples=16), 2, 0).num_draws
    assert 1 == Chooser(few, Showing(num_samples=16, choice="nearest"), 2, 0).num_draws
    assert 16 == Chooser(few, Showing(num_samples=16, order="seeded"), 2, 0).num_draws


def test_nearest_draws_among_the_nearer_half(backends: dict[str, Any], shots: LabelledPrompts) -> None:
    """By cosine, not by length, and in each label by itself."""
    row = prompts_of(backends["bert"], UNSEEN)[0]
    angles = np.array([0.1, 1.2, 0.2, 1.1, 2.0, 0.3, 1.0, 1.5])
    states = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([9, 1, 1, 9, 1, 1, 9, 1])[:, None]
    draws = chooser(shots, states=states, choice="nearest").draws(row, np.array([2.0, 0.0]))
    assert 2 == len(draws)
    assert [0, 2] == sorted(draw[0] for draw in draws)
    assert [5, 6] == sorted(draw[1] for draw in draws)


def test_order_of_labels_is_fixed_or_seeded(backends: dict[str, Any], shots: LabelledPrompts) -> None:
    """Seeded, each draw of a row has its own."""
    rows = prompts_of(backends["bert"], UNSEEN)
    fixed, seeded = (
        [tuple(LABELS[draw]) for row in rows for draw in chooser(shots, order=order).draws(row, None)]
        for order in ("fixed", "seeded")
    )
    assert {(0, 1)} == set(fixed)
    assert {(0, 1), (1, 0)} == set(seeded)


def test_unknown_options_are_refused() -> None:
    """The message names what is known."""
    with pytest.raises(
        UsageError, match=r"method 'demonstrations': choice 'best' is unknown. Known: sampled, nearest."
    ):
        Showing.of(Setting(options={"choice": "best"}))
    with pytest.raises(UsageError, match=r"order 'random' is unknown. Known: fixed, seeded."):
        Showing.of(Setting(options={"order": "random"}))
    with pytest.raises(UsageError, match=r"option 'samples' is unknown. Known: num_samples, choice, order, embedding."):
        Showing.of(Setting(options={"samples": 4}))
    with pytest.raises(UsageError, match=r"num_samples 0 is unknown: write 1 or more."):
        Showing.of(Setting(options={"num_samples": 0}))
