"""What adaptation changed, read off a stored run, against plain numpy, scipy and statsmodels."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests

from promptlab.comparing import compare_runs
from promptlab.reporting.adapted import adaptation_section, find_changes
from promptlab.reporting.content import make_document
from promptlab.reporting.document import Document, Figure, Paragraph, Subheading, Table
from promptlab.reporting.formats import signed, three_digits
from promptlab.reporting.markdown import to_markdown
from promptlab.reporting.spreads import make_grids
from promptlab.reporting.summary import summary_lines
from promptlab.results import Result, RunResults
from promptlab.store import RunStore
from tests.made_up_runs import LABELS, cell, metric, run
from tests.made_up_runs import TEMPLATES as FEW

TEMPLATES = {**FEW, "made/so": "instructive", "made/thus": "instructive", "made/yes": "instructive"}
NUM_ROWS = 60
GOLD = np.arange(NUM_ROWS) % 2
SHARES = {"mini": 0.6, "mini-notes": 0.78, "mini-other": 0.6}  # of rows that a model gets right


def right(model: str, template: str, calibration: str) -> Any:
    """Whether each row is right, shape (row,)."""
    names = [*SHARES, *TEMPLATES, "none", "contextual"]
    seed = [names.index(model), names.index(template), names.index(calibration)]
    return np.random.default_rng(seed).random(NUM_ROWS) < SHARES[model]


def facts(base: str = "of mini", **more: Any) -> dict[str, Any]:
    """What a run keeps of a record."""
    losses = {"before": math.log(16.0), "after": math.log(12.0)}
    general = {"before": math.log(40.0), "after": math.log(50.0)}
    counts = {"seed": 1, "steps": 20, "kept_step": 20, "tokens": 4000, "num_measured_tokens": 99}
    return {
        "base": {"name": "mini", "weights": base},
        "corpora": [{"name": "notes", "weight": 1.0}, {"name": "news", "weight": 0.25}],
        "losses": {"held-out text": losses, "general text": general},
        **counts,
        **more,
    }


def made(folder: Path, *, is_labelled: bool = True, **adapted: dict[str, Any]) -> RunResults:
    """A stored run of mini and of models made of it, with decisions."""
    models = ["mini", *(name.replace("_", "-") for name in adapted)]
    cells = []
    for model in models:
        for template in TEMPLATES:
            for calibration in ("none", "contextual"):
                hits = right(model, template, calibration)
                name = f"{model} {template} {calibration}"
                measured = {"accuracy": metric(float(hits.mean()))} if is_labelled else {}
                made_cell = cell(template, calibration=calibration, model=model, cell=name, metrics=measured)
                samples = f"samples{len(cells)}"
                cells.append(replace(made_cell, samples=samples, num_rows=NUM_ROWS))
                write(folder, cells[-1], hits, is_labelled=is_labelled)
    found = run(cells, folder)
    facts_of = [{"model": name, "weights": f"of {name}", "architecture": "Tiny", "ran": {}} for name in models]
    for item, record in zip(facts_of[1:], adapted.values(), strict=True):
        item |= {"adaptation": record} if record else {}
    return replace(found, manifest={**found.manifest, "models": facts_of})


def write(folder: Path, result: Result, hits: Any, *, is_labelled: bool) -> None:
    """The decisions of a cell as a run stores them."""
    predicted = [LABELS[code] for code in np.where(hits, GOLD, 1 - GOLD)]
    columns = {
        "cell": [result.cell] * NUM_ROWS,
        "row_id": [f"row{number}" for number in range(NUM_ROWS)],
        "gold": [LABELS[code] if is_labelled else None for code in GOLD],
        "predicted": predicted,
        "log_probabilities": [[math.log(0.5)] * 2] * NUM_ROWS,
    }
    table = pa.table(columns)
    RunStore(folder).write_samples(result.samples, table.schema, table.to_batches(), LABELS)


def parts_of(results: RunResults, kind: type[Any]) -> list[Any]:
    """The parts of the section of one kind."""
    return [part for part in adaptation_section(results, make_grids(results)).parts if isinstance(part, kind)]


def mid_p(first: Any, second: Any) -> float:
    """McNemar's mid-p value."""
    fewer, total = min((first & ~second).sum(), (second & ~first).sum()), (first != second).sum()
    if total == 0 or 2 * fewer == total:
        return 1.0 if total == 0 else float(1 - binom.pmf(fewer, total, 0.5) / 2)
    return float(2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5))


def test_cells_are_paired_and_told_apart(tmp_path: Path) -> None:
    """Medians, changes and counts are those of plain numpy; p is Holm's over every cell of the table, controls too."""
    results = made(tmp_path, mini_notes=facts())
    keys = [(template, calibration) for template in TEMPLATES for calibration in ("none", "contextual")]
    old, new = ({key: right(model, *key) for key in keys} for model in ("mini", "mini-notes"))
    adjusted = dict(zip(keys, multipletests([mid_p(old[k], new[k]) for k in keys], method="holm")[1], strict=True))
    ours, theirs = (
        replace(results, results=tuple(one for one in results.results if one.model == model))
        for model in ("mini", "mini-notes")
    )
    found = compare_runs(ours, theirs)
    assert {key: pytest.approx(value) for key, value in adjusted.items()} == {
        (pair.first["template"], pair.first["calibration"]): pair.p_adjusted for pair in found.pairs
    }
    grids = {grid.task: grid for grid in make_grids(results) if grid.model == "mini"}
    changes = {change.calibration: change for change in find_changes(found, grids)}
    for calibration, change in changes.items():
        mine = [(template, calibration) for template, kind in TEMPLATES.items() if kind == "instructive"]
        moves = [new[key].mean() - old[key].mean() for key in mine]
        sure = [adjusted[key] < 0.05 for key in mine]
        assert pytest.approx(np.median([old[key].mean() for key in mine])) == change.before
        assert pytest.approx(np.median([new[key].mean() for key in mine])) == change.after
        assert pytest.approx(np.median(moves)) == change.difference
        assert (len(mine), sum(move > 0 for move in moves)) == (change.num_cells, change.better[0])
        assert sum(is_sure and move > 0 for is_sure, move in zip(sure, moves, strict=True)) == change.better[1]
        assert (sum(move < 0 for move in moves), 0) == change.worse
        assert change.difference != pytest.approx(change.after - change.before)
    raw = sum(pair.p_value is not None and pair.p_value < 0.05 for pair in found.pairs)
    assert 0 < sum(change.better[1] for change in changes.values()) < raw
    tables = parts_of(results, Table)
    for row in tables[1].rows:
        change = changes[row[1]]
        wanted = [three_digits(change.before), three_digits(change.after), signed(change.difference)]
        wanted += list(map(str, (change.num_cells, *change.better, *change.worse)))
        assert wanted == list(row[2:])
    for row in tables[2].rows:
        template = next(name for name in TEMPLATES if name.endswith(f"/{row[1]}"))
        move = new[template, row[4]].mean() - old[template, row[4]].mean()
        assert signed(move) == row[7] and TEMPLATES[template] == row[2]
    assert [2, 2, len(keys)] == [len(table.rows) for table in tables]
    assert f"{len(keys)} cells before and after" == tables[2].fold
    (figure,) = parts_of(results, Figure)
    assert ["reviews"] == [panel.title for panel in figure.panels]


def test_what_was_gained_and_forgotten_stands_side_by_side(tmp_path: Path) -> None:
    """Perplexities with their factors, the corpora, and which weights they are."""
    results = made(tmp_path, mini_notes=facts(kept_step=10))
    texts = [part.text for part in parts_of(results, Paragraph)]
    assert texts[1] == (
        "mini-notes is mini after more masked-language-model pretraining on notes and news (weight 0.25): 4,000 tokens "
        "in 20 steps. The weights are those after step 10."
    )
    table = parts_of(results, Table)[0]
    assert ("held-out text of the domain", "16.0", "12.0", "0.750") == table.rows[0]
    assert ("general text", "40.0", "50.0", "1.25") == table.rows[1]
    assert "General text is predicted worse than before, by a factor of 1.25: that much was forgotten." == texts[2]


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ({"general text": {"before": 2.0, "after": 2.0}}, "no forgetting is seen in it"),
        ({"held-out text": {"before": 2.0, "after": 1.0}}, "No general text was measured, so the tasks alone show"),
    ],
)
def test_forgetting_is_said_as_it_was_measured(tmp_path: Path, losses: dict[str, Any], sentence: str) -> None:
    """Where general text is as before, and where none was measured."""
    results = made(tmp_path, mini_notes=facts(losses=losses))
    assert sentence in " ".join(part.text for part in parts_of(results, Paragraph))


def test_several_models_may_share_a_base(tmp_path: Path) -> None:
    """Each has a heading and tables of its own; how to read them stands once."""
    results = made(tmp_path, mini_notes=facts(), mini_other=facts())
    headings = [part.text for part in parts_of(results, Subheading)]
    assert ["mini-notes, from mini", "mini-other, from mini"] == headings
    assert 6 == len(parts_of(results, Table))
    assert 1 == sum("Both models answered the same rows" in part.text for part in parts_of(results, Paragraph))


def test_without_a_pair_there_is_no_section(tmp_path: Path) -> None:
    """Two models of which neither was made of the other, or whose base is not in the run."""
    for record in ({}, facts(base="of another")):
        document = make_document(made(tmp_path, mini_notes=record))
        assert "What adaptation changed" not in [section.title for section in document.sections]


def test_rows_without_gold_labels_are_compared_by_agreement(tmp_path: Path) -> None:
    """No metric, no test: how often both say the same."""
    results = made(tmp_path, is_labelled=False, mini_notes=facts())
    agreements = [
        float((right("mini", template, calibration) == right("mini-notes", template, calibration)).mean())
        for template in TEMPLATES
        for calibration in ("none", "contextual")
    ]
    wanted = f"{100 * np.median(agreements):.1f} % of the rows (median over 14 cells"
    assert wanted in parts_of(results, Paragraph)[-1].text
    assert 1 == len(parts_of(results, Table)) and [] == parts_of(results, Figure)


def test_decisions_that_are_gone_are_told(tmp_path: Path) -> None:
    """The report is written all the same, with the perplexities."""
    results = made(tmp_path, mini_notes=facts())
    for path in (tmp_path / "samples").iterdir():
        path.unlink()
    assert "The cells of the two cannot be compared: " in parts_of(results, Paragraph)[-1].text
    assert 1 == len(parts_of(results, Table))


def test_page_markdown_and_screen_tell_of_it(tmp_path: Path) -> None:
    """The section stands behind the headline, and the screen has one sentence."""
    results = made(tmp_path, mini_notes=facts())
    document: Document = make_document(results)
    assert ["asked", "headline", "adaptation", "templates"] == [section.anchor for section in document.sections][:4]
    assert "| general text | 40.0 | 50.0 | 1.25 |" in to_markdown(document)
    said = " ".join(line.strip() for line in summary_lines(results))
    old, new = (
        [
            right(model, *key).mean()
            for key in [
                (t, c) for t, kind in TEMPLATES.items() if kind == "instructive" for c in ("none", "contextual")
            ]
        ]
        for model in ("mini", "mini-notes")
    )
    better = sum(after > before for before, after in zip(old, new, strict=True))
    worse = sum(after < before for before, after in zip(old, new, strict=True))
    assert (
        "mini-notes, adapted from mini: perplexity of held-out text of the domain 16.0 to 12.0; perplexity of general "
        f"text 40.0 to 50.0; reviews better in {better} and worse in {worse} of 10 cells" in said
    )
