"""The back of the report: every cell, what the run cost, and what is needed to run it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptlab.reporting.document import Code, Paragraph, Part, Section, Subheading, Table, make_table
from promptlab.reporting.formats import (
    count,
    model_names,
    percent,
    plural,
    size,
    span,
    three_digits,
)
from promptlab.reporting.spreads import Grid, kind_of, most_likely, most_predicted
from promptlab.results import Result, RunResults

_SHOWN_COUNTS = ("shortened", "unscored", "near-ties")
_SHOWN_FACTS = {
    "architecture": "architecture",
    "num_parameters": "parameters",
    "device": "device",
    "device_name": "device name",
    "num_threads": "threads",
    "dtype": "dtype",
    "attention": "attention",
    "head": "vocabulary head",
}


def cell_section(grids: Sequence[Grid]) -> Section:
    """One folded table a model x task, one row a decided cell."""
    tables = [_cell_table(grid) for grid in grids if grid.decided]
    text = "Intervals are at 95 %; the prior is the largest content-free one. Everything else stands in results.csv."
    note = Paragraph(text)
    return Section("All cells", "cells", (note, *tables) if tables else ())


def cost_section(results: RunResults) -> Section:
    """Seconds, forward passes, prompts, tokens and memory; the only part that two equal runs may differ in."""
    timings = results.timings
    every = timings.get("all_calls", {})
    rows = [
        [f"seconds, {name}", three_digits(timings.get("seconds", {}).get(name, 0.0)), three_digits(value)]
        for name, value in _sorted(every.get("seconds") or timings.get("seconds"))
    ]
    for name in ("forwards", "prompts", "tokens", "back_offs"):
        if name in timings:
            rows.append([_COST_WORDS[name], count(timings[name]), count(every.get(name, timings[name]))])
    facts = [["peak memory of the process", size(timings.get("peak_memory_bytes"))]]
    facts += [[shown, str(timings[name])] for name, shown in _COST_FACTS.items() if timings.get(name)]
    number = every.get("calls", 1)
    calls = (
        "the one finished call" if number == 1 else f"the last of {number} finished calls, and all of them together,"
    )
    text = f"What {calls} did; stored scores cost nothing again."
    heads = ["what", "#last call", "#all calls"]
    if number == 1:
        heads, rows = ["what", "#value"], [row[:2] for row in rows]
    parts = [Paragraph(text), make_table(heads, rows), make_table(["what", "#value"], facts), *_hardware(results)]
    return Section("Cost", "cost", tuple(parts))


def repeat_section(results: RunResults) -> Section:
    """Command, versions, hashes, and the texts and words themselves."""
    return Section("How to reproduce it", "reproduce", tuple(_repeat(results)))


_COST_FACTS = {"platform": "platform", "finished_at": "finished at"}
_COST_WORDS = {
    "forwards": "forward passes",
    "prompts": "prompts scored",
    "tokens": "tokens scored",
    "back_offs": "batches halved for lack of memory",
}


def _cell_table(grid: Grid) -> Table:
    templates = grid.templates()
    verbalizers = grid.verbalizers()
    counted = list(zip(*map(_counts, grid.decided), strict=True))
    others = sorted({name for cell in grid.cells for name in cell.metrics} - {grid.metric})
    heads = ["~template", "~kind", "~verbalizer", "~calibration"]
    heads += [f"#{grid.metric}", "#interval", *(f"#{name}" for name in others)] if grid.metric else []
    heads += ["#mass", "~most predicted", "~prior", *(f"#{shown}" for shown in _SHOWN_COUNTS)]
    rows = [
        [
            templates[cell.template],
            kind_of(cell),
            verbalizers[cell.verbalizer],
            cell.calibration,
            *_metric_cells(grid, cell, others),
            percent(cell.mass),
            *_label_cells(cell),
            *(count(number) if any(numbers) else "" for number, numbers in zip(_counts(cell), counted, strict=True)),
        ]
        for cell in grid.decided
    ]
    name = model_names([grid.model])[grid.model]
    return make_table(heads, rows, fold=f"{name} on {grid.task}: {plural(len(rows), 'decided cell')}")


def _counts(cell: Result) -> tuple[int, int, int]:
    return cell.num_truncated, cell.num_unscored, cell.num_near_ties


def _metric_cells(grid: Grid, cell: Result, others: Sequence[str]) -> list[str]:
    """The headline metric with its interval, the other metrics without."""
    value = grid.value(cell)
    if grid.metric is None:
        return []
    rest = [three_digits(cell.metrics[name].value if name in cell.metrics else None) for name in others]
    if value is None:
        return [three_digits(None), span(None, None), *rest]
    return [three_digits(value.value), span(value.low, value.high), *rest]


def _label_cells(cell: Result) -> list[str]:
    predicted = most_predicted(cell)
    label, prior = most_likely(cell) if cell.prior else ("", None)
    return [f"{predicted[0]} {percent(predicted[1])}" if predicted else "", f"{label} {three_digits(prior)}"]


def _hardware(results: RunResults) -> Iterable[Part]:
    """What each model ran on, as it was read back after the run."""
    models = results.manifest.get("models", ())
    if not models:
        return
    names = model_names(item["model"] for item in models)
    facts = {names[item["model"]]: item.get("ran", {}) for item in models}
    rows = []
    for key, shown in _SHOWN_FACTS.items():
        values = [of_model.get(key) for of_model in facts.values()]
        if any(value is not None for value in values):
            rows.append([shown, *(count(value) if isinstance(value, int) else str(value or "") for value in values)])
    yield make_table(["what ran", *facts], rows)


def _repeat(results: RunResults) -> Iterable[Part]:
    manifest = results.manifest
    if manifest.get("command"):
        yield Paragraph("The command:")
        yield Code(str(manifest["command"]))
    yield Paragraph("The versions and the content hashes of every input:")
    yield make_table(["what", "`is"], _identity(manifest))
    yield from _template_table(manifest.get("templates", {}))
    yield from _verbalizer_table(manifest.get("verbalizers", {}))


def _identity(manifest: Mapping[str, Any]) -> list[list[str]]:
    rows = [[f"version of {name}", str(value)] for name, value in _sorted(manifest.get("versions")) if name != "git"]
    git = (manifest.get("versions") or {}).get("git")
    rows += [["git commit", str(git)]] if git else []
    rows += [["plan", str(manifest["plan"])]] if manifest.get("plan") else []
    for model in manifest.get("models", ()):
        for key in ("revision", "weights", "tokenizer"):
            if model.get(key):
                rows.append([f"{key} of {model['model']}", str(model[key])])
    rows += [[f"longest prompt, {name}", f"{value} tokens"] for name, value in _sorted(manifest.get("max_length"))]
    for name, task in _sorted(manifest.get("tasks")):
        rows += [[f"{what} of {name}", str(task[key])] for key, what in (("hash", "task"), ("rows", "rows"))]
        if task.get("source", {}).get("revision"):
            rows.append([f"source of {name}", f"{task['source'].get('path')} @ {task['source']['revision']}"])
    return rows


def _template_table(templates: Mapping[str, Any]) -> Iterable[Part]:
    if templates:
        yield Subheading("Templates")
        rows = [
            [name, _kind(item), item["text"], item.get("reference") or "", item["hash"]]
            for name, item in _sorted(templates)
        ]
        heads = ["`template", "kind", "`text", "reference", "`hash"]
        yield make_table(heads, rows, fold=plural(len(rows), "template"))


def _kind(template: Mapping[str, Any]) -> str:
    """What a template is for, and how its text is cut where it is not tokenised whole."""
    pieces = template.get("pieces", "whole")
    return ", ".join([*template["tags"], *([] if pieces == "whole" else [f"pieces: {pieces}"])])


def _verbalizer_table(verbalizers: Mapping[str, Any]) -> Iterable[Part]:
    if verbalizers:
        yield Subheading("Verbalizers")
        rows = [
            [name, _words(item["labels"]), _rule(item), item.get("reference") or "", item["hash"]]
            for name, item in _sorted(verbalizers)
        ]
        heads = ["`verbalizer", "label: words", "rule", "reference", "`hash"]
        yield make_table(heads, rows, fold=plural(len(rows), "verbalizer"))


def _rule(item: Mapping[str, Any]) -> str:
    """How words become label scores: the pool, and the rule for words of several tokens where there is one."""
    parts = [str(item.get("pool", ""))]
    if item.get("multi_token", "refuse") != "refuse":
        parts.append(str(item["multi_token"]))
    if item.get("normalize", "sum") != "sum":
        parts.append("mean over tokens")
    return ", ".join(parts)


def _words(labels: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{label}: {', '.join(words)}" for label, words in _sorted(labels))


def _sorted(mapping: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """Items in an order that does not depend on whether the run was read back from its file."""
    return sorted((mapping or {}).items())
