"""How numbers and names are shown."""

import pytest

from promptlab.reporting.formats import (
    listing,
    model_names,
    percent,
    plural,
    short_names,
    signed,
    size,
    three_digits,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.7124, "0.712"), (1.0, "1.000"), (0.0, "0.000"), (1.386, "1.39"), (12.34, "12.3"), (512.3, "512"), (None, "–")],
)
def test_three_digits(value: float | None, shown: str) -> None:
    """A metric has three decimals up to 1 and three digits in all above."""
    assert shown == three_digits(value)


@pytest.mark.parametrize(("value", "shown"), [(0.02, "+0.020"), (-0.0151, "−0.015"), (0.0001, "0.000"), (None, "–")])
def test_signed(value: float | None, shown: str) -> None:
    """A difference has its sign, unless it rounds to nothing."""
    assert shown == signed(value)


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.5, "50.0 %"), (0.0122, "1.22 %"), (0.00153, "0.153 %"), (1e-7, "<0.001 %"), (0.0, "0 %")],
)
def test_percent(share: float, shown: str) -> None:
    """A share has at most three digits, and a tiny one is not shown as nothing."""
    assert shown == percent(share)


def test_sizes_and_counts() -> None:
    """Bytes have a unit, counts have commas and their noun."""
    assert [size(n) for n in (526_233_600, 1536, 12, None)] == ["502 MiB", "1.50 KiB", "12 bytes", "–"]
    assert [plural(1, "row"), plural(1200, "row")] == ["1 row", "1,200 rows"]


def test_listing() -> None:
    """Names are joined as English does."""
    assert [listing(names) for names in ("", "a", "ab", "abc")] == ["none", "a", "a and b", "a, b and c"]


def test_names_stay_distinct() -> None:
    """A family or a folder is left out only where the rest still tells names apart."""
    assert short_names(["nli/null", "topic/null", "nli/justified"]) == {
        "nli/null": "nli/null",
        "topic/null": "topic/null",
        "nli/justified": "justified",
    }
    assert model_names(["/a/b/mini", "org/bert"]) == {"/a/b/mini": "mini", "org/bert": "org/bert"}
