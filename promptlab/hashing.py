"""Content hashes: what a value says, not where it lies or when it was made.

Every stored id is `content_hash` of a JSON value with sorted keys, so it is equal on every machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def content_hash(value: Any) -> str:
    """32 hexadecimal digits that identify a JSON value (objects with sorted keys, no NaN)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text_hash(text)


def text_hash(text: str) -> str:
    """32 hexadecimal digits that identify a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as the model hubs print it for weights."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
