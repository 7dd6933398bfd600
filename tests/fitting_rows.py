"""A task of the user's own with shots that are apart from its test rows, and what fits a method to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promptlab.tuning import PlannedTuning, plan_tuning
from tests.end_to_end.terminal import write_moods

ROWS = [("the room was cold", 0), ("a fine song", 1), ("they lost", 0), ("he won", 1), ("no fun", 0), ("so happy", 1)]


def write_train_rows(moods: Path) -> None:
    """Three rows of each label that are not test rows, and one that is."""
    rows = [*ROWS, ("a fine day", 1)]
    text = "".join(json.dumps({"sentence": sentence, "label": label}) + "\n" for sentence, label in rows)
    (moods / "data" / "moods" / "train.jsonl").write_text(text, encoding="utf-8")


def write_own(root: Path) -> Path:
    """The folder for `--include` and `--data`."""
    moods = write_moods(root)
    write_train_rows(moods)
    return moods


def planned_fit(moods: Path, model: Path, method: str, **options: Any) -> PlannedTuning:
    """A short fit of a method to two rows a label."""
    keys = {name: options.pop(name) for name in ("draw", "template", "verbalizer", "shots") if name in options}
    rest = {
        "include": [str(moods)],
        "data": str(moods / "data"),
        "device": "cpu",
        "selection": "default",
        "settings": {"steps": "3"},
        "skip_preflight": True,
        **options,
    }
    return plan_tuning(task="moods", method=method, model=str(model), options=rest, **{"shots": 2, **keys})
