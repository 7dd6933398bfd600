"""`python -m benchmarks.medical --data DIR --model mini --model mini-medical`: a medical task before and after.

The four science groups of 20 Newsgroups (medicine, space, electronics, cryptography), by every shipped topic template
and three verbalizers, on the test rows and on the same rows for both models: the median accuracy over instructive
templates, the median F1 of `medicine`, and the paired change of each cell with Holm's p-value. No text is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

import promptlab as pl

GROUPS = {"sci.med": "medicine", "sci.space": "space", "sci.electronics": "electronics", "sci.crypt": "cryptography"}
VERBALIZERS = (
    {"medicine": "medicine", "space": "space", "electronics": "electronics", "cryptography": "encryption"},
    {"medicine": "health", "space": "nasa", "electronics": "circuit", "cryptography": "security"},
    {
        "medicine": ["medical", "disease"],
        "space": ["space", "nasa"],
        "electronics": ["electronic", "circuit"],
        "cryptography": ["encryption", "security"],
    },
)
TASK = """
title: Twenty Newsgroups, the four science groups
family: topic
kind: classification
labels: [medicine, space, electronics, cryptography]
sources:
  - files: {train: train.jsonl, test: test.jsonl}
    fields: {text: "subject ~ ' ' ~ text", title: subject, body: text}
    label: {column: label}
metrics: [accuracy, macro_f1]
language: en
license: "none stated"
citation: "Lang 1995"
version: 1
"""


def main() -> None:
    """Score both models, compare, print and write."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        run = pl.run(
            tasks=str(_make_task(Path(options.data), Path(folder))), templates="topic/*", verbalizers=[*VERBALIZERS],
            models=options.model, calibrations=("none", "contextual"), metrics=["f1(medicine)"], max_length=256,
            output_path=Path(folder) / "runs", name="medical", quiet=True,
        )  # fmt: skip
        found = _describe(run, *options.model)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.medical", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of the tasks' rows")
    parser.add_argument("--model", action="append", required=True, help="twice: before and after")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/medical.json"))
    options = parser.parse_args()
    if len(options.model) != 2:
        parser.error("--model is given twice: before and after")
    return options


def _make_task(data: Path, folder: Path) -> Path:
    """The rows of the four groups under our names for them, and the task that reads them."""
    for split in ("train", "test"):
        lines = (data / "20newsgroups" / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        kept = [{**row, "label": GROUPS[row["label"]]} for row in rows if row["label"] in GROUPS]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    (folder / "science.yaml").write_text(TASK, encoding="utf-8")
    return folder / "science.yaml"


def _describe(run: Any, before: str, after: str) -> dict[str, Any]:
    cells = run.to_pandas()
    cells = cells[(cells["kind"] == "instructive") & cells["skipped"].isna()]
    found: dict[str, Any] = {"rows": int(cells["num_rows"].iloc[0]), "models": [Path(before).name, Path(after).name]}
    for calibration in ("none", "contextual"):
        mine = cells[cells["calibration"] == calibration]
        compared = pl.compare(run, run, model=(before, after), calibration=calibration).to_pandas()
        templates = set(mine["template"])
        compared = compared[compared["template"].isin(templates)]
        found[calibration] = {
            "accuracy": [_median(mine, model, "accuracy") for model in (before, after)],
            "f1(medicine)": [_median(mine, model, "f1(medicine)") for model in (before, after)],
            "cells": len(compared),
            "better": int((compared["difference"] > 0).sum()),
            "worse": int((compared["difference"] < 0).sum()),
            "told_apart": int((compared["p_adjusted"] < 0.05).sum()),
            "median_change": round(float(compared["difference"].median()), 4),
        }
    return found


def _median(cells: pd.DataFrame, model: str, metric: str) -> float:
    return round(float(cells[cells["model"] == model][metric].median()), 4)


if __name__ == "__main__":
    main()
