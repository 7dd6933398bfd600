"""Every kind of corpus gives the same documents, and whatever is wrong with one is one sentence."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import promptlab.pretraining
from promptlab.errors import DataError, UsageError
from promptlab.pretraining import hub_corpus
from promptlab.pretraining.corpus import (
    Corpus,
    digest_file,
    is_held_out,
    iterate_documents,
    parse_corpora,
    parse_corpus,
)
from promptlab.pretraining.job import Job
from promptlab.pretraining.recipe import load_recipe
from promptlab.pretraining.token_store import open_store
from promptlab.pretraining.vocabulary import train_vocabulary

RECIPE = load_recipe(Path(promptlab.pretraining.__file__).parent / "mini.yaml")
DOCUMENTS = ['A "quoted", dull book.\nIts second line', "Größe 猫", "the sea was calm", "it rained"]


def pack_zst(content: bytes) -> bytes:
    """A zstd file of two frames, as parallel packers write it."""
    frames = []
    for half in (content[: len(content) // 2], content[len(content) // 2 :]):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(half)
        frames.append(sink.getvalue().to_pybytes())
    return b"".join(frames)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": pack_zst,
}


def delimited(documents: list[str], delimiter: str) -> bytes:
    """A table of two columns."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([["id", "text"], *enumerate(documents)])
    return stream.getvalue().encode()


def as_bytes(ending: str, documents: list[str]) -> bytes:
    """The same documents in each kind of file."""
    rows: list[dict[str, object]] = [{"id": number, "text": text} for number, text in enumerate(documents)]
    if ending == ".txt":
        return "\n\n".join(documents).encode()
    if ending in (".csv", ".tsv"):
        return delimited(documents, "," if ending == ".csv" else "\t")
    if ending == ".json":
        return json.dumps(rows).encode()
    if ending == ".parquet":
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        return bytes(sink.getvalue().to_pybytes())
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


TEXT_ENDINGS = [".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv"]
ENDINGS = [*(ending + packing for ending in TEXT_ENDINGS for packing in PACKERS), ".parquet"]


def write(path: Path, documents: list[str]) -> Path:
    """A file of some documents, of the kind that its endings name."""
    packing = path.suffix if path.suffix in PACKERS else ""
    ending = Path(path.stem).suffix if packing else path.suffix
    path.write_bytes(PACKERS[packing](as_bytes(ending, documents)))
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in the form of the hub, reached as `own/toy` from the working folder, with its own cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("promptlab.hub._is_known_host", lambda address: False)
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    (tmp_path / "own/toy").mkdir(parents=True)
    (tmp_path / "own/toy/train.jsonl").write_bytes(as_bytes(".jsonl", DOCUMENTS))
    (tmp_path / "own/toy/test.jsonl").write_text('{"id": 1, "text": "test only"}\n')
    hub_corpus._load.cache_clear()
    yield tmp_path / "own"
    hub_corpus._load.cache_clear()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_gives_the_documents_of_plain_text(tmp_path: Path, ending: str) -> None:
    """Documents and the choice of held-out ones are those of a .txt file, whatever the kind and the packing."""
    corpus = parse_corpus(str(write(tmp_path / f"notes{ending}", DOCUMENTS)))
    assert DOCUMENTS == list(iterate_documents(corpus))
    plain = Corpus(write(tmp_path / "notes.txt", DOCUMENTS))
    chosen = [[is_held_out(3, each, index, one_in=2) for index in range(20)] for each in (plain, corpus)]
    assert chosen[0] == chosen[1]


def as_document(text: str) -> str:
    """A naive reading of one text: its lines, stripped, without the blank ones."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.strip() for line in lines if line.strip())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab猫 \t\n\r\u2028\x0b,\"'"), max_size=12), min_size=1, max_size=5))
def test_any_text_is_the_same_document_in_every_kind(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """Line ends, blank lines, quotes and blanks at the ends come out alike from running text and from rows."""
    folder = tmp_path_factory.mktemp("texts")
    expected = [document for document in map(as_document, texts) if document]
    (folder / "a.txt").write_bytes("\n\n".join(expected).replace("\n", "\r\n").encode())
    files = [folder / "a.txt", *(write(folder / f"a{ending}", texts) for ending in (".jsonl", ".csv", ".parquet"))]
    for file in files:
        if expected:
            assert expected == list(iterate_documents(Corpus(file)))
        else:
            with pytest.raises(DataError, match="has no text"):
                list(iterate_documents(Corpus(file)))


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, ending: str) -> None:
    """A file that begins with a byte order mark gives the same documents."""
    path = write(tmp_path / f"a{ending}", DOCUMENTS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert DOCUMENTS == list(iterate_documents(Corpus(path)))


def test_a_folder_is_one_corpus_of_its_files_by_name(tmp_path: Path) -> None:
    """Files of all kinds are read in the order of their names; other files, hidden ones and subfolders are not."""
    (tmp_path / "parts/below").mkdir(parents=True)
    for number, name in enumerate(["b.csv", "a.txt.gz", "c.parquet", ".hidden.txt", "below/d.txt"]):
        write(tmp_path / "parts" / name, [f"text {number}"])
    (tmp_path / "parts/d.txt").write_text("\n")
    (tmp_path / "parts/picture.png").write_bytes(b"\x89PNG")
    corpus = parse_corpus(f"{tmp_path}/parts=0.5")
    assert (0.5, "parts") == (corpus.weight, corpus.name)
    assert ["text 1", "text 0", "text 2"] == list(iterate_documents(corpus))


def test_the_digest_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    """The same names and bytes elsewhere have the same digest; another name, byte or file has another."""
    digests = []
    for place, first, name in [("x", "one", "a"), ("y", "one", "a"), ("x", "two", "a"), ("x", "one", "aa")]:
        folder = tmp_path / place / first / name
        folder.mkdir(parents=True)
        write(folder / f"{name}.txt", [first])
        write(folder / "b.txt", ["more"])
        digests.append(digest_file(folder))
    assert digests[0] == digests[1]
    assert 3 == len(set(digests))
    before = digest_file(folder)
    write(folder / "d.txt", ["another"])
    assert before != digest_file(folder)


def test_the_column_of_the_text_is_named_or_found(tmp_path: Path) -> None:
    """`text` is the default, the only column of texts is found, `#` names another; a named column is another corpus."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "body": null}\n{"id": 2, "body": "found"}\n')
    assert ["found"] == list(iterate_documents(parse_corpus(str(path))))
    path.write_text('{"title": "named", "text": "default"}\n')
    assert ["default"] == list(iterate_documents(parse_corpus(str(path))))
    corpus = parse_corpus(f"{path}#title=2")
    assert Corpus(path, 2.0, column="title") == corpus
    assert "a#title" == corpus.name
    assert ["named"] == list(iterate_documents(corpus))


def test_rows_without_a_value_are_no_documents(tmp_path: Path) -> None:
    """A missing value, NaN and a blank text are skipped."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n{"text": NaN}\n{"text": " \\n "}\n{"text": "one"}\n')
    assert ["one"] == list(iterate_documents(Corpus(path)))


def test_the_separator_of_running_text_stands_behind_the_mark(tmp_path: Path) -> None:
    """`#line` reads one document a line, of a file and of a folder of text; a recipe's name does the same."""
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\nthree\n")
    assert Corpus(path, 0.5, "line") == parse_corpus(f"{path}#line=0.5")
    assert ["one", "two", "three"] == list(iterate_documents(parse_corpus(f"{tmp_path}#line")))
    assert Corpus(path) == parse_corpus(f"{path}#blank_line", line_names=("a",))


@pytest.mark.parametrize(
    ("name", "rest", "expected"),
    [
        ("a=0.5.txt", "", ("a=0.5.txt", 1.0, None)),
        ("a=0.5.txt", "=0.25", ("a=0.5.txt", 0.25, None)),
        ("a#b.csv", "", ("a#b.csv", 1.0, None)),
        ("a#b.csv", "#text", ("a#b.csv", 1.0, "text")),
        ("a.csv", "#C#=3", ("a.csv", 3.0, "C#")),
        ("a#text=2.csv", "", ("a#text=2.csv", 1.0, None)),
        ("x=1/a.csv", "#text", ("x=1/a.csv", 1.0, "text")),
    ],
)
def test_a_file_that_is_there_wins_over_the_marks(
    tmp_path: Path, name: str, rest: str, expected: tuple[str, float, str | None]
) -> None:
    """`=` and `#` may stand in a path: the longest name of a file that is there is the path."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("C#,text\nsharp,plain\n" if name.endswith("csv") else "plain\n")
    corpus = parse_corpus(f"{path}{rest}")
    assert expected == (str(corpus.path.relative_to(tmp_path)), corpus.weight, corpus.column)


def test_the_longest_name_that_is_there_wins(tmp_path: Path) -> None:
    """Where both a file and a longer name that begins like it are there, the longer one is read."""
    names = ["a.csv", "a.csv=2", "a.csv#b.csv"]
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("2") else write(tmp_path / name, [name])
    write(tmp_path / "a.csv=2/part.txt", ["a.csv=2"])
    for argument, name, weight in [("a.csv=2", names[1], 1.0), ("a.csv#b.csv#text=2", names[2], 2.0)]:
        corpus = parse_corpus(f"{tmp_path}/{argument}")
        assert ([name], weight) == (list(iterate_documents(corpus)), corpus.weight)


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        ("missing.txt", UsageError, "there is no file or folder missing.txt."),
        ("nots.txt=0.5", UsageError, "there is no file or folder nots.txt. Did you mean 'notes.txt'?"),
        ("n" * 300, UsageError, "there is no file or folder nnn"),
        ("notes.txt=much", UsageError, "the weight 'much' is not a number; write FILE=0.5."),
        ("notes.txt=0", UsageError, "the weight is 0; allowed is above 0 up to 100."),
        ("notes.txt=nan", UsageError, "the weight is nan; allowed is above 0 up to 100."),
        ("notes.txt=101", UsageError, "the weight is 101; allowed is above 0 up to 100."),
        (
            "notes.txt#title",
            UsageError,
            "running text has no columns, so 'title' names none; behind '#' stands line or",
        ),
        ("notes.txt#lines", UsageError, "Did you mean 'line'?"),
        ("notes.txt#", UsageError, "no column stands behind the '#'; write notes.txt#COLUMN."),
        ("book.pdf", UsageError, "the ending '.pdf' is unknown; allowed are .txt, .jsonl, .ndjson, .json, .csv, .tsv"),
        ("a.tar.gz", UsageError, "the ending '.tar.gz' is unknown"),
        ("a.parquet.gz", UsageError, "the ending '.parquet.gz' is unknown"),
        ("bare", UsageError, "bare: the folder itself holds no file that can be read; allowed are .txt"),
        (
            "two.csv",
            DataError,
            "two.csv: column 'text' is missing. Did you mean 'Text'? Columns: id, Text. Name the one",
        ),
        ("number.jsonl", DataError, "number.jsonl: column 'text' is missing. Columns: n. Name the one that holds"),
        ("two.csv#txt", DataError, "two.csv:2: column 'txt' is missing. Did you mean 'Text'? Columns: id, Text."),
        ("number.jsonl#n", DataError, "number.jsonl:1: column 'n' holds int and not text: name another column."),
        ("half.jsonl", DataError, "half.jsonl:1: column 'text' holds half of a character (a lone surrogate)"),
        ("broken.jsonl", DataError, "broken.jsonl:1: is not valid JSON"),
        ("latin.txt", DataError, "latin.txt:2: byte 7 of the file (0xE9) is not UTF-8 text"),
        ("empty.txt", DataError, "empty.txt: has no text: every document of the corpus is empty."),
        ("empty.txt.zst", DataError, "empty.txt.zst: has no text"),
        ("blank.jsonl", DataError, "blank.jsonl: has no text"),
        ("header.csv", DataError, "header.csv: has no rows: only the header is there."),
        (
            "hub:a/b/train",
            UsageError,
            "hub:a/b/train: a dataset of the hub is written hub:NAME[@REVISION][:[CONFIG/]SPLI",
        ),
        ("hub:", UsageError, "a dataset of the hub is written"),
    ],
)
def test_each_fault_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, error: type[Exception], words: str
) -> None:
    """What was typed or the file is named, with what was found and what is allowed."""
    monkeypatch.chdir(tmp_path)
    contents = {
        "notes.txt": b"x",
        "book.pdf": b"x",
        "a.tar.gz": b"x",
        "a.parquet.gz": b"x",
        "two.csv": b"id,Text\na,b\n",
        "number.jsonl": b'{"n": 1}\n',
        "half.jsonl": b'{"text": "\\ud800"}\n',
        "broken.jsonl": b"{",
        "latin.txt": b"one\ncaf\xe9 au lait\n",
        "empty.txt": b" \n\n",
        "empty.txt.zst": b"",
        "blank.jsonl": b'{"text": ""}\n',
        "header.csv": b"id,text\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bare").mkdir()
    with pytest.raises(error) as fault:
        parse_corpus(argument)
    assert words in str(fault.value)
    assert error is not UsageError or f"--corpus {argument}" in str(fault.value) or argument.startswith("hub:")


@pytest.mark.parametrize("packing", [".xz", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
@pytest.mark.parametrize("damage", ["cut", "other", "headed"])
def test_a_damaged_packing_is_explained(tmp_path: Path, packing: str, ending: str, damage: str) -> None:
    """A file that is cut short, is packed by nothing of the kind or only begins so is one sentence."""
    path = write(tmp_path / f"a{ending}{packing}", [f"text {number}" for number in range(500)])
    content = path.read_bytes()
    damaged = {
        "cut": content[:-20],
        "other": b"nothing of the kind",
        "headed": content[:10] + b"\xff" * 40,  # of gzip the head is whole
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=rf"a{ending}{packing}: cannot be read: .*\. It is no whole {packing} file"):
        list(iterate_documents(Corpus(path)))


def test_the_same_corpus_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another way to write the path does not hide it; another column of the file is another corpus."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"title": "one", "text": "two"}\n')
    assert ("a#title", "a#text") == tuple(each.name for each in parse_corpora(["a.jsonl#title", "a.jsonl#text=0.5"]))
    with pytest.raises(UsageError, match=r"^--corpus /.*/a\.jsonl=0\.5: the same corpus stands twice; name it once"):
        parse_corpora(["a.jsonl", f"{tmp_path}/a.jsonl=0.5"])
    with pytest.raises(UsageError, match=r"^--corpus stands 257 times; allowed are 256: put files of one weight into"):
        parse_corpora(["a.jsonl"] * 257)


@pytest.mark.parametrize("separator", ["blank_line", "line"])
def test_a_document_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    """Text over the bound is refused where it begins, with the way out, and is not gathered in memory."""
    monkeypatch.setattr("promptlab.pretraining.corpus_files.MAX_CHARACTERS", 20)
    monkeypatch.setattr("promptlab.lines.MAX_CHARACTERS", 20)
    path = tmp_path / "a.txt"
    path.write_text("short\n\n" + ("ten and one\n" * 5 if separator == "blank_line" else "ten and one " * 5))
    remedy = "put a blank line between .*#line" if separator == "blank_line" else "break its line into several"
    with pytest.raises(
        DataError, match=f"a.txt:3: the document that begins here has more than 20 characters: {remedy}"
    ):
        list(iterate_documents(Corpus(path, separator=separator)))  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".txt.zst", ".jsonl.gz", ".csv", ".parquet"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, ending: str) -> None:
    """Eight times the documents take the same memory."""
    peaks = []
    for number in (600, 4_800):
        path = write(
            tmp_path / f"a{number}{ending}", [f"a text of some words {index} " * 60 for index in range(number)]
        )
        tracemalloc.start()
        assert number == sum(1 for _ in iterate_documents(Corpus(path)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 500_000


def test_a_dataset_of_the_hub_is_a_corpus(hub: Path) -> None:
    """Its rows are documents, `train` is the default split, and another split, column or weight can be named."""
    corpus = parse_corpus("hub:own/toy=0.5")
    assert (0.5, "toy") == (corpus.weight, corpus.name)
    assert DOCUMENTS == list(iterate_documents(corpus))
    assert ["test only"] == list(iterate_documents(parse_corpus("hub:own/toy:default/test#text")))
    with pytest.raises(UsageError, match=r"^--corpus hub:own/toy:train: the same corpus stands twice"):
        parse_corpora(["hub:own/toy", "hub:own/toy:train"])
    with pytest.raises(
        DataError, match=r"^hub:own/toy: column 'txt' is missing\. Did you mean 'text'\? Columns: id, t"
    ):
        parse_corpus("hub:own/toy#txt")


def test_the_digest_of_a_dataset_is_that_of_its_content(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another cache gives the same digest; another split and other rows give another."""
    import datasets

    first = digest_file(Path("hub:own/toy"))
    assert first == digest_file(Path("hub:own/toy"))
    assert first == digest_file(Path("hub:own/toy:train"))
    assert first != digest_file(Path("hub:own/toy:test"))
    for rows, is_same in [(DOCUMENTS, True), (["other"], False)]:
        if not is_same:
            (hub / "toy/train.jsonl").write_bytes(as_bytes(".jsonl", rows))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", hub.parent / f"cache-{is_same}")
        hub_corpus._load.cache_clear()
        assert is_same == (first == digest_file(Path("hub:own/toy")))


def test_a_dataset_out_of_reach_is_explained(hub: Path) -> None:
    """Without a network, a wrong split, a missing config and a script are each told with what there is."""
    (hub / "script").mkdir()
    (hub / "script/script.py").write_text("raise SystemExit(9)")
    (hub / "two").mkdir()
    configs = "\n".join(f"- config_name: {name}\n  data_files: {name}.jsonl" for name in ("one", "more"))
    (hub / "two/README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    for name in ("one", "more"):
        (hub / f"two/{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    faults = {
        "hub:nobody/nothing": r"could not be loaded \(.*\)\. Without a network the local cache is all",
        "hub:own/toy:dev": "Unknown split .*'train', 'test'",
        "hub:own/script": "scripts are no longer supported",
        "hub:own/two": "Config name is missing.*'one', 'more'",
    }
    for argument, words in faults.items():
        with pytest.raises(DataError, match=f"^--corpus {argument}: the hub dataset .*{words}"):
            parse_corpus(argument)
    assert ["more"] == list(iterate_documents(parse_corpus("hub:own/two:more/train")))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hub:imdb", ("imdb", None, None, "train")),
        ("hub:own/name:test", ("own/name", None, None, "test")),
        ("hub:own/name@abc", ("own/name", "abc", None, "train")),
        ("hub:own/name@refs/convert/parquet:plain/test", ("own/name", "refs/convert/parquet", "plain", "test")),
        ("hub:own/name:plain/train[:10%]", ("own/name", None, "plain", "train[:10%]")),
    ],
)
def test_the_name_of_a_dataset_is_taken_apart(typed: str, expected: tuple[str, str | None, str | None, str]) -> None:
    """Name, revision, config and split; a revision may hold slashes and a split a slice."""
    source, split = hub_corpus.parse_hub(typed)
    assert expected == (source.path, source.revision, source.name, split)


def test_two_columns_of_a_file_are_two_runs_and_two_stores(tmp_path: Path) -> None:
    """Neither a checkpoint nor stored tokens of one column are taken for another's."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "old house", "text": "calm sea"}\n')
    tokenizer = train_vocabulary(["old house", "calm sea"], size=40)
    jobs = [Job(RECIPE, (Corpus(path, column=column),), tmp_path, 1) for column in ("title", "text")]
    assert jobs[0].identity != jobs[1].identity
    stores = [
        open_store(job.corpora, tokenizer, cache_path=tmp_path, seed=1, held_out_one_in=2, report=[].append)
        for job in jobs
    ]
    assert ["old house", "calm sea"] == [tokenizer.decode(store.ids.tolist()) for store in stores]
