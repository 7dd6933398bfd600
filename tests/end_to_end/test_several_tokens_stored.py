"""Words of several tokens in stored runs: grown, amended, read in windows, decided again, written by older versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab import preparing, scoring
from promptlab.blocks import BlockStore
from promptlab.errors import UsageError
from promptlab.files import read_table, write_json, write_table
from promptlab.harness import Silence, execute
from promptlab.rescoring import rescore
from promptlab.results import RunResults
from promptlab.specs.run import RunSpec
from promptlab.specs.verbalizer import Verbalizer
from tests.stored import by_row, decisions
from tests.tiny_library import write_library, write_text

LONG = {"negative": ["badness", "terrible"], "positive": ["goodness"]}
PAIRED = {"negative": "badness + no", "positive": "good + yes"}
TWO_MASKS = "{{ text }} It was {{ mask }}, {{ mask }}."
Run = Callable[..., RunResults]


def words(rule: str, labels: dict[str, Any] = LONG, **more: Any) -> Verbalizer:
    return Verbalizer.from_labels(labels, multi_token=rule, name=more.pop("name", f"w-{rule}"), **more)  # type: ignore[arg-type]  # a rule


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


@pytest.fixture
def run(library: Path, tiny: dict[str, Path], tmp_path: Path) -> Run:
    """A run on the tiny views; what is asked for may be changed."""

    def made(**changes: Any) -> RunResults:
        options = {name: changes.pop(name) for name in ("amend", "progress") if name in changes}
        values: dict[str, Any] = {
            "models": str(tiny["bert"]), "tasks": "views", "templates": ("opinions/it_was",), "calibrations": "none",
            "include": str(library), "device": "cpu", "name": "run", "output_path": str(tmp_path / "runs"),
            "skip_preflight": True,
        }  # fmt: skip
        return execute(RunSpec(**{**values, **changes}), **options)

    return made


def assert_same_decisions(found: RunResults, expected: RunResults) -> None:
    """Every cell of the second run is in the first, with the same numbers row by row to the tolerance of batches."""
    ours, theirs = decisions(found), decisions(expected)
    assert theirs and set(theirs) <= set(ours)
    for cell, columns in theirs.items():
        of_row = by_row(ours[cell], "log_probabilities")
        for row, numbers in by_row(columns, "log_probabilities").items():
            np.testing.assert_allclose(of_row[row], numbers, atol=2e-5, rtol=0)


def test_an_amended_run_scores_what_is_new_alone(run: Run, tmp_path: Path) -> None:
    """More rules, more words and more rows cost their own fills, and end as a fresh run of all of them."""
    rules = [words("left_to_right"), words("pet")]
    first = run(verbalizers=rules[:1], limit="first:3")
    more = run(verbalizers=rules, limit="first:3", amend=True)
    grown = run(verbalizers=rules, calibrations=("none", "contextual"), amend=True)
    fresh = run(verbalizers=rules, calibrations=("none", "contextual"), output_path=str(tmp_path / "fresh"))
    assert_same_decisions(grown, fresh)
    steps = [one.timings["prompts"] for one in (first, more, grown)]
    assert all(0 < step < fresh.timings["prompts"] for step in steps)


class Record(Silence):
    """Remembers how many prompts were announced and how many are done."""

    def __init__(self) -> None:
        self.announced = self.done = 0
        self.steps: list[int] = []
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        """Keep it."""
        self.said.append(sentence)

    def start(self, name: str, num_prompts: int) -> None:
        """Count them."""
        self.announced += num_prompts

    def advance(self, num_prompts: int) -> None:
        """Count them."""
        self.done += num_prompts
        self.steps.append(num_prompts)


@pytest.mark.parametrize(("rule", "number"), [("left_to_right", 11), ("pet", 11)])
def test_progress_ends_at_what_was_announced(run: Run, rule: str, number: int) -> None:
    """Of fills that hang on scores a plan knows the largest number alone: at the end they are all told as done."""
    record = Record()
    labels = {"negative": ["badness", "goodness"], "positive": ["worldness", "sportsness", "techness"]}
    run(verbalizers=[words(rule, labels)], progress=record, batch_size=3)
    assert 0 < record.announced == record.done
    assert record.steps.count(3) > record.announced / 12
    number *= 2 * (6 + 3)  # two templates, six rows and three content-free texts
    said = f"words of several tokens ask about {number} filled prompts at most, a forward pass each."
    assert any(sentence.endswith(said) for sentence in record.said)


def test_a_template_without_a_usable_word_costs_its_own_cells(run: Run, detectors: dict[str, Path]) -> None:
    """A detector has nothing to score with it; its rows are stored all the same, and its cells say why they are not."""
    found = run(
        models=str(detectors["electra"]), scoring="replaced_token", verbalizers="opinions/g*",
        templates=("opinions/it_was", "{{ text }} It was {{ mask }}{% if true %} and {{ mask }}{% endif %}."),
    )  # fmt: skip
    asked = {one.template: one for one in found.results if not one.template.endswith("/null")}
    assert [True, False] == [one.skipped is None for one in asked.values()]
    assert "stands for one mask, the template has 2" in str([*asked.values()][1].skipped)


def test_windows_and_plans_change_no_number(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills are planned window by window and in plans of a fixed size; what is stored is read once for all windows."""
    rules = [words("left_to_right"), words("pet"), words("independent")]
    whole = run(verbalizers=rules)
    reads, read = [0], BlockStore.read

    def counting(store: BlockStore) -> Any:
        reads[0] += 1
        return read(store)

    monkeypatch.setattr(BlockStore, "read", counting)
    for window, plan in ((100, 16384), (2, 5)):
        monkeypatch.setattr(preparing, "WINDOW", window)
        monkeypatch.setattr(scoring, "FILLS_PER_PLAN", plan)
        reads[0] = 0
        cut = run(verbalizers=rules, output_path=str(tmp_path / f"windows-{window}"))
        assert_same_decisions(cut, whole)
        assert whole.timings["prompts"] == cut.timings["prompts"]
        num_reads = reads[0] if window == 100 else num_reads
        assert num_reads == reads[0]


def test_rescoring_looks_at_the_prompts_of_calibrations_too(run: Run) -> None:
    """A prior from the few prompts whose fills happen to be there is no prior: it is refused."""
    found = run(verbalizers=[words("left_to_right")], calibrations="contextual")
    for folder in (path.parent for path in (found.folder / "blocks").glob("*/block.json")):
        store = BlockStore(folder)
        (name,) = (path.stem for path in folder.glob("calibration-*-reserve2.parquet"))
        lost = {key.decode() for key in store.read_rows(name).rows.keys[:1]}
        for path in folder.glob("fills-*.parquet"):
            table, metadata = read_table(path)
            kept = table.filter([key not in lost for key in table["prompt_key"].to_pylist()])
            write_table(path, dict(zip(kept.column_names, kept.columns, strict=True)), metadata)
    with pytest.raises(UsageError, match=r"verbalizer 'w-left_to_right' asks about words of several tokens that run"):
        rescore(found.folder, metrics=["brier"])


def test_rescoring_passes_over_words_that_are_skipped_anyway(run: Run, library: Path) -> None:
    """A verbalizer that cannot be used asks for no scores: its cells stay skipped and the others are decided."""
    for name, other in (("alike", "goodness, sportsness"), ("apart", "worldness")):
        text = f"labels:\n  negative: [good]\n  positive: [{other}]\n".replace(
            "good]", "good]" if name == "alike" else "bad]"
        )
        write_text(library / "verbalizers" / "opinions" / f"{name}.yaml", text)
    found = run(verbalizers="opinions/a*@first_token")
    skipped = {one.verbalizer: one.skipped for one in found.results if one.skipped}
    assert "begin with the same token" in skipped["opinions/alike@first_token"]
    again = rescore(found.folder, calibrations=["batch"], include=[str(library)])
    assert {"opinions/alike@first_token"} == {one.verbalizer for one in again.results if one.skipped}
    assert 4 == sum(one.skipped is None for one in again.results)


@pytest.mark.parametrize(
    ("template", "old", "new"),
    [
        ("opinions/it_was", words("left_to_right"), words("first_token", {"negative": "worldness", "positive": "no"})),
        (
            TWO_MASKS,
            words("left_to_right", PAIRED),
            words("first_token", {"negative": "no + badness", "positive": "yes + all"}),
        ),
    ],
)
def test_states_answer_new_first_tokens(
    run: Run, tmp_path: Path, template: str, old: Verbalizer, new: Verbalizer
) -> None:
    """With the states of masks kept, words whose first tokens nobody asked for are decided without a forward."""
    stored = run(verbalizers=[old], templates=(template,), store_states=True)
    found = rescore(stored.folder, verbalizers=[new], calibrations=["batch"])
    fresh = run(
        verbalizers=[new], templates=(template,), calibrations=("none", "batch"), output_path=str(tmp_path / "f")
    )
    assert_same_decisions(found, fresh)


def as_schema_2(folder: Path) -> None:
    """Make of a run with words of one token what was written before there were others."""
    new = ("scoring", "multi_token", "normalize", "num_tokens")
    results = json.loads((folder / "results.json").read_text())
    cells = [{key: value for key, value in one.items() if key not in new} for one in results["cells"]]
    write_json(folder / "results.json", {**results, "cells": cells, "schema_version": 2})
    manifest = json.loads((folder / "manifest.json").read_text())
    for one in (*manifest["verbalizers"].values(), *manifest["models"], manifest["spec"]):
        for key in new:
            one.pop(key, None)
    write_json(folder / "manifest.json", {**manifest, "schema_version": 2})
    for path in (folder / "blocks").glob("*/*.parquet"):
        table, metadata = read_table(path)
        if "contexts" in metadata:
            metadata["contexts"] = [
                slots[0] if isinstance(slots[0], list) else slots for slots in metadata["contexts"]
            ]  # fmt: skip
            metadata["words"] = {
                word: f"label word '{word}' {found['split']}: use a word that is one token."
                if isinstance(found, dict) else found
                for word, found in metadata["words"].items()
            }  # fmt: skip
        columns = dict(zip(table.column_names, table.columns, strict=True))
        write_table(path, columns, {**metadata, "schema_version": 2})


def test_a_run_of_schema_2_is_read_decided_again_and_continued(run: Run, library: Path, tmp_path: Path) -> None:
    """Words were numbers and surroundings flat there: all of it still holds, and nothing of it is scored again."""
    options: dict[str, Any] = {
        "verbalizers": "opinions/g*",
        "calibrations": ("none", "contextual"),
        "store_states": True,
    }
    old = run(**options)
    as_schema_2(old.folder)
    continued = run(**options)
    assert 0 == continued.timings["forwards"]
    as_schema_2(old.folder)
    new = {"negative": ["no", "all"], "positive": "yes"}
    found = rescore(old.folder, verbalizers=[new], calibrations=["batch"])
    asked = {**options, "verbalizers": ("opinions/g*", new), "calibrations": ("none", "contextual", "batch")}
    fresh = run(**asked, output_path=str(tmp_path / "fresh"))
    assert_same_decisions(found, fresh)


def test_words_that_schema_2_refused_are_looked_up_again(run: Run, library: Path, tmp_path: Path) -> None:
    """It kept why a word of several tokens was refused, and no tokens: a rule for them needs these."""
    old = run(verbalizers="opinions/*", store_states=True)
    as_schema_2(old.folder)
    assert_same_decisions(rescore(old.folder, calibrations=["batch"]), old)
    with pytest.raises(UsageError, match=r"asks about words of several tokens that run 'run' did not score"):
        rescore(old.folder, verbalizers=["opinions/splits@pet"], include=[str(library)])
    for rule in ("first_token", "pet"):
        as_schema_2(old.folder)
        asked = f"opinions/splits@{rule}"
        if rule == "first_token":
            found = rescore(old.folder, verbalizers=[asked], include=[str(library)])
        else:
            found = run(verbalizers=("opinions/*", asked), store_states=True, amend=True)
        assert_same_decisions(found, run(verbalizers=asked, output_path=str(tmp_path / rule)))
