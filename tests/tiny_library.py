"""A library of two tasks with few rows, for tests of plans and runs: `--include` it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promptlab.specs.run import RunSpec

TEXTS = (
    ("great film and a good book", "positive"),
    ("terrible play , it was awful", "negative"),
    ("the food tasted wonderful", "positive"),
    ("nothing was fine , everything was bad", "negative"),
    ("a good day in all the world", "positive"),
    ("an awful day and a terrible book", "negative"),
)
PAIRS = (
    ("the team won", "the team won again", "yes"),
    ("the market rose", "the market was bad", "no"),
    ("it was an awful day", "the day was bad", "yes"),
    ("it was a great film", "it was a terrible film", "no"),
)
TASK = """
title: {title}
family: {family}
kind: classification
labels: [{labels}]
sources:
  - bundled: data/{name}
    splits: {{train: train, test: test}}
    fields: {{{fields}}}
    label: {{column: label}}
metrics: [accuracy, macro_f1]
language: en
license: Apache-2.0
citation: "rows of the tests"
version: 1
"""
TEMPLATES = {
    "opinions/it_was": "{{ text }} It was {{ mask }}.",
    "opinions/in_brackets": "{{ text }} ({{ mask }})",
    "opinions/with_options": "{{ text }} {{ options | join(' or ') }}? {{ mask }}.",
    "opinions/drawn": "{{ text }} {{ ['It', 'All'] | choice }} was {{ mask }}.",
    "opinions/null": '---\nfields: [text]\ntags: ["null"]\n---\n{{ text }} {{ mask }}',
    "pairs/question": "{{ premise }}?{{ sep }} {{ mask }}, {{ hypothesis }}",
}
VERBALIZERS = {
    "opinions/great_terrible": {"negative": "terrible", "positive": "great"},
    "opinions/good_bad": {"negative": "bad", "positive": "good"},
    "opinions/splits": {"negative": "badness", "positive": "good"},
    "pairs/yes_no": {"no": "no", "yes": "yes"},
}


def write_library(folder: Path) -> Path:
    """Write tasks, templates and verbalizers into the folder."""
    _write_task(folder, "views", "opinions", "negative, positive", "text: text")
    _write_task(folder, "follows", "pairs", "no, yes", "premise: premise, hypothesis: hypothesis")
    texts = [{"text": text, "label": label} for text, label in TEXTS]
    pairs = [dict(zip(("premise", "hypothesis", "label"), row, strict=True)) for row in PAIRS]
    for name, rows in (("views", texts), ("follows", pairs)):
        for split in ("train", "test"):
            write_text(folder / "tasks" / "data" / name / f"{split}.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    for name, text in TEMPLATES.items():
        write_text(folder / "templates" / f"{name}.jinja", text + "\n")
    for name, labels in VERBALIZERS.items():
        lines = [f'  {json.dumps(label)}: ["{word}"]' for label, word in labels.items()]
        write_text(folder / "verbalizers" / f"{name}.yaml", "labels:\n" + "\n".join(lines) + "\n")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_task(folder: Path, name: str, family: str, labels: str, fields: str) -> None:
    text = TASK.format(title=f"Test task {name}", name=name, family=family, labels=labels, fields=fields)
    write_text(folder / "tasks" / f"{name}.yaml", text)


def spec_of(library: Path, **changes: Any) -> RunSpec:
    """A run over the opinions of the tiny library."""
    values: dict[str, Any] = {
        "tasks": "views", "templates": "opinions/it_was", "verbalizers": "opinions/great_terrible",
        "calibrations": "none", "include": str(library),
    }  # fmt: skip
    return RunSpec(**{**values, **changes})
