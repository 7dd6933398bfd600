"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny random checkpoints, by kind."""
    import torch

    from tests.tiny_models import KINDS, build

    torch.set_num_threads(1)
    return {kind: build(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's cache and data folders out of every test."""
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("PROMPTLAB_DATA", "PROMPTLAB_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield
