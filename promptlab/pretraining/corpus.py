"""A text of the command line -> a corpus -> its documents.

A corpus is a file, a folder of files or a dataset of the hub, with a weight: how often its documents are seen in one
pass. The rule guarded here: which documents are held out depends on the seed and the order of the content only, so the
same documents stay out of the vocabulary, the word vectors and the training.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from promptlab.errors import DataError, UsageError, did_you_mean
from promptlab.library import shown_path
from promptlab.pretraining.corpus_files import Documents, Separator, find_kind, list_files, read_documents
from promptlab.pretraining.hub_corpus import HUB_PREFIX, digest_hub, parse_hub, read_hub_documents
from promptlab.seeding import derive_seed

_MAX_WEIGHT = 100.0
_MAX_CORPORA = 256  # the token store keeps the number of a document's corpus in one byte


@dataclass(frozen=True)
class Corpus:
    """One source of documents and how it is read.

    Args:
        path: The file or the folder; of a dataset of the hub `hub:NAME...` as typed.
        weight: Passes over its documents in one pass over the mixture; 0.25 reads a quarter of them.
        separator: Where a document of a file of text ends: at a blank line or at the end of each line.
        column: The column of the texts in rows; without it `text`, or the only one that holds text.
    """

    path: Path
    weight: float = 1.0
    separator: Separator = "blank_line"
    column: str | None = None

    @property
    def name(self) -> str:
        """The name of the file, folder or dataset without its endings, and the column where one was named."""
        return _stem(self.path) + (f"#{self.column}" if self.column else "")


def parse_corpora(arguments: Sequence[str], *, line_names: tuple[str, ...] = ()) -> tuple[Corpus, ...]:
    """Read every `--corpus` of a command line, as `parse_corpus` does, none of them twice."""
    if len(arguments) > _MAX_CORPORA:
        raise UsageError(
            f"--corpus stands {len(arguments)} times; allowed are {_MAX_CORPORA}: put files of one weight into a "
            "folder and name the folder."
        )
    corpora: dict[Any, Corpus] = {}
    for argument in arguments:
        corpus = parse_corpus(argument, line_names=line_names)
        place = parse_hub(str(corpus.path)) if _is_hub(corpus.path) else corpus.path.resolve()
        key = (place, corpus.column)
        if key in corpora:
            raise UsageError(f"--corpus {argument}: the same corpus stands twice; name it once, with a weight: FILE=2.")
        corpora[key] = corpus
    return tuple(corpora.values())


def parse_corpus(argument: str, *, line_names: tuple[str, ...] = ()) -> Corpus:
    """Read one `SOURCE[#COLUMN][=WEIGHT]` of the command line, and the first document of each of its files.

    Where the text holds `#` or `=`, a file or folder that is there by the longer name wins. Behind the `#` of a source
    of running text stands its separator, `line` or `blank_line`.

    Args:
        argument: The text as typed.
        line_names: Names of the corpora that hold one document a line.

    Raises:
        UsageError: The text is wrong, or there is no such file.
        DataError: The corpus cannot be read, or has no text.
    """
    source, mark, weight_text = _take_apart(argument)
    weight = _weight(argument, weight_text)
    if mark == "":
        raise UsageError(f"--corpus {argument}: no column stands behind the '#'; write {source}#COLUMN.")
    path, has_rows = Path(source), _has_rows(argument, source)
    separator: Separator = "line" if _stem(path) in line_names else "blank_line"
    if mark is None or has_rows:
        corpus = Corpus(path, weight, separator, mark)
    else:
        corpus = Corpus(path, weight, _separator(argument, mark))
    _check_text(corpus)
    return corpus


def iterate_documents(corpus: Corpus) -> Iterator[str]:
    """Give the documents of a corpus in the order of its files and of their content, never an empty one.

    Raises:
        DataError: The corpus cannot be read, or has no text.
    """
    is_empty = True
    for documents in _parts(corpus):
        for document in documents:
            is_empty = False
            yield document
    if is_empty:
        raise _emptiness(corpus)


def is_held_out(seed: int, corpus: Corpus, document_index: int, *, one_in: int) -> bool:
    """Say whether a document is kept for the held-out loss: one in `one_in`, chosen by the seed."""
    return derive_seed(seed, "held_out", corpus.name, document_index) % one_in == 0


def digest_file(path: Path) -> str:
    """Hash the bytes of a file as they lie on the disk, the names and hashes of a folder's files, or a hub dataset."""
    if _is_hub(path):
        return digest_hub(str(path))
    if path.is_dir():
        files = [(file.name, digest_file(file)) for file in list_files(path)]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _take_apart(argument: str) -> tuple[str, str | None, str]:
    """The source, what stands behind its `#` (None without one), and the weight, "1" without one."""
    if _exists(argument):
        return argument, None, "1"
    head, equals, weight_text = argument.rpartition("=")
    weighted, whole = _split_mark(head), _split_mark(argument)
    if equals and (_is_there(weighted[0]) or not _is_there(whole[0])):
        return *weighted, weight_text
    return *whole, "1"


def _split_mark(text: str) -> tuple[str, str | None]:
    """The source and what stands behind its `#`: the longest source that is there, else what precedes the first."""
    ends = [index for index, character in enumerate(text) if character == "#"]
    if _exists(text) or not ends:
        return text, None
    end = next((end for end in reversed(ends) if _exists(text[:end])), ends[0])
    return text[:end], text[end + 1 :]


def _is_there(source: str) -> bool:
    return source.startswith(HUB_PREFIX) or (source != "" and _exists(source))


def _exists(source: str) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long
        return Path(source).exists()
    return False


def _weight(argument: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise UsageError(f"--corpus {argument}: the weight {text!r} is not a number; write FILE=0.5.") from None
    if not 0 < weight <= _MAX_WEIGHT:
        raise UsageError(f"--corpus {argument}: the weight is {weight:g}; allowed is above 0 up to {_MAX_WEIGHT:g}.")
    return weight


def _has_rows(argument: str, source: str) -> bool:
    """Whether a source that is there has columns; a folder has them where one of its files has."""
    path = Path(source)
    if _is_hub(path):
        return True
    if not _exists(source):
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise UsageError(f"--corpus {argument}: there is no file or folder {source}.{near}")
    try:
        return any(kind.has_rows for kind in map(find_kind, list_files(path)) if kind)
    except UsageError as fault:
        raise UsageError(f"--corpus {argument}: {fault}") from None


def _separator(argument: str, mark: str) -> Separator:
    if mark in get_args(Separator):
        return cast(Separator, mark)
    raise UsageError(
        f"--corpus {argument}: running text has no columns, so '{mark}' names none; behind '#' stands line or "
        f"blank_line.{did_you_mean(mark, get_args(Separator))}"
    )


def _stem(path: Path) -> str:
    if _is_hub(path):
        return parse_hub(str(path))[0].path.rpartition("/")[2]
    return path.name.split(".")[0] or path.resolve().name


def _is_hub(path: Path) -> bool:
    return str(path).startswith(HUB_PREFIX) and not path.exists()


def _parts(corpus: Corpus) -> Iterator[Documents]:
    """The documents of each file, or of the dataset."""
    if _is_hub(corpus.path):
        yield read_hub_documents(str(corpus.path), corpus.column)
        return
    for file in list_files(corpus.path):
        yield read_documents(file, separator=corpus.separator, column=corpus.column)


def _check_text(corpus: Corpus) -> None:
    """Read the first document of every file, so that a fault is told before hours of work."""
    is_empty = True
    for documents in _parts(corpus):
        with contextlib.closing(documents):
            is_empty = next(documents, None) is None and is_empty
    if is_empty:
        raise _emptiness(corpus)


def _emptiness(corpus: Corpus) -> DataError:
    shown = str(corpus.path) if _is_hub(corpus.path) else shown_path(corpus.path)
    return DataError(f"{shown}: has no text: every document of the corpus is empty.")
