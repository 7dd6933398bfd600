"""A name, a path or a text -> one thing whole: its record, and what applies to it or to what it applies.

A name may stand without its family where it is the only one; where it means several things, all are named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptlab.errors import FileFault, ModelError, UsageError, did_you_mean
from promptlab.library import FOLDERS, SUFFIXES, Kind, bundled_model_path, file_at, shown_path
from promptlab.listing import KINDS, Listing, Record, file_record, list_things, template_record, verbalizer_record
from promptlab.narrowing import applies, some

SINGULARS = {kind[:-1]: kind for kind in KINDS}
_SHAPE = {
    "model_type": "architecture",
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "positions",
    "dtype": "dtype",
}


def find_thing(name: str, kind: str | None = None, include: Sequence[str] = ()) -> dict[str, Any]:
    """The record of what a name, a path or a text means, with its kind as `type`, and with what it goes together.

    Args:
        name: a name with or without its family, the path of a data file or of a model's folder, or the text of a
            template or of a verbalizer.
        kind: one of `SINGULARS`; None for any.
        include: folders of the user's own.

    Raises:
        UsageError: the name means nothing, or several things.
        PromptlabError: what it means cannot be read.
    """
    if kind is not None and kind not in SINGULARS:
        known = ", ".join(SINGULARS)
        raise UsageError(f"--kind {kind}: there is no such kind.{did_you_mean(kind, SINGULARS)} Known: {known}.")
    found = _written(name, kind)
    if found is None:
        kinds = [SINGULARS[kind]] if kind else [one for one in KINDS if one in FOLDERS.values() or "/" not in name]
        listings = {one: list_things(one, include) for one in kinds}
        found = _named(name, listings) or _at_path(name, kind)
        if found is None:
            raise UsageError(_unknown(name, kind, listings))
    found_kind, record = found
    return {"type": found_kind, **record, **_company(found_kind, record, include)}


def _written(name: str, kind: str | None) -> tuple[str, Record] | None:
    """A template or a verbalizer that is written out instead of named."""
    if kind in (None, "template") and "{{" in name:
        from promptlab.specs.template import Template

        template = Template.from_text(name)
        return "template", {"name": template.name, "family": None, **template_record(template), "path": None}
    if kind in (None, "verbalizer") and "=" in name and not Path(name).expanduser().exists():
        from promptlab.specs.verbalizer import Verbalizer

        verbalizer = Verbalizer.load(name)
        return "verbalizer", {"name": verbalizer.name, "family": None, **verbalizer_record(verbalizer), "path": None}
    return None


def _named(name: str, listings: Mapping[str, Listing]) -> tuple[str, Record] | None:
    """The one thing that is called so, or that is called so without its family.

    Raises:
        UsageError: there are several.
        FileFault: its file is broken.
    """
    names = [(kind, one) for kind, listing in listings.items() for one in listing.names]
    hits = [hit for hit in names if hit[1] == name] or [hit for hit in names if _short(*hit) == _short(hit[0], name)]
    if len(hits) > 1:
        shown = some(f"{kind[:-1]} {one}" for kind, one in hits)
        remedy = "Give the whole name." if len({one for _, one in hits}) == len(hits) else "Give --kind as well."
        raise UsageError(f"'{name}' is one of several: {shown}. {remedy}")
    for kind, one in hits:
        listing = listings[kind]
        if one in listing.faults:
            raise FileFault(listing.faults[one])
        record = next(record for record in listing.records if record["name"] == one)
        return kind[:-1], {**record, **model_facts(bundled_model_path())} if kind == "models" else record
    return None


def _short(kind: str, name: str) -> str:
    """A name without its family; that of a metric or a calibration without its argument."""
    return name.rpartition("/")[2] if kind in FOLDERS.values() else name.partition("(")[0]


def _at_path(name: str, kind: str | None) -> tuple[str, Record] | None:
    """The data file or the model's folder that a path means.

    Raises:
        UsageError: it is a file of another kind.
    """
    path = Path(name).expanduser()
    if kind in (None, "model") and (path / "config.json").is_file():
        return "model", {"name": path.resolve().name, **model_facts(path)}
    kinds = [one for one in FOLDERS if kind in (None, one)]
    if not path.is_file() or not kinds:
        return None
    fitting = [one for one in kinds if SUFFIXES[one] == path.suffix]
    if not fitting:
        endings = " and ".join(dict.fromkeys(SUFFIXES[one] for one in kinds))
        raise UsageError(f"{name}: files of a {kind or 'library'} end in {endings}, found '{path.suffix}'.")
    found = fitting[0] if len(fitting) == 1 else _task_or_verbalizer(path)
    return found, file_record(file_at(found, path))


def _task_or_verbalizer(path: Path) -> Kind:
    """Which of the two a YAML file is: by its folder, and outside of a library by whether it has sources."""
    if path.resolve().parents[1].name == FOLDERS["verbalizer"]:
        return "verbalizer"
    text = path.read_text(encoding="utf-8", errors="replace")
    return "task" if re.search(r"^sources\s*:", text, re.MULTILINE) else "verbalizer"


def _unknown(name: str, kind: str | None, listings: Mapping[str, Listing]) -> str:
    """Why a name means nothing."""
    if Path(name).suffix in SUFFIXES.values() or name.startswith((".", "/", "~")):
        return f"{name}: there is no such file."
    names = [one for listing in listings.values() for one in listing.names]
    hint = did_you_mean(name, [*names, *(one.rpartition("/")[2] for one in names)])
    where = f"`promptlab ls {SINGULARS[kind]}` lists them" if kind else "`promptlab ls` counts what there is"
    return f"{f'{kind} ' if kind else ''}'{name}' is unknown.{hint} {where}."


def _company(kind: str, record: Record, include: Sequence[str]) -> dict[str, list[str]]:
    """By kind, the names of what applies to a task, or of the tasks that a template or a verbalizer applies to."""
    if kind == "task":
        return {
            others: [other["name"] for other in list_things(others, include).records if applies(other, record)]
            for others in ("templates", "verbalizers")
        }
    if kind in ("template", "verbalizer"):
        tasks = list_things("tasks", include).records
        return {"tasks": [task["name"] for task in tasks if applies(record, task)]}
    return {}


def model_facts(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config and card say, without loading it; `docstring` is the head of the card.

    Raises:
        ModelError: the config cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        facts = {"class": ", ".join(config["architectures"]), **{_SHAPE[key]: config.get(key) for key in _SHAPE}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{shown_path(folder)}/config.json: is no config of a checkpoint: {error!r}.") from None
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {
        "docstring": _card_head(folder / "README.md"),
        **facts,
        "weights_bytes": weights,
        "path": shown_path(folder),
    }


def _card_head(card: Path) -> str:
    """The text of a model card up to its first code, table or second heading, without the front matter."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).strip()
    return re.split(r"\n(?=```|\||#)", body, maxsplit=1)[0].lstrip("# ").strip()
