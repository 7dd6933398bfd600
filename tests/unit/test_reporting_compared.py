"""A comparison as lines for a terminal and as rows of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from promptlab.comparing import AXES, PairedCells, PairedDraws, RunComparison
from promptlab.reporting.compared import MAX_SINGLE_PAIRS, comparison_csv, comparison_lines


def pair(
    difference: float = 0.1, *, p_adjusted: float = 0.02, second: str = "contextual", **changed: Any
) -> PairedCells:
    """A pair of one template without and with a calibration."""
    names = {"model": "mini", "template": "made/it_was", "verbalizer": "made/good_bad", "calibration": "none"}
    made = PairedCells(
        task="reviews", first=names, second={**names, "calibration": second}, num_rows=100, num_rows_first=100,
        num_rows_second=100, agreement=0.9, metric="accuracy", value_first=0.5, value_second=0.5 + difference,
        difference=difference, low=difference - 0.05, high=difference + 0.05, interval="bonett-price", confidence=0.95,
        p_value=p_adjusted / 2, p_adjusted=p_adjusted, test="mcnemar mid-p", higher_is_better=True,
    )  # fmt: skip
    return replace(made, **changed)


def named(found: PairedCells, **names: str) -> PairedCells:
    """The pair with other names on both sides."""
    return replace(found, first={**found.first, **names}, second={**found.second, **names})


def compared(pairs: Sequence[PairedCells], **changed: Any) -> RunComparison:
    values: dict[str, Any] = {"first": "before", "second": "after", "differs_in": ("calibration",),
                              "unpaired_first": 0, "unpaired_second": 0}  # fmt: skip
    return RunComparison(pairs=tuple(pairs), **{**values, **changed})


def test_a_few_pairs_are_one_line_each() -> None:
    """Only what tells the pairs apart is a column; values, difference, interval and adjusted p stand behind it."""
    lines = comparison_lines(compared([pair(), named(pair(-0.2, p_adjusted=0.0004), template="made/just")]))
    assert lines[0] == "first: before, second: after; they differ in calibration; differences are second"
    assert lines[1] == "  minus first"
    assert ["template", "first", "second", "difference", "95", "%", "interval", "p", "(Holm)"] == lines[3].split()
    assert ["it_was", "0.500", "0.600", "+0.100", "+0.050", "to", "+0.150", "0.020"] == lines[4].split()
    assert ["just", "0.500", "0.300", "−0.200", "−0.250", "to", "−0.150", "<0.001"] == lines[5].split()
    assert lines[7] == "paired on 100 rows; accuracy by bonett-price and mcnemar mid-p; p adjusted by"
    assert lines[8] == "  Holm over 2 comparisons"


def test_both_names_of_an_axis_that_differs_are_shown() -> None:
    """Where it is what tells the pairs apart."""
    lines = comparison_lines(compared([pair(), pair(second="batch")]))
    assert ["none / contextual", "none / batch"] == [line.partition("  ")[0] for line in lines[4:6]]


def test_one_pair_is_called_by_its_task() -> None:
    """Nothing has to be told apart."""
    lines = comparison_lines(compared([pair()], differs_in=()))
    assert "first: before, second: after; their cells have the same names; differences are" == lines[0]
    assert ["task", "first"] == lines[3].split()[:2]
    assert ["reviews", "0.500"] == lines[4].split()[:2]


def test_names_stand_above_the_numbers_where_both_do_not_fit() -> None:
    """Three columns of names are too many for one line: nothing of the numbers is lost."""
    pairs = [named(replace(pair(), task=f"task{n}"), template=f"made/t{n}", verbalizer=f"made/v{n}", model=f"m{n}")
             for n in range(2)]  # fmt: skip
    lines = comparison_lines(compared([replace(pairs[0], metric="nll"), pairs[1]]))
    assert "task, model, template, verbalizer, metric" == lines[3]
    assert ["task0, m0, t0, v0, nll", "task1, m1, t1, v1, accuracy"] == [lines[5], lines[7]]
    assert ["0.500", "0.600", "+0.100", "+0.050", "to", "+0.150", "0.020"] == lines[6].split() == lines[8].split()


def many(higher_is_better: bool = True) -> list[PairedCells]:
    """Thirteen pairs: eight rise, three fall, two stay; four of them surely."""
    moves = [0.1] * 8 + [-0.1] * 3 + [0.0] * 2
    return [
        named(pair(move, p_adjusted=0.01 if number < 4 else 0.08, higher_is_better=higher_is_better),
              template=f"made/t{number}")
        for number, move in enumerate(moves)
    ]  # fmt: skip


@pytest.mark.parametrize(("higher_is_better", "better", "worse"), [(True, "8", "3"), (False, "3", "8")])
def test_many_pairs_are_summed_up(higher_is_better: bool, better: str, worse: str) -> None:
    """A line a task, calibration and metric: the median, how many are better or worse, how many are sure."""
    assert 12 == MAX_SINGLE_PAIRS
    lines = comparison_lines(compared(many(higher_is_better)))
    assert ["task", "calibration", "metric", "median", "better", "worse", "p<0.05", "pairs"] == lines[3].split()
    row = ["reviews", "none", "/", "contextual", "accuracy", "+0.100", better, worse, "4", "13"]
    assert row == lines[4].split()
    assert "--output csv has all" in " ".join(line.strip() for line in lines)
    two = compared([*many(), *(replace(one, metric="nll", higher_is_better=False) for one in many())])
    assert ["accuracy", "nll"] == [line.split()[4] for line in comparison_lines(two)[4:6]]


def test_pairs_without_gold_labels_have_an_agreement() -> None:
    """The median over the pairs; with others it stands beside their table."""
    bare = {name: None for name in ("metric", "value_first", "value_second", "difference", "low", "high", "interval",
                                    "confidence", "p_value", "p_adjusted", "test", "higher_is_better")}  # fmt: skip
    found = [replace(pair(), agreement=value, **bare) for value in (0.5, 0.75, 0.9)]
    said = "without gold labels: the two predict the same label for 75.0 % of the rows (median over 3 pairs)"
    alone = " ".join(line.strip() for line in comparison_lines(compared(found)))
    assert alone.endswith(said)
    assert "paired on" not in alone
    assert said in " ".join(line.strip() for line in comparison_lines(compared([*found, pair()])))


def test_cautions_and_cells_without_a_partner_are_said() -> None:
    """A reader knows what was left out."""
    text = " ".join(
        line.strip()
        for line in comparison_lines(
            compared([pair()], cautions=("reviews: the rows differ.",), unpaired_first=1, unpaired_second=12)
        )
    )
    assert "reviews: the rows differ." in text
    assert "1 cell of the first run has no partner" in text
    assert "12 cells of the second run have no partner" in text


@pytest.mark.parametrize("number", [1, 2, 12, 13, 40])
def test_lines_fit_a_terminal(number: int) -> None:
    """However long the names are, no line is wider than 80 columns, or than what is asked for."""
    name = "a_very_long_name_" * 5
    pairs = [named(pair(-0.123), template=f"{name}{n}", verbalizer=f"{name}{n}", model=f"/there/{name}")
             for n in range(number)]  # fmt: skip
    found = compared([replace(one, task=f"{name}{n % 3}") for n, one in enumerate(pairs)], first=name, second=name,
                     cautions=(f"{name}: {name} {name}",), differs_in=AXES)  # fmt: skip
    for width in (80, 100):
        assert [] == [line for line in comparison_lines(found, width) if len(line) > width]


def test_csv_has_a_row_a_pair() -> None:
    """Both names of every axis, all numbers in full, and nothing where there is nothing."""
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compared([pair(), pair(-1 / 3, p_value=None)])))))
    assert 2 == len(rows)
    assert ("reviews", "none", "contextual") == tuple(
        rows[0][name] for name in ("task", "calibration_first", "calibration_second")
    )
    assert {f"{axis}_{side}" for axis in AXES for side in ("first", "second")} <= set(rows[0])
    assert {field.name for field in fields(PairedCells)} - {"first", "second"} <= set(rows[0])
    assert ("-0.3333333333333333", "") == (rows[1]["difference"], rows[1]["p_value"])


def drawn(method: str = "soft_prompt", num_shots: int = 16, **changed: Any) -> PairedDraws:
    """What two runs have with so many shots."""
    names = {"model": "mini", "template": "made/it_was", "verbalizer": "made/good_bad", "method": method}
    made = PairedDraws(
        task="reviews", first=names, second=names, num_shots=num_shots, num_draws=5, num_rows=100, value_first=0.6,
        value_second=0.7, difference=0.1, low=0.02, high=0.18, p_value=0.01, p_adjusted=0.02,
    )  # fmt: skip
    return replace(made, **changed)


def test_few_shot_results_are_a_table_of_their_own() -> None:
    """A line a method and number of shots behind the cells, with over what their interval is."""
    lines = comparison_lines(compared([], draws=(drawn(), drawn("prompt_fine_tune", 64))))
    assert max(map(len, lines)) <= 80
    start = next(place for place, line in enumerate(lines) if line.startswith("method"))
    assert ["method", "shots", "first", "second", "difference", "95", "%", "interval", "p", "(Holm)"] == (
        lines[start].split()
    )
    assert "soft_prompt 16 0.600 0.700 +0.100 +0.020 to +0.180 0.020" == " ".join(lines[start + 1].split())
    assert ["prompt_fine_tune", "64"] == lines[start + 2].split()[:2]
    assert "accuracy over 5 draws" in " ".join(lines)
    assert "Holm over 2 differences" in " ".join(line.strip() for line in lines)


def test_csv_has_few_shot_results_behind_the_pairs() -> None:
    """They have columns of their own; those of cells are empty there."""
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compared([pair()], draws=(drawn(),))))))
    assert ["", "soft_prompt"] == [row["method_first"] for row in rows]
    assert ["", "5"] == [row["num_draws"] for row in rows]
    assert ["0.1", "0.1"] == [row["difference"] for row in rows]
    assert ["none", ""] == [row["calibration_first"] for row in rows]
