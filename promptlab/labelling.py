"""A file, a stream or a list of rows -> the same rows with a predicted label, its probability and the mass."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from promptlab.ad_hoc import HEAD_ROWS, ad_hoc_task
from promptlab.backends.base import make_backend
from promptlab.errors import DataError, TemplateError, UsageError
from promptlab.predicting import Predicted, Predictor
from promptlab.reading import read_rows, read_stream
from promptlab.rendering import CompiledTemplate, check_fields, compile_template
from promptlab.rows import stream_examples
from promptlab.specs.base import only
from promptlab.specs.run import as_pairs
from promptlab.specs.task import Task
from promptlab.specs.template import load_templates
from promptlab.specs.verbalizer import load_verbalizers
from promptlab.types import Example

STDIN = "-"
Pairs = Iterable[tuple[str, Mapping[str, Any]]]
Head = list[tuple[str, Mapping[str, Any]]]
_NOTHING = Predicted(None, {}, None, None)


@dataclass(frozen=True, slots=True)
class Labelling:
    """How rows are to be labelled.

    `templates` and `verbalizer` are selectors; `fields` maps a field of the templates to a column, and without it
    and `text_column` every column is the field of its name. `prefix` stands before the names of the new columns.
    """

    templates: Sequence[Any]
    verbalizer: Any
    text_column: str | None = None
    fields: Any = None
    calibration: str = "none"
    model: str = "mini"
    revision: str | None = None
    include: Sequence[str] = ()
    max_length: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    scoring: str = "mask"
    batch_size: str | int = "auto"
    seed: int = 0
    prefix: str = ""


def open_rows(rows: str, *, stdin: BinaryIO, form: str | None) -> Pairs:
    """(place, raw row) pairs of a file, or of standard input for `-`.

    Raises:
        UsageError: a form was named for a file, whose suffix says it.
    """
    if rows == STDIN:
        return read_stream(stdin, form or "jsonl", "standard input")
    if form is not None:
        raise UsageError(f"--format {form}: is for standard input, the suffix of {rows} says what it is.")
    return read_rows(Path(rows).expanduser())


def label_rows(pairs: Pairs, asked: Labelling, *, shown: str) -> Iterator[dict[str, Any]]:
    """Every row with `predicted`, `confidence`, `p_<label>`, `mass` and `reason` added, in order.

    Args:
        pairs: (place, raw row) pairs.
        asked: how.
        shown: what the rows are called in messages.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    head, source = _head(pairs, shown)
    verbalizer = only(load_verbalizers([asked.verbalizer], include=asked.include), "verbalizer", str(asked.verbalizer))
    templates = [compile_template(one) for one in load_templates(asked.templates, include=asked.include)]
    labels = tuple(verbalizer.labels)
    task = _task(head, templates, labels, asked.text_column, asked.fields, shown)
    _check_columns([row for _, row in head], _columns(_NOTHING, labels, asked.prefix), shown)
    backend = make_backend(
        asked.model, scoring=asked.scoring, revision=asked.revision, device=asked.device, dtype=asked.dtype
    )
    predictor = Predictor(
        backend=backend,
        encoder=backend.encoder(asked.max_length),
        templates=templates,
        verbalizer=verbalizer,
        fields=task.fields,
        calibration=asked.calibration,
        batch_size=asked.batch_size,
        seed=asked.seed,
    )
    yield from _labelled(task, head, source, predictor, prefix=asked.prefix, shown=shown)


def label_rows_by(
    pairs: Pairs,
    predictor: Predictor,
    *,
    text_column: str | None = None,
    fields: Any = None,
    prefix: str = "",
    shown: str,
) -> Iterator[dict[str, Any]]:
    """The same with what was fitted, whose template, words and model are its own.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    head, source = _head(pairs, shown)
    task = _task(head, predictor.templates, predictor.labels, text_column, fields, shown)
    _check_columns([row for _, row in head], _columns(_NOTHING, predictor.labels, prefix), shown)
    yield from _labelled(task, head, source, predictor, prefix=prefix, shown=shown)


def _head(pairs: Pairs, shown: str) -> tuple[Head, Iterator[tuple[str, Mapping[str, Any]]]]:
    """The first rows, by which the columns are checked, and the rest.

    Raises:
        DataError: there is none.
    """
    source = iter(pairs)
    head = list(itertools.islice(source, HEAD_ROWS))
    if not head:
        raise DataError(f"{shown}: has no rows.")
    return head, source


def _task(
    head: Head,
    templates: Sequence[CompiledTemplate],
    labels: Sequence[str],
    text_column: str | None,
    fields: Any,
    shown: str,
) -> Task:
    """The task of the rows: the fields that the templates read are columns of theirs."""
    task = ad_hoc_task(shown, labels=labels, text_column=text_column, fields=_fields(fields), head=head)
    for template in templates:
        _check_fields(template, task.fields, shown)
    return task


def _labelled(
    task: Task,
    head: Head,
    source: Iterator[tuple[str, Mapping[str, Any]]],
    predictor: Predictor,
    *,
    prefix: str,
    shown: str,
) -> Iterator[dict[str, Any]]:
    """Every row with its prediction, one after the other."""
    waiting: deque[Mapping[str, Any]] = deque()

    def examples() -> Iterator[Example]:
        for raw, example in stream_examples(task, itertools.chain(head, source)):
            waiting.append(raw)
            yield example

    for predicted in predictor.predict(examples()):
        raw, new = waiting.popleft(), _columns(predicted, predictor.labels, prefix)
        _check_columns([raw], new, shown)
        yield {**raw, **new}


def _fields(pairs: Any) -> dict[str, str] | None:
    """Field to column."""
    try:
        found: dict[str, str] | None = as_pairs(pairs)
    except ValueError as error:
        raise UsageError(f"--field: {error}.") from None
    return found


def _check_fields(template: CompiledTemplate, fields: Sequence[str], shown: str) -> None:
    """Refuse a template that reads a field for which the rows have no column."""
    try:
        check_fields(template, fields, of=shown)
    except TemplateError as error:
        raise TemplateError(f"{error} Say which column is which field by --text-column or --field.") from None


def _columns(predicted: Predicted, labels: Sequence[str], prefix: str) -> dict[str, Any]:
    """What is added to a row; numbers are null where the row could not be scored."""
    found = predicted.probabilities
    values: dict[str, Any] = {
        "predicted": predicted.label,
        "confidence": found[predicted.label] if predicted.label is not None else None,
        **{f"p_{label}": found.get(label) for label in labels},
        "mass": predicted.mass,
        "reason": predicted.reason,
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


def _check_columns(rows: Iterable[Mapping[str, Any]], new: Mapping[str, Any], shown: str) -> None:
    """Refuse to write over a column that a row has."""
    for row in rows:
        taken = sorted(new.keys() & row.keys())
        if taken:
            raise UsageError(
                f"{shown}: has a column '{taken[0]}' already: name the new columns otherwise with --prefix."
            )
