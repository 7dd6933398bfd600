"""`promptlab predict`: new rows in, the same rows with a label and its probability out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from promptlab.cli.console import check_form, split_pairs
from promptlab.cli.options import Device, IncludePrompts, MaxLength, Revision
from promptlab.errors import DataError, UsageError

FORMS = ("csv", "jsonl")


def predict(
    rows: Annotated[str, typer.Argument(metavar="FILE", help="csv, tsv, jsonl, parquet, txt; - reads standard input.")],
    template: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A template's text or name; several are averaged.")
    ] = None,
    verbalizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="A verbalizer, or label=word|word,label=word.")
    ] = None,
    artefact: Annotated[
        str | None, typer.Option(metavar="DIR", help="What was fitted and saved, in the place of a template and words.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column that templates call text.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=COLUMN", help="A field and its column; repeatable.")
    ] = None,
    input_format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Of standard input: jsonl (default), csv, tsv, txt.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="NAME", help="none (default), contextual or pmi_dc.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A folder or a hub name; default: the bundled mini.")
    ] = None,
    revision: Revision = None,
    include: IncludePrompts = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 (default), bfloat16 or float16.")] = None,
    scoring: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="mask (default), or replaced_token for ELECTRA and DeBERTa-v3."),
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="N", help="auto or a number of prompts.")] = "auto",
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="For templates that draw.")] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put before the names of the new columns.")] = "",
    output_path: Annotated[
        str | None,
        typer.Option("--output-path", "-o", metavar="FILE", help=".csv or .jsonl; default: standard output."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FORM", help="csv or jsonl; default: by --output-path or the rows.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing on the way.")] = False,
) -> None:
    """Label new rows."""
    from promptlab.labelling import STDIN, Labelling, label_rows, label_rows_by, open_rows

    form = _form(output, output_path, f"-.{input_format}" if rows == STDIN and input_format else rows)
    shown, fields = "standard input" if rows == STDIN else rows, split_pairs(field)
    own = {
        "template": template,
        "verbalizer": verbalizer,
        "calibration": calibration,
        "model": model,
        "revision": revision,
        "include": include,
        "max_length": max_length,
        "scoring": scoring,
        "seed": seed,
    }
    given: dict[str, Any] = {name: value for name, value in own.items() if value not in (None, [])}
    number = unscored = 0
    if artefact is not None:
        _refuse_beside(artefact, given)
        predictor = _load(artefact, device=device, dtype=dtype, batch_size=batch_size)
        pairs = open_rows(rows, stdin=sys.stdin.buffer, form=input_format)
        labelled = label_rows_by(pairs, predictor, text_column=text_column, fields=fields, prefix=prefix, shown=shown)
    else:
        _require(given)
        given |= {"templates": given.pop("template"), "dtype": dtype or "float32", "batch_size": batch_size}
        asked = Labelling(**given, text_column=text_column, fields=fields, prefix=prefix, device=device)
        pairs = open_rows(rows, stdin=sys.stdin.buffer, form=input_format)
        labelled = label_rows(pairs, asked, shown=shown)
    with _stream(output_path) as stream:
        for row in _written(labelled, stream, form):
            number += 1
            unscored += row[f"{prefix}predicted"] is None
    if not quiet:
        where = f" in {output_path}" if output_path else ""
        lost = f", {unscored} of them could not be scored" if unscored else ""
        print(f"{number} rows labelled{where}{lost}", file=sys.stderr)


def _require(given: dict[str, Any]) -> None:
    """Refuse to label without being told how.

    Raises:
        UsageError: neither an artefact nor both template and verbalizer are given.
    """
    for name in ("template", "verbalizer"):
        if name not in given:
            raise UsageError(
                f"Missing option '--{name}', or name an --artefact in the place of both. `promptlab predict --help` "
                "lists what there is."
            )


def _refuse_beside(artefact: str, given: dict[str, Any]) -> None:
    """Refuse what an artefact has of its own.

    Raises:
        UsageError: it is given beside it.
    """
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"--artefact {artefact}: has its own template, words, model and length: leave {flags} out, or leave "
            "--artefact out."
        )


def _load(artefact: str, *, device: str, dtype: str | None, batch_size: str) -> Any:
    """What labels rows with an artefact."""
    from promptlab.fitted import load, make_predictor

    return make_predictor(load(artefact, device=device, dtype=dtype).loaded, batch_size=batch_size)


def _form(output: str | None, output_path: str | None, rows: str) -> str:
    if output is not None:
        check_form(output, FORMS)
        return output
    suffix = Path(output_path or rows).suffix.lstrip(".").lower()
    if output_path is not None and suffix not in FORMS:
        raise UsageError(f"--output-path {output_path}: must end in .csv or .jsonl, or name the form by --output.")
    return suffix if suffix in FORMS else "jsonl"


@contextlib.contextmanager
def _stream(path: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that gets its name when it is whole."""
    if path is None:
        yield sys.stdout
        return
    from promptlab.files import whole_text

    with whole_text(Path(path).expanduser()) as stream:
        yield stream


def _written(rows: Iterator[dict[str, Any]], stream: IO[str], form: str) -> Iterator[dict[str, Any]]:
    """The rows, each after it was written."""
    import csv
    import json

    writer: Any = None
    for number, row in enumerate(rows, start=1):
        if form == "jsonl":
            plain = {name: None if value != value else value for name, value in row.items()}
            stream.write(json.dumps(plain, ensure_ascii=False, default=str) + "\n")
        else:
            if writer is None:
                writer = csv.DictWriter(stream, list(row), lineterminator="\n")
                writer.writeheader()
            _refuse_new_columns(row, writer.fieldnames, number)
            writer.writerow({name: _cell(value) for name, value in row.items()})
        yield row


def _refuse_new_columns(row: dict[str, Any], columns: list[str], number: int) -> None:
    """A table has the columns of its first row.

    Raises:
        DataError: the row has another one.
    """
    new = [name for name in row if name not in columns]
    if new:
        raise DataError(
            f"row {number} has a column '{new[0]}' that the first row has not: write --output jsonl, which takes any."
        )


def _cell(value: Any) -> Any:
    import json

    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
