"""The options that several commands have, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(metavar="NAME", help="A folder or a hub name.")]
Revision = Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="DIR", help="Folder with tasks/, templates/, verbalizers/; repeatable.")
]
IncludePrompts = Annotated[
    list[str] | None, typer.Option(metavar="DIR", help="Folder with templates/, verbalizers/; repeatable.")
]
MaxLength = Annotated[int | None, typer.Option(metavar="N", min=4, help="Most tokens of a prompt.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")]
DrawSeed = Annotated[int, typer.Option(metavar="N", min=0, help="For templates that draw.")]
Form = Annotated[str, typer.Option(metavar="FORM", help="text or json.")]
Scoring = Annotated[str, typer.Option(metavar="NAME", help="mask, or replaced_token for ELECTRA and DeBERTa-v3.")]
