"""A dataset of the hub -> (place, raw row) pairs, at the revision that the task names."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from promptlab.errors import DataError
from promptlab.specs.task import HubSource


def read_hub(hub: HubSource, split: str, *, task: str, hint: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a split; the place is `dataset row N`. Datasets that need a script are refused by the library.

    Args:
        hub: what to load.
        split: the hub's name of the split.
        task: name of the task, for messages.
        hint: what to do where the dataset is out of reach.

    Raises:
        DataError: the dataset could not be loaded; the reason is the library's own.
    """
    dataset = load_split(hub, split, subject=f"task '{task}'", hint=hint)
    for number, row in enumerate(dataset):
        yield f"{hub.path} row {number}", row


def load_split(hub: HubSource, split: str, *, subject: str, hint: str) -> Any:
    """A split as `datasets.Dataset`, whose rows lie in a file that is mapped into memory.

    Args:
        hub: what to load.
        split: the hub's name of the split.
        subject: who asks, for messages.
        hint: what to do where the dataset is out of reach.

    Raises:
        DataError: the dataset could not be loaded; the reason is the library's own.
    """
    import datasets

    try:
        with _offline_where_unreachable():
            return datasets.load_dataset(hub.path, hub.name, split=split, revision=hub.revision)
    except Exception as error:  # the library raises a dozen kinds; all of them mean that there are no rows
        lines = str(error).strip().splitlines()[:2] or [type(error).__name__]  # the second names what there is
        reason = ". ".join(line.strip().rstrip(".") for line in lines)
        raise DataError(f"{subject}: the hub dataset {hub.path} could not be loaded ({reason}). {hint}") from None


@contextlib.contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """The hub's own offline mode where its name cannot be looked up: the local cache is read, nothing is tried again.

    Without it the library asks six times, half a minute long, and prints each attempt. Behind a proxy the name need
    not be known here, so there nothing is assumed.
    """
    import datasets.config
    import huggingface_hub.constants

    if urllib.request.getproxies() or _is_known_host(str(huggingface_hub.constants.ENDPOINT)):
        yield
        return
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _is_known_host(address: str) -> bool:
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, 443)
    except OSError:
        return False
    return True
