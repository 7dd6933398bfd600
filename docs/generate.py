"""The code and the library -> the reference pages in `docs/reference/generated/`, and the notebooks -> a page each.

Run as `python -m docs.generate`, which `make docs` does. The pages are never edited by hand and never committed, so
they say what the code and the notebooks say.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from docs import notebook
from promptlab import meanings

OUTPUT = Path(__file__).parent / "reference" / "generated"
SUPPORT = Path(__file__).parent / "reference" / "support.json"


def main() -> None:
    """Write every page."""
    write_reference(OUTPUT)
    write_notebooks(notebook.FOLDER)


def write_reference(folder: Path) -> list[Path]:
    """Write the pages into a folder and give back their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, page in PAGES.items():
        path = folder / f"{name}.md"
        path.write_text(page().rstrip() + "\n", encoding="utf-8")
        written.append(path)
    return written


def write_notebooks(folder: Path) -> list[Path]:
    """Write a page beside each notebook of a folder and give back their paths."""
    written = []
    for path in sorted(folder.glob("*.ipynb")):
        page = notebook.to_markdown(json.loads(path.read_text(encoding="utf-8")))
        path.with_suffix(".md").write_text(page, encoding="utf-8")
        written.append(path.with_suffix(".md"))
    return written


def cli_page() -> str:
    """Every command with its arguments and flags."""
    from promptlab.cli.app import app

    parts = ["# Command line", "Every flag can be written with dashes or underscores."]
    for command in app.registered_commands:
        function: Any = command.callback
        name = command.name or function.__name__
        hints = typing.get_type_hints(function, include_extras=True)
        rows = [
            _parameter(key, hints[key], parameter) for key, parameter in inspect.signature(function).parameters.items()
        ]
        parts += [f"## promptlab {name}", inspect.getdoc(function) or "", _table(("flag", "takes", "what"), rows)]
    return "\n\n".join(parts)


def exit_codes_page() -> str:
    """What the command line leaves with."""
    from promptlab import errors
    from promptlab.cli.app import INTERRUPTED

    rows = [("0", "all done")]
    faults = [thing for thing in vars(errors).values() if inspect.isclass(thing)]
    for code in sorted({fault.exit_code for fault in faults if issubclass(fault, errors.PromptlabError)}):
        names = [fault for fault in faults if getattr(fault, "exit_code", None) == code]
        rows.append((str(code), "; ".join(f"`{fault.__name__}`: {_first_line(fault)}" for fault in names)))
    rows.append((str(INTERRUPTED), "interrupted; the same command continues"))
    return "\n\n".join(["# Exit codes", _table(("code", "when"), rows)])


def tasks_page() -> str:
    """The tasks of the library."""
    from promptlab.specs.task import load_tasks

    parts = ["# Tasks"]
    for task in load_tasks(["*"]):
        places = [
            next(name for name in ("bundled", "local", "hub") if getattr(source, name)) for source in task.sources
        ]
        rows = [
            ("family", task.family),
            ("fields", ", ".join(f"`{name}`" for name in task.fields)),
            ("labels", ", ".join(f"`{label}`" for label in task.labels)),
            ("metrics", ", ".join(task.metrics)),
            ("sources", ", ".join(places)),
            ("license", task.license),
            ("citation", task.citation),
        ]
        parts += [f"## {task.name}", f"{task.title}.", _table(("key", "value"), rows), task.notes or ""]
    return "\n\n".join(part for part in parts if part)


def templates_page() -> str:
    """The templates of the library, as they are written."""
    from promptlab.specs.template import load_templates

    parts = ["# Templates"]
    for template in load_templates(["*"]):
        facts = f"Tags: {', '.join(template.tags)}."
        reference = f"Reference: {template.reference}." if template.reference else ""
        code = f"```jinja\n{template.text}\n```"
        parts += [f"## {template.name}", code, facts, reference, template.notes or ""]
    return "\n\n".join(part for part in parts if part)


def verbalizers_page() -> str:
    """The verbalizers of the library."""
    from promptlab.specs.verbalizer import load_verbalizers

    parts = ["# Verbalizers"]
    for verbalizer in load_verbalizers(["*"]):
        rows = [
            (
                f"`{label}`",
                ", ".join(word.word if word.weight == 1 else f"{word.word} ({word.weight})" for word in words),
            )
            for label, words in verbalizer.labels.items()
        ]
        reference = f"Pooled by `{verbalizer.pool}`. Reference: {verbalizer.reference}."
        parts += [f"## {verbalizer.name}", _table(("label", "words"), rows), reference, verbalizer.notes or ""]
    return "\n\n".join(part for part in parts if part)


def files_page() -> str:
    """The keys of every data file, from the models that read them."""
    return "\n\n".join(
        ["# Keys of the data files", "A key that is not listed is an error."]
        + [
            f"## {title}\n\n{_table(('key', 'holds', 'default', 'what'), _keys(model, known))}"
            for title, model, known in file_models()
        ]
    )


def results_page() -> str:
    """The fields of `results.json`."""
    from promptlab.files import SCHEMA_VERSION

    parts = [
        "# Fields of results.json",
        f"The schema version is {SCHEMA_VERSION}.",
        "`cells` is a list of results, `baselines` and `agreements` are lists too; a number that could not be computed "
        "is null.",
    ]
    for title, kind, known in result_kinds():
        hints = typing.get_type_hints(kind)
        rows = [(f"`{field.name}`", _holds(hints[field.name]), known[field.name]) for field in dataclasses.fields(kind)]
        parts += [f"## {title}", _table(("field", "holds", "what"), rows)]
    return "\n\n".join(parts)


def names_page() -> str:
    """Registered metrics, calibrations and backends, and what a template may use."""
    from promptlab import rendering, sandbox
    from promptlab.registry import BACKENDS, CALIBRATIONS, METRICS
    from promptlab.specs.template import Template

    rendering.compile_template(Template.from_text("{{ mask }}"))  # registers promptlab's own filters
    parts = ["# Names"]
    for title, registry in (("Metrics", METRICS), ("Calibrations", CALIBRATIONS), ("Backends", BACKENDS)):
        rows = [(f"`{name}`", _first_line(registry.get(name))) for name in registry.names()]
        parts += [f"## {title}", _table(("name", "what"), rows)]
    own = sorted({name for name in sandbox.environment().filters if not name.endswith("__")})
    reserved = ", ".join(f"`{name}`" for name in rendering.RESERVED)
    parts += [
        "## What a template may use",
        f"Names with a meaning of their own: {reserved}.",
        "Filters: " + ", ".join(f"`{name}`" for name in own) + ".",
        "Tests: " + ", ".join(f"`{name}`" for name in sandbox.PLAIN_TESTS) + ".",
        "Calls: " + ", ".join(f"`{name}(...)`" for name in sandbox.CALLABLES) + ".",
    ]
    return "\n\n".join(parts)


def methods_page() -> str:
    """What can be fitted to labelled examples: what moves, how much of it in `mini`, and what is searched."""
    from promptlab.methods.base import Setting
    from promptlab.registry import METHODS

    methods = [METHODS.get(name)() for name in METHODS.names()]
    moving = fitted_parameters()
    rows = [
        (
            f"`{one.name}`",
            _first_line(type(one)),
            moving[one.name],
            "labels" if one.answers == "label" else "words at masks",
            ", ".join(name for name, uses in (("template", one.uses_template), ("words", one.uses_words)) if uses)
            or "neither",
        )
        for one in methods
    ]
    parts = [
        "# Methods",
        "What `--methods` names beside `zero_shot`, which fits nothing. "
        "Parameters are those of `mini` with the template `sentiment/it_was` and two labels.",
        _table(("method", "what it does", "parameters", "answers with", "looks at"), rows),
        "A key of a setting is set by `--setting METHOD.KEY=VALUE|VALUE`; a setting says below what differs from: "
        + ", ".join(f"`{name}` {value}" for name, value in Setting().described().items() if name != "options")
        + ".",
    ]
    for one in methods:
        grid = [(str(place + 1), _differences(setting)) for place, setting in enumerate(one.grid())]
        parts += [f"## {one.name}", inspect.getdoc(type(one)) or "", _table(("tried", "setting"), grid)]
    return "\n\n".join(parts)


def fitted_parameters() -> dict[str, str]:
    """How many numbers each method fits in `mini`, or why it does not work there; found by a fit of one step."""
    from promptlab.backends.mlm import MaskedBackend
    from promptlab.label_words import find_word_ids, slot_contexts
    from promptlab.methods.base import Context, LabelledPrompts, Words
    from promptlab.registry import METHODS
    from promptlab.rendering import compile_template, render
    from promptlab.specs.template import Template
    from promptlab.specs.verbalizer import Verbalizer
    from promptlab.types import EncodedPrompt, Example

    backend = MaskedBackend("mini")
    encoder, verbalizer = backend.encoder(None), Verbalizer.load("sentiment/great_terrible")
    template = compile_template(Template.load("sentiment/it_was"))
    texts = ("Good.", "Bad.", "Fine.", "Dull.")
    rendered = [render(template, Example(text, place, {"text": text})) for place, text in enumerate(texts)]
    prompts = tuple(prompt for prompt in encoder.encode(rendered) if isinstance(prompt, EncodedPrompt))
    found = find_word_ids(encoder, verbalizer.words, [slot_contexts(rendered[0])])
    labels = tuple(verbalizer.labels)
    words = Words.of(verbalizer, labels, {word: one for word, one in found.items() if not isinstance(one, str)})
    shots = LabelledPrompts(prompts, np.array([1, 0, 1, 0]))
    numbers = {}
    for name in METHODS.names():
        method = METHODS.get(name)()
        refused = method.refusal(backend)
        if refused is not None:
            numbers[name] = f"refused: {refused}"
            continue
        setting = dataclasses.replace(method.grid()[0], steps=min(1, method.grid()[0].steps))
        with method.fit(shots, setting, Context(backend, labels, words if method.uses_words else None, 0)) as fitted:
            numbers[name] = f"{fitted.record.num_parameters:,}"
    return numbers


def _differences(setting: Any) -> str:
    """What of a setting is not the plain one."""
    mine, plain = setting.described(), type(setting)().described()
    shown = [f"`{name}` {value}" for name, value in mine.items() if name != "options" and value != plain[name]]
    shown += [f"`{name}` {_option(value)}" for name, value in mine["options"].items()]
    return ", ".join(shown) or "the plain one"


def _option(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def python_page() -> str:
    """The public names of the package."""
    import promptlab

    parts = ["# Python", "`import promptlab` is light; torch is imported when a run needs it."]
    for name in promptlab.__all__:
        thing = getattr(promptlab, name)
        if name.startswith("__"):
            continue
        shown = f"{name}{inspect.signature(thing)}" if inspect.isfunction(thing) else f"class {name}"
        parts += [f"## {name}", f"```python\n{shown}\n```", f"```text\n{inspect.getdoc(thing) or ''}\n```"]
    return "\n\n".join(parts)


def support_page() -> str:
    """What is supported on which architecture, as the contract tests found it."""
    stored = json.loads(SUPPORT.read_text(encoding="utf-8"))
    names, support = stored["architectures"], stored["support"]
    rows = [["vocabulary", *(vocabulary for _, vocabulary in names.values())]]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for feature in stored["features"]:
        cells = {kind: support[kind][feature].partition(": ") for kind in names}
        rows.append([feature, *("n/a" if cell[0] == "not applicable" else cell[0] for cell in cells.values())])
        for kind, (status, _, reason) in cells.items():
            if reason:
                reasons.setdefault((feature, status, reason), []).append(names[kind][0])
    return "\n\n".join(
        [
            "# Support",
            "What promptlab does with a checkpoint of each architecture. "
            "Every cell was found by doing it on a tiny model with random weights, "
            "and a test does it again: `python -m tests.support` writes this table.",
            _table(["feature", *(title for title, _ in names.values())], rows),
            "## What yes says",
            _table(("feature", "says"), stored["features"].items()),
            "## In which form, and why not",
            _table(
                ("feature", "is", "because", "on"),
                [(*key, ", ".join(titles)) for key, titles in reasons.items()],
            ),
        ]
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "cli": cli_page,
    "exit_codes": exit_codes_page,
    "tasks": tasks_page,
    "templates": templates_page,
    "verbalizers": verbalizers_page,
    "files": files_page,
    "results": results_page,
    "names": names_page,
    "methods": methods_page,
    "support": support_page,
    "python": python_page,
}


def file_models() -> list[tuple[str, Any, Mapping[str, str]]]:
    """Title, model and meanings of every part of a data file."""
    from promptlab.specs.run import RunSpec
    from promptlab.specs.task import HubSource, LabelColumn, Source, Task
    from promptlab.specs.template import TemplateHead
    from promptlab.specs.verbalizer import Verbalizer

    return [
        ("tasks/NAME.yaml", Task, meanings.TASK),
        ("A source of a task", Source, meanings.SOURCE),
        ("The hub of a source", HubSource, meanings.HUB_SOURCE),
        ("The label of a source", LabelColumn, meanings.LABEL_COLUMN),
        ("The head of templates/FAMILY/NAME.jinja", TemplateHead, meanings.TEMPLATE),
        ("verbalizers/FAMILY/NAME.yaml", Verbalizer, meanings.VERBALIZER),
        ("run.yaml", RunSpec, meanings.RUN),
    ]


def result_kinds() -> list[tuple[str, Any, Mapping[str, str]]]:
    """Title, dataclass and meanings of what `results.json` holds."""
    from promptlab.results import Agreement, Baseline, MetricValue, Result

    return [
        ("A result", Result, meanings.RESULT),
        ("A metric of a result", MetricValue, meanings.METRIC_VALUE),
        ("A baseline", Baseline, meanings.BASELINE),
        ("An agreement", Agreement, meanings.AGREEMENT),
    ]


def _keys(model: Any, known: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    from promptlab.schemas import file_keys

    rows = []
    for name in file_keys(model):
        field = model.model_fields[name]
        default = "required" if field.is_required() else _default(field.default)
        rows.append((f"`{name}`", _holds(field.annotation), default, known[name]))
    return rows


def _parameter(name: str, hint: Any, parameter: inspect.Parameter) -> tuple[str, str, str]:
    """Flag, what it takes, and its help, of one argument or option of a command."""
    kind, info = typing.get_args(hint)
    is_argument = type(info).__name__ == "ArgumentInfo"
    # Inside Annotated, typer keeps the first flag where a default would stand.
    given = [str(flag) for flag in (info.default, *(info.param_decls or ())) if str(flag).startswith("-")]
    flags = [flag for both in given for flag in both.split("/")]  # --report/--no-report are two
    flags = flags or [f"--{name.replace('_', '-')}"]
    shown = name.upper() if is_argument else ", ".join(f"`{flag}`" for flag in flags)
    takes = "nothing" if kind is bool else info.metavar or _holds(kind)
    required = ", required" if parameter.default is inspect.Parameter.empty else ""
    return shown, f"{takes}{required}", info.help or ""


def _holds(annotation: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _holds(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_holds(part) for part in inner if part is not type(None)))
    if origin in (tuple, list):
        return f"list of {_holds(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping from {_holds(inner[0])} to {_holds(inner[1])}"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", Path: "path"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return ", ".join(f"`{item}`" for item in value) if isinstance(value, tuple) else f"`{value}`"


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
