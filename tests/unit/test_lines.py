"""Bytes become text and lines: every kind of line end, and one sentence for what is no UTF-8 text."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from promptlab import lines
from promptlab.errors import DataError
from promptlab.lines import LineCount, TooLong, decode, read_lines


class Drops(io.RawIOBase):
    """A pipe that gives a few bytes at a time, and cannot be sought."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size = content, size

    def read(self, size: int = -1) -> bytes:
        """The next few bytes, fewer than were asked for."""
        given, self._content = self._content[: self._size], self._content[self._size :]
        return given


def fault_of(content: bytes, size: int = 1 << 20) -> str:
    """What is said of the bytes of a file."""
    with pytest.raises(DataError) as fault:
        list(decode(Drops(content, size), "x.csv"))
    return str(fault.value)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_end_in_every_way(size: int) -> None:
    """LF, CR LF and a lone CR end a line, wherever the chunks are cut; other marks of Unicode do not."""
    content = "\ufeffa\r\nü\rb\x0b\u2028c\n\r\r\n猫".encode()
    expected = ["a\r\n", "ü\r", "b\x0b\u2028c\n", "\r", "\r\n", "猫"]
    assert expected == list(read_lines(Drops(content, size), "x"))
    assert ["a\n", "b\r"] == list(read_lines(Drops(b"a\nb\r", size), "x"))
    assert ["a\n", "\n"] == list(read_lines(Drops(b"a\n\n", size), "x"))
    assert [] == list(read_lines(Drops(b"", size), "x"))


@pytest.mark.parametrize("pieces", [("a\r", "\nb"), ("a\r\nb",), ("a", "\r", "", "\n", "b"), ("a\rb",), ("a\n", "b")])
def test_a_line_end_counts_once(pieces: tuple[str, ...]) -> None:
    """CR LF is one line end, also where it is cut."""
    count = LineCount()
    for piece in pieces:
        count.add(piece)
    assert 2 == count.number


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("message", "content"),
    [
        (
            "x.csv:2: byte 13 of the file (0xE9) is not UTF-8 text and looks like Windows-1252: convert the file, "
            "for example iconv -f WINDOWS-1252 -t UTF-8.",
            b"text,label\r\nb\xe9b\xe9,x\n",
        ),
        (
            "x.csv:3: byte 6 of the file (0xE9) is not UTF-8 text, as the lines before it are, and looks like "
            "Windows-1252: write the whole file as UTF-8.",
            "a\rü\r".encode() + b"b\xe9,x\n",
        ),
        (
            "x.csv:1: byte 3 of the file (0xFC) is not UTF-8 text and looks like Windows-1252: convert the file, "
            "for example iconv -f WINDOWS-1252 -t UTF-8.",
            b"\xef\xbb\xbf\xfc",
        ),
        (
            "x.csv:1: byte 2 of the file (0xE7) is not UTF-8 text and looks like Windows-1252: convert the file, "
            "for example iconv -f WINDOWS-1252 -t UTF-8.",
            b"a \xe7",
        ),
        (
            "x.csv:2: holds a NUL byte (byte 7 of the file), which no text has: remove it, or convert the file if it "
            "is UTF-16, for example iconv -f UTF-16LE -t UTF-8.",
            "ü,b\nx,\0z".encode(),
        ),
    ],
)
def test_what_is_no_text_is_named_with_line_and_byte(message: str, content: bytes, size: int) -> None:
    """The fault is the same wherever the chunks are cut."""
    assert message == fault_of(content, size)


def test_chinese_text_of_old_files_is_recognised() -> None:
    """High bytes in pairs look like GB18030."""
    found = fault_of("text,label\n一部很好的电影，我喜欢,x\n".encode("gb18030"))
    assert found.endswith("looks like GB18030: convert the file, for example iconv -f GB18030 -t UTF-8.")


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("x.csv: is UTF-16 text: convert it to UTF-8, for example iconv -f UTF-16 -t UTF-8.", "ab".encode("utf-16")),
        ("x.csv: is UTF-16 text: convert it to UTF-8, for example iconv -f UTF-16 -t UTF-8.", b"\xfe\xff\x00a"),
        ("x.csv: is UTF-32 text: convert it to UTF-8, for example iconv -f UTF-32 -t UTF-8.", "ab".encode("utf-32")),
        ("x.csv: is a ZIP archive or an Excel workbook and no text: save the rows as CSV.", b"PK\x03\x04abc"),
        ("x.csv: is compressed by gzip: unpack it first.", b"\x1f\x8b\x08\x00"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_other_formats_are_known_by_their_first_bytes(message: str, content: bytes, size: int) -> None:
    """UTF-16 and UTF-32 with a byte order mark, archives: each is called by its name."""
    assert message == fault_of(content, size)


def test_what_stands_before_a_fault_is_read_first() -> None:
    """An earlier fault of a row is told before a later one of the bytes, however the file is cut."""
    text = list[str]()
    with pytest.raises(DataError):
        text.extend(decode(io.BytesIO(b"ab\n\xffcd"), "x"))
    assert ["ab\n"] == text


def test_a_line_over_the_bound_is_cut_off_and_its_size_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the bound and a chunk is held; what follows is counted piece by piece."""
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 20)

    def read(content: bytes) -> Iterator[str]:
        return read_lines(Drops(content, 6), "x")

    assert ["a" * 19 + "\n", "b"] == list(read(b"a" * 19 + b"\nb"))
    with pytest.raises(TooLong) as fault:
        list(read(b"ok\n" + b"a" * 100 + b"\r\nb\n"))
    assert len(fault.value.head) <= 26
    assert 100 == fault.value.size()
