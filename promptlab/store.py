"""The run folder: its blocks, its samples, its events and what the last call cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.blocks import BlockStore
from promptlab.errors import StoreError
from promptlab.files import SCHEMA_VERSION, append_event, read_json, read_table, write_batches, write_bytes

if TYPE_CHECKING:
    import pyarrow


class RunStore:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, before any work is done.

        Raises:
            StoreError: it cannot be written.
        """
        probe = self.folder / ".writable"
        try:
            write_bytes(probe, b"")
        except StoreError as error:
            raise StoreError(str(error).replace(str(probe), str(self.folder))) from None
        probe.unlink()

    def block(self, block_id: str) -> BlockStore:
        """The store of a block."""
        return BlockStore(self.folder / "blocks" / block_id)

    def event(self, kind: str, **details: Any) -> None:
        """Note what happened, for a person and for a resumed run."""
        from datetime import UTC, datetime

        append_event(self.folder / "events.jsonl", {"at": datetime.now(UTC).isoformat(), "event": kind, **details})

    def write_samples(self, name: str, schema: pyarrow.Schema, batches: Iterable[Any], labels: Iterable[str]) -> None:
        """Store label scores and predictions, one row a decision, without text; the cells of a block share a file."""
        metadata = {"schema_version": SCHEMA_VERSION, "labels": list(labels)}
        write_batches(self._samples(name), schema, batches, metadata)

    def read_samples(self, name: str, cell: str) -> pyarrow.Table:
        """The decisions of one cell, in the order of its rows.

        Raises:
            StoreError: the file is missing or broken.
        """
        import pyarrow.compute as pc

        path = self._samples(name)
        if not path.is_file():
            raise StoreError(f"{path}: there is no such file. Run the same command again to decide its cells anew.")
        table, _ = read_table(path)
        return table.filter(pc.equal(table["cell"], cell))

    def drop_old_samples(self, names: Iterable[str]) -> None:
        """Remove samples of cells that are no longer part of the run."""
        wanted = {self._samples(name) for name in names}
        for path in (self.folder / "samples").glob("*.parquet"):
            if path not in wanted:
                path.unlink()

    def last_timings(self) -> dict[str, Any]:
        """The timings that the last finished call left; empty where there are none or they cannot be read."""
        try:
            timings = read_json(self.folder / "timings.json")
        except StoreError:
            return {}
        return timings if isinstance(timings, dict) else {}

    def _samples(self, name: str) -> Path:
        return self.folder / "samples" / f"{name}.parquet"
