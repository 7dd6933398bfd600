"""Content hashes say what a value says; the hashes of large files are remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from promptlab import hashing
from promptlab.hashing import FileHashes, content_hash, file_hash, list_hash, text_hash


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


def test_file_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is read once, by whichever process; a changed one is read again."""
    path, memory = tmp_path / "weights.bin", tmp_path / "deep" / "hashes.json"
    path.write_bytes(b"one")
    read: list[Path] = []

    def counted(file: Path) -> str:
        read.append(file)
        return file_hash(file)

    monkeypatch.setattr(hashing, "file_hash", counted)
    first = FileHashes(memory).hash(path)
    assert first == FileHashes(memory).hash(path)
    assert len(read) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert hashlib.sha256(b"two").hexdigest() == FileHashes(memory).hash(path)
    assert len(read) == 2


@pytest.mark.parametrize("broken", ["{", "[]"])
def test_a_broken_memory_costs_time_not_an_error(tmp_path: Path, broken: str) -> None:
    """A memory that cannot be read or written is passed over."""
    path, memory = tmp_path / "weights.bin", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    memory.write_text(broken)
    assert file_hash(path) == FileHashes(memory).hash(path)
    assert file_hash(path) == FileHashes(path / "is a file").hash(path)
    assert file_hash(path) == FileHashes(None).hash(path)
