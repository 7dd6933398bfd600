"""The section "Hard against fitted" of a report, and its lines on a terminal, from made-up decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.learning import Learning, learn
from promptlab.reporting.document import Figure, Paragraph, Subheading, Table
from promptlab.reporting.few_shot import curve_names, few_shot_lines, few_shot_parts
from promptlab.reporting.worth import show_worth
from promptlab.results import RunResults
from tests.made_up_learning import FIT, ROWS, few_shot_run, right_tables

CELLS = {"it_was": np.arange(ROWS) % 2 == 0, "just": np.arange(ROWS) % 4 != 0}
TASKS = ("review_sentiment", "news_topic", "everyday_nli", "everyday_emotion")
METHODS = ("zero_shot", "soft_prompt", "prefix", "lora", "linear_probe", "head_fine_tune", "prompt_fine_tune")


def parts_by_head(learning: Learning, results: RunResults) -> dict[str, list[Any]]:
    """The parts under each subheading."""
    found: dict[str, list[Any]] = {"": []}
    for part in few_shot_parts(learning, results):
        if isinstance(part, Subheading):
            found[part.text] = []
        else:
            found[list(found)[-1]].append(part)
    return found


def rows_of(table: Table) -> list[dict[str, str]]:
    """A table as mappings from title to text."""
    return [dict(zip((column.title for column in table.columns), row, strict=True)) for row in table.rows]


def tables_of(folder: Path, tables: dict[Any, np.ndarray], **changed: Any) -> dict[str, list[Table]]:
    """The tables of the section under each subheading."""
    run = few_shot_run(folder, tables, CELLS, **changed)
    found = parts_by_head(learn(run), run)
    return {head: [part for part in parts if isinstance(part, Table)] for head, parts in found.items()}


def test_the_hard_side_stands_above_the_methods(tmp_path: Path) -> None:
    """Default, average, chosen and oracle, and how far the choice stays below the oracle at every number of shots."""
    tables = right_tables()
    (table,) = tables_of(tmp_path, tables)["reviews"]
    rows = {row["method"]: row for row in rows_of(table)}
    assert ["hard prompt, default", "hard prompt, average", "hard prompt, chosen", "hard prompt, oracle",
            "chosen minus oracle", "soft_prompt"] == list(rows)  # fmt: skip
    assert ("it_was", "0.500") == (rows["hard prompt, default"]["template"], rows["hard prompt, default"]["2 shots"])
    assert ("just", "0.750") == (rows["hard prompt, oracle"]["template"], rows["hard prompt, oracle"]["8 shots"])
    assert "0.625" == rows["hard prompt, average"]["4 shots"]
    gap = tables["reviews", "zero_shot", 4].mean() - 0.75
    assert f"{gap:+.3f}".replace("-", "−") == rows["chosen minus oracle"]["4 shots"]
    mean, std = (getattr(tables["reviews", "soft_prompt", 2].mean(axis=0), name)() for name in ("mean", "std"))
    assert f"{mean:.3f} ± {std * np.sqrt(3 / 2):.3f}" == rows["soft_prompt"]["2 shots"]


def test_many_differences_are_summed_up_and_folded(tmp_path: Path) -> None:
    """Pooled first, then a row a task and method, then all of them folded; stars are those of Holm."""
    run = few_shot_run(tmp_path, right_tables(tasks=TASKS[:2], methods=METHODS), CELLS)
    learning = learn(run)
    parts = parts_by_head(learning, run)["Differences"]
    pooled, short, whole = (rows_of(part) for part in parts if isinstance(part, Table))
    assert 6 * 3 == len(pooled)
    assert {"2"} == {row["tasks"] for row in pooled}
    assert (2 * 6, 2 * 6 * 3 * 2) == (len(short), len(whole))
    sure = {
        (one.task, one.method, f"{one.num_shots} shots")
        for one in learning.contrasts
        if one.adjusted < 0.05 and one.against == "chosen hard prompt"
    }
    marked = {
        (row["task"], row["minus chosen hard prompt"], head)
        for row in short
        for head, text in row.items()
        if text.endswith("*")
    }
    assert sure == marked
    assert sure
    family = len(learning.contrasts) + len(learning.pooled)
    assert f"for all {family} differences" in next(part.text for part in parts if isinstance(part, Paragraph))


def test_few_differences_are_one_open_table(tmp_path: Path) -> None:
    """Six rows need no summary, and one task none over tasks."""
    (table,) = tables_of(tmp_path, right_tables())["Differences"]
    assert (None, 6) == (table.fold, len(table.rows))


def stepped(level: float) -> np.ndarray:
    """Decisions of which the same share is right in every draw."""
    return np.repeat(np.arange(ROWS)[:, None] < round(level * ROWS), 3, axis=1)


def test_worth_is_said_in_words(tmp_path: Path) -> None:
    """`2.0 x the examples`, with its interval; without a shared accuracy the reason, in the numbers that were run."""
    tables = {}
    for place, k in enumerate((2, 4, 8)):
        tables["reviews", "zero_shot", k] = stepped(0.5 + 0.1 * place)
        tables["reviews", "soft_prompt", k] = stepped(0.6 + 0.1 * place)
        tables["reviews", "lora", k] = stepped(0.8 + 0.05 * place)
        tables["reviews", "prefix", k] = stepped(0.1 + 0.1 * place)
        tables["reviews", "bitfit", k] = stepped(0.6)
    (table,) = tables_of(tmp_path, tables)["Worth n labelled examples"]
    rows = {row["method"]: row for row in rows_of(table)}
    assert rows["soft_prompt"]["is worth"].startswith("2.0 x the examples (")
    assert ("0.60 to 0.70", "hard prompt") == (
        rows["soft_prompt"]["shared accuracies"],
        rows["soft_prompt"]["over"],
    )
    assert rows["soft_prompt"]["examples a label"].startswith("+3.0 (")
    assert "undefined: above from 2 shots on" == rows["lora"]["is worth"]
    assert "undefined: below up to 8 shots" == rows["prefix"]["is worth"]
    assert "undefined: gains nothing" == rows["bitfit"]["is worth"]
    assert ("–", "0 %") == (rows["lora"]["shared accuracies"], rows["lora"]["defined in"])


def test_a_number_that_few_resamples_have_is_not_shown(tmp_path: Path) -> None:
    """Curves that share an accuracy by chance alone are worth nothing that could be said."""
    tables = {("reviews", "zero_shot", 2): stepped(0.5), ("reviews", "zero_shot", 4): stepped(0.6)}
    tables |= {("reviews", "lora", 2): stepped(0.5875), ("reviews", "lora", 4): stepped(0.9)}
    run = few_shot_run(tmp_path, tables, CELLS)
    learning = learn(run)
    (worth,) = learning.worths
    assert "x the examples" in show_worth(worth)
    rare = replace(worth, factor=replace(worth.factor, defined=0.49))
    assert "undefined: they share too little" == show_worth(rare)


def test_several_templates_of_a_method_have_names_and_a_spread(tmp_path: Path) -> None:
    """Their curves are told apart by what differs, and the lowest and highest of them stand in a table."""
    tables = right_tables(shots=(2, 4))
    for k in (2, 4):
        tables["reviews", "soft_prompt", k, "made/just"] = stepped(0.25)
    run = few_shot_run(tmp_path, tables, CELLS)
    names = curve_names(learn(run).curves, run).values()
    assert ["hard prompt, chosen", "soft_prompt, it_was", "soft_prompt, just"] == list(names)
    ((row,),) = (rows_of(table) for table in tables_of(tmp_path, tables)["Spread over templates and words"])
    high = tables["reviews", "soft_prompt", 4].mean()
    assert ("2", f"0.250 to {high:.3f}") == (row["templates x words"], row["4 shots"])
    (figure,) = (part for part in parts_by_head(learn(run), run)["reviews"] if isinstance(part, Figure))
    assert tuple(names) == figure.panels[0].series  # type: ignore[union-attr]  # a panel of curves
    assert "Spread over templates and words" not in tables_of(tmp_path / "one", right_tables())


def with_tokens(run: RunResults) -> RunResults:
    """Two soft tokens a draw, of which the first stayed at its word."""
    tokens = [
        {"word": "It", "drift": 0.1, "nearest": [["It", 0.9], ["it", 0.5]], "nearest_id": 3},
        {"word": "was", "drift": 0.5, "nearest": [["seems", 0.75], ["felt", 0.5]], "nearest_id": 4},
    ]
    fit = {**FIT, "facts": {"soft_tokens": tokens}}
    return replace(
        run, few_shot=tuple(replace(one, fit=fit) if one.method == "soft_prompt" else one for one in run.few_shot)
    )


def test_soft_tokens_have_their_words_drift_and_projected_accuracy(tmp_path: Path) -> None:
    """A row a number of shots, and folded a row a token of every draw at the largest one."""
    tables = right_tables(methods=("zero_shot", "soft_prompt", "soft_prompt_projected"), shots=(2, 4))
    run = with_tokens(few_shot_run(tmp_path, tables, CELLS))
    summary, whole = (part for part in parts_by_head(learn(run), run)["Soft tokens"] if isinstance(part, Table))
    first = rows_of(summary)[0]
    assert ("2", "0.300", "50.0 %") == (first["tokens"], first["mean drift"], first["nearest is the start"])
    means = [tables["reviews", name, 2].mean() for name in ("soft_prompt", "soft_prompt_projected")]
    assert [f"{mean:.3f}" for mean in means] == [first["accuracy"], first["projected"]]
    assert f"{means[1] - means[0]:+.3f}" == first["difference"]
    assert 3 * 2 == len(whole.rows)
    last = rows_of(whole)[1]
    assert ("was", "seems (0.750), felt (0.500)", "0.500") == (
        last["started from"],
        last["nearest words (cosine)"],
        last["drift"],
    )
    assert "6 soft tokens at 4 shots, draw by draw" == whole.fold


def test_without_projection_its_columns_are_left_out(tmp_path: Path) -> None:
    """And without soft tokens the whole part is."""
    run = with_tokens(few_shot_run(tmp_path, right_tables(), CELLS))
    summary = next(part for part in parts_by_head(learn(run), run)["Soft tokens"] if isinstance(part, Table))
    assert not {"projected", "difference"} & {column.title for column in summary.columns}
    assert "Soft tokens" not in tables_of(tmp_path / "none", right_tables())


def test_costs_are_parameters_passes_seconds_and_memory(tmp_path: Path) -> None:
    """Means over draws at the largest number of shots; seconds and memory come from the timings, by block."""
    run = few_shot_run(tmp_path, right_tables(), CELLS)
    blocks = [one.block for one in run.few_shot if (one.method, one.num_shots) == ("soft_prompt", 8)]
    fits = {
        block: {"search_s": 1.0 + place, "fit_s": 0.5, "peak_memory_bytes": (place + 1) << 30, "memory": "process"}
        for place, block in enumerate(blocks)
    }
    run = replace(run, timings={**run.timings, "fits": fits})
    parts = parts_by_head(learn(run), run)["What was fitted, and what it took"]
    hard, soft = rows_of(next(part for part in parts if isinstance(part, Table)))
    assert ("0", "0 %", "12", "–") == tuple(
        hard[name] for name in ("parameters", "of the model's", "passes, search", "steps")
    )
    assert ("8", "250", "2.50 %", "20", "300", "160") == tuple(
        soft[name] for name in ("shots", "parameters", "of the model's", "steps", "passes, search", "passes, fit")
    )
    assert ("2.00", "0.500", "3.00 GiB") == (soft["s, search"], soft["s, fit"], soft["peak memory"])
    assert "the whole process had resident" in parts[0].text


def test_lines_of_a_large_run_fit_a_terminal(tmp_path: Path) -> None:
    """Seven methods, five numbers of shots and four tasks: a line each within 80 columns, and every number whole."""
    tables = right_tables(tasks=TASKS, methods=METHODS, shots=(4, 8, 16, 32, 64))
    run = few_shot_run(tmp_path, tables, CELLS)
    lines = few_shot_lines(learn(run, with_worths=False), run, 80)
    assert max(map(len, lines)) <= 80
    assert ["task", "method", "4", "8", "16", "32", "64", "vs", "hard"] == lines[0].split()
    assert 7 * 4 == sum(line.startswith(TASKS) for line in lines)
    for task in TASKS:
        for method in METHODS[1:]:
            (line,) = (line for line in lines if line.split()[:2] == [task, method])
            values = [f"{tables[task, method, k].mean():.3f}" for k in (4, 8, 16, 32, 64)]
            assert values == line.split()[2:7]
            ahead = tables[task, method, 64].mean() - tables[task, "zero_shot", 64].mean()
            assert f"{ahead:+.3f}" == line.split()[7].rstrip("*")
    assert "mean over 4 tasks vs hard: soft_prompt +" in " ".join(line.strip() for line in lines)


@pytest.mark.parametrize(("shots", "shown"), [((3,), ["3"]), ((1, 2, 3, 4, 6, 8, 12), ["1", "3", "4", "6", "12"])])
def test_a_line_has_at_most_five_numbers(tmp_path: Path, shots: tuple[int, ...], shown: list[str]) -> None:
    """The smallest and the largest are among them."""
    run = few_shot_run(tmp_path, right_tables(shots=shots), CELLS)
    head = few_shot_lines(learn(run, with_worths=False), run, 80)[0]
    assert shown == [word for word in head.split() if word.isdigit()]


def test_nothing_is_said_of_a_run_without_shots(tmp_path: Path) -> None:
    """No section and no lines."""
    run = few_shot_run(tmp_path, {}, {})
    assert ([], []) == (list(few_shot_parts(learn(run), run)), few_shot_lines(learn(run), run, 80))
