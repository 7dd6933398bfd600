"""A file of text or of rows -> its documents, one after the other, with flat memory.

A document of a file of text ends at a blank line or at the end of each line; of a file of rows each row is one. The
rule guarded here: a document is its non-blank lines, stripped, so the same texts are the same documents in every kind
of file.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import math
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from promptlab.errors import DataError, UsageError
from promptlab.library import shown_path
from promptlab.lines import MAX_CHARACTERS, TooLong, read_lines
from promptlab.reading import RawRow, missing_column, read_stream

Separator = Literal["blank_line", "line"]
Documents = Generator[str, None, None]

KNOWN_ENDINGS = ".txt, .jsonl, .ndjson, .json, .csv, .tsv (each also with .xz, .gz, .bz2 or .zst behind it), .parquet"
DEFAULT_COLUMN = "text"
_FORMATS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_PEEKED_ROWS = 100  # of a file whose column of text is looked for
_LINE_END = re.compile("\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class FileKind:
    """How a file is read: `txt` or a format of rows, and the ending of its compression, "" without one."""

    format: str
    compression: str

    @property
    def has_rows(self) -> bool:
        """Whether it holds rows with columns, and not running text."""
        return self.format != "txt"


def find_kind(path: Path) -> FileKind | None:
    """The kind of a file by its endings, None where they are unknown; `notes.xz` is text."""
    compression = path.suffix.lower() if path.suffix.lower() in _OPENERS else ""
    ending = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    if compression and not ending:
        return FileKind("txt", compression)
    if ending not in _FORMATS or (compression and ending == ".parquet"):
        return None
    return FileKind(_FORMATS[ending], compression)


def list_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder whose kind is known, by name; no hidden ones and no subfolders.

    Raises:
        UsageError: the ending is unknown, or the folder has no such file.
    """
    shown = shown_path(path)
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.is_file() and not child.name.startswith("."))
        files = [path / name for name in names if find_kind(path / name)]
        if not files:
            raise UsageError(f"{shown}: the folder itself holds no file that can be read; allowed are {KNOWN_ENDINGS}.")
        return files
    if find_kind(path) is None:
        ending = "".join(path.suffixes[-2:]) if path.suffix.lower() in _OPENERS else path.suffix
        raise UsageError(f"{shown}: the ending {ending!r} is unknown; allowed are {KNOWN_ENDINGS}.")
    return [path]


def read_documents(path: Path, *, separator: Separator = "blank_line", column: str | None = None) -> Documents:
    """The documents of one file in order, never an empty one.

    Args:
        path: A file of a known kind.
        separator: Where a document of a file of text ends.
        column: The column of the texts in a file of rows; without it `text`, or the only one that holds text.

    Raises:
        DataError: The file cannot be read or unpacked, is no UTF-8, or a row of it is broken or has no text.
    """
    shown = shown_path(path)
    kind = find_kind(path)
    if kind is None:
        raise UsageError(f"{shown}: the ending {path.suffix!r} is unknown; allowed are {KNOWN_ENDINGS}.")
    try:
        with _OPENERS[kind.compression](path) as stream:
            if kind.has_rows:
                yield from documents_of_rows(read_stream(stream, kind.format, shown), column, shown)
            else:
                yield from _split_text(stream, shown, separator)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise _reading_fault(shown, kind, error) from None


def documents_of_rows(rows: Iterable[tuple[str, RawRow]], column: str | None, shown: str) -> Documents:
    """The text of each row, none of them empty.

    Args:
        rows: (place, raw row) pairs.
        column: The column of the texts, or None to look for it in the first rows.
        shown: What messages call the corpus.
    """
    remaining = iter(rows)
    if column is None:
        head = list(itertools.islice(remaining, _PEEKED_ROWS))
        column = choose_column([row for _, row in head], shown)
        remaining = itertools.chain(head, remaining)
    for place, row in remaining:
        document = _document(row, column, place)
        if document:
            yield document


def choose_column(rows: Sequence[RawRow], shown: str) -> str:
    """The column `text`, or the only one that holds text.

    Raises:
        DataError: there is neither; the columns are named.
    """
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    if DEFAULT_COLUMN in columns:
        return DEFAULT_COLUMN
    of_text = [name for name in columns if any(isinstance(row.get(name), str) for row in rows)]
    if len(of_text) == 1:
        return of_text[0]
    fault = missing_column(f"{shown}:", DEFAULT_COLUMN, columns)
    raise DataError(f"{fault} Name the one that holds the documents: {shown}#COLUMN.")


def _document(row: RawRow, column: str, place: str) -> str:
    """The text of a row, "" where the value is missing."""
    if column not in row:
        raise DataError(missing_column(f"{place}:", column, row))
    value = row[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: column '{column}' holds {type(value).__name__} and not text: name another column.")
    if _SURROGATE.search(value):
        raise DataError(f"{place}: column '{column}' holds half of a character (a lone surrogate): mend the text.")
    return "\n".join(line for line in map(str.strip, _LINE_END.split(value)) if line)


def _split_text(stream: BinaryIO, shown: str, separator: Separator) -> Documents:
    """The documents of running text; of one that does not end no more than MAX_CHARACTERS are held.

    Raises:
        DataError: a document is longer than that.
    """
    document, size, number, first = list[str](), 0, 0, 1
    try:
        for number, line in enumerate(read_lines(stream, shown), start=1):
            text = line.strip()
            if text:
                first = first if document else number
                document.append(text)
                size += len(text)
            if size > MAX_CHARACTERS:
                raise _length_fault(shown, first, separator)
            if document and (separator == "line" or not text):
                yield "\n".join(document)
                document, size = [], 0
    except TooLong:
        raise _length_fault(shown, first if document else number + 1, separator) from None
    if document:
        yield "\n".join(document)


def _length_fault(shown: str, line: int, separator: Separator) -> DataError:
    found = f"{shown}:{line}: the document that begins here has more than {MAX_CHARACTERS:,} characters"
    if separator == "line":
        return DataError(f"{found}: break its line into several.")
    return DataError(f"{found}: put a blank line between documents, or read one a line with {shown}#line.")


def _reading_fault(shown: str, kind: FileKind, error: Exception) -> DataError:
    """What kept a file from being read; of a packed one mostly that it is not whole."""
    reason = (isinstance(error, OSError) and error.strerror) or (str(error).splitlines() or [type(error).__name__])[0]
    is_damaged = bool(kind.compression) and not (isinstance(error, OSError) and error.errno)
    hint = f" It is no whole {kind.compression} file: fetch it or pack it again." if is_damaged else ""
    return DataError(f"{shown}: cannot be read: {reason.rstrip('.')}.{hint}")


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_zst(path: Path) -> BinaryIO:
    import pyarrow

    return cast(BinaryIO, pyarrow.input_stream(str(path), compression="zstd"))


_OPENERS: dict[str, Callable[[Path], Any]] = {
    "": _open_plain,
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": _open_zst,
}
