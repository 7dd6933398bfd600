"""Medians, ranges, baselines and changes against numbers that are worked out plainly."""

from dataclasses import replace
from statistics import median

import pytest

from promptlab.reporting.spreads import (
    before_and_after,
    changes,
    constant_score,
    content_free,
    grid_titles,
    headlines,
    kind_of,
    make_grids,
    pairs_apart,
    template_order,
)
from promptlab.results import MetricValue
from tests.made_up_runs import agreement, cell, ensemble, grid_cells, metric, run


@pytest.mark.parametrize("calibration", ["none", "contextual"])
def test_headline_is_the_median_over_instructive_cells(calibration: str) -> None:
    """Median, min, max and count go over every decided instructive cell of a calibration and no other."""
    cells = grid_cells()
    values = [
        item.metrics["accuracy"].value
        for item in cells
        if item.metrics and item.calibration == calibration and item.template_tags == ("instructive",)
    ]
    [grid] = make_grids(run(cells))
    headline = next(each for each in headlines(grid) if each.calibration == calibration)
    assert headline.instructive is not None
    assert (len(values), headline.instructive.num_cells) == (4, 4)
    assert (median(values), min(values), max(values)) == (
        headline.instructive.median,
        headline.instructive.low,
        headline.instructive.high,
    )
    assert max(values) - median(values) == headline.oracle_gap
    assert {"instructive", "irrelevant", "null"} == set(headline.kinds)


def test_cells_above_the_majority_need_their_whole_interval() -> None:
    """A cell counts as above the majority of train only where its lower end is."""
    cells = [cell(f"made/{n}", metrics={"accuracy": metric(value)}) for n, value in enumerate((0.49, 0.51, 0.60))]
    [grid] = make_grids(run(cells))
    assert headlines(grid)[0].num_above == 2


def test_a_loss_is_better_when_it_is_lower() -> None:
    """The oracle gap of a metric that should be low is taken at its low end."""
    losses = [MetricValue(value, value - 0.1, value + 0.1, "bootstrap", 0.95, False) for value in (0.4, 0.6, 0.9)]
    cells = [cell(f"made/{n}", metrics={"nll": loss}) for n, loss in enumerate(losses)]
    [grid] = make_grids(run(cells))
    assert grid.metric == "nll"
    assert pytest.approx(0.2) == headlines(grid)[0].oracle_gap
    assert template_order(grid) == ["made/0", "made/1", "made/2"]


def test_change_is_paired() -> None:
    """Better and worse are counted over the same template and verbalizer, and the change is their median."""
    before, after = (0.40, 0.50, 0.60), (0.45, 0.50, 0.58)
    cells = [cell(f"made/{n}", metrics={"accuracy": metric(value)}) for n, value in enumerate(before)]
    cells += [
        cell(f"made/{n}", "made/good_bad", "contextual", metrics={"accuracy": metric(v)}) for n, v in enumerate(after)
    ]
    [change] = changes(make_grids(run(cells))[0])
    assert (change.num_better, change.num_worse) == (1, 1)
    assert median(new - old for old, new in zip(before, after, strict=True)) == change.difference
    assert (change.before.median, change.after.median) == (0.50, 0.50)
    assert change.prior.median == 0.7


def test_cells_without_a_twin_are_not_compared() -> None:
    """A calibrated cell whose uncalibrated twin was skipped changes nothing."""
    cells = [cell("made/a", calibration="contextual"), cell("made/a", metrics={}, skipped="no")]
    assert before_and_after(make_grids(run(cells))[0], "contextual") == []


@pytest.mark.parametrize(("name", "expected"), [("accuracy", 0.25), ("macro_f1", 2 * 25 / (25 + 100) / 2)])
def test_content_free_constant_follows_the_prior(name: str, expected: float) -> None:
    """Always predicting the likeliest label of the content-free texts gets that label's share of gold rows."""
    results = run([cell("made/it_was", metrics={name: metric(0.5)})], gold={"negative": 75, "positive": 25})
    results = replace(
        results,
        manifest={
            **results.manifest,
            "tasks": {"reviews": {**results.manifest["tasks"]["reviews"], "metrics": [name]}},
        },
    )
    [grid] = make_grids(results)
    assert pytest.approx(expected) == constant_score(grid, grid.cells[0])


def test_content_free_constant_is_none_without_gold_counts() -> None:
    """A run that does not tell its gold counts has no content-free constant, rather than a wrong one."""
    assert content_free(make_grids(run([cell("made/it_was")]))[0]) is None


def test_kind_is_the_control_tag() -> None:
    """A control tag wins over instructive, and a template without any tag is instructive."""
    assert kind_of(cell("x", template_tags=("instructive", "null"))) == "null"
    assert kind_of(cell("x", template_tags=())) == "instructive"


def test_templates_are_ordered_by_kind_then_median() -> None:
    """Instructive templates come first, the best first; controls follow."""
    assert template_order(make_grids(run(grid_cells()))[0]) == ["made/just", "made/it_was", "made/why", "made/null"]


def test_titles_name_the_model_where_there_are_two() -> None:
    """A chart of one model is called by its task, of several by task and model."""
    cells = [cell("made/a", model=model) for model in ("/there/one", "org/two")]
    assert list(grid_titles(make_grids(run(cells))).values()) == ["reviews, one", "reviews, org/two"]
    assert list(grid_titles(make_grids(run(cells[:1]))).values()) == ["reviews"]


def test_pairs_are_told_apart_where_their_intervals_do_not_meet() -> None:
    """Of three instructive cells one stands alone: two of three pairs; controls are no part of it."""
    scores = {"made/it_was": 0.5, "made/just": 0.55, "made/far": 0.7, "made/null": 0.9}
    cells = [cell(name, metrics={"accuracy": metric(value)}) for name, value in scores.items()]
    grid = make_grids(run(cells))[0]
    assert pairs_apart(grid, grid.cells) == (2, 3)


def test_ensembles_stand_apart_from_templates() -> None:
    """However good an ensemble is, no median, range, count, order or change of the templates knows of it."""
    best = {"metrics": {"accuracy": metric(0.99)}, "mass": 0.001, "predicted": {"negative": 0, "positive": 100}}
    names = [(name, calibration) for name in ("made/good_bad", "made/great_terrible")
             for calibration in ("none", "contextual")]  # fmt: skip
    ensembles = [ensemble("all", *pair, **best) for pair in names]
    [without] = make_grids(run(grid_cells(), gold={"negative": 55, "positive": 45}))
    [grid] = make_grids(run([*grid_cells(), *ensembles], gold={"negative": 55, "positive": 45}))
    assert ensembles == list(grid.ensembles)
    assert without.cells == grid.cells
    assert headlines(without) == headlines(grid)
    assert changes(without) == changes(grid)
    assert template_order(without) == template_order(grid)
    assert content_free(without) == content_free(grid)
    assert (without.decided, without.pairs()) == (grid.decided, grid.pairs())
    assert (without.templates(), without.verbalizers()) == (grid.templates(), grid.verbalizers())
    assert "ensemble:all" not in grid.templates()


def test_an_ensemble_has_a_value_of_its_own() -> None:
    """Its headline metric, or none where it was skipped."""
    whole = ensemble("all", metrics={"accuracy": metric(0.61)})
    lost = ensemble("lost", metrics={}, skipped="a member was skipped: a word splits")
    [grid] = make_grids(run([cell("made/it_was"), whole, lost]))
    assert [metric(0.61), None] == [grid.value(one) for one in grid.ensembles]


def test_agreements_belong_to_their_model_task_and_split() -> None:
    """Each grid has its own, and no other's."""
    cells = [cell("made/it_was"), cell("made/it_was", model="other")]
    ours, theirs = agreement(), replace(agreement(value=0.5), model="other")
    results = replace(run(cells), agreements=(ours, theirs, replace(ours, split="train"), replace(ours, task="news")))
    assert [(ours,), (theirs,)] == [grid.agreements for grid in make_grids(results)]
