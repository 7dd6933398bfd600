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
