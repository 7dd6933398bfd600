"""`promptlab doctor`: versions, devices and what effectively runs for a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, table
from promptlab.errors import PromptlabError, UsageError


def doctor(
    model: Annotated[str, typer.Option(metavar="NAME", help="A folder or a hub name.")] = "mini",
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "float32",
    output: Annotated[str, typer.Option(metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Print versions, devices and what runs for a model."""
    from promptlab.provenance import find_versions

    if output not in ("text", "json"):
        raise UsageError(f"--output {output}: write text or json.")
    facts: dict[str, Any] = {**find_versions(), **_machine(), "model": model}
    fault = None
    try:
        facts |= _model(model, revision, device, dtype)
    except PromptlabError as error:
        fault = error
    if output == "json":
        print_lines([json.dumps(facts, indent=1, default=str)])
    else:
        rows = [[name, str(value)] for name, value in facts.items()]
        print_lines([table(rows, header=["what", "found"], wrap=True)])
    if fault is not None:
        raise fault


def _machine() -> dict[str, Any]:
    import torch

    from promptlab.cache import cache_dir
    from promptlab.library import library_root, search_roots

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda devices": ", ".join(cuda) or "none",
        "threads": torch.get_num_threads(),
        "library": library_root(),
        "included": ", ".join(str(root) for root in search_roots()[:-1]) or "none",
        "cache": cache_dir(),
    }


def _model(model: str, revision: str | None, device: str, dtype: str) -> dict[str, Any]:
    """What runs for the model; its weights are loaded for it."""
    from promptlab.registry import BACKENDS

    backend = BACKENDS.get("mlm")(model, revision=revision, device=device, dtype=dtype)
    encoder = backend.encoder(None)
    facts = {f"model {name.replace('_', ' ')}": value for name, value in backend.facts().items()}
    return {"model max length": encoder.max_length, **facts}
