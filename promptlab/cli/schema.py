"""`promptlab schema`: the JSON Schema of a kind of file, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from promptlab.cli.console import print_json


def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="task, template (its head), verbalizer or run.")],
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    from promptlab.schemas import file_schema

    print_json(file_schema(kind))
