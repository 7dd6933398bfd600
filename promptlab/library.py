"""Where tasks, templates and verbalizers lie, and which files a selector means.

A selector is a name (`sentiment/it_was`), a glob (`sentiment/*`) or a path; inline text is known to the spec modules.
Folders given with `--include` or `PROMPTLAB_PATH` come first, then the library that ships with promptlab.
"""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptlab.errors import UsageError, did_you_mean

Kind = Literal["task", "template", "verbalizer"]
FOLDERS: dict[Kind, str] = {"task": "tasks", "template": "templates", "verbalizer": "verbalizers"}
SUFFIXES: dict[Kind, str] = {"task": ".yaml", "template": ".jinja", "verbalizer": ".yaml"}


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """One data file. `family` is the folder inside `templates/` or `verbalizers/`, None outside of them."""

    kind: Kind
    name: str
    family: str | None
    path: Path
    shown: str


@functools.cache
def library_root() -> Path:
    """The folder that holds the shipped `tasks`, `templates` and `verbalizers`.

    Inside a wheel they are package data; in a checkout and an editable install they stand beside the package.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "data", package.parent):
        if (root / "templates").is_dir():
            return root
    raise UsageError(f"the library of templates is missing beside {package}: install promptlab again.")


def bundled_model_path() -> Path:
    """The folder of the masked language model that ships with promptlab."""
    return Path(__file__).parent / "models" / "mini"


def search_roots(include: Sequence[str] = ()) -> list[Path]:
    """Folders to look in, first match wins: `--include`, then PROMPTLAB_PATH, then the shipped library."""
    named = [("--include", folder) for folder in include]
    named += [("PROMPTLAB_PATH", folder) for folder in os.environ.get("PROMPTLAB_PATH", "").split(os.pathsep) if folder]
    roots = []
    for origin, folder in named:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise UsageError(f"{origin} {folder}: there is no such folder.")
        roots.append(path)
    return [*roots, library_root()]


def list_files(kind: Kind, include: Sequence[str] = ()) -> dict[str, LibraryFile]:
    """Every file of a kind by name, sorted; a file of an earlier root hides one of the same name."""
    found: dict[str, LibraryFile] = {}
    for root in search_roots(include):
        for folder in [root / FOLDERS[kind]] if kind == "task" else (root / FOLDERS[kind]).glob("*/"):
            family = None if kind == "task" else folder.name
            shown = shown_path(folder)  # once a folder: resolving every file's path would take most of the time
            for path in folder.glob(f"*{SUFFIXES[kind]}"):
                name = f"{family}/{path.stem}" if family else path.stem
                found.setdefault(name, LibraryFile(kind, name, family, path, f"{shown}/{path.name}"))
    return dict(sorted(found.items()))


def select_files(kind: Kind, selector: str, include: Sequence[str] = ()) -> list[LibraryFile]:
    """The files that one selector means; a glob may mean several.

    Raises:
        UsageError: nothing matches; the nearest name and the command that lists all are named.
    """
    files = list_files(kind, include)
    if selector in files:
        return [files[selector]]
    if selector.endswith(SUFFIXES[kind]) and Path(selector).expanduser().is_file():
        return [file_at(kind, Path(selector).expanduser())]
    if any(character in selector for character in "*?["):
        hits = [file for name, file in files.items() if fnmatch.fnmatchcase(name, selector)]
        if hits:
            return hits
        raise UsageError(f"no {kind} matches '{selector}'. `promptlab ls {FOLDERS[kind]}` lists them.")
    by_stem = [file for name, file in files.items() if name.rpartition("/")[2] == selector]
    if len(by_stem) == 1:
        return by_stem
    if len(by_stem) > 1:
        names = ", ".join(file.name for file in by_stem)
        raise UsageError(f"{kind} '{selector}' is one of several: {names}. Give the whole name.")
    return [_by_path(kind, selector, files)]


def file_at(kind: Kind, path: Path) -> LibraryFile:
    """Name, family and place of a data file anywhere."""
    is_in_family = kind != "task" and path.resolve().parent.parent.name == FOLDERS[kind]
    family = path.resolve().parent.name if is_in_family else None
    name = f"{family}/{path.stem}" if family else path.stem
    return LibraryFile(kind, name, family, path, shown_path(path))


def shown_path(path: Path) -> str:
    """A path as messages and manifests print it: relative to the library or to the working folder."""
    resolved = path.resolve()
    for root in (library_root(), Path.cwd()):  # neither has a link in it
        if resolved.is_relative_to(root):
            return resolved.relative_to(root).as_posix()
    return path.as_posix()


def _by_path(kind: Kind, selector: str, files: dict[str, LibraryFile]) -> LibraryFile:
    """A selector as a path to a file."""
    path = Path(selector).expanduser()
    if path.is_file():
        if path.suffix != SUFFIXES[kind]:
            raise UsageError(f"{selector}: a {kind} file ends in {SUFFIXES[kind]}, found '{path.suffix}'.")
        return file_at(kind, path)
    if path.suffix == SUFFIXES[kind] or selector.startswith((".", "/", "~")):
        raise UsageError(f"{selector}: there is no such {kind} file.")
    hint = did_you_mean(selector, [*files, *(name.rpartition("/")[2] for name in files)])
    raise UsageError(f"{kind} '{selector}' is unknown.{hint} `promptlab ls {FOLDERS[kind]}` lists them.")
