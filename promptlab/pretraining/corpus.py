"""Text files -> documents.

A corpus is one file of UTF-8 text, plain or compressed, with a weight: how often its documents are seen in one pass.
The rule guarded here: which documents are held out depends on the seed and the file's content order only, so the same
documents stay out of the vocabulary, the word vectors and the training.
"""

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from promptlab.errors import UsageError
from promptlab.seeding import derive_seed

Separator = Literal["blank_line", "line"]

_OPENERS: dict[str, Callable[..., IO[str]]] = {".txt": open, ".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_MAX_WEIGHT = 100.0


@dataclass(frozen=True)
class Corpus:
    """One text file and how it is read.

    Args:
        path: The file, `.txt` or a compressed one.
        weight: Passes over its documents in one pass over the mixture; 0.25 reads a quarter of them.
        separator: Where a document ends: at a blank line or at the end of each line.
    """

    path: Path
    weight: float = 1.0
    separator: Separator = "blank_line"

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        return self.path.name.split(".")[0]


def parse_corpus(argument: str, *, line_names: tuple[str, ...] = ()) -> Corpus:
    """Read one `FILE[=WEIGHT]` of the command line.

    Args:
        argument: The text as typed.
        line_names: Names of the corpora that hold one document a line.
    """
    path_text, equals, weight_text = argument.rpartition("=")
    if not equals:
        path_text, weight_text = argument, "1"
    try:
        weight = float(weight_text)
    except ValueError:
        raise UsageError(f"--corpus {argument}: the weight {weight_text!r} is not a number; write FILE=0.5.") from None
    if not 0 < weight <= _MAX_WEIGHT:
        raise UsageError(f"--corpus {argument}: the weight is {weight:g}; allowed is above 0 up to {_MAX_WEIGHT:g}.")
    path = Path(path_text)
    if not path.is_file():
        raise UsageError(f"--corpus {argument}: there is no file {path_text}.")
    if path.suffix not in _OPENERS:
        allowed = ", ".join(_OPENERS)
        raise UsageError(f"--corpus {argument}: the ending {path.suffix!r} is unknown; allowed are {allowed}.")
    name = path.name.split(".")[0]
    return Corpus(path, weight, "line" if name in line_names else "blank_line")


def iterate_documents(corpus: Corpus) -> Iterator[str]:
    """Give the documents of a corpus in file order, never an empty one."""
    opener = _OPENERS[corpus.path.suffix]
    try:
        with opener(corpus.path, mode="rt", encoding="utf-8") as lines:
            yield from _split_lines(lines, separator=corpus.separator)
    except (UnicodeDecodeError, lzma.LZMAError, EOFError, OSError) as error:
        raise UsageError(f"The corpus {corpus.path} cannot be read: {error}.") from error


def is_held_out(seed: int, corpus: Corpus, document_index: int, *, one_in: int) -> bool:
    """Say whether a document is kept for the held-out loss: one in `one_in`, chosen by the seed."""
    return derive_seed(seed, "held_out", corpus.name, document_index) % one_in == 0


def digest_file(path: Path) -> str:
    """Hash the bytes of a file, as they lie on the disk."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _split_lines(lines: IO[str], *, separator: Separator) -> Iterator[str]:
    document: list[str] = []
    for line in lines:
        text = line.strip()
        if text:
            document.append(text)
        if document and (separator == "line" or not text):
            yield "\n".join(document)
            document = []
    if document:
        yield "\n".join(document)
