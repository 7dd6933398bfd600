"""Seeds depend on the user's seed and on names, on nothing else."""

from __future__ import annotations

import random

import numpy as np

from promptlab.seeding import derive_generator, derive_seed


def test_a_seed_is_the_same_on_every_machine() -> None:
    """The derived seed is a fixed number: a stored run can be repeated elsewhere."""
    assert derive_seed(0, "limit", "sst2") == 3268817244787127025


def test_a_seed_ignores_global_random_state() -> None:
    """Drawing from the global generators changes no derived seed and no derived draw."""
    before = derive_seed(3, "shots"), derive_generator(3, "shots").integers(1000)
    random.random()
    np.random.seed(1)
    assert before == (derive_seed(3, "shots"), derive_generator(3, "shots").integers(1000))


def test_names_do_not_run_together() -> None:
    """Names are kept apart: ("ab", "c") is another purpose than ("a", "bc")."""
    seeds = {derive_seed(0, "ab", "c"), derive_seed(0, "a", "bc"), derive_seed(0, "abc"), derive_seed(1, "ab", "c")}
    assert len(seeds) == 4
