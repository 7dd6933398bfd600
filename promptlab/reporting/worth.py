"""Data advantages -> what the report says about them: "worth 3.1 x the examples (1.8 to 5.0)"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from promptlab.learning import Worth
from promptlab.reporting.document import Paragraph, Part, Subheading, make_table
from promptlab.reporting.formats import MISSING, model_names, round_percent
from promptlab.specs.run import ZERO_SHOT
from promptlab.statistics.data_advantage import DataAdvantage

MOSTLY = 0.5  # of the resamples, in which curves must share some accuracies for a number to be shown
_INTRO = (
    "How many labelled examples a method is worth over another (data advantage, Le Scao and Rush 2021): over the "
    "accuracies that both curves reach, the mean of what the other needs against what the method needs, on a "
    "logarithmic axis of examples. "
    "Worth 3 x the examples: the other needs three times as many for the same accuracy; below 1 it needs fewer. "
    "A factor can be no larger than the largest number of shots over the smallest, and says little where the curves "
    "share little. "
    "Curves are means over draws and stay at the highest accuracy that they have reached. "
    "Beside it stands the difference in examples a label on the plain axis, as in the paper, and the paper's own "
    "number, which takes the best draw at each number of shots and is optimistic. "
    "Intervals are of 2,000 resamples of rows and draws. "
    "Where the curves share no accuracies, or do so in fewer than half of the resamples, there is no number but a "
    "reason; the last column says in how many they share some, which are those that the interval is of. "
    "The hard prompt is the one that the same shots chose."
)


def worth_parts(worths: Sequence[Worth], names: Mapping[tuple[object, ...], str]) -> Iterable[Part]:
    """The table of data advantages; nothing where no curve has two points."""
    if not worths:
        return
    yield Subheading("Worth n labelled examples")
    yield Paragraph(_INTRO)
    models = model_names(one.first.model for one in worths)
    rows = [
        [
            models[one.first.model] if len(models) > 1 else "",
            one.first.task,
            names[one.first.key],
            "hard prompt" if one.second.method == ZERO_SHOT else names[one.second.key],
            show_worth(one),
            _examples(one.examples),
            _examples(one.highest).partition(" (")[0],
            "{:.2f} to {:.2f}".format(*one.factor.shared) if one.factor.shared else MISSING,
            round_percent(one.factor.defined),
        ]
        for one in worths
    ]
    heads = ["~model", "~task", "~method", "~over", "~is worth", "#examples a label", "#best draws"]
    yield make_table([*heads, "#shared accuracies", "#defined in"], rows)


def show_worth(worth: Worth) -> str:
    """A factor in words, or why there is none."""
    found = worth.factor
    if found.value is None:
        return f"undefined: {_reason(worth)}"
    if found.defined < MOSTLY:
        return "undefined: they share too little"
    between = f" ({_digits(found.interval.low)} to {_digits(found.interval.high)})" if found.interval else ""
    return f"{_digits(found.value)} x the examples{between}"


def _reason(worth: Worth) -> str:
    """Which curve lies above the other, in the numbers of shots that were run."""
    found, first = worth.factor, worth.first.points
    if found.first[0] > found.second[1]:
        return f"above from {first[0].num_shots} shots on"
    if found.second[0] > found.first[1]:
        return f"below up to {first[-1].num_shots} shots"
    return "gains nothing" if found.first[0] == found.first[1] else "the other gains nothing"


def _digits(factor: float) -> str:
    """Two digits, which is more than these numbers are good for."""
    return f"{factor:.2f}" if factor < 0.995 else f"{factor:.1f}" if factor < 9.95 else f"{factor:,.0f}"


def _examples(found: DataAdvantage) -> str:
    """A number of examples with its interval."""
    if found.value is None or found.defined < MOSTLY:
        return MISSING
    ends = found.interval
    between = f" ({_whole(ends.low).lstrip('+')} to {_whole(ends.high).lstrip('+')})" if ends else ""
    return f"{_whole(found.value)}{between}"


def _whole(number: float) -> str:
    """With its sign, and one decimal below 10."""
    text = f"{abs(number):.1f}" if abs(number) < 9.95 else f"{abs(number):,.0f}"
    return text if not text.strip("0.") else ("+" if number > 0 else "−") + text
