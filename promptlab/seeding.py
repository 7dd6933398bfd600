"""One user seed becomes every other seed, by name.

No module draws from global random state, and no result depends on the order in which things run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on the user's seed and on the names, and on nothing else."""
    path = "\x1f".join([str(int(seed)), *(str(name) for name in names)])
    digest = hashlib.blake2b(path.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator of its own for the named purpose."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *names))
