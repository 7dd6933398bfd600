"""The methods of the page "Add a method of your own": registered by name and by entry point, and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import promptlab as pl
from promptlab.registry import METHODS
from tests.contract import test_methods as promises

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add_a_method.md"
ROWS = [("the room was cold", 0), ("a fine song", 1), ("they lost", 0), ("he won", 1)]
NAMES = ("last_layer", "label_bias")


@pytest.fixture(autouse=True)
def _names_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    METHODS.names()
    monkeypatch.setattr(METHODS, "_targets", dict(METHODS._targets))


def sources() -> dict[str, str]:
    """The code of each method of the page, without the run that shows it."""
    code = re.findall(r"^```python\n(.*?)^run = pl\.run\(", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(zip(NAMES, code, strict=True))


def define(name: str) -> pl.Method:
    """A method of the page, registered by its decorator."""
    exec(compile(sources()[name], str(PAGE), "exec"), {})
    found: pl.Method = METHODS.get(name)()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_page_keeps_what_every_method_promises(name: str, backends: dict[str, Any]) -> None:
    """Same seed, same numbers; batches do not matter; stored tensors answer as the fit did; the model comes back."""
    pair = define(name), backends["modernbert"]
    assert pair[0].refusal(pair[1]) is None
    promises.test_fit_changes_the_answers_and_detaching_takes_it_back(pair)
    promises.test_same_seed_gives_the_same_numbers(pair)
    promises.test_answers_are_the_same_alone_and_in_a_batch(pair)
    promises.test_loaded_tensors_answer_as_the_fit_did(pair)
    promises.test_tensors_of_another_shape_are_refused(pair)


def test_a_method_refuses_by_its_own_sentence(backends: dict[str, Any]) -> None:
    """What `refusal` says is what the user reads."""
    assert "last_layer knows ModernBERT alone." == define("last_layer").refusal(backends["bert"])


def test_a_registered_method_is_run_searched_and_set(
    moods: Path, tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is taken by a run, its options by settings, its grid by the search; its fit stands in the results."""
    monkeypatch.chdir(tmp_path)
    define("label_bias")
    rows = "".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in ROWS)
    (moods / "data" / "moods" / "train.jsonl").write_text(rows, encoding="utf-8")
    options: dict[str, Any] = {
        "tasks": "moods", "templates": "mood/it_was", "verbalizers": "mood/great_terrible", "models": tiny["bert"],
        "include": moods, "data": moods / "data", "output_path": tmp_path / "runs", "device": "cpu",
        "methods": "label_bias", "shots": 2, "seeds": 1,
    }  # fmt: skip
    (searched,) = pl.run(**options, folds=2).stored.few_shot
    assert ("label_bias", "cross_validation") == (searched.method, searched.fit["rule"])
    assert [{"strength": 1.0}, {"strength": 0.5}] == [one["options"] for one in searched.fit["grid"]]
    assert (2 * 4, 4) == (searched.fit["selection_passes"], searched.fit["example_passes"])  # two settings, two folds
    (set_by_hand,) = pl.run(**options, settings={"label_bias.strength": "0.25"}).stored.few_shot
    assert {"strength": 0.25} == set_by_hand.fit["setting"]["options"]


def test_a_package_announces_a_method_by_an_entry_point(tmp_path: Path) -> None:
    """A fresh program that has the package installed lists the method, and gets the class."""
    (tmp_path / "my_package.py").write_text(
        sources()["last_layer"].replace('@pl.register("method", "last_layer")\n', ""), encoding="utf-8"
    )
    installed = tmp_path / "my_package-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n", encoding="utf-8")
    announced = "[promptlab.methods]\nlast_layer = my_package:LastLayer\n"
    (installed / "entry_points.txt").write_text(announced, encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(PAGE.parents[2])])
    command = [sys.executable, "-m", "promptlab", "ls", "methods"]
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert 0 == said.returncode, said.stderr
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("last_layer "))
    assert line.endswith("Moves the weights of the last layer.")


def test_a_kind_that_cannot_be_registered_is_explained() -> None:
    """The kinds are named, methods among them."""
    with pytest.raises(pl.PromptlabError) as fault:
        pl.register("methods", "mine")
    known = "backend, calibration, method, metric"
    assert f"register: there is no kind 'methods'. Did you mean 'method'? Known: {known}." == str(fault.value)
