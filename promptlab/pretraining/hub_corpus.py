"""`hub:NAME[@REVISION][:[CONFIG/]SPLIT]` -> the documents of a dataset of the hub, one a row.

The rule guarded here: within one process a dataset is looked up once, so that a branch that moves meanwhile does not
change what a run reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

from promptlab.errors import DataError, UsageError
from promptlab.hub import load_split
from promptlab.pretraining.corpus_files import Documents, choose_column, documents_of_rows
from promptlab.reading import missing_column
from promptlab.specs.task import HubSource

HUB_PREFIX = "hub:"
HUB_FORM = "hub:NAME[@REVISION][:[CONFIG/]SPLIT]"
_DEFAULT_SPLIT = "train"
_TYPED = re.compile(
    r"hub:(?P<path>[^@:/]+(?:/[^@:/]+)?)(?:@(?P<revision>[^:]+))?(?::(?:(?P<config>.+)/)?(?P<split>[^/]+))?"
)


def parse_hub(typed: str) -> tuple[HubSource, str]:
    """The dataset and the split that a text names; without one it is `train`.

    Raises:
        UsageError: the text has another form.
    """
    found = _TYPED.fullmatch(typed)
    if found is None:
        raise UsageError(
            f"{typed}: a dataset of the hub is written {HUB_FORM}, for example hub:owner/name or "
            "hub:owner/name@main:config/train."
        )
    hub = HubSource(path=found["path"], name=found["config"], revision=found["revision"], verified=False)
    return hub, found["split"] or _DEFAULT_SPLIT


def read_hub_documents(typed: str, column: str | None) -> Documents:
    """The text of each row of a dataset, none of them empty; no other column is read.

    Raises:
        DataError: the dataset is out of reach or needs a script, or has no such column.
    """
    dataset = _load(typed)
    kinds = {name: getattr(feature, "dtype", "") for name, feature in dataset.features.items()}
    if column is None:
        column = choose_column([{name: "" if "string" in kinds[name] else None for name in kinds}], typed)
    if column not in kinds:
        raise DataError(missing_column(f"{typed}:", column, kinds))
    path = parse_hub(typed)[0].path
    rows = ((f"{path} row {number}", row) for number, row in enumerate(dataset.select_columns([column])))
    return documents_of_rows(rows, column, typed)


def digest_hub(typed: str) -> str:
    """Hash of the name, the revision and the split as typed, and of the library's fingerprint of what they hold."""
    hub, split = parse_hub(typed)
    parts = [hub.path, hub.name, hub.revision, split, _load(typed)._fingerprint]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@lru_cache(maxsize=256)
def _load(typed: str) -> Any:
    """The split as `datasets.Dataset`; its rows lie in a file that is mapped into memory."""
    hub, split = parse_hub(typed)
    hint = "Without a network the local cache is all that is read: name a file or a folder instead."
    return load_split(hub, split, subject=f"--corpus {typed}", hint=hint)
