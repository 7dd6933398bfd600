"""The report as a page, as Markdown and as files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from promptlab.errors import UsageError
from promptlab.reporting.content import make_document
from promptlab.reporting.html import to_html
from promptlab.reporting.markdown import to_markdown
from promptlab.reporting.report import render_report, write_report, write_report_to
from promptlab.results import RunResults
from tests.made_up_runs import agreement, cell, ensemble, grid_cells, metric, run

HOSTILE = "<script>alert(1)</script> `{{ text | lower_first }}` {{ mask }}"


@pytest.fixture(scope="module")
def results() -> RunResults:
    """A grid with a hostile template text and name."""
    cells = [replace(item, template=item.template.replace("just", "<b>just")) for item in grid_cells()]
    return run(cells, gold={"negative": 55, "positive": 45}, templates={"made/<b>just": HOSTILE})


@pytest.fixture(scope="module")
def page(results: RunResults) -> str:
    """Its page, drawn once."""
    return to_html(make_document(results))


def test_page_loads_nothing(page: str) -> None:
    """No address on the network stands where a browser would fetch it, and the policy forbids it anyway."""
    addresses = re.findall(r"(?:src|href|action|data)\s*=\s*[\"']?([^\"'>\s]*)", page)
    assert all(address.startswith("#") for address in addresses)
    assert not re.findall(r"url\(|@import", page)
    assert "<script" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_page_escapes_what_files_say(page: str) -> None:
    """A template's text and name are shown as they are written, in tables and in charts."""
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;just" in page
    assert "<b>" not in page


def test_page_has_its_sections_in_order(page: str) -> None:
    """The report answers in a fixed order."""
    wanted = ["asked", "headline", "templates", "calibration", "warnings", "cells", "cost", "reproduce"]
    assert wanted == re.findall(r'<section id="(\w+)">', page)


def test_page_has_a_labelled_chart_for_every_question(page: str) -> None:
    """One spread, one forest a verbalizer, one change and one mass chart, each with a label and no size of its own."""
    charts = re.findall(r"<svg [^>]*>", page)
    assert len(charts) == 1 + 2 + 1 + 1
    assert all('role="img"' in chart and 'aria-label="' in chart and "width=" not in chart for chart in charts)
    assert "<title>it_was, none: 0.400 (0.350 to 0.450)</title>" in page


def test_same_run_gives_the_same_page_but_for_its_cost(results: RunResults, page: str) -> None:
    """Equal results give equal bytes; other timings change the cost section alone."""
    assert page == to_html(make_document(results))
    slower = replace(results, timings={**results.timings, "seconds": {"total": 99.0}})
    other = to_markdown(make_document(slower)).split("## ")
    own = to_markdown(make_document(results)).split("## ")
    assert [a.splitlines()[0] for a, b in zip(own, other, strict=True) if a != b] == ["Cost"]


def test_markdown_says_the_headline(results: RunResults) -> None:
    """Markdown has the median with its range beside every baseline, and the oracle as a gap."""
    text = to_markdown(make_document(results))
    row = next(line for line in text.splitlines() if line.startswith("| reviews | none | 0.425"))
    cells = [item.strip() for item in row.strip("|").split("|")]
    assert cells[2:] == ["0.425", "0.400 to 0.450", "4", "0", "0.525", "0.450", "0.500", "0.450", "0.550", "0.025"]
    assert "246 cells" not in text and "18 cells, of which 2 were skipped" in text


def test_markdown_escapes_what_files_say(results: RunResults) -> None:
    """Markup and bars in a template's text neither become markup nor end a table cell."""
    text = to_markdown(make_document(results))
    line = next(line for line in text.splitlines() if "alert(1)" in line)
    assert r"``<script>alert(1)</script> `{{ text \| lower_first }}` {{ mask }}``" in line
    assert "<b>" not in text.replace("`made/<b>just`", "")


def test_run_without_gold_labels_is_reported() -> None:
    """Without gold labels the report has prediction shares and mass, and no metric."""
    document = make_document(run([cell(name, metrics={}) for name in ("made/it_was", "made/just")]))
    text = to_markdown(document)
    assert "| reviews | none | positive | 60.0 % | 60.0 % to 60.0 % | 2 |" in text
    assert "0.450" not in text
    assert "have no gold labels" in text
    assert to_html(document).count("<svg ") == 1


def test_run_with_every_cell_skipped_is_reported() -> None:
    """A run in which nothing was decided says so, with the reasons."""
    skipped = [replace(item, skipped="a word | splits", metrics={}, mass=None) for item in grid_cells()]
    text = to_markdown(make_document(run(skipped)))
    assert "No cell was decided on reviews" in text.replace("\\", "")
    assert r"a word \| splits" in text
    assert "<svg" not in to_html(make_document(run(skipped)))


def test_unverified_source_is_a_warning() -> None:
    """A source that nobody checked is said to be so in the lead and among the warnings."""
    text = to_markdown(make_document(run([cell("made/it_was")], verified=False)))
    assert text.count("source not verified") == 3


def test_task_without_rows_is_a_warning() -> None:
    """A task whose rows could not be read is named in the lead and stands first among the warnings, with its reason."""
    results = run([cell("made/it_was")])
    results = replace(results, manifest={**results.manifest, "failures": {"far": "far: no folder was given."}})
    text = to_markdown(make_document(results))
    assert "Seed 7. far could not be scored, see the warnings." in text
    assert "| task not scored | far | far: no folder was given. |" in text


def test_report_files_are_written_into_the_run(tmp_path: Path) -> None:
    """The run's folder gets the three files, the page first, and no temporary file is left."""
    paths = write_report(run([cell("made/it_was", metrics={})], tmp_path))
    assert [path.name for path in paths] == ["report.html", "report.md", "results.csv"]
    assert sorted(paths) == sorted(tmp_path.iterdir())


def test_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    """The ending of a path chooses the form, and another ending is explained."""
    results = run([cell("made/it_was")], tmp_path)
    path = write_report_to(results, tmp_path / "deep" / "cells.CSV")
    assert render_report(results, "csv") == path.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match=r"a report is written as \.html, \.md, \.csv, found '\.pdf'"):
        write_report_to(results, tmp_path / "report.pdf")


def section(text: str, title: str) -> list[str]:
    """The lines of a part of a Markdown report, up to the next heading."""
    return re.split(r"^#+ ", text.split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0].splitlines()


def test_agreement_of_templates_has_a_table() -> None:
    """With its interval and number of templates, for every verbalizer and calibration, gold labels or not."""
    both = (agreement(value=0.81), agreement("made/great_terrible", "contextual", 0.6))
    for cells in (grid_cells(), [replace(item, metrics={}) for item in grid_cells()]):
        lines = section(to_markdown(make_document(replace(run(cells), agreements=both))), "How far templates agree")
        assert "| reviews | good\\_bad | none | 81.0 % | 71.0 % to 91.0 % | 2 |" in lines
        assert "| reviews | great\\_terrible | contextual | 60.0 % | 50.0 % to 70.0 % | 2 |" in lines
    assert "How far templates agree" not in to_markdown(make_document(run(grid_cells())))


def test_ensembles_have_a_table_of_their_own() -> None:
    """The sections of templates, calibrations, warnings and cells are the same with an ensemble and without."""
    whole = ensemble("all", metrics={"accuracy": metric(0.61)})
    lost = ensemble("lost", "made/great_terrible", metrics={}, skipped="a member was skipped: a word splits")
    with_them, without = (
        to_markdown(make_document(run(cells))) for cells in ([*grid_cells(), whole, lost], grid_cells())
    )
    lines = section(with_them, "Ensembles of templates")
    assert "| reviews | all | good\\_bad | none | 2 | 0.610 | 0.560 to 0.660 |" in lines
    assert "| reviews | lost | great\\_terrible | none | 2 | – | – |" in lines
    for title in ("Every template", "What calibration changed", "Mass on label words and warnings", "All cells"):
        assert section(without, title) == section(with_them, title)
    assert "It crossed 4 templates (2 instructive, 2 controls)" in with_them
    assert "20 cells, of which 3 were skipped" in with_them
    assert "Ensembles of templates" not in without


def test_a_calibration_that_looks_at_all_rows_is_a_warning() -> None:
    """Batch calibration is transductive, and the report says so."""
    text = to_markdown(make_document(run([cell("made/it_was"), cell("made/it_was", calibration="batch")])))
    assert "| transductive | Calibration batch looks at all scored rows together. |" in re.sub(r" \| +\| ", " | ", text)
    assert "transductive" not in to_markdown(make_document(run([cell("made/it_was")])))
