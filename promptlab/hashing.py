"""Content hashes: what a value says, not where it lies or when it was made.

Every stored id is `content_hash` of a JSON value with sorted keys, so it is equal on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def content_hash(value: Any) -> str:
    """32 hexadecimal digits that identify a JSON value (objects with sorted keys, no NaN)."""
    return text_hash(_as_text(value))


def list_hash(items: Iterable[Any]) -> str:
    """`content_hash` of the list of some JSON values, which is never held as a whole."""
    digest = hashlib.blake2b(b"[", digest_size=DIGEST_BYTES)
    for number, item in enumerate(items):
        digest.update(("," * (number > 0) + _as_text(item)).encode("utf-8", "surrogatepass"))
    digest.update(b"]")
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """32 hexadecimal digits that identify a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as the model hubs print it for weights."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class FileHashes:
    """SHA-256 of large files, remembered by (path, size, mtime, inode) in one small JSON file.

    A memory that cannot be read or written costs time, never an error.
    """

    def __init__(self, memory_path: Path | None) -> None:
        self._memory_path = memory_path
        self._known: dict[str, str] = {}
        if memory_path is not None:
            try:
                known = json.loads(memory_path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known = {}
            self._known = known if isinstance(known, dict) else {}

    def hash(self, path: Path) -> str:
        """SHA-256 of the file, from memory where the file is unchanged since."""
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if key not in self._known:
            self._known[key] = file_hash(path)
            self._remember()
        return self._known[key]

    def _remember(self) -> None:
        if self._memory_path is None:
            return
        try:
            self._memory_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._memory_path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._known, indent=0), encoding="utf-8")
            temporary.replace(self._memory_path)
        except OSError:
            return
