"""Whatever bytes a file holds, it is rows or one sentence, and the same ones however the bytes arrive."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.errors import DataError
from promptlab.reading import read_stream

TEXT_FORMATS = ("jsonl", "csv", "json", "tsv", "txt")
checked = settings(max_examples=150, deadline=None, derandomize=True, database=None)
pieces = st.sampled_from(
    [b'"', b'""', b",", b"\t", b"\n", b"\r\n", b"\r", b"a", b" ", b"\xff", b"\xe9t\xe9", "猫".encode(), b"\xef\xbb\xbf",
     b"\0", b"{", b"}", b"[", b"]", b'{"a": 1}', b'{"a": "b\\"c"}', b":", b"1", b"NaN", b"null", b"\\",
     b'"a"', b"a,b\n"]
)  # fmt: skip
contents = st.lists(pieces, max_size=14).map(b"".join) | st.binary(max_size=12)


class Drops(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size = content, size

    def read(self, size: int = -1) -> bytes:
        """The next few bytes."""
        given, self._content = self._content[: self._size], self._content[self._size :]
        return given


def outcome(stream: Any, format: str) -> list[Any]:
    """Rows and their places, and the fault that ends them."""
    found: list[Any] = []
    try:
        found.extend(read_stream(stream, format, "x"))
    except DataError as error:
        found.append(str(error))
    return found


def is_text(content: bytes) -> bool:
    """Whether the bytes are text that a file may hold."""
    return b"\0" not in content and "\ufffd" not in content.decode("utf-8", "replace")


@checked
@given(content=contents, format=st.sampled_from(TEXT_FORMATS), size=st.integers(1, 5))
def test_any_bytes_are_rows_or_one_sentence(content: bytes, format: str, size: int) -> None:
    """No other exception leaves a reader, and no row or fault depends on how the bytes are cut."""
    whole = outcome(io.BytesIO(content), format)
    if format != "json" or is_text(content):  # a list is read ahead, and may meet what is no text before it gives a row
        assert repr(whole) == repr(outcome(Drops(content, size), format))
    assert whole
    assert all(isinstance(item, tuple) for item in whole[:-1])
    if isinstance(whole[-1], str):
        assert whole[-1].startswith("x:") or whole[-1].startswith("x: ")
        assert whole[-1].endswith(".")
        assert "\n" not in whole[-1]


@checked
@given(keep=st.integers(0, 2000), more=st.binary(max_size=8))
def test_any_cut_of_a_parquet_file_is_rows_or_one_sentence(keep: int, more: bytes) -> None:
    """A file that was not written or sent to its end is told like one that never was a table."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": ["a", "b"], "n": [1, None]}), buffer)
    good = buffer.getvalue()
    assert [("x:1", {"text": "a", "n": 1}), ("x:2", {"text": "b", "n": None})] == outcome(io.BytesIO(good), "parquet")
    (found,) = outcome(io.BytesIO(good[: keep % len(good)] + more), "parquet")
    assert found.startswith("x: is not valid parquet: ")
    assert "\n" not in found
