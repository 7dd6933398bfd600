"""Stored cells -> what a reader must know before believing them: low mass, lost rows, near-ties, skipped cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptlab.reporting.formats import count, listing, percent, plural, round_percent, three_digits
from promptlab.reporting.spreads import CONTROLS, Grid, headlines, most_predicted
from promptlab.results import Result

LOW_MASS = 0.01
ONE_SIDED = 0.95
CAUTION_KINDS = (
    "skipped cells",
    "no gold labels",
    "low mass",
    "replaced tokens",
    "first tokens",
    "unequal lengths",
    "one-sided predictions",
    "controls",
    "unscored rows",
    "shortened rows",
    "near-ties",
)


@dataclass(frozen=True, slots=True)
class Caution:
    """One warning about a model x task, in one or two sentences."""

    model: str
    task: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class SkippedGroup:
    """Cells that one verbalizer's words or one calibration's prompts kept from being decided, and the first reason."""

    model: str
    task: str
    kind: str
    name: str
    num_cells: int
    reason: str


def cautions(grid: Grid) -> list[Caution]:
    """Every warning about a grid, the gravest first."""
    texts = (
        _skipped(grid),
        _no_gold(grid),
        _low_mass(grid),
        _replaced_tokens(grid),
        _first_tokens(grid),
        _unequal_lengths(grid),
        _one_sided(grid),
        _controls(grid),
        _unscored(grid),
        _shortened(grid),
        _near_ties(grid),
    )
    return [Caution(grid.model, grid.task, kind, text) for kind, text in zip(CAUTION_KINDS, texts, strict=True) if text]


def low_mass_pairs(grid: Grid) -> list[Result]:
    """Template x verbalizer pairs whose label words have less than 1 % of the probability at the mask."""
    return [cell for cell in grid.pairs() if cell.mass is not None and cell.mass < LOW_MASS]


def shortened_cells(grid: Grid) -> list[Result]:
    """One cell of every template with which some rows were cut to fit: the one of its blocks that cut most."""
    shortened = sorted((cell for cell in grid.decided if cell.num_truncated), key=lambda cell: cell.num_truncated)
    return list({cell.template: cell for cell in shortened}.values())


def skipped_groups(grid: Grid) -> list[SkippedGroup]:
    """The skipped cells of a grid, by verbalizer where its words were at fault, by calibration elsewhere.

    Words keep a template and a verbalizer from every calibration, the prompts of a calibration from that one alone.
    """
    decided = {(cell.block, cell.verbalizer) for cell in grid.decided}
    groups: dict[tuple[str, str], list[Result]] = {}
    for cell in grid.cells:
        if cell.skipped is not None:
            is_decided = (cell.block, cell.verbalizer) in decided
            key = ("calibration", cell.calibration) if is_decided else ("verbalizer", cell.verbalizer)
            groups.setdefault(key, []).append(cell)
    return [
        SkippedGroup(grid.model, grid.task, kind, name, len(cells), str(cells[0].skipped))
        for (kind, name), cells in groups.items()
    ]


def _skipped(grid: Grid) -> str:
    groups = skipped_groups(grid)
    if not groups:
        return ""
    number = sum(group.num_cells for group in groups)
    names = grid.verbalizers()
    words = [names[group.name] for group in groups if group.kind == "verbalizer"]
    calibrations = [group.name for group in groups if group.kind == "calibration"]
    causes = [f"the label words of {listing(words)}"] if words else []
    causes += [f"the prompts of calibration {listing(calibrations)}"] if calibrations else []
    return f"{number} of {plural(len(grid.cells), 'cell')} were not decided, for {' and for '.join(causes)}."


def _low_mass(grid: Grid) -> str:
    low = low_mass_pairs(grid)
    if not low:
        return ""
    pairs = plural(len(grid.pairs()), "template x verbalizer pair")
    masses = [cell.mass for cell in low if cell.mass is not None]
    return (
        f"{len(low)} of {pairs} give the label words less than {round_percent(LOW_MASS)} of the probability at the "
        f"mask (lowest {percent(min(masses))}): these templates do not ask for these words."
    )


def _replaced_tokens(grid: Grid) -> str:
    if not any(cell.scoring == "replaced_token" for cell in grid.decided):
        return ""
    return (
        "Words were judged in their place by a replaced-token detector: scores are log p(original), which are no "
        "probabilities over words, so there is no mass. Compare them with each other, not with those of masked models."
    )


def _first_tokens(grid: Grid) -> str:
    cut = [cell for cell in _split_cells(grid) if _is_cut(cell)]
    if not cut:
        return ""
    words = listing([grid.verbalizers()[name] for name in dict.fromkeys(cell.verbalizer for cell in cut)])
    return (
        f"Words of several tokens in {words} are judged by their first token alone (first_token): it may begin many "
        "other words too."
    )


def _unequal_lengths(grid: Grid) -> str:
    unequal: dict[str, Result] = {}
    for cell in _split_cells(grid):
        if not _is_cut(cell) and len(set(_lengths(cell))) > 1:
            unequal.setdefault(cell.verbalizer, cell)
    if not unequal:
        return ""
    names = grid.verbalizers()
    shown = [
        f"{names[name]} ({min(_lengths(cell))} to {max(_lengths(cell))} tokens, "
        f"{'summed' if cell.normalize == 'sum' else 'averaged'})"
        for name, cell in unequal.items()
    ]
    return (
        f"Label words of unlike lengths are compared in {listing(shown)}: a sum favours short words and a mean long "
        "ones, so that part of a difference between labels is one between lengths."
    )


def _split_cells(grid: Grid) -> list[Result]:
    """Decided cells with a word of several tokens."""
    return [cell for cell in grid.decided if cell.num_tokens]


def _is_cut(cell: Result) -> bool:
    """Whether words are judged by their first token; a detector judges whole words whatever the rule."""
    return cell.multi_token == "first_token" and cell.scoring == "mask"


def _lengths(cell: Result) -> list[int]:
    return [number for numbers in cell.num_tokens.values() for number in numbers]


def _one_sided(grid: Grid) -> str:
    decided = [(cell, found) for cell in grid.decided if (found := most_predicted(cell))]
    flat = [cell for cell, (_, part) in decided if part >= ONE_SIDED]
    if not flat:
        return ""
    cells = plural(len(decided), "cell")
    return f"{len(flat)} of {cells} predict one label for {round_percent(ONE_SIDED)} of rows or more."


def _controls(grid: Grid) -> str:
    """Controls that do as well as the instructive templates: then the wording may not be what is measured."""
    sign = 1 if grid.higher_is_better else -1
    parts = []
    for headline in headlines(grid):
        whole = headline.instructive
        for kind in CONTROLS:
            control = headline.kinds.get(kind)
            if whole and control and sign * (control.median - whole.median) >= 0:
                numbers = f"{three_digits(control.median)} against {three_digits(whole.median)}"
                parts.append(f"{kind} with calibration {headline.calibration} ({numbers})")
    return f"No worse than the median over instructive templates: {listing(parts)}." if parts else ""


def _unscored(grid: Grid) -> str:
    numbers = [cell.num_unscored for cell in grid.decided if cell.num_unscored]
    if not numbers:
        return ""
    return (
        f"{plural(len(numbers), 'cell')} could not score {_range(numbers)} of {plural(grid.num_rows, 'row')}, "
        "because the text that must not be shortened is too long. These rows are counted as wrong."
    )


def _shortened(grid: Grid) -> str:
    cells = shortened_cells(grid)
    if not cells:
        return ""
    numbers = [cell.num_truncated for cell in cells]
    low, high = (percent(end / grid.num_rows) for end in (min(numbers), max(numbers)))
    share = low if low == high else f"{low} to {high}"
    return (
        f"With {plural(len(cells), 'template')}, {share} of {plural(grid.num_rows, 'row')} ({_range(numbers)}) were "
        "shortened to fit."
    )


def _near_ties(grid: Grid) -> str:
    numbers = [cell.num_near_ties for cell in grid.decided if cell.num_near_ties]
    if not numbers:
        return ""
    return (
        f"In {plural(len(numbers), 'cell')}, {_range(numbers)} of {plural(grid.num_rows, 'row')} have two best labels "
        "closer than 0.0001 in log-probability: another machine or batch size may decide them the other way."
    )


def _no_gold(grid: Grid) -> str:
    if grid.metric is not None or not grid.decided:
        return ""
    return f"The {plural(grid.num_rows, 'row')} have no gold labels, so nothing is measured against them."


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} to {count(high)}"
