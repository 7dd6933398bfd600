"""`promptlab doctor`: versions, devices, what effectively runs for a model, and whether its scores will be right."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from promptlab.cli.console import check_form, one_line, print_json, print_lines, table
from promptlab.cli.options import Device, Dtype, Form, Model, Revision, Scoring
from promptlab.errors import ModelError, PromptlabError

if TYPE_CHECKING:
    from promptlab.checks import Check

_SHORT = {"not applicable": "n/a"}


def doctor(
    model: Model = "mini",
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    scoring: Scoring = "mask",
    output: Form = "text",
) -> None:
    """Print what runs for a model, and check its scores."""
    from promptlab.provenance import find_versions

    check_form(output)
    facts: dict[str, Any] = {**find_versions(), **_machine(), "model": model}
    checks: tuple[Check, ...] = ()
    fault: PromptlabError | None = None
    try:
        found, checks = _model(scoring, model, revision, device, dtype)
        facts |= found
    except PromptlabError as error:
        fault = error
    if output == "json":
        print_json({**facts, "checks": [dataclasses.asdict(one) for one in checks]})
    else:
        rows = [[name, str(value)] for name, value in facts.items()]
        print_lines([table(rows, header=["what", "found"], wrap=True)])
        print_lines(_check_lines(checks))
    if fault is not None:
        raise fault
    _leave(model, checks)


def _machine() -> dict[str, Any]:
    import torch

    from promptlab.cache import cache_dir
    from promptlab.library import library_root, search_roots

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda devices": ", ".join(cuda) or "none",
        "threads": torch.get_num_threads(),
        "library": str(library_root()),
        "included": ", ".join(str(root) for root in search_roots()[:-1]) or "none",
        "cache": str(cache_dir()),
    }


def _model(
    scoring: str, model: str, revision: str | None, device: str, dtype: str
) -> tuple[dict[str, Any], tuple[Check, ...]]:
    """What runs for the model, as far as it can be loaded, and its checks.

    Raises:
        PromptlabError: there is no such model, or no such device.
    """
    from promptlab.auditing import audit
    from promptlab.backends.base import make_backend

    backend = make_backend(model, scoring=scoring, revision=revision, device=device, dtype=dtype)
    checks = audit(backend)
    facts: dict[str, Any] = {}
    try:
        facts["model max length"] = backend.encoder(None).max_length
        facts |= {f"model {name.replace('_', ' ')}": value for name, value in backend.facts().items()}
    except PromptlabError:
        pass  # the checks say why
    return facts, checks


def _check_lines(checks: Sequence[Check]) -> Iterator[str]:
    """The checks as a table, the remedy below what was found."""
    if not checks:
        return
    rows = []
    for one in checks:
        status = _SHORT.get(one.status, one.status)
        rows.append([one.name, status, one_line(one.found)])
        if one.remedy:
            rows.append(["", "", f"-> {one.remedy}"])
    yield ""
    yield table(rows, header=["check", "status", "found"], wrap=True)


def _leave(model: str, checks: Sequence[Check]) -> None:
    """Leave with the checks that failed.

    Raises:
        ModelError: one failed.
    """
    failed = [one.name for one in checks if one.status == "fail"]
    if failed:
        raise ModelError(f"model '{model}' fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}.")
