"""A stored run as an object, without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest

import promptlab as pl
from promptlab.results import RunResults


@pytest.fixture
def empty(tmp_path: Path) -> pl.Run:
    """A run in which every cell is missing and a task had no rows."""
    manifest = {"run": "empty", "failures": {"lost": "task 'lost': no rows found."}}
    return pl.Run(RunResults(tmp_path / "empty", manifest, results=(), baselines=(), timings={}))


def test_a_run_is_a_sized_iterable_with_a_name_and_a_place(empty: pl.Run, tmp_path: Path) -> None:
    """It has the length of its cells and lies where it was stored."""
    assert (len(empty), list(empty), empty.results) == (0, [], ())
    assert (empty.name, empty.path) == ("empty", tmp_path / "empty")


def test_an_empty_run_can_be_shown(empty: pl.Run) -> None:
    """No cell is no crash, and what failed is said."""
    assert repr(empty).startswith(f"Run 'empty', 0 cells, in {empty.path}")
    assert repr(empty).endswith("not scored: task 'lost': no rows found.")
    assert "<table" in empty._repr_html_()
    assert len(empty.to_pandas()) == 0


def test_a_manifest_without_failures_has_none(tmp_path: Path) -> None:
    """The key is optional in a stored run."""
    assert pl.Run(RunResults(tmp_path, {"run": "old"}, (), (), {})).failures == {}


def test_a_report_has_one_of_three_endings(empty: pl.Run) -> None:
    """Another ending is refused before anything is rendered."""
    with pytest.raises(pl.PromptlabError, match=r"found '\.docx'"):
        empty.report("report.docx")
