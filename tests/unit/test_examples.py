"""Examples are held in few bytes and are the same when they are asked for; equal digests are counted without a dict."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from promptlab.examples import NO_LABEL, Examples, Occurrences
from promptlab.hashing import content_hash, text_hash
from promptlab.types import Example

MADE = [
    Example("ab12-0", 0, {"text": "Größe 猫\n", "more": {"b": [1, 2.5, None, True], "a": ""}}, "positive"),
    Example("ab12-10", 3, {"text": 12345678901234567890, "more": -0.0}, None),
    Example("cd34-0", 7, {"text": "", "more": []}, "negative"),
]


def collect(examples: list[Example]) -> Examples:
    """The examples, held compactly."""
    return Examples.collect(examples, fields=("text", "more"), labels=("positive", "negative"))


def test_examples_come_back_as_they_were() -> None:
    """One by one, from the end, in slices, and with the order of the keys of a mapping."""
    held = collect(MADE)
    assert MADE == list(held) == [held[position] for position in range(3)]
    assert MADE[::-1] == [held[-1], held[-2], held[-3]]
    assert held == MADE
    assert ["b", "a"] == list(held[0].fields["more"])
    assert MADE[1:] == list(held[1:])
    assert MADE[::-2] == list(held[::-2])
    assert [] == list(held[3:])
    assert [MADE[2], MADE[0], MADE[2]] == list(held.take([2, 0, 2]))
    with pytest.raises(IndexError):
        held[3]


def test_ids_and_labels_are_there_without_examples() -> None:
    """As arrays, as names, and as the hash of both in order."""
    held = collect(MADE)
    assert [b"ab12-0", b"ab12-10", b"cd34-0"] == held.ids().tolist()
    assert ["ab12-0", "ab12-10", "cd34-0"] == list(held.id_texts())
    assert [0, NO_LABEL, 1] == held.labels().tolist()
    assert ["positive", None, "negative"] == held.gold()
    assert content_hash([[example.id, example.label] for example in MADE]) == held.hash
    assert held.hash != held[::-1].hash


def test_no_examples_are_a_sequence_too() -> None:
    """An empty one, made or cut, has the hash of an empty list."""
    for held in (collect([]), collect(MADE)[:0]):
        assert (0, [], []) == (len(held), list(held), held.gold())
        assert content_hash([]) == held.hash


def test_a_shown_sequence_holds_no_text_of_rows() -> None:
    """What a log or an assertion prints is the number and the fields."""
    assert "<3 examples of text, more>" == repr(collect(MADE))
    assert collect(MADE) != collect(MADE[:2])
    assert collect(MADE) != 3


def test_a_label_of_another_task_is_a_mistake_of_the_caller() -> None:
    """Nothing is stored as a label that has no name."""
    with pytest.raises(KeyError):
        Examples.collect(MADE, fields=("text", "more"), labels=("positive",))


def rows(number: int) -> Iterator[Example]:
    """Examples with a text of 100 characters each."""
    for index in range(number):
        text = f"{index:06d} " + "words of a film " * 6
        yield Example(f"{text_hash(text)[:16]}-0", index, {"text": text[:100]}, "ab"[index % 2])


def test_an_example_of_100_characters_takes_less_than_160_bytes() -> None:
    """Text, id, label and place together; as objects they take 700."""
    tracemalloc.start()
    held = Examples.collect(rows(10_000), fields=("text",), labels=("a", "b"))
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 10_000
    assert size < 1_600_000
    assert peak < 2_500_000


def test_occurrences_are_those_of_a_counter() -> None:
    """Digests that share a half, a slot or all are told apart, before and after the table has grown."""
    generator = random.Random(0)
    halves = [f"{generator.getrandbits(64) % 50:016x}" for _ in range(60)]
    digests = [generator.choice(halves) + generator.choice(halves) for _ in range(5000)]
    digests += [text_hash(str(number % 3000)) for number in range(6000)]
    naive: Counter[str] = Counter()
    counted = Occurrences()
    for digest in digests:
        assert naive[digest] == counted.add(digest)
        naive[digest] += 1


def test_a_digest_that_was_seen_takes_less_than_60_bytes() -> None:
    """A dict of texts takes 150."""
    tracemalloc.start()
    counted = Occurrences()
    for number in range(20_000):
        counted.add(f"{number:032x}")
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 20_000 * 60


def test_arrays_hold_what_their_types_say() -> None:
    """Small labels, whole numbers of eight bytes, ids as wide as the longest."""
    held = collect(MADE)
    assert (np.int16, np.int64, np.dtype("S7")) == (held.labels().dtype, held.indices.dtype, held.ids().dtype)
