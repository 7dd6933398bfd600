"""`promptlab convert`: pickled weights -> safetensors, once, without running what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptlab.cli.console import print_lines
from promptlab.cli.options import Revision


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or a hub name with pytorch_model.bin.")],
    output_path: Annotated[str, typer.Option("--output-path", "-o", metavar="DIR", help="Folder to write.")],
    revision: Revision = None,
) -> None:
    """Write pickled weights as safetensors; nothing is executed."""
    from promptlab.backends.checkpoints import convert_checkpoint

    print_lines([str(convert_checkpoint(model, Path(output_path).expanduser(), revision=revision))])
