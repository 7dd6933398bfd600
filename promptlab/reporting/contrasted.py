"""Contrasts -> the tables of differences in the section "Hard against fitted": over all tasks, and task by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from promptlab.learning import CHOSEN, Contrast, Learning, Pooled
from promptlab.reporting.document import Paragraph, Part, Subheading, Table, make_table
from promptlab.reporting.formats import MISSING, count, model_names, plural, signed, signed_span, three_digits

SIGNIFICANT = 0.05
_MAX_OPEN = 16  # differences; more are summed up by number of shots, and the whole table is folded
_INTRO = (
    "A difference is the method minus the other in accuracy, on the same rows and the same examples, with an interval "
    "for other rows and other draws of the examples. "
    "The own start is the hard prompt with the template and words that the method was fitted with, as it scores "
    "uncalibrated and unfitted. "
)
_POOLED = (
    "Over all tasks the difference is the mean of the tasks' differences, each with the same weight. The tasks "
    "themselves are fixed: the interval is for other rows and other examples of these tasks, not for other tasks."
)


def contrast_parts(learning: Learning, names: Mapping[tuple[object, ...], str]) -> Iterable[Part]:
    """Differences against the chosen hard prompt and against the own start; nothing where there are none.

    Args:
        learning: of the run.
        names: what each curve is called, by its key.
    """
    family = len(learning.contrasts) + len(learning.pooled)
    if not family:
        return
    yield Subheading("Differences")
    yield Paragraph(
        f"{_INTRO}The p-value is adjusted by Holm for all {plural(family, 'difference')} of this run"
        f"{', those over all tasks among them' if learning.pooled else ''}; * marks those below {SIGNIFICANT}."
    )
    if learning.pooled:
        yield Paragraph(_POOLED)
        yield _pooled_table(learning.pooled)
    if len(learning.contrasts) > _MAX_OPEN:
        yield _short_table(learning.contrasts, names)
    yield _whole_table(learning.contrasts, names)


def show_difference(contrast: Contrast | Pooled | None) -> str:
    """A difference, marked where it may not be chance."""
    if contrast is None:
        return MISSING
    return signed(contrast.difference.value) + ("*" if contrast.adjusted < SIGNIFICANT else "")


def show_p(value: float) -> str:
    """A p-value with three digits."""
    return "< 0.001" if value < 0.001 else three_digits(value)


def _pooled_table(pooled: Sequence[Pooled]) -> Table:
    models = model_names(one.model for one in pooled)
    rows = [
        [
            models[one.model] if len(models) > 1 else "",
            one.method,
            count(one.num_shots),
            count(len(one.tasks)),
            signed(one.difference.value),
            signed_span(one.difference.interval.low, one.difference.interval.high),
            show_p(one.adjusted),
        ]
        for one in pooled
    ]
    heads = ["~model", "~method, minus chosen hard prompt", "#shots", "#tasks", "#difference", "#95 % interval"]
    return make_table([*heads, "#p (Holm)"], rows)


def _short_table(contrasts: Sequence[Contrast], names: Mapping[tuple[object, ...], str]) -> Table:
    """A row a task and method, a column a number of shots, against the chosen hard prompt."""
    models = model_names(one.model for one in contrasts)
    numbers = sorted({one.num_shots for one in contrasts})
    rows: dict[tuple[object, ...], dict[int, Contrast]] = {}
    for one in contrasts:
        if one.against == CHOSEN:
            rows.setdefault(_key(one), {})[one.num_shots] = one
    heads = ["~model", "~task", "~minus chosen hard prompt", *(f"#{number} shots" for number in numbers)]
    table = [
        [
            models[str(key[0])] if len(models) > 1 else "",
            str(key[1]),
            names[key],
            *(show_difference(found.get(number)) for number in numbers),
        ]
        for key, found in rows.items()
    ]
    return make_table(heads, table)


def _whole_table(contrasts: Sequence[Contrast], names: Mapping[tuple[object, ...], str]) -> Table:
    models = model_names(one.model for one in contrasts)
    rows = [
        [
            models[one.model] if len(models) > 1 else "",
            one.task,
            names[_key(one)],
            count(one.num_shots),
            one.against,
            signed(one.difference.value),
            signed_span(one.difference.interval.low, one.difference.interval.high),
            show_p(one.adjusted),
        ]
        for one in contrasts
    ]
    heads = ["~model", "~task", "~method", "#shots", "minus", "#difference", "#95 % interval", "#p (Holm)"]
    is_long = len(rows) > _MAX_OPEN
    return make_table(heads, rows, fold=f"All {len(rows)} differences with intervals" if is_long else None)


def _key(contrast: Contrast) -> tuple[object, ...]:
    return (contrast.model, contrast.task, contrast.method, contrast.template, contrast.verbalizer)
