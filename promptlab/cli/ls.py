"""`promptlab ls`: what there is to name: tasks, templates, verbalizers, models, metrics, calibrations."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, table
from promptlab.errors import UsageError, did_you_mean

KINDS = ("tasks", "templates", "verbalizers", "models", "metrics", "calibrations")
_SHOWN = {"tasks": ("name", "family", "title"), "templates": ("name", "tags", "text"), "verbalizers": ("name", "words")}


def ls(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; all counted without it.")] = None,
    family: Annotated[str | None, typer.Option(metavar="NAME", help="Only this family.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Folder with tasks/, templates/, verbalizers/.")
    ] = None,
    output: Annotated[str, typer.Option(metavar="FORM", help="text or json.")] = "text",
) -> None:
    """List tasks, templates, verbalizers, models, metrics ..."""
    if output not in ("text", "json"):
        raise UsageError(f"--output {output}: write text or json.")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"ls {kind}: there is no such kind.{did_you_mean(kind, KINDS)} Known: {', '.join(KINDS)}.")
    found = {name: _items(name, include or []) for name in KINDS if kind in (None, name)}
    if family is not None:
        found = _of_family(found, family)
    if kind is None:
        counts = {name: len(items) for name, items in found.items()}
        lines = [table([[name, str(count)] for name, count in counts.items()], header=["kind", "number"])]
        print_lines([json.dumps(counts, indent=1)] if output == "json" else [*lines, "promptlab ls KIND lists them."])
    elif output == "json":
        print_lines([json.dumps(found[kind], indent=1, ensure_ascii=False)])
    else:
        columns = _SHOWN.get(kind, ("name", "what"))
        rows = [[str(item[column]) for column in columns] for item in found[kind]]
        print_lines([table(rows, header=columns, wrap=kind not in _SHOWN)])


def _of_family(found: dict[str, list[dict[str, Any]]], family: str) -> dict[str, list[dict[str, Any]]]:
    """The items of a family, of the kinds that have families.

    Raises:
        UsageError: no item is of that family.
    """
    kept = {kind: [item for item in items if item.get("family") == family] for kind, items in found.items()}
    if any(kept.values()):
        return {kind: items for kind, items in kept.items() if kind in _SHOWN}
    known = sorted({str(item["family"]) for items in found.values() for item in items if item.get("family")})
    kinds = ", ".join(kind for kind in found if kind in _SHOWN)
    if not kinds:
        raise UsageError(f"--family {family}: only {', '.join(_SHOWN)} have families.")
    raise UsageError(f"--family {family}: no {kinds} have it.{did_you_mean(family, known)} Known: {', '.join(known)}.")


def _items(kind: str, include: list[str]) -> list[dict[str, Any]]:
    if kind == "tasks":
        return _tasks(include)
    if kind == "templates":
        return _templates(include)
    if kind == "verbalizers":
        return _verbalizers(include)
    if kind == "models":
        return _models()
    from promptlab.registry import CALIBRATIONS, METRICS

    registry = METRICS if kind == "metrics" else CALIBRATIONS
    return [{"name": name, "what": _first_line(registry.get(name))} for name in registry.names()]


def _tasks(include: list[str]) -> list[dict[str, Any]]:
    from promptlab.specs.task import load_tasks

    return [
        {"name": task.name, "family": task.family, "labels": ", ".join(task.labels), "title": task.title}
        for task in load_tasks(["*"], include=include)
    ]


def _templates(include: list[str]) -> list[dict[str, Any]]:
    from promptlab.specs.template import load_templates

    return [
        {
            "name": template.name,
            "family": template.family,
            "tags": ", ".join(template.tags),
            "text": _one_line(template.text),
        }
        for template in load_templates(["*"], include=include)
    ]


def _verbalizers(include: list[str]) -> list[dict[str, Any]]:
    from promptlab.specs.verbalizer import load_verbalizers

    return [
        {
            "name": verbalizer.name,
            "family": verbalizer.family,
            "words": "; ".join(
                f"{label}: {', '.join(word.word for word in words)}" for label, words in verbalizer.labels.items()
            ),
        }
        for verbalizer in load_verbalizers(["*"], include=include)
    ]


def _models() -> list[dict[str, Any]]:
    from promptlab.library import bundled_model_path

    config = bundled_model_path() / "config.json"
    if not config.is_file():
        return []
    architecture = json.loads(config.read_text(encoding="utf-8"))["architectures"][0]
    return [{"name": "mini", "what": f"bundled English {architecture}; or any folder or hub name"}]


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _first_line(thing: Any) -> str:
    return (str(thing.__doc__ or "").strip().splitlines() or ["not described"])[0]
