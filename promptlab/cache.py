"""What was made of files, remembered between commands in the user's cache folder.

A value is remembered by path, size, time of change and inode of its file, and made again when one of them differs.
A memory that cannot be read or written, or that another version wrote, costs time, never an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from promptlab.hashing import file_hash, text_hash


def cache_dir() -> Path:
    """Where promptlab remembers what it read: PROMPTLAB_CACHE_DIR, or the user's cache folder."""
    named = os.environ.get("PROMPTLAB_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named).expanduser() if named else Path(base) / "promptlab"


def cache_path(name: str) -> Path | None:
    """The place of a memory in the cache folder; None where the user has no home folder to keep it in."""
    try:
        return cache_dir() / name
    except RuntimeError:
        return None


class FileMemory:
    """One JSON value a file, in one file of the cache folder; `save` writes what is new."""

    def __init__(self, memory_path: Path | None, *, version: str) -> None:
        self._memory_path = memory_path
        self._version = version
        self._is_changed = False
        self._known = {} if memory_path is None else _read(memory_path, version)

    def value(self, path: Path, make: Callable[[], Any]) -> Any:
        """What `make` gives for the file, remembered where the file is unchanged since; its faults are not remembered.

        Raises:
            OSError: there is no such file.
        """
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        key = str(path.absolute())
        if key in self._known and self._known[key][0] == seen:
            return self._known[key][1]
        value = make()
        self._known[key] = [seen, value]
        self._is_changed = True
        return value

    def save(self) -> None:
        """Write the memory in one step, without files that are gone; nothing is written where nothing is new."""
        if self._memory_path is None or not self._is_changed:
            return
        body = json.dumps({key: entry for key, entry in self._known.items() if Path(key).exists()})
        temporary = self._memory_path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._memory_path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{_head(body, self._version)}\n{body}", encoding="utf-8")
            temporary.replace(self._memory_path)
        except OSError:
            return
        self._is_changed = False


class FileHashes:
    """SHA-256 of large files, each computed once while the file is unchanged."""

    def __init__(self, memory_path: Path | None) -> None:
        self._memory = FileMemory(memory_path, version="1")

    def hash(self, path: Path) -> str:
        """SHA-256 of the file, from memory where the file is unchanged since."""
        found = str(self._memory.value(path.resolve(), partial(file_hash, path)))
        self._memory.save()
        return found


def _read(memory_path: Path, version: str) -> dict[str, Any]:
    """The stored entries; none unless the first line says that this version wrote exactly what follows."""
    try:
        head, _, body = memory_path.read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return {}
    return dict(json.loads(body)) if head == _head(body, version) else {}


def _head(body: str, version: str) -> str:
    return f"{version} {text_hash(body)}"
