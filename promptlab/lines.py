"""Bytes of a text file -> its text in pieces, or its lines, with flat memory.

Text is UTF-8, with or without a byte order mark, and a line ends in LF, CR LF or CR. What is no such text is one
sentence that names the line, the byte and what it looks like.
"""

from __future__ import annotations

import codecs
import io
import itertools
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from promptlab.errors import DataError

MAX_CHARACTERS = 10_000_000  # of one row: fifty times what a prompt may have; what is longer is mostly an open quote
CHUNK_BYTES = 1 << 18
_NEARBY_BYTES = 1000  # of a fault, to guess what they are
_SIGNATURES = {
    b"\xff\xfe\x00\x00": "UTF-32 text: convert it to UTF-8, for example iconv -f UTF-32 -t UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text: convert it to UTF-8, for example iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8, for example iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8, for example iconv -f UTF-16 -t UTF-8",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook and no text: save the rows as CSV",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
}
_LINE_END = re.compile("[\r\n]")
_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")


class TooLong(Exception):
    """A row of more than MAX_CHARACTERS: what was read of it, and the pieces of text behind that."""

    def __init__(self, head: str, rest: Iterator[str]) -> None:
        self.head = head
        self.rest = rest
        super().__init__()

    def size(self) -> int:
        """Characters of the line without its end, counted without holding them."""
        size = 0
        for piece in itertools.chain([self.head], self.rest):
            end = _LINE_END.search(piece)
            size += end.start() if end else len(piece)
            if end:
                break
        return size


class LineCount:
    """The number of the line that the next character stands on, from 1; CR LF may be cut between two pieces.

    `is_ascii` says that no line before it has another character.
    """

    def __init__(self) -> None:
        self.number = 1
        self.is_ascii = True
        self._line_is_ascii = True
        self._ends_in_return = False

    def add(self, text: str) -> None:
        """Walk over a piece of text."""
        number = text.count("\n") + text.count("\r") - text.count("\r\n")
        number -= self._ends_in_return and text.startswith("\n")
        self._ends_in_return = text.endswith("\r") if text else self._ends_in_return
        self.number += number
        end = max(text.rfind("\n"), text.rfind("\r")) + 1 if number else 0
        if number:
            self.is_ascii = self.is_ascii and self._line_is_ascii and text[:end].isascii()
            self._line_is_ascii = True
        self._line_is_ascii = self._line_is_ascii and text[end:].isascii()


def too_long(place: str, column: str, size: str) -> DataError:
    """The fault of a row that is over the bound: where, in which column, and how long it is."""
    return DataError(
        f"{place}: the row has {size} characters, more than the {MAX_CHARACTERS:,} that are read, and passes them in "
        f"column '{column}': shorten the text or leave the row out."
    )


def read_lines(stream: BinaryIO, shown: str) -> Iterator[str]:
    """The lines of a stream with their ends.

    Raises:
        DataError: bytes that are no UTF-8 text.
        TooLong: a line has more than MAX_CHARACTERS.
    """
    return split_lines(decode(stream, shown))


def split_lines(pieces: Iterator[str]) -> Iterator[str]:
    """As `read_lines`, from the pieces of a text."""
    held, size, carry = list[str](), 0, ""
    for piece in pieces:
        text = carry + piece
        carry = "\r" if text.endswith("\r") else ""  # may be the half of CR LF
        lines = io.StringIO(text[: len(text) - len(carry)], newline="").readlines()
        tail = lines.pop() if lines and not lines[-1].endswith(("\n", "\r")) else ""
        if lines:
            lines[0] = "".join([*held, lines[0]])
            held, size = [], 0
            if len(lines[0]) > MAX_CHARACTERS:
                raise TooLong(lines[0], itertools.chain(lines[1:], [tail + carry], pieces))
            yield from lines
        held.append(tail)
        size += len(tail)
        if size > MAX_CHARACTERS:
            raise TooLong("".join(held), itertools.chain([carry], pieces))
    last = "".join([*held, carry])
    if last:
        yield last


def decode(stream: BinaryIO, shown: str) -> Iterator[str]:
    """The text of a stream in pieces, none of them empty; what stands before a fault is given first.

    Args:
        stream: is read once, to its end, in chunks.
        shown: the name of the file in messages.

    Raises:
        DataError: a byte that is no UTF-8, or a NUL.
    """
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # what a pipe has, and no waiting for more
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, offset = LineCount(), 0
    chunks = _chunks(read, shown)
    for chunk in chunks:
        bom = len(codecs.BOM_UTF8) if offset == 0 and chunk.startswith(codecs.BOM_UTF8) else 0
        start = offset + bom - len(decoder.getstate()[0])  # a character may have begun in the chunk before
        fault = None
        try:
            text = decoder.decode(chunk[bom:], final=not chunk)
        except UnicodeDecodeError as error:
            fault, text = error, error.object[: error.start].decode("utf-8")
        good, nul, _ = text.partition("\0")
        if good:
            lines.add(good)
            yield good
        if nul:
            raise _nul_fault(f"{shown}:{lines.number}", start + len(good.encode("utf-8")))
        if fault:
            nearby = _at_least(_NEARBY_BYTES, fault.object[fault.start :], chunks)
            raise _encoding_fault(f"{shown}:{lines.number}", nearby, start + fault.start, is_mixed=not lines.is_ascii)
        offset += len(chunk)


def _chunks(read: Callable[[int], bytes], shown: str) -> Iterator[bytes]:
    """Chunks of a stream, an empty one at its end; the first has at least the bytes that name another format."""
    first = b""
    while len(first) < 4 and (more := read(CHUNK_BYTES)):
        first += more
    for signature, name in _SIGNATURES.items():
        if first.startswith(signature):
            raise DataError(f"{shown}: is {name}.")
    yield first
    while first and (chunk := read(CHUNK_BYTES)):
        yield chunk
    if first:
        yield b""


def _nul_fault(place: str, offset: int) -> DataError:
    return DataError(
        f"{place}: holds a NUL byte (byte {offset:,} of the file), which no text has: remove it, or convert the file "
        "if it is UTF-16, for example iconv -f UTF-16LE -t UTF-8."
    )


def _at_least(number: int, head: bytes, chunks: Iterator[bytes]) -> bytes:
    """So many bytes of a head and of what follows it, fewer where the file ends."""
    while len(head) < number and (chunk := next(chunks, b"")):
        head += chunk
    return head[:number]


def _encoding_fault(place: str, nearby: bytes, offset: int, *, is_mixed: bool) -> DataError:
    """What the first of some bytes is, and what they look like."""
    name = _likely_encoding(nearby)
    found = f"{place}: byte {offset:,} of the file (0x{nearby[0]:02X}) is not UTF-8 text"
    if is_mixed:
        return DataError(f"{found}, as the lines before it are, and looks like {name}: write the whole file as UTF-8.")
    example = f"for example iconv -f {name.upper()} -t UTF-8"
    return DataError(f"{found} and looks like {name}: convert the file, {example}.")


def _likely_encoding(nearby: bytes) -> str:
    """Which of the encodings that old files have: Chinese ones have their high bytes in pairs, Western ones alone."""
    runs = _HIGH_BYTES.findall(nearby)
    is_paired = sum(len(run) % 2 == 0 for run in runs) > len(runs) / 2
    return "GB18030" if is_paired else "Windows-1252"
