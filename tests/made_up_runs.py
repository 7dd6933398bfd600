"""Stored runs made of made-up numbers, for tests of what is read off them; no model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptlab.results import Agreement, Baseline, MetricValue, Result, RunResults

LABELS = ("negative", "positive")
TEMPLATES = {"made/it_was": "instructive", "made/just": "instructive", "made/why": "irrelevant", "made/null": "null"}


def metric(value: float, half: float = 0.05) -> MetricValue:
    """A metric with an interval of the given half width."""
    return MetricValue(value, value - half, value + half, "wilson", 0.95, True)


def cell(template: str, verbalizer: str = "made/good_bad", calibration: str = "none", **changed: Any) -> Result:
    """A decided cell of 100 rows."""
    values: dict[str, Any] = {
        "cell": f"{template} {verbalizer} {calibration}",
        "block": template,
        "model": "mini",
        "task": "reviews",
        "family": "made",
        "split": "test",
        "template": template,
        "template_tags": (TEMPLATES.get(template, "instructive"),),
        "verbalizer": verbalizer,
        "pool": "mean_logprob",
        "calibration": calibration,
        "labels": LABELS,
        "num_rows": 100,
        "mass": 0.25,
        "prior": {"negative": 0.3, "positive": 0.7},
        "predicted": {"negative": 40, "positive": 60},
        "metrics": {"accuracy": metric(0.5)},
    }
    return Result(**(values | changed))


def ensemble(name: str, verbalizer: str = "made/good_bad", calibration: str = "none", **changed: Any) -> Result:
    """A decided ensemble of two templates."""
    values: dict[str, Any] = {"template_tags": ("ensemble",), "members": ("one", "other"), "prior": {}}
    return cell(f"ensemble:{name}", verbalizer, calibration, **(values | changed))


def agreement(verbalizer: str = "made/good_bad", calibration: str = "none", value: float = 0.8) -> Agreement:
    """How far two templates agree on 100 rows."""
    names = {"model": "mini", "task": "reviews", "split": "test", "verbalizer": verbalizer, "calibration": calibration}
    ends = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return Agreement(**names, **ends, num_templates=2, num_rows=100, interval="t", confidence=0.95)


def run(
    cells: Sequence[Result],
    folder: Path = Path("made_up"),
    *,
    gold: Mapping[str, int] | None = None,
    templates: Mapping[str, str] | None = None,
    seconds: float = 1.5,
    verified: bool = True,
) -> RunResults:
    """A run of those cells on the task `reviews`, with its manifest and baselines."""
    task: dict[str, Any] = {
        "hash": "aa" * 16,
        "rows": "bb" * 16,
        "split": "test",
        "num_rows": 100,
        "num_in_source": 100,
        "source": {"kind": "hub", "path": "made/reviews", "verified": verified},
        "metrics": ["accuracy"],
    }
    if gold is not None:
        task["gold_counts"] = dict(gold)
    texts = templates or {item.template: "{{ text }} It was {{ mask }}." for item in cells}
    manifest = {
        "run": "made_up",
        "seed": 7,
        "command": "promptlab run --name made_up",
        "models": [{"model": "mini", "architecture": "TinyForMaskedLM", "weights": "cc", "ran": {"num_threads": 1}}],
        "tasks": {"reviews": task},
        "templates": {
            name: {"hash": "dd", "tags": ["instructive"], "text": text, "reference": None}
            for name, text in texts.items()
        },
        "verbalizers": {
            "made/good_bad": {"hash": "ee", "pool": "mean_logprob", "labels": {"positive": ["good"]}, "reference": None}
        },
        "versions": {"promptlab": "0.1.0", "git": None},
    }
    baselines = (
        Baseline("reviews", "test", "uniform", {"accuracy": 0.5}, "a random guess"),
        Baseline("reviews", "test", "majority_train", {"accuracy": 0.45}, "always 'positive', most frequent in train"),
        Baseline("reviews", "test", "majority_test", {"accuracy": 0.55}, "always 'negative', an oracle"),
    )
    timings = {"seconds": {"total": seconds}, "forwards": 3, "prompts": 100, "tokens": 2000}
    return RunResults(folder, manifest, tuple(cells), baselines, timings)


def grid_cells() -> list[Result]:
    """Four templates x two verbalizers x two calibrations, every accuracy another one; one verbalizer pair skipped."""
    cells = []
    for number, template in enumerate(TEMPLATES):
        for verbalizer in ("made/good_bad", "made/great_terrible"):
            for calibration in ("none", "contextual"):
                value = 0.40 + 0.04 * number + 0.01 * (verbalizer != "made/good_bad") + 0.02 * (calibration != "none")
                cells.append(cell(template, verbalizer, calibration, metrics={"accuracy": metric(value)}))
    lost = {"metrics": {}, "mass": None, "prior": {}, "predicted": {}}
    reason = "verbalizers/made/odd.yaml with templates/made/just.jinja: label word 'odd' splits into 2 tokens."
    skipped = [cell("made/just", "made/odd", name, skipped=reason, **lost) for name in ("none", "contextual")]
    return cells + skipped
