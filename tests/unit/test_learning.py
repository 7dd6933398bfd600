"""Curves, contrasts, pooled differences, worth and the hard side, against naive code on stored decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from promptlab.learning import CHOSEN, learn
from promptlab.statistics.crossed import crossed_mean, pooled_mean
from promptlab.statistics.paired import holm
from tests.made_up_learning import ROWS, few_shot_run, right_tables

CELLS = {
    "it_was": np.arange(ROWS) % 2 == 0,
    "just": np.arange(ROWS) % 4 != 0,
    "why": np.arange(ROWS) >= 0,
}


def test_a_curve_is_the_mean_over_draws_at_every_number(tmp_path: Path) -> None:
    """Mean, standard deviation over draws and crossed interval of the stored decisions, smallest number first."""
    tables = right_tables()
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    assert ["zero_shot", "soft_prompt"] == [curve.method for curve in found.curves]
    for curve in found.curves:
        assert [2, 4, 8] == [point.num_shots for point in curve.points]
        for point in curve.points:
            table = tables["reviews", curve.method, point.num_shots].astype(float)
            assert crossed_mean(table, lowest=0, highest=1) == point.accuracy
            assert table.mean(axis=0).std(ddof=1) == pytest.approx(point.std)
    assert (None, None) == (found.curves[0].template, found.curves[0].verbalizer)


def test_curves_stand_task_by_task_behind_the_hard_prompt(tmp_path: Path) -> None:
    """Whatever the order of the results, which have the choices last."""
    tables = right_tables(tasks=("reviews", "news"), methods=("soft_prompt", "lora", "zero_shot"), shots=(2,))
    mixed = {key: tables[key] for key in sorted(tables, key=lambda key: (key[1] == "zero_shot", key[1]))}
    found = [(one.task, one.method) for one in learn(few_shot_run(tmp_path, mixed, CELLS)).curves]
    methods = ("zero_shot", "lora", "soft_prompt")
    assert [(task, method) for task in ("reviews", "news") for method in methods] == found


def test_contrasts_pair_rows_and_draws(tmp_path: Path) -> None:
    """Minus the prompt that the same shots chose, draw by draw, and minus the one cell that a method starts from."""
    tables = right_tables()
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    assert 6 == len(found.contrasts)
    for one in found.contrasts:
        mine = tables["reviews", "soft_prompt", one.num_shots].astype(float)
        other = tables["reviews", "zero_shot", one.num_shots] if one.against == CHOSEN else CELLS["it_was"][:, None]
        assert crossed_mean(mine - other, lowest=-1, highest=1) == one.difference


def test_pooled_differences_are_the_mean_over_tasks(tmp_path: Path) -> None:
    """The plain mean of the tasks' differences against the chosen prompt, their variances combined."""
    tables = right_tables(tasks=("reviews", "news"))
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    assert [2, 4, 8] == [one.num_shots for one in found.pooled]
    for one in found.pooled:
        of_tasks = [
            crossed_mean(
                tables[task, "soft_prompt", one.num_shots].astype(float) - tables[task, "zero_shot", one.num_shots],
                lowest=-1,
                highest=1,
            )
            for task in ("reviews", "news")
        ]
        assert ("reviews", "news") == one.tasks
        assert pooled_mean(of_tasks, lowest=-1, highest=1) == one.difference
        assert np.mean([task.value for task in of_tasks]) == pytest.approx(one.difference.value)


def test_pooled_and_single_differences_are_one_family(tmp_path: Path) -> None:
    """Holm counts every p-value of the run; without a second task nothing is pooled."""
    found = learn(few_shot_run(tmp_path, right_tables(tasks=("reviews", "news")), CELLS))
    whole = [*found.contrasts, *found.pooled]
    assert holm([one.difference.p_value for one in whole]) == [one.adjusted for one in whole]
    assert () == learn(few_shot_run(tmp_path / "one", right_tables(), CELLS)).pooled


def test_a_task_with_several_templates_counts_once(tmp_path: Path) -> None:
    """Its curves are averaged row by row before tasks are."""
    tables = right_tables(tasks=("reviews", "news"), shots=(2, 4))
    tables["reviews", "soft_prompt", 2, "made/just"] = tables["reviews", "soft_prompt", 4]
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    (pooled,) = (one for one in found.pooled if one.num_shots == 2)

    def ahead(task: str, number: int) -> float:
        return float(tables[task, "soft_prompt", number].mean() - tables[task, "zero_shot", 2].mean())

    expected = ((ahead("reviews", 2) + ahead("reviews", 4)) / 2 + ahead("news", 2)) / 2
    assert expected == pytest.approx(pooled.difference.value)


def test_a_method_that_is_a_step_ahead_is_worth_twice_the_examples(tmp_path: Path) -> None:
    """Soft prompts have with 2 shots what the hard prompt has with 4: 2 x, over the accuracies that both have."""
    hard = {2: 0.5, 4: 0.6, 8: 0.7, 16: 0.8}
    tables = {}
    for k, level in hard.items():
        right = np.repeat(np.arange(ROWS)[:, None] < round(level * ROWS), 3, axis=1)
        tables["reviews", "zero_shot", k] = right
        if k > 2:
            tables["reviews", "soft_prompt", k // 2] = right
            tables["reviews", "prompt_fine_tune", k] = right
            tables["reviews", "head_fine_tune", k] = np.zeros_like(right)
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    worths = {(one.first.method, one.second.method): one for one in found.worths}
    assert worths["soft_prompt", "zero_shot"].factor.value == pytest.approx(2)
    assert worths["prompt_fine_tune", "zero_shot"].factor.value == pytest.approx(1)
    shared = worths["soft_prompt", "zero_shot"].factor.shared
    assert (0.6, 0.8) == pytest.approx(shared)
    assert (3 + 6) / 2 * 1.0 == pytest.approx(worths["soft_prompt", "zero_shot"].examples.value)
    assert worths["prompt_fine_tune", "head_fine_tune"].factor.value is None
    assert ("soft_prompt", "head_fine_tune") not in worths
    assert () == learn(few_shot_run(tmp_path, tables, CELLS), with_worths=False).worths


def test_the_hard_side_has_default_average_and_oracle(tmp_path: Path) -> None:
    """Instructive cells alone: the first, the mean of all and the best; a control that is better is no oracle."""
    (hard,) = learn(few_shot_run(tmp_path, right_tables(), CELLS)).hard
    assert ("made/it_was", 0.5) == (hard.default[0].template, hard.default[1])
    assert ("made/just", 0.75) == (hard.oracle[0].template, hard.oracle[1])
    assert (0.625, 2) == (hard.average, hard.num_cells)


def test_projected_soft_tokens_are_no_curve_of_their_own(tmp_path: Path) -> None:
    """They are held against the fitted ones, on the same rows and draws, and stay out of every other table."""
    tables = right_tables(methods=("zero_shot", "soft_prompt_projected", "soft_prompt"), shots=(2, 4))
    found = learn(few_shot_run(tmp_path, tables, CELLS))
    assert {"zero_shot", "soft_prompt"} == {curve.method for curve in found.curves}
    assert {"soft_prompt"} == {one.method for one in found.contrasts} == {one.first.method for one in found.worths}
    assert [2, 4] == [one.num_shots for one in found.projections]
    for one in found.projections:
        before, after = (
            tables["reviews", name, one.num_shots].astype(float) for name in ("soft_prompt", "soft_prompt_projected")
        )
        assert crossed_mean(after - before, lowest=-1, highest=1) == one.difference
        assert crossed_mean(after, lowest=0, highest=1) == one.accuracy


def test_a_run_without_shots_teaches_nothing(tmp_path: Path) -> None:
    """No curves, no contrasts, no hard side."""
    found = learn(few_shot_run(tmp_path, {}, {}))
    assert ((), (), ()) == (found.curves, found.contrasts, found.hard)
