"""Records of adapted models, and which model of a run was made of which."""

import json
from pathlib import Path
from typing import Any

import pytest

from promptlab.adaptations import Losses, find_adaptations, read_adaptation

RECORD: dict[str, Any] = {
    "base": {"name": "mini", "model": "mini", "weights_hash": "base", "tokenizer_hash": "t"},
    "result": {"weights_hash": "mine", "tokenizer_hash": "t"},
    "corpora": [{"name": "notes", "weight": 0.5, "sha256": "c"}],
    "options": {"model": "mini", "secret_path": "/home/me"},
    "seed": 1,
    "steps": 20,
    "kept_step": 10,
    "tokens": 4000,
    "seconds": 2.5,
    "num_measured_tokens": 99,
    "measured": {"held-out text": {"before": 3.0, "after": 2.0}},
}


def write(folder: Path, text: str) -> Path:
    """A model's folder with that record."""
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "adaptation.json").write_text(text)
    return folder


def facts(base: str) -> dict[str, Any]:
    """What a run keeps of a record."""
    return {
        "base": {"name": "a name that does not count", "weights": base},
        "corpora": [{"name": "notes", "weight": 1.0}],
        "losses": {"held-out text": {"before": 3.0, "after": 2.0}},
        "seed": 1,
        "steps": 20,
        "kept_step": 20,
        "tokens": 4000,
        "num_measured_tokens": 99,
    }


def test_a_run_keeps_names_counts_and_losses(tmp_path: Path) -> None:
    """What the report tells is there, and no option that could hold a path."""
    found = read_adaptation(write(tmp_path, json.dumps(RECORD)), weights_hash="mine")
    assert {
        "base": {"name": "mini", "weights": "base"},
        "corpora": [{"name": "notes", "weight": 0.5}],
        "losses": {"held-out text": {"before": 3.0, "after": 2.0}},
        "seed": 1,
        "steps": 20,
        "kept_step": 10,
        "tokens": 4000,
        "num_measured_tokens": 99,
    } == found


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**RECORD, "result": {"weights_hash": "of other weights"}}),
        json.dumps({key: value for key, value in RECORD.items() if key != "result"}),
        json.dumps({**RECORD, "tokens": "many"}),
        json.dumps({**RECORD, "measured": None}),
        json.dumps(["a list"]),
        "{cut short",
    ],
)
def test_a_record_of_other_weights_or_none_of_ours_does_not_count(tmp_path: Path, text: str) -> None:
    """The model is then one like any other, and a run with it goes on."""
    assert read_adaptation(write(tmp_path, text), weights_hash="mine") is None


def test_a_model_without_a_record_was_not_adapted_here(tmp_path: Path) -> None:
    """Nor was one that lies nowhere on the disk."""
    assert read_adaptation(tmp_path, weights_hash="mine") is None
    assert read_adaptation(None, weights_hash="mine") is None


def test_a_base_is_known_by_its_weights() -> None:
    """Two models of one base, a chain, and a model whose base is not in the run."""
    models = [
        {"model": "first", "weights": "a", "adaptation": facts("b")},
        {"model": "base", "weights": "b"},
        {"model": "second", "weights": "c", "adaptation": facts("b")},
        {"model": "third", "weights": "d", "adaptation": facts("c")},
        {"model": "stray", "weights": "e", "adaptation": facts("not here")},
    ]
    found = find_adaptations({"models": models})
    assert [("base", "first"), ("base", "second"), ("second", "third")] == [(one.base, one.adapted) for one in found]
    assert {"notes": 1.0} == found[0].corpora and {"held-out text": Losses(3.0, 2.0)} == found[0].losses
    assert [] == find_adaptations({}) == find_adaptations({"models": models[1:2]})
