"""For any template, row and limit, cutting takes row tokens alone, in the order asked for, and whole characters."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Example, Role, Unscorable
from tests import oracles
from tests.tiny_models import BYTE_LEVEL, TOKENIZER_KINDS

MANY = settings(derandomize=True, database=None, deadline=None, max_examples=20)
FIELDS = ("text", "other", "third")
FILTERS = (
    "", " | fixed", " | shorten(keep='tail')", " | shorten(keep='middle')", " | shorten(order=1)",
    " | shorten(keep='tail', order=2)", " | shorten(keep='middle', order=1)",
)  # fmt: skip
LITERALS = (
    " ",
    " It was ",
    ", ",
    "\n",
    " (",
    ") ",
    '"',
    ".",
    " It was great and ",
    "{{ soft('it was no') }}",
    "{{ sep }}",
)
FAMILY, FLAGS, THUMB = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ("\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"),
    "\U0001f44d\U0001f3fd",
)
CHARACTERS = (
    "a",
    "t",
    " ",
    "\u597d",
    "\u0434",
    "e\u0301",
    FAMILY,
    *FLAGS,
    THUMB,
    "\u2764\ufe0f",
    "\U0001f600",
    "\u05d0",
    "\u1112\u1161\u11ab",
)

words = st.lists(
    st.sampled_from(["great", "no", "it was", "\u5f88\u597d", "caf\u00e9", "3 %", ",", "[MASK]", "</s>"]), max_size=12
)
rows = st.fixed_dictionaries({name: words.map(" ".join) for name in FIELDS})


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Up to three fields, each with a filter or none, among literals, one mask and at most one boundary."""
    pieces = [f"{{{{ {name}{draw(st.sampled_from(FILTERS))} }}}}" for name in FIELDS[: draw(st.integers(1, 3))]]
    pieces.insert(draw(st.integers(0, len(pieces))), "{{ mask }}")
    text = "".join(piece for one in pieces for piece in (draw(st.sampled_from(LITERALS)), one))
    head, sep, rest = text.partition("{{ sep }}")
    return head + sep + rest.replace("{{ sep }}", " ") + draw(st.sampled_from(LITERALS[:-1]))


encoder_of = functools.partial(oracles.encoder_of, max_length=4096, uses_segment_ids=True)


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
@MANY
@given(text=templates(), row=rows, max_length=st.integers(5, 50))
def test_only_row_tokens_are_cut(
    tokenizers: dict[str, Any], kind: str, text: str, row: dict[str, str], max_length: int
) -> None:
    """The mask stays in its place, protected text and trainable tokens stay whole, budget and count are right.

    Trainable tokens take positions like any other.
    """
    asked = render(compile_template(Template.from_text(text)), Example("0", 0, row))
    (whole,) = encoder_of(tokenizers[kind]).encode([asked])
    (cut,) = encoder_of(tokenizers[kind], max_length=max_length).encode([asked])
    assert isinstance(whole, EncodedPrompt)
    fixed = sum(segment.kind == "field" and not segment.is_shortenable for segment in asked.segments)
    if isinstance(cut, Unscorable):
        protected = int((whole.roles != Role.FIELD).sum())
        assert max_length < (protected if not fixed else len(whole))
        return
    assert len(cut) == len(whole) - cut.num_truncated <= max_length
    assert (cut.num_truncated > 0) == (len(whole) > max_length)
    for one in (whole, cut):
        assert (one.input_ids == tokenizers[kind].mask_token_id).sum() == len(one.mask_positions) == 1
    kept = [one.input_ids[one.roles != Role.FIELD].tolist() for one in (whole, cut)]
    before = [int((one.roles[: one.mask_positions[0]] != Role.FIELD).sum()) for one in (whole, cut)]
    segments = [one.segment_ids[one.roles != Role.FIELD].tolist() for one in (whole, cut)]
    assert (kept[0], before[0], segments[0]) == (kept[1], before[1], segments[1])


@pytest.mark.parametrize("kind", ["bert", "deberta_v2"])
@MANY
@given(
    counts=st.tuples(*[st.integers(0, 12)] * 3), orders=st.tuples(*[st.integers(0, 2)] * 3), excess=st.integers(1, 30)
)
def test_the_lowest_order_goes_first(
    tokenizers: dict[str, Any], kind: str, counts: tuple[int, ...], orders: tuple[int, ...], excess: int
) -> None:
    """A field of a higher order loses nothing while one of a lower has a token left, and the longest loses first."""
    pieces = [f" it {{{{ {name} | shorten(order={order}) }}}}" for name, order in zip(FIELDS, orders, strict=True)]
    compiled = compile_template(Template.from_text("".join(pieces) + " it {{ mask }}"))
    row = {name: " ".join(["no"] * count) for name, count in zip(FIELDS, counts, strict=True)}
    asked = render(compiled, Example("0", 0, row))
    (whole,) = encoder_of(tokenizers[kind]).encode([asked])
    assert isinstance(whole, EncodedPrompt)
    (cut,) = encoder_of(tokenizers[kind], max_length=max(1, len(whole) - excess)).encode([asked])
    assert isinstance(cut, Unscorable) == (excess > sum(counts))
    if isinstance(cut, Unscorable):
        return
    ids, it = cut.input_ids.tolist(), tokenizers[kind].convert_tokens_to_ids("it" if kind == "bert" else "\u2581it")
    places = [number for number, token in enumerate(ids) if token == it]
    left = [after - before - 1 for before, after in itertools.pairwise(places)]
    lost = [count - kept for count, kept in zip(counts, left, strict=True)]
    assert excess == sum(lost)
    for one, other in itertools.permutations(range(3), 2):
        if orders[one] < orders[other] and lost[other]:
            assert 0 == left[one]
        if orders[one] == orders[other] and lost[one]:
            assert left[one] >= left[other] - 1


@pytest.mark.parametrize("keep", ["head", "tail", "middle"])
@pytest.mark.parametrize("kind", BYTE_LEVEL)
@MANY
@given(characters=st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=16), excess=st.integers(1, 60))
def test_no_character_is_cut_in_two(
    tokenizers: dict[str, Any], kind: str, keep: str, characters: list[str], excess: int
) -> None:
    """What is left of a row is a run of whole characters as a reader sees them, and shows no replacement character."""
    compiled = compile_template(Template.from_text(f"it: {{{{ text | shorten(keep='{keep}') }}}} {{{{ mask }}}}"))
    asked = render(compiled, Example("0", 0, {"text": "".join(characters)}))
    (whole,) = encoder_of(tokenizers[kind]).encode([asked])
    assert isinstance(whole, EncodedPrompt)
    (cut,) = encoder_of(tokenizers[kind], max_length=max(7, len(whole) - excess)).encode([asked])
    if isinstance(cut, Unscorable):
        return
    left = tokenizers[kind].decode(cut.input_ids[cut.roles == Role.FIELD].tolist())
    assert "\ufffd" not in left
    starts = range(len(characters) + 1)
    whole_runs = {"".join(characters[low:high]).strip() for low in starts for high in starts if low <= high}
    assert left.strip() in whole_runs


def test_fills_that_are_part_of_a_character_are_spelled(tokenizers: dict[str, Any]) -> None:
    """A byte that is no character is shown as the vocabulary spells it, and never as a replacement character."""
    tokenizer = tokenizers["roberta"]
    ids = tokenizer("\u597d great", add_special_tokens=False)["input_ids"]
    shown = encoder_of(tokenizer).words(ids)
    assert ["\u00e5", "\u00a5", "\u00bd", "great"] == shown
    assert "\ufffd" in tokenizer.decode(ids[:1])
    assert np.all([text != "\ufffd" for text in encoder_of(tokenizer).token_texts(ids)])
