"""A run's folder belongs to what it was asked for: another plan under the same name is refused with the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptlab.errors import StoreError, UsageError
from promptlab.files import SCHEMA_VERSION, read_json, write_json
from promptlab.specs.run import RunSpec, flag

FILE = "spec.json"
# Where and how fast a run is made, and what its folder is called, may change from call to call.
_FREE = (
    "name",
    "output_path",
    "device",
    "batch_size",
    "no_text",
    "data",
    "store_states",
    "skip_preflight",
    "save_fits",
)
_SHOWN_CHARACTERS = 60


def refuse_another(folder: Path, spec: RunSpec) -> None:
    """Refuse a named run whose folder holds another one.

    Raises:
        UsageError: every key that differs, with both values.
    """
    differences = _differences(_stored(folder / FILE), spec.model_dump(mode="json"))
    if spec.name is not None and differences:
        raise UsageError(
            f"--name {spec.name}: {folder} holds another run: {'; '.join(differences)}. Give another --name, "
            "or --amend to change that run."
        )


def claim(folder: Path, spec: RunSpec) -> None:
    """Store what a run was asked for, before anything is scored and after everything that it can be refused for.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_json(folder / FILE, {"schema_version": SCHEMA_VERSION, "spec": spec.model_dump(mode="json")})


def _stored(path: Path) -> dict[str, Any]:
    """What the run in the folder was asked for; empty where there is none or it cannot be read."""
    try:
        stored = read_json(path)
    except StoreError:
        return {}
    spec = stored.get("spec") if isinstance(stored, dict) else None
    return spec if isinstance(spec, dict) else {}


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs, in words; a key that an older promptlab did not know is no difference."""
    keys = [key for key in wanted if key in stored and key not in _FREE and stored[key] != wanted[key]]
    return [f"{flag(key)} was {_shown(stored[key])} and is {_shown(wanted[key])}" for key in keys]


def _shown(value: Any) -> str:
    if value in (None, [], {}):
        return "not given"
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
