"""Two stored runs on the rows that both decided, against plain numpy and scipy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests

from promptlab.comparing import PairedCells, RunComparison, compare_runs
from promptlab.errors import DataError, PromptlabError, UsageError
from promptlab.results import Result, RunResults
from promptlab.statistics.crossed import crossed_mean
from promptlab.statistics.paired import holm
from promptlab.store import RunStore
from tests.made_up_learning import few_shot_run, right_tables
from tests.made_up_runs import LABELS, cell, run
from tests.made_up_runs import metric as value

IDS = [f"row{number:03}" for number in range(40)]
GOLD = [LABELS[number % 2] for number in range(40)]
Decided = Mapping[str, Sequence[float] | None]  # p(label | row) by the row's id, None where it could not be scored


def decided(seed: int, ids: Sequence[str] = IDS, *, lost: Sequence[str] = ()) -> Decided:
    """Random probabilities of two labels."""
    draw = np.random.default_rng(seed)
    return {row: None if row in lost else draw.dirichlet([1, 1]).tolist() for row in ids}


def made(
    folder: Path,
    cells: Sequence[tuple[Result, Decided]],
    *,
    gold: Mapping[str, str | None] | None = None,
    metrics: Sequence[str] = ("accuracy",),
    source: Mapping[str, Any] | None = None,
) -> RunResults:
    """A stored run of those cells with their decisions."""
    known = dict(zip(IDS, GOLD, strict=True)) if gold is None else gold
    results = []
    for number, (result, decisions) in enumerate(cells):
        name = f"samples{number}"
        measured = {metric: value(0.5) for metric in metrics}
        results.append(replace(result, samples=name, num_rows=len(decisions), metrics=measured))
        write(folder, name, result, decisions, known)
    found = run(results, folder)
    task = {**found.manifest["tasks"]["reviews"], "metrics": list(metrics), **({"source": source} if source else {})}
    manifest = {**found.manifest, "run": folder.name, "tasks": {"reviews": task}}
    return RunResults(folder, manifest, tuple(results), (), {})


def write(folder: Path, name: str, result: Result, decisions: Decided, gold: Mapping[str, str | None]) -> None:
    """The decisions of one cell, as a run stores them."""
    labels = result.labels
    columns = {
        "cell": [result.cell] * len(decisions),
        "row_id": list(decisions),
        "gold": [gold.get(row) for row in decisions],
        "predicted": [None if held is None else labels[int(np.argmax(held))] for held in decisions.values()],
        "log_probabilities": [None if held is None else np.log(held).tolist() for held in decisions.values()],
    }
    table = pa.table(columns)
    RunStore(folder).write_samples(name, table.schema, table.to_batches(), labels)


def pair_of(folder: Path, first: Decided, second: Decided, **more: Any) -> PairedCells:
    """The one pair of two runs of one cell each."""
    ours, theirs = (
        made(folder / name, [(cell("made/it_was"), decisions)], **more)
        for name, decisions in (("first", first), ("second", second))
    )
    (found,) = compare_runs(ours, theirs).pairs
    return found


def right(decisions: Decided) -> np.ndarray[Any, Any]:
    """Whether each row is predicted right, in the order of the ids."""
    return np.array(
        [held is not None and LABELS[int(np.argmax(held))] == GOLD[IDS.index(row)]
         for row, held in sorted(decisions.items())]
    )  # fmt: skip


def test_accuracy_by_plain_counts(tmp_path: Path) -> None:
    """Second minus first; Bonett and Price's interval and McNemar's mid-p from the rows that only one gets right."""
    first, second = decided(1, lost=["row003"]), decided(2)
    found = pair_of(tmp_path, first, second)
    ours, theirs = right(first), right(second)
    only_first, only_second = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    assert ("accuracy", True, 40) == (found.metric, found.higher_is_better, found.num_rows)
    assert (ours.mean(), theirs.mean()) == pytest.approx((found.value_first, found.value_second))
    assert theirs.mean() - ours.mean() == pytest.approx(found.difference)
    one, other = (only_second + 1) / 42, (only_first + 1) / 42
    half = stats.norm.ppf(0.975) * math.sqrt((one + other - (one - other) ** 2) / 42)
    assert (one - other - half, one - other + half) == pytest.approx((found.low, found.high))
    fewer, total = min(only_first, only_second), only_first + only_second
    p_value = 2 * stats.binom.cdf(fewer, total, 0.5) - stats.binom.pmf(fewer, total, 0.5)
    assert min(1, p_value) == pytest.approx(found.p_value)
    assert ("bonett-price", "mcnemar mid-p") == (found.interval, found.test)


def test_a_loss_by_scipy(tmp_path: Path) -> None:
    """Negative log-likelihood: the interval of the paired t test, a p-value near its own, and lower is better."""
    first, second = decided(1), decided(2)
    found = pair_of(tmp_path, first, second, metrics=["nll"])
    gold = [LABELS.index(label) for label in GOLD]
    losses = [
        np.array([-math.log(held[gold[IDS.index(row)]]) for row, held in side.items() if held is not None])
        for side in (first, second)
    ]
    expected = stats.ttest_rel(losses[1], losses[0])
    interval = expected.confidence_interval(0.95)
    assert ("nll", False, "t") == (found.metric, found.higher_is_better, found.interval)
    assert losses[1].mean() - losses[0].mean() == pytest.approx(found.difference)
    assert (interval.low, interval.high) == pytest.approx((found.low, found.high))
    assert expected.pvalue == pytest.approx(found.p_value, abs=0.05)


def test_an_unscored_row_is_a_loss_of_uniform_probabilities(tmp_path: Path) -> None:
    """It is wrong for accuracy, log 2 for the likelihood, and agrees with nothing."""
    known: Decided = {row: [0.9, 0.1] for row in IDS}
    lost: Decided = {**known, "row000": None, "row001": None}
    found = pair_of(tmp_path / "nll", known, lost, metrics=["nll"])
    # row000 is of the first label and had 0.9, row001 of the second and had 0.1.
    difference = (2 * math.log(2) + math.log(0.9) + math.log(0.1)) / 40
    assert difference == pytest.approx(found.difference)
    assert 38 / 40 == found.agreement
    assert -1 / 40 == pytest.approx(pair_of(tmp_path / "accuracy", known, lost).difference)
    assert 38 / 40 == pair_of(tmp_path / "both", lost, lost).agreement


def test_macro_f1_by_scikit_learn(tmp_path: Path) -> None:
    """A function of gold against predicted is compared by resampling; its values are those of the library."""
    first, second = decided(1), decided(2)
    found = pair_of(tmp_path, first, second, metrics=["macro_f1"])
    values = [
        f1_score(GOLD, [LABELS[int(np.argmax(held))] for held in side.values() if held is not None], average="macro")
        for side in (first, second)
    ]
    assert values == pytest.approx([found.value_first, found.value_second])
    assert values[1] - values[0] == pytest.approx(found.difference)
    assert found.low is not None and found.high is not None and found.low < found.difference < found.high
    assert ("bootstrap", "swapped predictions") == (found.interval, found.test)


def test_only_shared_rows_count(tmp_path: Path) -> None:
    """Rows are found by their id, in whatever order and number each run has them; the counts are told."""
    first, second = decided(1, IDS[:30]), decided(2, IDS[:9:-1])
    ours, theirs = (
        made(tmp_path / name, [(cell("made/it_was"), decisions)])
        for name, decisions in (("first", first), ("second", second))
    )
    comparison = compare_runs(ours, theirs)
    (found,) = comparison.pairs
    assert (20, 30, 30) == (found.num_rows, found.num_rows_first, found.num_rows_second)
    shared = [{row: side[row] for row in IDS[10:30]} for side in (first, second)]
    one, other = (np.array([LABELS[int(np.argmax(held or []))] for held in side.values()]) for side in shared)
    gold = np.array(GOLD[10:30])
    assert (other == gold).mean() - (one == gold).mean() == pytest.approx(found.difference)
    assert (one == other).mean() == pytest.approx(found.agreement)
    assert comparison.cautions == ("reviews: compared on the 20 rows that both have; the first has 30, the second 30.",)


def test_no_shared_row_is_refused(tmp_path: Path) -> None:
    """There is nothing to compare, and the likely cause is named."""
    with pytest.raises(DataError) as fault:
        pair_of(tmp_path, decided(1, IDS[:20]), decided(2, IDS[20:]))
    assert str(fault.value) == (
        "task 'reviews': runs 'first' and 'second' have no row in common: compare runs of the same split and --limit."
    )


def test_another_gold_label_of_a_row_is_refused(tmp_path: Path) -> None:
    """Runs of two versions of the data cannot be told apart by their numbers; the first such row is named."""
    known = dict(zip(IDS, GOLD, strict=True))
    other = {**known, "row004": "positive", "row007": "negative"}
    ours = made(tmp_path / "first", [(cell("made/it_was"), decided(1))])
    theirs = made(tmp_path / "second", [(cell("made/it_was"), decided(2))], gold=other)
    with pytest.raises(DataError) as fault:
        compare_runs(ours, theirs)
    assert str(fault.value) == (
        "task 'reviews': 2 shared rows have another gold label in run 'first' than in 'second' (row row004 first): "
        "the two are not of the same data."
    )


def test_other_sources_are_marked(tmp_path: Path) -> None:
    """The same rows from two places are compared, and a reader is told."""
    sources = {
        "first": {"kind": "hub", "path": "made/reviews"},
        "second": {"kind": "files", "files": {"test": "a.csv"}},
    }
    ours, theirs = (
        made(tmp_path / name, [(cell("made/it_was"), decided(1))], source=source) for name, source in sources.items()
    )
    assert ("reviews: the rows come from different sources (hub made/reviews; files a.csv).",) == (
        compare_runs(ours, theirs).cautions
    )
    assert () == compare_runs(ours, ours).cautions


def test_rows_without_gold_labels_have_an_agreement(tmp_path: Path) -> None:
    """How often both predict the same label, and no metric; one side's labels are enough for both."""
    first, second = decided(1), decided(2)
    found = pair_of(tmp_path / "none", first, second, gold=dict.fromkeys(IDS))
    same = [np.argmax(first[row] or []) == np.argmax(second[row] or []) for row in IDS]
    assert np.mean(same) == pytest.approx(found.agreement)
    assert (None, None, None) == (found.metric, found.difference, found.p_adjusted)
    bare = made(tmp_path / "bare", [(cell("made/it_was"), first)], gold=dict.fromkeys(IDS))
    with pytest.raises(UsageError, match="metric 'acuracy' is unknown"):
        compare_runs(bare, bare, metrics=["acuracy"])
    unlabelled = made(tmp_path / "unlabelled", [(cell("made/it_was"), first)], gold=dict.fromkeys(IDS))
    labelled = made(tmp_path / "labelled", [(cell("made/it_was"), second)])
    known = pair_of(tmp_path / "known", first, second)
    for one, other, sign in ((unlabelled, labelled, 1), (labelled, unlabelled, -1)):
        (half,) = compare_runs(one, other).pairs
        assert ("accuracy", pytest.approx(sign * float(known.difference or 0))) == (half.metric, half.difference)


def test_labels_may_stand_in_another_order(tmp_path: Path) -> None:
    """A label is found by its name."""
    first, second = decided(1), decided(2)
    turned = {row: held and held[::-1] for row, held in second.items()}
    ours = made(tmp_path / "first", [(cell("made/it_was"), first)], metrics=["nll"])
    theirs = made(tmp_path / "second", [(cell("made/it_was", labels=LABELS[::-1]), turned)], metrics=["nll"])
    known = pair_of(tmp_path / "known", first, second, metrics=["nll"])
    (found,) = compare_runs(ours, theirs).pairs
    assert (known.difference, known.agreement) == pytest.approx((found.difference, found.agreement))
    other = made(tmp_path / "other", [(cell("made/it_was", labels=("a", "b")), first)], gold=dict.fromkeys(IDS, "a"))
    with pytest.raises(DataError, match="task 'reviews' has other labels in run 'first' than in 'other'"):
        compare_runs(ours, other)


def grid(
    folder: Path, templates: Sequence[str], calibrations: Sequence[str], *, seed: int = 0, **of: Any
) -> RunResults:
    """A run of every template x calibration."""
    names = [(template, calibration) for template in templates for calibration in calibrations]
    return made(
        folder,
        [(cell(template, calibration=calibration, **of), decided(seed + number))
         for number, (template, calibration) in enumerate(names)],
    )  # fmt: skip


def names(found: RunComparison) -> list[tuple[str, ...]]:
    """What each pair is of: values of both sides where they differ, one where they agree."""
    both = [list(zip(pair.first.values(), pair.second.values(), strict=True)) for pair in found.pairs]
    return [tuple(one if one == other else f"{one}|{other}" for one, other in values) for values in both]


def test_cells_are_paired_by_everything_else(tmp_path: Path) -> None:
    """Two models of one grid differ in the model alone; cells without a partner are counted."""
    ours = grid(tmp_path / "first", ["made/it_was", "made/just"], ["none", "contextual"], model="one")
    theirs = grid(tmp_path / "second", ["made/just", "made/why"], ["none", "contextual"], model="two", seed=9)
    found = compare_runs(ours, theirs)
    assert ("model",) == found.differs_in
    assert [("one|two", "made/just", "made/good_bad", calibration) for calibration in ("none", "contextual")] == (
        names(found)
    )
    assert (2, 2) == (found.unpaired_first, found.unpaired_second)


def test_a_run_is_compared_with_itself_along_an_axis_that_is_named_two_ways(tmp_path: Path) -> None:
    """Calibrated against not, over all templates; and one template against another by its last name."""
    whole = grid(tmp_path / "whole", ["made/it_was", "made/just"], ["none", "contextual"])
    found = compare_runs(whole, whole, only={"calibration": ("none", "contextual")})
    assert (("calibration",), 2) == (found.differs_in, len(found.pairs))
    assert ["none|contextual"] * 2 == [pair[3] for pair in names(found)]
    by_name = compare_runs(whole, whole, only={"template": ("it_was", "made/just"), "calibration": ("none", "none")})
    assert [("mini", "made/it_was|made/just", "made/good_bad", "none")] == names(by_name)
    same = compare_runs(whole, whole)
    assert (4, (), {0.0}) == (len(same.pairs), same.differs_in, {pair.difference for pair in same.pairs})


def test_skipped_cells_have_no_part(tmp_path: Path) -> None:
    """They were not decided."""
    lost = cell("made/just", skipped="a word splits", metrics={})
    ours = made(tmp_path / "first", [(cell("made/it_was"), decided(1)), (lost, {})])
    assert 1 == len(compare_runs(ours, ours).pairs)


def test_p_values_are_adjusted_over_all_pairs(tmp_path: Path) -> None:
    """Holm's adjustment, as statsmodels has it, over every metric of every pair."""
    ours = grid(tmp_path / "first", ["made/it_was", "made/just", "made/why"], ["none", "contextual"])
    theirs = grid(tmp_path / "second", ["made/it_was", "made/just", "made/why"], ["none", "contextual"], seed=50)
    found = compare_runs(ours, theirs, metrics=["accuracy", "nll"])
    assert ["accuracy", "nll"] * 6 == [pair.metric for pair in found.pairs]
    expected = multipletests([pair.p_value for pair in found.pairs], method="holm")[1]
    assert expected == pytest.approx([pair.p_adjusted for pair in found.pairs])


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    """Resampling is seeded; another seed moves the p-value of a resampled test."""
    ours, theirs = (
        made(tmp_path / name, [(cell("made/it_was"), decided(seed))], metrics=["macro_f1"])
        for seed, name in enumerate(("first", "second"))
    )
    assert compare_runs(ours, theirs, seed=3) == compare_runs(ours, theirs, seed=3)
    assert compare_runs(ours, theirs, seed=3) != compare_runs(ours, theirs, seed=4)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"only": {"template": ("it_was", None)}},
            "several templates fit (made/it_was, made/just): name one for each run by --template, given twice.",
        ),
        (
            {"only": {"template": ("it_wsa", "it_wsa")}},
            "run 'whole' has no template 'it_wsa'. Did you mean 'it_was'? It has: made/it_was, made/just.",
        ),
        (
            {"only": {"calibration": ("none", "contextul")}},
            "run 'whole' has no calibration 'contextul'. Did you mean 'contextual'? It has: none, contextual.",
        ),
        ({"tasks": ["review"]}, "run 'whole' has no task 'review'. Did you mean 'reviews'? It has: reviews."),
        ({"metrics": ["acuracy"]}, "metric 'acuracy' is unknown. Did you mean 'accuracy'?"),
        ({"metrics": ["ece"]}, "metric 'ece' cannot be compared row by row. Metrics that can: accuracy, brier, "),
    ],
)
def test_what_cannot_be_chosen_is_explained(tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    """A name that is not there, an axis on which several cells fit, a metric that is no comparison."""
    whole = grid(tmp_path / "whole", ["made/it_was", "made/just"], ["none", "contextual"])
    with pytest.raises(UsageError) as fault:
        compare_runs(whole, whole, **more)
    assert sentence in str(fault.value)


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ({"templates": ["made/a", "made/b"]}, "have no template in common (made/it_was, made/just; made/a, made/b)."),
        ({"task": "news"}, "have no task in common (reviews; news)."),
        ({"split": "train"}, "have no split in common (test; train)."),
    ],
)
def test_runs_that_share_nothing_are_explained(tmp_path: Path, theirs: dict[str, Any], sentence: str) -> None:
    """The first thing that keeps them apart, and the flag that brings them together where there is one."""
    ours = grid(tmp_path / "first", ["made/it_was", "made/just"], ["none"])
    templates = theirs.pop("templates", ["made/it_was", "made/just"])
    other = grid(tmp_path / "second", templates, ["none"], **theirs)
    with pytest.raises(PromptlabError) as fault:
        compare_runs(ours, other)
    assert sentence in str(fault.value)
    assert ("Name one for each run by --template, given twice." in str(fault.value)) == ("template" in sentence)


def few(folder: Path, seed: int, **changed: Any) -> tuple[RunResults, dict[tuple[Any, ...], np.ndarray]]:
    """A few-shot run of soft prompts with no zero-shot cells, and its decisions."""
    tables = {key: right for key, right in right_tables(seed=seed).items() if key[1] in ("soft_prompt", "zero_shot")}
    return few_shot_run(folder, tables, {}, **changed), tables


def test_few_shot_results_are_compared_over_draws(tmp_path: Path) -> None:
    """By method and number of shots: the crossed mean of second minus first over the same rows and draws."""
    (first, ours), (second, theirs) = few(tmp_path / "a", 0), few(tmp_path / "b", 1)
    found = compare_runs(first, second)
    assert () == found.pairs
    assert [(m, k) for m in ("zero_shot", "soft_prompt") for k in (2, 4, 8)] == [
        (one.first["method"], one.num_shots) for one in found.draws
    ]
    for one in found.draws:
        key = ("reviews", one.first["method"], one.num_shots)
        expected = crossed_mean(theirs[key].astype(float) - ours[key], lowest=-1, highest=1)
        assert (expected.value, expected.p_value) == pytest.approx((one.difference, one.p_value))
        assert (expected.interval.low, expected.interval.high) == pytest.approx((one.low, one.high))
        assert (3, 80) == (one.num_draws, one.num_rows)
        assert (ours[key].mean(), theirs[key].mean()) == pytest.approx((one.value_first, one.value_second))
    assert holm([one.p_value for one in found.draws]) == [one.p_adjusted for one in found.draws]


def test_draws_of_other_examples_are_told(tmp_path: Path) -> None:
    """Two runs with another seed pair draws by number alone, and say so."""
    runs = [few(tmp_path / name, 0)[0] for name in ("a", "b")]
    told = []
    for rows in (["row1"], ["row2"]):
        shots = [{"num_shots": 2, "draw": 0, "rows": rows, "gold": [0]}]
        task = {**runs[1].manifest["tasks"]["reviews"], "shots": shots}
        told.append(replace(runs[1], manifest={**runs[1].manifest, "tasks": {"reviews": task}}))
    assert () == compare_runs(told[0], told[0]).cautions
    assert ("reviews: the two runs drew other examples, so that draws are paired by their number alone.",) == (
        compare_runs(told[0], told[1]).cautions
    )


def test_two_methods_are_compared_where_each_run_has_one(tmp_path: Path) -> None:
    """The method may differ as a template may: soft prompts of one run against lora of another."""
    tables = right_tables(methods=("soft_prompt", "lora"))
    runs = [
        few_shot_run(tmp_path / name, {key: right for key, right in tables.items() if key[1] == name}, {})
        for name in ("soft_prompt", "lora")
    ]
    found = compare_runs(*runs)
    assert {("soft_prompt", "lora")} == {(one.first["method"], one.second["method"]) for one in found.draws}
    assert 3 == len(found.draws)
