"""What a run found, as it is stored: one `Result` a cell, baselines a task, and the manifest that says what was run.

`results.json` carries a schema version; a number that could not be computed is null with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptlab.errors import StoreError
from promptlab.files import SCHEMA_VERSION, read_json, write_json, write_records
from promptlab.metrics import Measured

_FOREIGN = "is not what promptlab writes. Run the same command again."


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric with its interval."""

    value: float
    low: float
    high: float
    interval: str
    confidence: float
    higher_is_better: bool

    @classmethod
    def of(cls, measured: Measured) -> MetricValue:
        """The stored form of a measured metric."""
        interval = measured.interval
        return cls(
            value=measured.value,
            low=interval.low,
            high=interval.high,
            interval=interval.kind,
            confidence=interval.confidence,
            higher_is_better=measured.higher_is_better,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one cell: a block of scores under one decision rule.

    `mass` is the mean over rows of the probability that the label words have together; `prior` is p(y | content-free
    text) before calibration; `skipped` is the reason why nothing was decided, and then there are no metrics. An
    ensemble of templates is a cell too: `members` are the cells whose p(y | x) it averages. `samples` names the file
    below `samples/` that holds the decisions. `num_tokens` is the number of tokens of each word of a label, empty where
    every word is one token; words of several are scored by the rule `multi_token`, and `normalize` says whether the
    log-probabilities of their tokens were summed or averaged. `scoring` is `replaced_token` where a detector judged the
    words in place, and then there is no mass.

    What was had with labelled examples has their number a label, `num_shots`, and the number of the `draw`. `fit` says
    what was fitted: the setting, how it was chosen, parameters, steps and losses. A hard prompt that was chosen by the
    shots has `num_candidates`, the cells it was chosen among, and the chosen one as its only member.
    """

    cell: str
    block: str
    model: str
    task: str
    family: str
    split: str
    template: str
    template_tags: tuple[str, ...]
    verbalizer: str
    pool: str
    calibration: str
    labels: tuple[str, ...]
    num_rows: int
    num_unscored: int = 0
    num_truncated: int = 0
    num_near_ties: int = 0
    mass: float | None = None
    prior: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    skipped: str | None = None
    num_calibration_prompts: int = 0
    members: tuple[str, ...] = ()
    samples: str = ""
    scoring: str = "mask"
    multi_token: str = "refuse"
    normalize: str = "sum"
    num_tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    method: str = "zero_shot"
    num_shots: int | None = None
    draw: int | None = None
    num_candidates: int = 0
    fit: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two instructive templates predict the same label: mean over rows of the share of agreeing pairs."""

    model: str
    task: str
    split: str
    verbalizer: str
    calibration: str
    num_templates: int
    num_rows: int
    value: float
    low: float
    high: float
    interval: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score that needs no template: the share that a constant or a random guess gets right."""

    task: str
    split: str
    name: str
    metrics: Mapping[str, float]
    note: str


@dataclass(frozen=True, slots=True)
class RunResults:
    """A stored run: its zero-shot cells are `results`, and what was had with labelled examples is `few_shot`."""

    folder: Path
    manifest: Mapping[str, Any]
    results: tuple[Result, ...]
    baselines: tuple[Baseline, ...]
    timings: Mapping[str, Any]
    agreements: tuple[Agreement, ...] = ()
    few_shot: tuple[Result, ...] = ()

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return str(self.manifest["run"])

    def scored(self) -> list[Result]:
        """The cells that were decided and have metrics."""
        return [result for result in self.results if result.metrics]


def write_results(results: RunResults) -> None:
    """Store manifest, timings, and last of all cells, baselines and agreements, which make a run a finished one."""
    write_json(results.folder / "manifest.json", dict(results.manifest))
    write_json(results.folder / "timings.json", dict(results.timings))
    head = {"schema_version": SCHEMA_VERSION, "run": results.name}
    lists = {
        "cells": map(_plain, results.results),
        "baselines": map(_plain, results.baselines),
        "agreements": map(_plain, results.agreements),
        "few_shot": map(_plain, results.few_shot),
    }
    write_records(results.folder / "results.json", head, lists)


def as_json(results: RunResults) -> dict[str, Any]:
    """A run as plain values, for scripts: what `results.json` holds, where it lies, and what could not be scored."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": results.name,
        "path": str(results.folder),
        "cells": list(map(_plain, results.results)),
        "baselines": list(map(_plain, results.baselines)),
        "agreements": list(map(_plain, results.agreements)),
        "few_shot": list(map(_plain, results.few_shot)),
        "failures": dict(results.manifest.get("failures", {})),
    }


def read_results(folder: Path) -> RunResults:
    """The stored run of a folder.

    Raises:
        StoreError: the folder holds no finished run, or one of a newer promptlab.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder}: there is no such run folder. Runs lie under --output-path, by default results/.")
    if not (folder / "results.json").is_file():
        raise StoreError(f"{folder}: holds no finished run. The command of a run that was stopped finishes it.")
    stored = read_json(folder / "results.json")
    manifest, timings = (_object(folder / name) for name in ("manifest.json", "timings.json"))
    if "run" not in manifest:
        raise StoreError(f"{folder}/manifest.json: {_FOREIGN}")
    try:
        if stored.get("schema_version", 0) > SCHEMA_VERSION:
            raise StoreError(f"{folder}: was written by a newer promptlab (schema {stored['schema_version']}).")
        results = tuple(_result(cell) for cell in stored["cells"])
        baselines = tuple(Baseline(**baseline) for baseline in stored["baselines"])
        agreements = tuple(Agreement(**agreement) for agreement in stored.get("agreements", ()))
        few_shot = tuple(_result(cell) for cell in stored.get("few_shot", ()))
    except (AttributeError, KeyError, TypeError):
        raise StoreError(f"{folder}/results.json: {_FOREIGN}") from None
    return RunResults(folder, manifest, results, baselines, timings, agreements, few_shot)


def _plain(value: Result | Baseline | Agreement) -> dict[str, Any]:
    """A result as plain values: what `dataclasses.asdict` gives, without copying every number of thousands of cells."""
    plain = {name: getattr(value, name) for name in value.__slots__}
    if isinstance(value, Result):
        plain["metrics"] = {
            name: {key: getattr(one, key) for key in one.__slots__} for name, one in value.metrics.items()
        }
    return plain


def _object(path: Path) -> dict[str, Any]:
    """The keys and values of a JSON file."""
    stored = read_json(path)
    if not isinstance(stored, dict):
        raise StoreError(f"{path}: {_FOREIGN}")
    return stored


def _result(cell: dict[str, Any]) -> Result:
    metrics = {name: MetricValue(**value) for name, value in cell.pop("metrics").items()}
    for name in ("template_tags", "labels", "members"):
        cell[name] = tuple(cell.get(name, ()))
    cell["num_tokens"] = {label: tuple(numbers) for label, numbers in cell.get("num_tokens", {}).items()}
    return Result(**cell, metrics=metrics)
