"""What was made of files is remembered until they change, and a memory that is broken costs time, never an error."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from promptlab import cache
from promptlab.cache import FileHashes, FileMemory, cache_dir, cache_path
from promptlab.hashing import file_hash


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Where a memory lies, in a folder that is not there yet."""
    return tmp_path / "deep" / "memory.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three bytes."""
    path = tmp_path / "file.txt"
    path.write_bytes(b"one")
    return path


def refuse() -> str:
    """Makes nothing, because the value is remembered."""
    raise AssertionError("the file was read again")


def remember(memory: Path | None, path: Path, make: Callable[[], object], version: str = "1") -> object:
    """A value in a process of its own: the memory is read before and written after."""
    made = FileMemory(memory, version=version)
    value = made.value(path, make)
    made.save()
    return value


def test_a_value_is_made_once_for_an_unchanged_file(memory: Path, path: Path) -> None:
    """Whichever process asks next gets what was made."""
    assert {"words": ["größe", 1.5, None]} == remember(memory, path, lambda: {"words": ["größe", 1.5, None]})
    assert {"words": ["größe", 1.5, None]} == remember(memory, path, refuse)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path.write_bytes(b"longer"), os.utime(path, ns=(7, 7))),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: (path.with_name("new").write_bytes(b"one"), os.utime(path.with_name("new"), ns=(7, 7)),
                      path.with_name("new").replace(path)),
    ],
    ids=["size", "time", "inode"],
)  # fmt: skip
def test_a_changed_file_is_read_again(memory: Path, path: Path, change: Callable[[Path], object]) -> None:
    """Another size, time or inode is another file."""
    os.utime(path, ns=(7, 7))
    assert "old" == remember(memory, path, lambda: "old")
    change(path)
    assert "new" == remember(memory, path, lambda: "new")
    assert "new" == remember(memory, path, refuse)


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"1 0\n{}", b"\xff\xfe", b"1 0\n"],
    ids=["empty", "cut", "list", "digest", "bytes", "head"],
)
def test_a_memory_that_cannot_be_read_is_built_anew(memory: Path, path: Path, broken: bytes) -> None:
    """Nothing of a file is believed that this program did not write whole."""
    memory.parent.mkdir()
    memory.write_bytes(broken)
    assert "new" == remember(memory, path, lambda: "new")
    assert "new" == remember(memory, path, refuse)


def test_a_memory_that_somebody_changed_is_not_believed(memory: Path, path: Path) -> None:
    """One letter is enough, even where the rest is in order."""
    remember(memory, path, lambda: "honest")
    memory.write_text(memory.read_text(encoding="utf-8").replace("honest", "forged"), encoding="utf-8")
    assert "read again" == remember(memory, path, lambda: "read again")


def test_a_memory_of_another_version_is_not_used(memory: Path, path: Path) -> None:
    """A value of another shape would be a crash later."""
    remember(memory, path, lambda: "old shape", version="1")
    assert "new shape" == remember(memory, path, lambda: "new shape", version="2")


def test_a_memory_that_cannot_be_written_costs_time(path: Path) -> None:
    """A file in the way, or no place at all, and the value is made each time."""
    for place in (path / "below a file.json", None):
        assert "made" == remember(place, path, lambda: "made")
        assert "again" == remember(place, path, lambda: "again")


def test_files_that_are_gone_are_forgotten(memory: Path, path: Path) -> None:
    """A memory does not grow for ever, and no temporary file stays."""
    remember(memory, path, lambda: "gone soon")
    second = path.with_name("second.txt")
    second.write_bytes(b"two")
    path.unlink()
    remember(memory, second, lambda: "there")
    assert "gone soon" not in memory.read_text(encoding="utf-8")
    assert [memory] == list(memory.parent.iterdir())


def test_a_fault_is_not_remembered(memory: Path, path: Path) -> None:
    """A file that cannot be read is tried again, so that its message is always that of today."""
    made = FileMemory(memory, version="1")
    with pytest.raises(ZeroDivisionError):
        made.value(path, lambda: 1 // 0)
    assert "mended" == made.value(path, lambda: "mended")


def test_nothing_is_written_where_nothing_is_new(memory: Path, path: Path) -> None:
    """A warm start leaves the cache folder alone."""
    remember(memory, path, lambda: "kept")
    before = memory.stat().st_mtime_ns
    remember(memory, path, refuse)
    assert before == memory.stat().st_mtime_ns


def test_file_hashes_are_remembered_until_the_file_changes(
    memory: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged file is read once, by whichever process; a changed one is read again."""
    read: list[Path] = []

    def counted(file: Path) -> str:
        read.append(file)
        return file_hash(file)

    monkeypatch.setattr(cache, "file_hash", counted)
    first = FileHashes(memory).hash(path)
    assert first == FileHashes(memory).hash(path)
    assert 1 == len(read)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert hashlib.sha256(b"two").hexdigest() == FileHashes(memory).hash(path)
    assert 2 == len(read)


def test_the_cache_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTLAB_CACHE_DIR, then XDG_CACHE_HOME, then the user's own folder; without a home there is none."""
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path / "own"))
    assert tmp_path / "own" == cache_dir()
    monkeypatch.delenv("PROMPTLAB_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "promptlab" / "x.json" == cache_path("x.json")
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_path("x.json") is None
