"""Five made-up rows and what must come of them again."""

from __future__ import annotations

import math

import pytest

from promptlab.canaries import SENTENCES, Canary, canary_rows, check_canaries, tolerance_of
from promptlab.errors import ModelError

EXPECTED = (math.log(0.25), math.log(0.75))
CANARIES = [Canary({"text": one}, EXPECTED) for one in SENTENCES]


def test_every_field_of_a_row_has_another_sentence() -> None:
    """Two fields are a pair of unlike texts, and every row is another one."""
    rows = canary_rows(["premise", "hypothesis"])
    assert [{"premise": SENTENCES[0], "hypothesis": SENTENCES[1]}, SENTENCES[4]] == [rows[0], rows[4]["premise"]]
    assert 5 == len({row["premise"] for row in rows})
    assert all(row["premise"] != row["hypothesis"] for row in rows)


def test_scores_within_the_tolerance_pass() -> None:
    """Rounding is no fault; a row that neither side can score is none either."""
    near = (EXPECTED[0] + 9e-4, EXPECTED[1])
    check_canaries(CANARIES, [near] * 5, ("bad", "good"), tolerance=1e-3, shown="it")
    check_canaries([Canary({}, None)] * 2, [None, None], ("bad", "good"), tolerance=1e-3, shown="it")


def test_the_largest_difference_is_named() -> None:
    """With its row, its label, both values and what is allowed."""
    found = [EXPECTED, (EXPECTED[0] + 0.01, EXPECTED[1]), (EXPECTED[0], EXPECTED[1] - 0.2), EXPECTED, EXPECTED]
    with pytest.raises(ModelError) as caught:
        check_canaries(CANARIES, found, ("bad", "good"), tolerance=1e-3, shown="artefact a")
    assert str(caught.value) == (
        "artefact a: does not score as it did when it was saved: log p(good) of canary row 3 was -0.2877 and is "
        "-0.4877, a difference of 0.2 where 0.001 is allowed: compare the versions of promptlab, torch and "
        "transformers with those in its artefact.json, or fit it anew."
    )


@pytest.mark.parametrize(
    ("expected", "found", "what"),
    [
        (EXPECTED, None, "canary row 1 cannot be scored any more"),
        (None, EXPECTED, "canary row 1 can be scored, and could not when it was saved"),
        (EXPECTED, (math.nan, EXPECTED[1]), "a difference of inf where"),
        (EXPECTED, (EXPECTED[0], math.nan), "log p(good) of canary row 1"),
    ],
)
def test_a_row_that_is_scored_on_one_side_alone_is_a_fault(expected: object, found: object, what: str) -> None:
    """So is a score that is no number."""
    with pytest.raises(ModelError) as caught:
        check_canaries(
            [Canary({}, expected)],  # type: ignore[arg-type]  # parametrised
            [found],  # type: ignore[list-item]  # parametrised
            ("bad", "good"),
            tolerance=1e-3,
            shown="it",
        )
    assert what in str(caught.value)


def test_the_less_exact_dtype_decides_how_near_scores_must_be() -> None:
    """Scores of bfloat16 weights have three digits."""
    assert (1e-3, 0.05, 0.3) == tuple(tolerance_of("float32", one) for one in ("float32", "float16", "bfloat16"))
    assert 0.3 == tolerance_of("bfloat16", "float16")
