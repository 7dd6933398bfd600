"""Stored run -> a flat table with one row a cell, as a data frame and as CSV; few-shot results stand behind the cells.

Columns are plain values; a number that there is none of is empty, with the reason in `skipped`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from promptlab.reporting.spreads import kind_of, make_grids, most_likely, most_predicted
from promptlab.results import Result, RunResults
from promptlab.store import RunStore

if TYPE_CHECKING:
    import pandas

Value = str | int | float | None

_NAMES = ("model", "task", "template", "verbalizer", "calibration", "method", "num_shots", "draw")
COUNTS = ("num_rows", "num_unscored", "num_truncated", "num_near_ties")


def to_frame(results: RunResults) -> pandas.DataFrame:
    """One row a cell; `accuracy`, `accuracy_low` and `accuracy_high` and so on for every metric."""
    import pandas

    return pandas.DataFrame(list(cell_rows(results)), columns=columns(results))


def prediction_frame(results: RunResults) -> pandas.DataFrame:
    """One row a decision of every decided cell, read back from the samples; no text of rows is stored."""
    import pandas

    store, frames = RunStore(results.folder), []
    for cell in (cell for cell in _cells(results) if cell.samples):
        table = store.read_samples(cell.samples, cell.cell)
        frame = table.drop_columns(["cell", "log_probabilities", "log_mass"]).to_pandas()
        log_probabilities = table["log_probabilities"].to_pylist()
        for number, label in enumerate(cell.labels):
            frame[f"p_{label}"] = [None if row is None else math.exp(row[number]) for row in log_probabilities]
        frame["mass"] = [None if value is None else math.exp(value) for value in table["log_mass"].to_pylist()]
        names = {name: getattr(cell, name) for name in _NAMES}
        frames.append(frame.assign(**names))
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()


def to_csv(results: RunResults) -> str:
    """The same table as CSV, with a header."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns(results), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cell_rows(results))
    return stream.getvalue()


def columns(results: RunResults) -> list[str]:
    """Names of the columns: what names the cell, its metrics, then counts."""
    names = ["run", "cell", "block", "model", "task", "family", "split", "template", "kind", "verbalizer", "pool"]
    names += ["multi_token", "normalize", "num_tokens", "scoring", "calibration"]
    names += ["method", "num_shots", "draw"]
    for metric in metric_names(results):
        names += [metric, f"{metric}_low", f"{metric}_high", f"{metric}_interval"]
    names += ["mass", "prior_label", "prior", "predicted_label", "predicted_share"]
    return [*names, *COUNTS, "num_calibration_prompts", "num_members", "num_candidates", "skipped"]


def metric_names(results: RunResults) -> list[str]:
    """Metrics that any cell has: headline metrics first, then the others by name."""
    headline = [grid.metric for grid in make_grids(results) if grid.metric]
    others = sorted({name for cell in _cells(results) for name in cell.metrics})
    return list(dict.fromkeys([*headline, *others]))


def cell_rows(results: RunResults) -> list[Mapping[str, Value]]:
    """One mapping a cell, by column."""
    metrics = metric_names(results)
    return [{"run": results.name, **_row(cell, metrics)} for cell in _cells(results)]


def _cells(results: RunResults) -> list[Result]:
    """The zero-shot cells, and then what was had with labelled examples."""
    return [*results.results, *results.few_shot]


def _row(cell: Result, metrics: list[str]) -> dict[str, Value]:
    row: dict[str, Value] = {
        "cell": cell.cell,
        "block": cell.block,
        "model": cell.model,
        "task": cell.task,
        "family": cell.family,
        "split": cell.split,
        "template": cell.template,
        "kind": "chosen" if cell.num_candidates else "ensemble" if cell.members else kind_of(cell),
        "verbalizer": cell.verbalizer,
        "pool": cell.pool,
        "multi_token": cell.multi_token,
        "normalize": cell.normalize,
        "num_tokens": _num_tokens(cell),
        "scoring": cell.scoring,
        "calibration": cell.calibration,
        "method": cell.method,
        "num_shots": cell.num_shots,
        "draw": cell.draw,
        "mass": cell.mass,
        "skipped": cell.skipped,
        "num_calibration_prompts": cell.num_calibration_prompts,
        "num_members": 0 if cell.num_candidates else len(cell.members),
        "num_candidates": cell.num_candidates,
        **{name: getattr(cell, name) for name in COUNTS},
    }
    for name in metrics:
        value = cell.metrics.get(name)
        row[name] = value.value if value else None
        row[f"{name}_low"] = value.low if value else None
        row[f"{name}_high"] = value.high if value else None
        row[f"{name}_interval"] = f"{value.interval} {value.confidence:g}" if value else None
    return row | _labels(cell)


def _num_tokens(cell: Result) -> str:
    """How many tokens the words of a label have: `1`, or `1-3` where they differ."""
    numbers = [number for several in cell.num_tokens.values() for number in several] or [1]
    return str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)}-{max(numbers)}"


def _labels(cell: Result) -> dict[str, Value]:
    """The likeliest label of the content-free texts and the one predicted most."""
    likely = most_likely(cell) if cell.prior else (None, None)
    predicted = most_predicted(cell) or (None, None)
    return {
        "prior_label": likely[0],
        "prior": likely[1],
        "predicted_label": predicted[0],
        "predicted_share": predicted[1],
    }
