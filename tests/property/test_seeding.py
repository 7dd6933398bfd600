"""Derived seeds are whole numbers in range and differ wherever their names do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.seeding import derive_seed

names = st.lists(st.one_of(st.text("ab0 ", max_size=3), st.integers(0, 99)), max_size=3).map(tuple)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**63), one=names, two=names)
def test_seeds_differ_where_their_names_do(seed: int, one: tuple[str | int, ...], two: tuple[str | int, ...]) -> None:
    """Equal purposes have equal seeds, different ones different seeds; numbers and their texts are the same name."""
    first, second = derive_seed(seed, *one), derive_seed(seed, *two)
    assert 0 <= first < 2**63
    assert ([str(name) for name in one] == [str(name) for name in two]) == (first == second)
    assert first != derive_seed(seed + 1, *one)
