"""Stored blocks become results and samples: one file a block, its cells one after the other, null where no score is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.blocks import PromptRows
from promptlab.deciding import Cell
from promptlab.errors import StoreError
from promptlab.evaluation import Evaluated, StoredBlock, evaluate, metrics_for
from promptlab.files import SCHEMA_VERSION, read_table
from promptlab.results import Result
from promptlab.specs.task import Task
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import RunStore
from promptlab.types import MaskScores, WordTokens
from tests.stored import files, key_array

LABELS = ("bad", "good")
VERBALIZERS = {
    "words": Verbalizer.from_labels({"bad": "terrible", "good": "great"}, name="words"),
    "more": Verbalizer.from_labels({"good": ["great", "fine"], "bad": ["awful"]}, name="more"),
    "splits": Verbalizer.from_labels({"bad": "badness", "good": "great"}, name="splits"),
}
TOKENS: dict[str, WordTokens | str] = {
    **{word: WordTokens(((token,),)) for word, token in (("terrible", 3), ("great", 5), ("fine", 7), ("awful", 11))},
    "badness": "'badness' splits.",
}
NUM_ROWS, UNSCORABLE, WITHOUT_GOLD = 6, 4, 2


def task(name: str, labels: Sequence[str] = LABELS) -> Task:
    return Task.model_validate(
        {
            "name": name,
            "path": f"{name}.yaml",
            "title": name,
            "family": "mood",
            "kind": "classification",
            "labels": list(labels),
            "sources": [{"local": name, "splits": {}, "fields": {"text": "text"}}],
            "language": "en",
            "license": "none",
            "citation": "none",
            "version": 1,
        }
    )


def cell(block: str, verbalizer: str, calibration: str = "none", of: Task | None = None, **changes: Any) -> Cell:
    """A cell that is named by what it is."""
    of = of or task("moods")
    values: dict[str, Any] = {
        "cell_id": f"{block}-{verbalizer}-{calibration}",
        "block_id": block,
        "model": "mini",
        "task": of,
        "split": "test",
        "template": f"mood/{block}",
        "template_tags": ("instructive",),
        "verbalizer": VERBALIZERS[verbalizer],
        "calibration": calibration,
        "samples": f"{of.name}-{block}",
    }
    return Cell(**{**values, **changes})


def keys(name: str, number: int) -> list[str]:
    return [f"{name}{row}".rjust(32, "0") for row in range(number)]


def numbers(name: str, number: int) -> np.ndarray[Any, Any]:
    """Log-probabilities of the four tokens, others for each name."""
    draw = np.random.default_rng(sum(map(ord, name)))
    return np.log(draw.dirichlet(np.ones(5), size=number)[:, :4]).astype(np.float32)


def write_segment(store: RunStore, block: str, name: str, *, unscorable: Sequence[int] = (), number: int) -> None:
    """Store the rows of a segment and scores for those that can be scored."""
    of = keys(f"{block}{name}", number)
    gold = [-1 if name != "rows" or row == WITHOUT_GOLD else row % 2 for row in range(number)]
    rows = PromptRows(
        row_ids=[f"row{row}" for row in range(number)],
        row_index=np.arange(number, dtype=np.int32)[::-1].copy(),
        keys=key_array("" if row in unscorable else key for row, key in enumerate(of)),
        num_truncated=(np.arange(number) == 1).astype(np.int32) * 3,
        gold=np.array(gold, dtype=np.int32),
        reasons=dict.fromkeys(unscorable, "too long"),
    )
    store.block(block).write_rows(f"{name}-file", rows, TOKENS, {})
    scores = MaskScores(
        keys=tuple(of),
        fills=np.zeros(number, dtype=np.int32),
        masks=np.zeros(number, dtype=np.int32),
        log_normalizers=np.zeros(number, dtype=np.float32),
        token_ids=np.array([3, 5, 7, 11]),
        log_probs=numbers(f"{block}{name}", number),
        top_ids=np.zeros((number, 1), dtype=np.int64),
        top_log_probs=np.zeros((number, 1), dtype=np.float32),
    )
    store.block(block).append([scores])


def stored_block(store: RunStore, block: str, cells: Sequence[Cell], **changes: Any) -> StoredBlock:
    """A scored block of six rows, one of which cannot be scored, and two content-free texts."""
    write_segment(store, block, "rows", unscorable=(UNSCORABLE,), number=NUM_ROWS)
    write_segment(store, block, "content_free", number=2)
    values: dict[str, Any] = {
        "block_id": block,
        "cells": tuple(cells),
        "names": {"rows": "rows-file", "content_free": "content_free-file"},
        "faults": {},
        "shown": f"mood/{block}.jinja",
        "is_baseline": False,
    }
    return StoredBlock(**{**values, **changes})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


GRID = [("words", "none"), ("words", "contextual"), ("more", "none"), ("more", "contextual")]


def evaluated(store: RunStore, **changes: Any) -> Evaluated:
    """Two blocks of four cells each, evaluated."""
    blocks = [stored_block(store, name, [cell(name, *rule) for rule in GRID]) for name in ("a", "b")]
    return evaluate(store, blocks, changes.pop("ensembles", []), seed=0, **changes)


def naive(block: str, verbalizer: str, calibration: str) -> list[np.ndarray[Any, Any]]:
    """Log p(y | x) of every row, by hand from the scores."""

    def label_scores(name: str, number: int) -> np.ndarray[Any, Any]:
        terrible, great, fine, awful = numbers(name, number).astype(float).T
        pairs = (terrible, great) if verbalizer == "words" else (awful, (great + fine) / 2)
        return np.stack(pairs, axis=1)

    def normalized(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))

    scores = label_scores(f"{block}rows", NUM_ROWS)
    if calibration == "contextual":
        scores = scores - np.log(np.exp(normalized(label_scores(f"{block}content_free", 2))).mean(axis=0))
    return list(normalized(scores))


def test_results_come_cell_by_cell_in_their_order(store: RunStore) -> None:
    """One result a cell, those of a block together, each with the file of its decisions."""
    found = evaluated(store)
    expected = [(f"{block}-{verbalizer}-{rule}", f"moods-{block}") for block in "ab" for verbalizer, rule in GRID]
    assert expected == [(result.cell, result.samples) for result in found.results]
    assert {(6, 1, 1)} == {(one.num_rows, one.num_unscored, one.num_truncated) for one in found.results}


def test_the_cells_of_a_block_lie_in_one_file_one_after_the_other(store: RunStore) -> None:
    """A file a block; a row a decision, in the order of the cells and of the rows; the labels in the file once."""
    evaluated(store)
    assert {"samples/moods-a.parquet", "samples/moods-b.parquet"} == set(files(store.folder, "samples/*"))
    table, metadata = read_table(store.folder / "samples" / "moods-a.parquet")
    cells = [f"a-{verbalizer}-{calibration}" for verbalizer, calibration in GRID for _ in range(NUM_ROWS)]
    assert cells == table["cell"].to_pylist()
    assert [f"row{row}" for row in range(NUM_ROWS)] * 4 == table["row_id"].to_pylist()
    assert {"schema_version": SCHEMA_VERSION, "labels": ["bad", "good"]} == metadata


def test_the_columns_of_samples_are_pinned(store: RunStore) -> None:
    """Scripts read these names and types; none of them holds a text of a row."""
    evaluated(store)
    schema = read_table(store.folder / "samples" / "moods-a.parquet")[0].schema
    assert {
        "cell": "string",
        "row_id": "string",
        "row_index": "int32",
        "gold": "dictionary<values=string, indices=int32, ordered=0>",
        "predicted": "dictionary<values=string, indices=int32, ordered=0>",
        "log_probabilities": "list<element: double>",
        "log_mass": "double",
        "num_truncated": "int32",
        "reason": "string",
    } == {column.name: str(column.type) for column in schema}


@pytest.mark.parametrize("block", ["a", "b"])
@pytest.mark.parametrize(("verbalizer", "calibration"), GRID)
def test_decisions_are_those_of_the_scores(store: RunStore, block: str, verbalizer: str, calibration: str) -> None:
    """Label log-probabilities, prediction and mass of every scored row equal a computation by hand."""
    evaluated(store)
    found = store.read_samples(f"moods-{block}", f"{block}-{verbalizer}-{calibration}").to_pylist()
    expected = naive(block, verbalizer, calibration)
    tokens = [0, 1] if verbalizer == "words" else [1, 2, 3]
    for row, one in enumerate(found):
        if row == UNSCORABLE:
            continue
        np.testing.assert_allclose(one["log_probabilities"], expected[row], atol=1e-12)
        assert LABELS[int(np.argmax(expected[row]))] == one["predicted"]
        mass = np.exp(numbers(f"{block}rows", NUM_ROWS)[row, tokens].astype(float)).sum()
        np.testing.assert_allclose(np.exp(one["log_mass"]), mass, atol=1e-12)
        assert (5 - row, 3 if row == 1 else 0, None) == (one["row_index"], one["num_truncated"], one["reason"])
        assert (None if row == WITHOUT_GOLD else LABELS[row % 2]) == one["gold"]


def test_a_row_that_cannot_be_scored_is_null_with_its_reason(store: RunStore) -> None:
    """Nothing is invented for it, and it stays in its place with its gold label."""
    evaluated(store)
    for verbalizer, calibration in GRID:
        one = store.read_samples("moods-a", f"a-{verbalizer}-{calibration}").to_pylist()[UNSCORABLE]
        assert {
            "cell": f"a-{verbalizer}-{calibration}",
            "row_id": "row4",
            "row_index": 1,
            "gold": "bad",
            "predicted": None,
            "log_probabilities": None,
            "log_mass": None,
            "num_truncated": 0,
            "reason": "too long",
        } == one


def test_equal_blocks_give_equal_bytes(store: RunStore, tmp_path: Path) -> None:
    """Evaluated again, or elsewhere, samples are the same files."""
    first = evaluated(store)
    before = files(store.folder, "samples/*")
    assert first.results == evaluated(store).results
    assert before == files(store.folder, "samples/*")
    other = RunStore(tmp_path / "other")
    evaluated(other)
    assert before == files(other.folder, "samples/*")


def test_a_skipped_cell_has_a_reason_and_no_samples(store: RunStore) -> None:
    """Words that cannot be scored leave the other cells of the block as they are."""
    rules = [("words", "none"), ("splits", "none"), ("splits", "contextual"), ("more", "none")]
    found = evaluate(store, [stored_block(store, "a", [cell("a", *rule) for rule in rules])], [], seed=0)
    assert ["moods-a", "", "", "moods-a"] == [result.samples for result in found.results]
    assert [False, True, True, False] == [bool(result.skipped) for result in found.results]
    assert "'badness' splits." in str(found.results[1].skipped)
    in_file = read_table(store.folder / "samples" / "moods-a.parquet")[0]["cell"].to_pylist()
    assert ["a-words-none", "a-more-none"] == list(dict.fromkeys(in_file))


def test_a_calibration_without_prompts_is_skipped_with_its_reason(store: RunStore) -> None:
    """What was not scored is told as the plan told it."""
    cells = [cell("a", "words", rule) for rule in ("none", "domain")]
    block = stored_block(store, "a", cells, faults={"domain": "needs train rows, and the task has none."})
    plain, domain = evaluate(store, [block], [], seed=0).results
    assert plain.skipped is None
    assert "mood/a: calibration 'domain' needs train rows, and the task has none." == domain.skipped


def test_a_block_without_a_decided_cell_leaves_no_file_that_counts(store: RunStore) -> None:
    """Its file names nothing, and is gone when the run drops what no result names."""
    found = evaluate(store, [stored_block(store, "a", [cell("a", "splits")])], [], seed=0)
    store.drop_old_samples(result.samples for result in found.results)
    assert {} == files(store.folder, "samples/*")


def test_samples_of_blocks_that_left_the_run_are_dropped(store: RunStore) -> None:
    """A run that has fewer blocks keeps the files of these and no others."""
    evaluated(store)
    fewer = evaluate(store, [stored_block(store, "b", [cell("b", "words")])], [], seed=0)
    store.drop_old_samples(result.samples for result in fewer.results)
    assert {"samples/moods-b.parquet"} == set(files(store.folder, "samples/*"))
    assert 0 == len(store.read_samples("moods-b", "b-more-none"))


def ensemble(name: str = "all", verbalizer: str = "words") -> Cell:
    """The mean over both blocks under one verbalizer, uncalibrated."""
    members = tuple(f"{block}-{verbalizer}-none" for block in "ab")
    return cell("e", verbalizer, cell_id=name, template=f"ensemble:{name}", samples=f"moods-{name}", members=members)


def test_an_ensemble_has_a_file_of_its_own(store: RunStore) -> None:
    """It comes behind all cells, with the mean over its members of p(y | x) in every row that one of them scored."""
    found = evaluated(store, ensembles=[ensemble(), ensemble("other", "more")])
    assert ["all", "other"] == [result.cell for result in found.results[8:]]
    assert ("a-words-none", "b-words-none") == found.results[8].members
    decided = store.read_samples("moods-all", "all").to_pylist()
    for row, one in enumerate(decided):
        if row == UNSCORABLE:
            assert (None, None, None) == (one["predicted"], one["log_probabilities"], one["log_mass"])
            continue
        mean = np.mean([np.exp(naive(block, "words", "none")[row]) for block in "ab"], axis=0)
        np.testing.assert_allclose(np.exp(one["log_probabilities"]), mean, atol=1e-12)


def test_an_ensemble_of_a_skipped_member_is_skipped(store: RunStore) -> None:
    """The reason of the member is told, and no file is written."""
    blocks = [stored_block(store, name, [cell(name, "splits")]) for name in "ab"]
    *_, result = evaluate(store, blocks, [ensemble(verbalizer="splits")], seed=0).results
    assert str(result.skipped).startswith("a member was skipped: ")
    assert "" == result.samples
    store.drop_old_samples([result.samples])
    assert {} == files(store.folder, "samples/*")


def test_templates_agree_where_they_predict_the_same(store: RunStore) -> None:
    """Agreement is the share of rows on which both blocks predict one label; on an unscored row they do not."""
    found = evaluated(store)
    assert GRID == [(one.verbalizer, one.calibration) for one in found.agreements]
    for one in found.agreements:
        pair = [store.read_samples(f"moods-{b}", f"{b}-{one.verbalizer}-{one.calibration}") for b in "ab"]
        first, second = (table["predicted"].to_pylist() for table in pair)
        same = [x is not None and x == y for x, y in zip(first, second, strict=True)]
        assert (2, 6) == (one.num_templates, one.num_rows)
        assert one.value == pytest.approx(sum(same) / NUM_ROWS)


def test_a_baseline_agrees_with_nobody(store: RunStore) -> None:
    """The null template is decided as the others are and is no part of the agreement."""
    cells = [cell(name, "words") for name in "ab"]
    blocks = [stored_block(store, "a", cells[:1]), stored_block(store, "b", cells[1:], is_baseline=True)]
    found = evaluate(store, blocks, [], seed=0)
    assert (2, ()) == (len(found.results), found.agreements)


def test_tasks_are_apart(store: RunStore) -> None:
    """Blocks of two tasks have samples with their own labels, and agreements of their own."""
    turned = task("turned", labels=LABELS[::-1])
    blocks = [stored_block(store, name, [cell(name, "words")]) for name in "ab"]
    blocks += [stored_block(store, name, [cell(name, "words", of=turned)]) for name in "cd"]
    found = evaluate(store, blocks, [], seed=0)
    assert ["moods", "turned"] == [one.task for one in found.agreements]
    assert ["good", "bad"] == read_table(store.folder / "samples" / "turned-c.parquet")[1]["labels"]
    rows = store.read_samples("turned-c", "c-words-none").to_pylist()
    for row, one in enumerate(rows):
        if row != UNSCORABLE:
            np.testing.assert_allclose(one["log_probabilities"], naive("c", "words", "none")[row][::-1], atol=1e-12)


def test_metrics_need_every_gold_label(store: RunStore) -> None:
    """One row without a gold label leaves a cell decided and without metrics."""
    assert {False} == {bool(result.metrics) for result in evaluated(store).results}


def test_a_metric_goes_to_the_tasks_that_it_fits() -> None:
    """A metric of a label that a task has not is left out there; one that no task can have was refused before."""
    assert ["brier", "f1(bad)"] == metrics_for(task("moods"), ["brier", "f1(spam)", "f1(bad)"])
    assert ["brier", "f1(spam)"] == metrics_for(task("mail", ["spam", "ham"]), ["brier", "f1(spam)", "f1(bad)"])


def test_a_full_disk_keeps_the_samples_that_were_there(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is told with its file, and the old decisions stay whole."""
    evaluated(store)
    before = files(store.folder, "samples/*")
    blocks = [stored_block(store, "a", [cell("a", "more")])]

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"moods-a\.parquet: cannot be written: No space left on device\. What was"):
        evaluate(store, blocks, [], seed=0)
    assert before == files(store.folder, "samples/*")


def test_a_decision_is_written_before_the_next_is_made(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are decided while they are written, so that one of them is in memory, not all of a block."""
    from promptlab import evaluation

    told: list[str] = []
    decide, batch = evaluation.decide_block, evaluation._batch

    def decided(*arguments: Any, **options: Any) -> Any:
        for decision in decide(*arguments, **options):
            told.append(f"decided {decision.cell.cell_id}")
            yield decision

    def written(of: Task, decision: Any) -> Any:
        told.append(f"written {decision.cell.cell_id}")
        return batch(of, decision)

    monkeypatch.setattr(evaluation, "decide_block", decided)
    monkeypatch.setattr(evaluation, "_batch", written)
    found: tuple[Result, ...] = evaluated(store).results
    assert [f"{what} {result.cell}" for result in found for what in ("decided", "written")] == told
