"""Content hashes say what a value says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from promptlab.hashing import content_hash, file_hash, list_hash, text_hash


def test_content_hash_ignores_the_order_of_keys() -> None:
    """Two mappings that say the same have one hash, two lists in another order do not."""
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])


def test_content_hash_is_the_same_on_every_machine() -> None:
    """The hash of a value is a fixed text, since it names stored blocks."""
    assert content_hash({"text": "Größe", "n": 1}) == "03e94e9c69c5ea810980326e640b2834"


def test_content_hash_refuses_what_json_cannot_say() -> None:
    """NaN has no place in a stored value."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"a": float("nan")})


@pytest.mark.parametrize("items", [[], [["a", None]], [{"b": 1, "a": "Größe"}, "x", 1.5, []]])
def test_list_hash_is_the_hash_of_the_list(items: list[object]) -> None:
    """A long list need not be held to have its hash."""
    assert content_hash(items) == list_hash(iter(items))


def test_text_hash_takes_any_text() -> None:
    """Half of a surrogate pair, which JSON can hold, has a hash too."""
    assert len(text_hash("\ud800")) == 32


def test_file_hash_is_the_one_that_hubs_print(tmp_path: Path) -> None:
    """A file's hash is the SHA-256 of its bytes."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    assert hashlib.sha256(b"weights").hexdigest() == file_hash(path)
