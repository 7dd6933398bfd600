"""Train rows -> the labelled examples that a method may use: k a label, nested, the same for every method.

Which rows are drawn depends on the user's seed, the task and the number of the draw, never on the method or on k: the
shots of a smaller k are among those of a larger one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptlab.errors import DataError
from promptlab.examples import NO_LABEL, Examples
from promptlab.hashing import content_hash
from promptlab.rows import RowSet
from promptlab.seeding import derive_seed

if TYPE_CHECKING:
    from jaxtyping import Int64

ShotsShort = Literal["refuse", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The labelled train rows of a task that may be shots: none of them stands in the rows that are scored.

    `num_in_scored` counts the train rows that were left out for that, `num_unlabelled` those without a gold label.
    """

    task: str
    labels: tuple[str, ...]
    examples: Examples
    num_in_scored: int
    num_unlabelled: int

    def counts(self) -> dict[str, int]:
        """How many rows of each label there are."""
        found = np.bincount(self.examples.labels(), minlength=len(self.labels))
        return dict(zip(self.labels, found.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Shots:
    """One draw of labelled examples.

    `num_shots` is what was asked for a label, `draw` the number of the draw; `short` has the labels that have fewer
    rows, with their number, where that was allowed.
    """

    task: str
    num_shots: int
    draw: int
    examples: Examples
    short: tuple[tuple[str, int], ...] = ()

    @functools.cached_property
    def hash(self) -> str:
        """Identifies the examples and their labels, in order."""
        return content_hash([self.num_shots, self.examples.hash])

    @property
    def label_indices(self) -> Int64[np.ndarray, " shot"]:
        """The label of each example, by its place among the labels of the task."""
        return self.examples.labels().astype(np.int64)

    def __len__(self) -> int:
        return len(self.examples)


def make_pool(train: RowSet, scored: RowSet) -> Pool:
    """The labelled rows of a train split without those whose content is scored too; both kinds are counted.

    Args:
        train: the rows that shots are drawn from.
        scored: the rows of the split that is scored.

    Raises:
        DataError: no labelled row is left.
    """
    known = {name.rpartition("-")[0] for name in scored.examples.id_texts()}
    is_apart = np.array([name.rpartition("-")[0] not in known for name in train.examples.id_texts()], dtype=bool)
    is_labelled = train.examples.labels() != NO_LABEL
    kept = train.examples.take(np.flatnonzero(is_apart & is_labelled))
    if not len(kept):
        why = "are scored too" if not is_apart.any() else "have no gold label"
        raise DataError(f"task '{train.task}': there are no shots, because all rows of its train split {why}.")
    return Pool(train.task, kept.label_names, kept, int((~is_apart).sum()), int((is_apart & ~is_labelled).sum()))


def draw_shots(pool: Pool, num_shots: int, draw: int, *, seed: int, short: ShotsShort = "refuse") -> Shots:
    """Draw k examples a label, in the order of the labels, each label in its seeded order.

    Args:
        pool: what is drawn from.
        num_shots: k, for each label.
        draw: the number of the draw, from 0.
        seed: the user's seed.
        short: what happens where a label has fewer than k rows: `refuse`, or take `all` that it has.

    Raises:
        DataError: a label has fewer than k rows, and that is refused; or it has none at all.
    """
    lacking = tuple((label, number) for label, number in pool.counts().items() if number < num_shots)
    empty = [label for label, number in lacking if not number]
    if empty or (lacking and short == "refuse"):
        raise DataError(_describe_lack(pool, num_shots, lacking, is_empty=bool(empty)))
    gold = pool.examples.labels()
    order = _seeded_order(pool, draw, seed)
    chosen = [order[gold[order] == label][:num_shots] for label in range(len(pool.labels))]
    return Shots(pool.task, num_shots, draw, pool.examples.take(np.concatenate(chosen)), lacking)


def _seeded_order(pool: Pool, draw: int, seed: int) -> Int64[np.ndarray, " row"]:
    """Places of the pool's rows, by a number that each row's content gives: other rows do not move it."""
    names = pool.examples.id_texts()
    keys = np.fromiter((derive_seed(seed, "shots", pool.task, draw, name) for name in names), dtype=np.int64)
    return np.argsort(keys, kind="stable")


def _describe_lack(pool: Pool, num_shots: int, lacking: tuple[tuple[str, int], ...], *, is_empty: bool) -> str:
    shown = ", ".join(f"'{label}' has {number}" for label, number in lacking)
    remedy = (
        "a label without a row cannot be learned."
        if is_empty
        else "ask for fewer --shots, or take what there is with --shots-short all."
    )
    return f"task '{pool.task}': {num_shots} shots a label were asked for, and of its train rows {shown}: {remedy}"
