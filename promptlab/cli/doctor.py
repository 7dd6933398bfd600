"""`promptlab doctor`: versions, devices and what effectively runs for a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, table
from promptlab.errors import PromptlabError


def doctor(
    model: Annotated[str, typer.Option(help="A folder or a hub name.")] = "mini",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    output: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """Print versions, devices and what runs for a model."""
    from promptlab.provenance import find_versions

    facts: dict[str, Any] = {**find_versions(), **_machine(), **_model(model, revision, device, dtype)}
    if output == "json":
        print_lines([json.dumps(facts, indent=1)])
        return
    print_lines([table([[name, str(value)] for name, value in facts.items()], header=["what", "found"], width=200)])
    if facts.get("model fault"):
        raise PromptlabError(str(facts["model fault"]))


def _machine() -> dict[str, Any]:
    import torch

    from promptlab.backends.checkpoints import cache_dir
    from promptlab.library import library_root, search_roots

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda devices": ", ".join(cuda) or "none",
        "threads": torch.get_num_threads(),
        "library": library_root(),
        "included": ", ".join(str(root) for root in search_roots()[:-1]) or "none",
        "cache": cache_dir(),
    } | {}


def _model(model: str, revision: str | None, device: str, dtype: str) -> dict[str, Any]:
    from promptlab.registry import BACKENDS

    try:
        backend = BACKENDS.get("mlm")(model, revision=revision, device=device, dtype=dtype)
        encoder = backend.encoder(None)
        facts = {f"model {name}": value for name, value in backend.facts().items()}
    except PromptlabError as error:
        return {"model": model, "model fault": str(error)}
    return {"model": model, "model max length": encoder.max_length, **facts}
