"""Stored run -> the report: what was asked, the headline, what adaptation changed, every template, and so on.

The order is the order in which a reader needs it; nothing here knows about HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptlab.learning import learn
from promptlab.reporting.adapted import adaptation_section
from promptlab.reporting.appendix import cell_section, cost_section, repeat_section
from promptlab.reporting.cautions import CAUTION_KINDS, cautions, low_mass_pairs, skipped_groups
from promptlab.reporting.document import Document, Figure, Paragraph, Part, Section, Subheading, Table, make_table
from promptlab.reporting.few_shot import few_shot_parts
from promptlab.reporting.formats import (
    MISSING,
    count,
    listing,
    model_names,
    percent,
    plural,
    signed,
    span,
    three_digits,
)
from promptlab.reporting.headline import headline_parts, show_median
from promptlab.reporting.panels import change_panels, forest_panels, mass_panel
from promptlab.reporting.spreads import (
    KINDS,
    Grid,
    Spread,
    changes,
    grid_titles,
    kind_of,
    make_grids,
    pairs_apart,
)
from promptlab.results import RunResults

_FOREST = (
    "Every template is a dot with its 95 % interval over rows. "
    "Filled dots are instructive templates, hollow diamonds are controls. "
    "Templates stand in the same order in every panel of a task: by their median over verbalizers and calibrations. "
    "That order was made with the gold labels and chooses nothing. "
    "Two templates are told apart where their intervals do not meet; the tables count the pairs of instructive "
    "templates that are, without a correction for their number. "
    "All templates answer the same rows, so two whose intervals meet may still differ: a paired test tells more. "
    "promptlab compare makes one."
)
_CHANGE = (
    "Each line is one instructive template with one verbalizer, from before (hollow) to after (filled). "
    "Further right, the content-free texts alone make one label likelier: there a correction has more to remove. "
    "Priors are read before calibration."
)
_MASS = (
    "Mass is the mean over rows of the probability that the label words of a verbalizer have together at the mask. "
    "Where it is below 1 %, the template does not ask for these words, and the label scores compare words that the "
    "model hardly expects there. Mass does not depend on calibration. Diamonds are controls."
)


def make_document(results: RunResults) -> Document:
    """The whole report of a stored run."""
    grids = make_grids(results)
    sections = [
        Section("What was asked and run", "asked", tuple(_asked(results, grids))),
        Section("Headline", "headline", tuple(headline_parts(grids))),
        Section("Hard against fitted", "few-shot", tuple(few_shot_parts(learn(results), results))),
        adaptation_section(results, grids),
        Section("Every template", "templates", tuple(_templates(grids))),
        Section("What calibration changed", "calibration", tuple(_calibration(grids))),
        Section("Mass on label words and warnings", "warnings", tuple(_warnings(results, grids))),
        cell_section(grids),
        cost_section(results),
        repeat_section(results),
    ]
    return Document(f"Run {results.name}", _lead(results, grids), tuple(part for part in sections if part.parts))


def _lead(results: RunResults, grids: Sequence[Grid]) -> str:
    """What was asked and run, in words."""
    cells = results.results
    kinds = {cell.template: kind_of(cell) for cell in cells if not cell.members}
    num_controls = sum(kind != "instructive" for kind in kinds.values())
    models = model_names(cell.model for cell in cells)
    facts = {item["model"]: item for item in results.manifest.get("models", ())}
    named = listing(_named_model(short, facts.get(model, {})) for model, short in models.items())
    tasks = listing(
        f"{grid.task} ({plural(grid.num_rows, 'row')} of {grid.split}, {_source(_task_facts(results, grid.task))})"
        for grid in {grid.task: grid for grid in grids}.values()
    )
    num_skipped = sum(cell.skipped is not None for cell in cells)
    failures = results.manifest.get("failures") or {}
    failed = f" {listing(sorted(failures))} could not be scored, see the warnings." if failures else ""
    skipped = f"of which {count(num_skipped)} were skipped" if num_skipped else "all decided"
    num_verbalizers = len({cell.verbalizer for cell in cells})
    calibrations = dict.fromkeys(cell.calibration for cell in cells)
    return (
        f"This run scored {named} on {tasks}. "
        f"It crossed {plural(len(kinds), 'template')} ({len(kinds) - num_controls} instructive, "
        f"{plural(num_controls, 'control')}), {plural(num_verbalizers, 'verbalizer')} and "
        f"{plural(len(calibrations), 'calibration')} ({listing(calibrations)}) wherever they fit together: "
        f"{plural(len(cells), 'cell')}, {skipped}. "
        f"Seed {results.manifest.get('seed', 'unknown')}.{failed}"
    )


def _named_model(name: str, facts: Mapping[str, Any]) -> str:
    parameters = facts.get("ran", {}).get("num_parameters")
    details = [facts.get("architecture"), f"{count(parameters)} parameters" if parameters else None]
    known = ", ".join(detail for detail in details if detail)
    return f"the model {name} ({known})" if known else f"the model {name}"


def _task_facts(results: RunResults, task: str) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = results.manifest.get("tasks", {}).get(task, {})
    return facts


def _source(facts: Mapping[str, Any]) -> str:
    source = facts.get("source", {})
    kind = str(source.get("kind", "unknown"))
    files = ", ".join(source.get("files", {}).values())
    shown = {"bundled": "bundled with the task", "local": "local files", "files": f"files {files}"}
    if kind != "hub":
        return shown.get(kind, kind)
    return f"hub dataset {source.get('path')}, source {'verified' if source.get('verified') else 'not verified'}"


def _asked(results: RunResults, grids: Sequence[Grid]) -> Iterable[Part]:
    rows = []
    for grid in {grid.task: grid for grid in grids}.values():
        facts = _task_facts(results, grid.task)
        gold = grid.gold_counts
        labels = ", ".join(f"{label} ({count(gold.get(label, 0))})" if gold else label for label in grid.labels)
        rows.append(
            [
                grid.task,
                grid.split,
                count(grid.num_rows),
                count(facts.get("num_in_source")),
                _source(facts),
                labels,
                count(len({cell.template for cell in grid.cells})),
                count(len({cell.verbalizer for cell in grid.cells})),
            ]
        )
    heads = ["~task", "~split", "#rows", "#in source", "source", "labels (gold rows)", "#templates", "#verbalizers"]
    yield make_table(heads, rows)


def _templates(grids: Sequence[Grid]) -> Iterable[Part]:
    measured = [grid for grid in grids if grid.metric]
    if not measured:
        return
    yield Paragraph(_FOREST)
    for grid in measured:
        yield Subheading(grid_titles(grids)[grid.model, grid.task])
        yield Figure(
            tuple(forest_panels(grid)), f"Each panel is one verbalizer; the axis is {grid.metric} on {grid.task}."
        )
        yield _kind_table(grid)


def _kind_table(grid: Grid) -> Table:
    """Medians by verbalizer, instructive templates beside controls."""
    names = grid.verbalizers()
    rows = []
    for verbalizer, shown in names.items():
        for calibration in grid.calibrations:
            cells = [c for c in grid.decided if (c.verbalizer, c.calibration) == (verbalizer, calibration)]
            if not cells:
                continue
            by_kind = {kind: Spread.of(grid.numbers(c for c in cells if kind_of(c) == kind)) for kind in KINDS}
            whole = by_kind["instructive"]
            spread = span(whole.low, whole.high) if whole else span(None, None)
            apart, of_all = pairs_apart(grid, cells)
            numbers = [show_median(whole), spread, f"{apart} of {of_all}" if of_all else MISSING]
            numbers += [show_median(by_kind[kind]) for kind in KINDS[1:]]
            rows.append([shown, calibration, *numbers])
    heads = ["~verbalizer", "~calibration", "#median", "#min to max", "#pairs told apart"]
    heads += ["#irrelevant", "#misleading", "#null"]
    return make_table(heads, rows)


def _calibration(grids: Sequence[Grid]) -> Iterable[Part]:
    measured = [grid for grid in grids if grid.metric]
    titles = grid_titles(grids)
    panels = [panel for grid in measured for panel in change_panels(grid, titles[grid.model, grid.task])]
    if not panels:
        yield Paragraph("Nothing to compare: no cell was measured both without calibration and with one.")
        return
    yield Paragraph(_CHANGE)
    yield Figure(tuple(panels), "Before and after calibration, by the largest content-free prior.")
    models = model_names(grid.model for grid in measured)
    rows = []
    for grid in measured:
        names = grid.verbalizers()
        for change in changes(grid):
            rows.append(
                [
                    models[grid.model] if len(models) > 1 else "",
                    grid.task,
                    names[change.verbalizer],
                    change.calibration,
                    three_digits(change.before.median),
                    three_digits(change.after.median),
                    signed(change.difference),
                    *(count(n) for n in (change.before.num_cells, change.num_better, change.num_worse)),
                    three_digits(change.prior.median),
                ]
            )
    heads = ["~model", "~task", "~verbalizer", "~calibration", "#median before", "#median after"]
    yield make_table(
        [*heads, "#median paired change", "#templates", "#better", "#worse", "#median largest prior"], rows
    )


def _warnings(results: RunResults, grids: Sequence[Grid]) -> Iterable[Part]:
    models = model_names(grid.model for grid in grids)
    found = [caution for grid in grids for caution in cautions(grid)]
    rows = [[c.kind, models[c.model] if len(models) > 1 else "", c.task, c.text] for c in found]
    rows.sort(key=lambda row: CAUTION_KINDS.index(row[0]))
    failures: Mapping[str, str] = results.manifest.get("failures") or {}
    rows = [["task not scored", "", task, reason] for task, reason in sorted(failures.items())] + rows
    for task in dict.fromkeys(grid.task for grid in grids):
        source = _task_facts(results, task).get("source", {})
        if source.get("kind") == "hub" and not source.get("verified"):
            text = "The revision of the source was not checked by anyone: its rows or labels may differ."
            rows.append(["source not verified", "", task, text])
    if any(cell.calibration == "batch" for cell in results.results):
        rows.append(["transductive", "", "", "Calibration batch looks at all scored rows together."])
    yield make_table(["~warning", "~model", "~task", "what it means"], rows) if rows else Paragraph("No warnings.")
    yield from _skip_table(grids, models)
    titles = grid_titles(grids)
    panels = [panel for grid in grids if (panel := mass_panel(grid, titles[grid.model, grid.task]))]
    if panels:
        yield Subheading("Mass on label words")
        yield Paragraph(_MASS)
        yield Figure(tuple(panels), "Mass on the label words of each verbalizer, log scale; the line is 1 %.")
        yield from _low_mass_table(grids)


def _skip_table(grids: Sequence[Grid], models: Mapping[str, str]) -> Iterable[Part]:
    rows = [
        [
            models[grid.model] if len(models) > 1 else "",
            grid.task,
            f"{group.kind} {grid.verbalizers().get(group.name, group.name)}",
            count(group.num_cells),
            group.reason,
        ]
        for grid in grids
        for group in skipped_groups(grid)
    ]
    if rows:
        yield Subheading("Skipped cells")
        yield make_table(["~model", "~task", "~for", "#cells", "first reason"], rows)


def _low_mass_table(grids: Sequence[Grid]) -> Iterable[Part]:
    models = model_names(grid.model for grid in grids)
    rows = [
        [
            models[grid.model] if len(models) > 1 else "",
            grid.task,
            grid.templates()[cell.template],
            grid.verbalizers()[cell.verbalizer],
            percent(cell.mass),
        ]
        for grid in grids
        for cell in low_mass_pairs(grid)
    ]
    if rows:
        fold = f"{plural(len(rows), 'template x verbalizer pair')} with mass below 1 %"
        yield make_table(["~model", "~task", "~template", "~verbalizer", "#mass"], rows, fold=fold)
