"""Warnings: each says what is wrong, how often, and what it means."""

import pytest

from promptlab.reporting.cautions import cautions, low_mass_pairs, skipped_groups
from promptlab.reporting.spreads import make_grids
from promptlab.results import Result
from tests.made_up_runs import cell, ensemble, grid_cells, metric, run


def _texts(*cells: Result) -> dict[str, str]:
    return {caution.kind: caution.text for caution in cautions(make_grids(run(cells))[0])}


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("low mass", {"mass": 0.0042}, "1 of 1 template x verbalizer pair give the label words less than 1 %"),
        ("one-sided predictions", {"predicted": {"negative": 3, "positive": 97}}, "1 of 1 cell predict one label"),
        ("unscored rows", {"num_unscored": 4}, "could not score 4 of 100 rows"),
        ("shortened rows", {"num_truncated": 12}, "With 1 template, 12.0 % of 100 rows (12) were shortened to fit."),
        ("near-ties", {"num_near_ties": 2}, "2 of 100 rows have two best labels closer than 0.0001"),
        ("no gold labels", {"metrics": {}}, "100 rows have no gold labels"),
    ],
)
def test_each_fault_is_named(kind: str, changed: dict[str, object], words: str) -> None:
    """A fault of a cell gives its own warning and no other."""
    found = _texts(cell("made/it_was", **changed))
    assert [kind] == list(found)
    assert words in found[kind]


def test_rows_that_were_cut_are_a_share() -> None:
    """From the lowest to the highest share over templates, once a template however many cells it has."""
    numbers = {"it_was": (3, 3), "just": (41, 5), "null": (0, 0)}  # one block a verbalizer where options are named
    cells = [cell(f"made/{name}", verbalizer, num_truncated=number)
             for name, pair in numbers.items() for verbalizer, number in zip("ab", pair, strict=True)]  # fmt: skip
    said = "With 2 templates, 3.00 % to 41.0 % of 100 rows (3 to 41) were shortened to fit."
    assert said == _texts(*cells)["shortened rows"]


def test_a_sound_cell_has_no_warning() -> None:
    """Nothing is said where there is nothing to say."""
    assert _texts(cell("made/it_was")) == {}


def test_a_control_that_does_as_well_is_named() -> None:
    """A null template that is no worse than the median over instructive templates is a warning with both numbers."""
    found = _texts(cell("made/it_was"), cell("made/null", metrics={"accuracy": metric(0.55)}))
    words = "null with calibration none (0.550 against 0.500)"
    assert found == {"controls": f"No worse than the median over instructive templates: {words}."}


def test_skipped_cells_are_grouped_by_what_kept_them() -> None:
    """Words keep a verbalizer from every calibration, prompts a calibration alone; each with its first reason."""
    lost = cell("made/just", calibration="support", skipped="made/just: calibration 'support' needs train rows.")
    groups = skipped_groups(make_grids(run([*grid_cells(), lost]))[0])
    assert [("verbalizer", "made/odd", 2), ("calibration", "support", 1)] == [
        (group.kind, group.name, group.num_cells) for group in groups
    ]
    assert "label word 'odd' splits" in groups[0].reason
    assert "needs train rows" in groups[1].reason
    [said] = [text for kind, text in _texts(*grid_cells(), lost).items() if kind == "skipped cells"]
    assert said.endswith("were not decided, for the label words of odd and for the prompts of calibration support.")


def test_what_is_said_of_words_of_several_tokens() -> None:
    """First tokens are judged alone by a masked model; a detector judges whole words, whatever rule was named."""
    cut = {"multi_token": "first_token", "num_tokens": {"negative": (1,), "positive": (3,)}}
    assert ["first tokens"] == list(_texts(cell("made/it_was", **cut)))
    judged = _texts(cell("made/it_was", **cut, scoring="replaced_token", mass=None))
    assert ["replaced tokens", "unequal lengths"] == list(judged)
    assert "(1 to 3 tokens, summed)" in judged["unequal lengths"]


def test_mass_is_counted_once_a_pair() -> None:
    """Mass does not depend on the calibration, so a pair counts once."""
    cells = [cell("made/it_was", calibration=name, mass=0.001) for name in ("none", "contextual")]
    assert len(low_mass_pairs(make_grids(run(cells))[0])) == 1


def test_ensembles_are_no_part_of_warnings_about_templates() -> None:
    """An ensemble's mass, sides and lost rows are those of its members, which are counted already."""
    odd = ensemble("all", mass=0.001, num_unscored=9, predicted={"negative": 0, "positive": 100}, num_near_ties=7)
    assert _texts(cell("made/it_was")) == _texts(cell("made/it_was"), odd) == {}
    skipped = ensemble("lost", metrics={}, skipped="a member was skipped: a word splits")
    assert {} == _texts(cell("made/it_was"), skipped)
