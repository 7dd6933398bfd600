"""`promptlab ls`: what there is to name: tasks, templates, verbalizers, models, metrics, calibrations."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from promptlab.cli.console import print_lines, table
from promptlab.errors import UsageError, did_you_mean

KINDS = ("tasks", "templates", "verbalizers", "models", "metrics", "calibrations")


def ls(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; all counted without it.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Folder with tasks/, templates/, verbalizers/.")] = None,
    output: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """List tasks, templates, verbalizers, models, metrics ..."""
    if output not in ("text", "json"):
        raise UsageError(f"--output {output}: write text or json.")
    folders = include or []
    if kind is None:
        counts = {name: len(_items(name, folders)) for name in KINDS}
        text = table([[name, str(count)] for name, count in counts.items()], header=["kind", "number"])
        print_lines([json.dumps(counts, indent=1)] if output == "json" else [text, "promptlab ls KIND lists them."])
        return
    if kind not in KINDS:
        raise UsageError(f"ls {kind}: there is no such kind.{did_you_mean(kind, KINDS)} Known: {', '.join(KINDS)}.")
    items = [item for item in _items(kind, folders) if family is None or item.get("family") in (family, None)]
    if family is not None and not any(item.get("family") == family for item in items):
        known = sorted({str(item["family"]) for item in _items(kind, folders) if item.get("family")})
        raise UsageError(
            f"--family {family}: no {kind} have it.{did_you_mean(family, known)} Known: {', '.join(known)}."
        )
    if output == "json":
        print_lines([json.dumps(items, indent=1, ensure_ascii=False)])
        return
    rows = [[str(item.get(column) or "") for column in items[0]] for item in items]
    print_lines([table(rows, header=list(items[0]))])


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
    return str(thing.__doc__ or "").strip().splitlines()[0]
