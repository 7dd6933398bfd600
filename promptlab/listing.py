"""What there is to name -> one record each: what the files say, what the registries hold, the bundled model.

A file is read once: its record is remembered in the cache folder until the file changes, so that a library of thousands
is listed without parsing. A broken file costs its own record and never those of the others.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab._version import __version__
from promptlab.cache import FileMemory, cache_path
from promptlab.errors import PromptlabError
from promptlab.hashing import text_hash
from promptlab.library import FOLDERS, Kind, LibraryFile, bundled_model_path, list_files

if TYPE_CHECKING:
    from promptlab.specs.task import Task
    from promptlab.specs.template import Template
    from promptlab.specs.verbalizer import Verbalizer

KINDS = (*FOLDERS.values(), "models", "metrics", "calibrations", "methods")
RECORD_VERSION = 2  # goes up when a record gets other keys, so that none of an older shape is shown

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """The records of one kind, and by name what is wrong with the files that have none."""

    records: tuple[Record, ...]
    faults: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """What is called by a name, whether it can be read or not."""
        return [*(record["name"] for record in self.records), *self.faults]


def list_things(kind: str, include: Sequence[str] = ()) -> Listing:
    """Everything of a kind, sorted by name.

    Args:
        kind: one of `KINDS`.
        include: folders of the user's own.
    """
    for file_kind, folder in FOLDERS.items():
        if kind == folder:
            return _list_files(file_kind, include)
    return Listing(_models(), {}) if kind == "models" else _list_registry(kind)


def file_record(file: LibraryFile) -> Record:
    """The record of one file, read now.

    Raises:
        PromptlabError: every fault of the file.
    """
    return _placed(file, _READERS[file.kind](file))


def task_record(task: Task) -> Record:
    """What a task says, as JSON values."""
    said = task.model_dump(mode="json", exclude={"name", "path"})
    return {**said, "fields": list(task.fields), "hash": task.hash}


def template_record(template: Template) -> Record:
    """What a template says; `fields` are those that its text reads.

    Raises:
        TemplateError: the text is no template.
    """
    from promptlab.rendering import compile_template

    compiled = compile_template(template)
    return {
        "fields": sorted(compiled.fields),
        "uses_options": compiled.uses_options,
        "tags": list(template.tags),
        "text": template.text,
        "domain_prompt": template.domain_prompt,
        "pieces": template.pieces,
        "reference": template.reference,
        "notes": template.notes,
        "hash": template.hash,
    }


def verbalizer_record(verbalizer: Verbalizer) -> Record:
    """What a verbalizer says; `labels` maps each label to its words and their weights."""
    said = verbalizer.model_dump(mode="json", exclude={"name", "path", "family"})
    labels = {label: {word.word: word.weight for word in words} for label, words in verbalizer.labels.items()}
    return {**said, "labels": labels, "hash": verbalizer.hash}


def _list_files(kind: Kind, include: Sequence[str]) -> Listing:
    records, faults = [], {}
    memories: dict[Path, FileMemory] = {}
    for file in list_files(kind, include).values():
        memory = memories.get(file.path.parent)
        if memory is None:
            memory = memories[file.path.parent] = _memory(file.path.parent)
        try:
            records.append(_placed(file, memory.value(file.path, partial(_READERS[kind], file))))
        except PromptlabError as fault:
            faults[file.name] = str(fault)
        except OSError as error:
            faults[file.name] = f"{file.shown}: cannot be read: {error.strerror}."
    for memory in memories.values():
        memory.save()
    return Listing(tuple(records), faults)


def _memory(folder: Path) -> FileMemory:
    """What is remembered of a folder: one small file each, so that a listing reads those of its own folders only."""
    name = f"listing/{text_hash(str(folder.absolute()))}.json"
    return FileMemory(cache_path(name), version=f"{__version__}-{RECORD_VERSION}")


def _placed(file: LibraryFile, said: Record) -> Record:
    """What a file says, with its name and place, which are not remembered: they depend on where one stands."""
    family = {} if file.kind == "task" else {"family": file.family}
    return {"name": file.name, **family, **said, "path": file.shown}


def _read_task(file: LibraryFile) -> Record:
    from promptlab.specs.task import Task

    return task_record(Task.load(str(file.path)))


def _read_template(file: LibraryFile) -> Record:
    from promptlab.specs.template import read_template

    return template_record(read_template(file))


def _read_verbalizer(file: LibraryFile) -> Record:
    from promptlab.specs.verbalizer import read_verbalizer

    return verbalizer_record(read_verbalizer(file))


_READERS: Mapping[Kind, Callable[[LibraryFile], Record]] = {
    "task": _read_task,
    "template": _read_template,
    "verbalizer": _read_verbalizer,
}


def _list_registry(kind: str) -> Listing:
    """What a registry holds, by docstring; a thing of another package that cannot be imported is a fault."""
    from promptlab.registry import CALIBRATIONS, METHODS, METRICS

    registry = {"metrics": METRICS, "calibrations": CALIBRATIONS, "methods": METHODS}[kind]
    records, faults = [], {}
    for name in registry.names():
        try:
            thing = registry.get(name)
        except (ImportError, AttributeError) as error:
            faults[name] = f"{registry.kind} '{name}' cannot be imported: {error}."
            continue
        docstring = inspect.getdoc(thing) or ""
        what = {"what": docstring.partition("\n")[0], "docstring": docstring}
        more = _method_facts(thing) if kind == "methods" else {}
        records.append({"name": name, **more, **what, "module": getattr(thing, "__module__", None)})
    return Listing(tuple(records if kind != "methods" else [*records, _zero_shot()]), faults)


def _method_facts(method: Any) -> Record:
    """What a method looks at beside the row, whether it answers with words or labels, and what it searches."""
    grid = method().grid()
    settings = [{**one.described(), **method.options, **one.options} for one in grid]
    values = {name: list(dict.fromkeys(str(one[name]) for one in settings)) for name in settings[0]}
    told = [name for name in values if name != "options" and (len(values[name]) > 1 or name in method.options)]
    return {
        "uses_template": method.uses_template,
        "uses_words": method.uses_words,
        "answers": method.answers,
        "num_settings": len(grid),
        "settings": {name: values[name] for name in told},
    }


def _zero_shot() -> Record:
    """Nothing to fit, and so in no registry."""
    what = "Fits nothing; with labelled examples, a hard prompt is chosen by them."
    seen = {"uses_template": True, "uses_words": True, "answers": "mask", "num_settings": 0, "settings": {}}
    return {"name": "zero_shot", **seen, "what": what, "docstring": what, "module": None}


def _models() -> tuple[Record, ...]:
    config = bundled_model_path() / "config.json"
    if not config.is_file():
        return ()
    architecture = json.loads(config.read_text(encoding="utf-8"))["architectures"][0]
    return ({"name": "mini", "what": f"bundled English {architecture}; or any folder or hub name"},)
