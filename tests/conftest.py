"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """Every kind of tokenizer, those without a model too."""
    from tests.tiny_models import TOKENIZER_KINDS, build_tokenizer

    return {kind: build_tokenizer(kind) for kind in TOKENIZER_KINDS}


@pytest.fixture(scope="session")
def models(tiny: dict[str, Path]) -> dict[str, Any]:
    """The tiny checkpoints as transformers loads them, for naive answers."""
    from transformers import AutoModelForMaskedLM

    return {kind: AutoModelForMaskedLM.from_pretrained(folder).eval() for kind, folder in tiny.items()}


@pytest.fixture(scope="session")
def backends(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One loaded backend a kind, on the CPU in float32."""
    from promptlab.backends.mlm import MaskedBackend

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        return {kind: MaskedBackend(str(folder), device="cpu") for kind, folder in tiny.items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's cache and data folders out of every test."""
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("PROMPTLAB_DATA", "PROMPTLAB_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield
