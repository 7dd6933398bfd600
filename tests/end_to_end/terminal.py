"""What the end-to-end tests share: what a command said, and a folder of tasks of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

TASK = """\
title: Moods
family: mood
kind: classification
labels: [bad, good]
sources:
  - local: {folder}
    splits: {{train: train, test: test, empty: empty}}
    fields: {{text: sentence}}
    label: {{column: label, values: {{0: bad, 1: good}}}}
language: en
license: own
citation: none
version: 1
"""
SENTENCES = ("the food was cold", "a fine day", "we lost", "she won again", "the market fell", "what a happy song")


class Said(NamedTuple):
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


def assert_fault(said: Said, code: int, *parts: str) -> None:
    """One explained fault: the exit code, every part in the text, whole sentences, no traceback."""
    assert said.code == code, said
    assert "Traceback" not in said.err
    sentences = said.err[said.err.index("error: ") :].rstrip("\n")
    assert all(line.endswith((".", ":", "?", "-safetensors")) for line in sentences.splitlines()), sentences
    for part in parts:
        assert part in sentences


def write_moods(root: Path) -> Path:
    """A folder for --include and --data: one task with twelve test rows, two templates, two verbalizers."""
    files = {
        "tasks/moods.yaml": TASK.format(folder="moods"),
        "templates/mood/it_was.jinja": "{{ text }} It was {{ mask }}.\n",
        "templates/mood/all_in_all.jinja": "{{ text }} All in all, it was {{ mask }}.\n",
        "verbalizers/mood/great_terrible.yaml": "labels: {bad: [terrible], good: [great]}\n",
        "verbalizers/mood/yes_no.yaml": "labels: {bad: [no], good: [yes]}\n",
    }
    rows = [f'{{"sentence": "{text}{more}", "label": {index % 2}}}\n'
            for more in ("", " today") for index, text in enumerate(SENTENCES)]  # fmt: skip
    files |= {"data/moods/test.jsonl": "".join(rows), "data/moods/train.jsonl": "".join(rows[:6])}
    files |= {"data/moods/empty.jsonl": ""}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root
