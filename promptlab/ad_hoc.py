"""A file of rows that no task describes -> a `Task`: fields are columns of the file, labels come from the caller.

The head of each file is looked at, so that a column that is not there is told before anything is loaded. A fault names
the flag that is to blame.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.reading import RawRow, check_file, missing_column, read_rows
from promptlab.specs.task import RESERVED_FIELDS, Task
from promptlab.validating import as_field

HEAD_ROWS = 20
_NAME = re.compile(r"\w[\w.+-]*")
_PATH = "--rows"  # in the place of a task file; its folder is the working folder


def ad_hoc_task(
    rows: str | Path,
    *,
    labels: Sequence[str],
    train_rows: str | Path | None = None,
    text_column: str | None = None,
    fields: Mapping[str, str] | None = None,
    label_column: str | None = None,
    label_values: Mapping[str, str] | None = None,
    family: str = "",
    name: str | None = None,
    head: Iterable[tuple[str, RawRow]] | None = None,
) -> Task:
    """A task whose split `test` is a file.

    Without `text_column` and `fields` every column that has the name of a field is one, except the gold label.

    Args:
        rows: the file; relative paths are relative to the working folder.
        labels: names of the labels, in order: those of the verbalizers.
        train_rows: another file with the same columns, the split `train`.
        text_column: the column of the field `text`.
        fields: field to column.
        label_column: the column of the gold label; None where there is none.
        label_values: raw value to label; without it the column holds the labels' names.
        family: the family of the templates and verbalizers that apply.
        name: the task's name; the file's by default.
        head: the first rows, where the caller has read them already; `rows` is then a name only, as of standard input.

    Raises:
        UsageError: an argument that does not fit the file or the others; the flag is named.
        DataError: the head of a file cannot be read.
    """
    wanted = _wanted_fields(text_column, fields or {})
    shown = f"--rows {rows}" if head is None else str(rows)
    seen = _head("--rows", rows) if head is None else list(head)
    _check_columns(shown, wanted, label_column, _columns(seen))
    if train_rows is not None:
        of_train = _head("--train-rows", train_rows)
        _check_columns(f"--train-rows {train_rows}", wanted, label_column, _columns(of_train))
        seen += of_train
    chosen = {field: column for field, (_, column) in wanted.items()} or _all_fields(shown, seen, label_column)
    files = {"test": str(rows), **({} if train_rows is None else {"train": str(train_rows)})}
    source: dict[str, Any] = {"files": files, "fields": chosen}
    if label_column is not None:
        source["label"] = {"column": label_column, "values": _checked_values(label_values, labels)}
    elif label_values:
        raise UsageError("--label-values: they are the values of a column: name it with --label-column.")
    return Task.model_validate(
        {
            "name": _task_name(name, rows),
            "path": _PATH,
            "title": f"Rows of {rows}",
            "family": family,
            "kind": "classification",
            "labels": _checked_labels(labels),
            "sources": [source],
            "language": "not stated",
            "license": "not stated",
            "citation": "not stated",
            "version": 1,
        }
    )


def _wanted_fields(text_column: str | None, fields: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field to the flag that asks for it and its column."""
    for name in fields:
        if not name.isidentifier() or name in RESERVED_FIELDS:
            why = (
                "has a meaning of its own in templates"
                if name in RESERVED_FIELDS
                else "is no name that a template can use"
            )
            raise UsageError(f"--field {name}={fields[name]}: '{name}' {why}: give the field another name.")
    if text_column is not None and "text" in fields:
        raise UsageError(f"--text-column {text_column} and --field text={fields['text']} both fill 'text': keep one.")
    wanted = {} if text_column is None else {"text": (f"--text-column {text_column}", text_column)}
    return wanted | {name: (f"--field {name}={column}", column) for name, column in fields.items()}


def _head(flag: str, path: str | Path) -> list[tuple[str, RawRow]]:
    """The first rows of a file; what is wrong with them is said with the flag."""
    file = Path(path).expanduser()
    try:
        check_file(file, str(path))
    except DataError as error:
        raise UsageError(f"{flag} {error}") from None
    try:
        return list(itertools.islice(read_rows(file), HEAD_ROWS))
    except DataError as error:
        raise DataError(f"{flag} {error}") from None


def _columns(head: Sequence[tuple[str, RawRow]]) -> list[str]:
    """The columns that any of the first rows has, in order."""
    return list(dict.fromkeys(str(column) for _, row in head for column in row))


def _check_columns(
    shown: str, wanted: Mapping[str, tuple[str, str]], label_column: str | None, columns: list[str]
) -> None:
    """Refuse what names a column that the rows have not."""
    asked = list(wanted.values())
    if label_column is not None:
        asked.append((f"--label-column {label_column}", label_column))
    for by, column in asked:
        if column not in columns:
            raise UsageError(missing_column(f"{by}: in {shown} the", column, columns))


def _all_fields(shown: str, head: Sequence[tuple[str, RawRow]], label_column: str | None) -> dict[str, str]:
    """Every column that each of the first rows can fill, as the field of its name."""
    columns = _columns(head)
    fields = {
        column: column
        for column in columns
        if column.isidentifier() and column not in {*RESERVED_FIELDS, label_column} and _can_fill(column, head)
    }
    if not fields:
        raise UsageError(
            f"{shown}: no column has a name that a template can use ({', '.join(columns[:20])}): name the column "
            "of the text with --text-column, or each field with --field NAME=COLUMN."
        )
    return fields


def _can_fill(column: str, head: Iterable[tuple[str, RawRow]]) -> bool:
    """Whether a column is in each row and holds what may stand in a prompt."""
    try:
        for place, row in head:
            as_field(row[column], column, place)
    except (KeyError, DataError):
        return False
    return True


def _checked_values(values: Mapping[str, str] | None, labels: Sequence[str]) -> dict[str, str] | None:
    for raw, label in (values or {}).items():
        if label not in labels:
            hint = did_you_mean(label, labels)
            raise UsageError(
                f"--label-values {raw}={label}: there is no label '{label}'.{hint} Labels: {', '.join(labels)}."
            )
    return dict(values) if values else None


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if len(set(labels)) < max(2, len(labels)):
        raise UsageError(f"--rows: two different labels or more are needed, found {', '.join(labels) or 'none'}.")
    return tuple(labels)


def _task_name(name: str | None, rows: str | Path) -> str:
    """The given name, or one made of the file's."""
    if name is None:
        return re.sub(r"[^\w.+]+", "-", Path(rows).stem).strip("-.+") or "rows"
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name of a task is made of letters, digits, '_', '.', '+' and '-', found {name!r}.")
    return name
