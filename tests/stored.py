"""What a run left on disk: its decisions cell by cell, the scores of a block, and its files byte by byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.block_scores import KEY_BYTES
from promptlab.blocks import BlockStore
from promptlab.results import RunResults, read_results
from promptlab.store import RunStore

Decisions = dict[tuple[str, str, str], dict[str, list[Any]]]
EQUAL = ("results.json", "samples/*", "blocks/*/*")  # what two equal runs have byte for byte, wherever they lie


def decisions(run: RunResults | Path) -> Decisions:
    """The stored decisions of every decided cell of one model, by template, verbalizer and calibration."""
    stored = read_results(run) if isinstance(run, Path) else run
    store = RunStore(stored.folder)
    return {
        (cell.template, cell.verbalizer, cell.calibration): store.read_samples(cell.samples, cell.cell).to_pydict()
        for cell in stored.results
        if cell.skipped is None
    }


def by_row(found: dict[str, list[Any]], column: str) -> dict[str, Any]:
    """A column of the decisions of a cell, by row id."""
    return dict(zip(found["row_id"], found[column], strict=True))


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The content of the files of a run, by their names below its folder."""
    paths = [path for pattern in patterns or ("**/*",) for path in folder.glob(pattern) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def key_array(keys: Iterable[str]) -> np.ndarray[Any, Any]:
    """Prompt keys as blocks hold them."""
    return np.array([key.encode() for key in keys], dtype=f"S{KEY_BYTES}")


def block_scores(store: BlockStore) -> dict[tuple[str, int, int], list[float]]:
    """Every stored number by (prompt key, fill, mask), in the order of ascending tokens."""
    stored = store.read()
    columns = [stored.columns[token] for token in sorted(stored.columns)]
    return {
        (key.decode(), fill, mask): stored.log_probs[row, columns].tolist()
        for (fill, mask), plane in stored.planes.items()
        for key, row in zip(plane.keys.tolist(), plane.rows.tolist(), strict=True)
    }
