"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


class Lazy(dict[str, Any]):
    """Values by kind, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, kind: str) -> Any:
        self[kind] = self._make(kind)
        return self[kind]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny random checkpoints, by kind."""
    import torch

    from tests.tiny_models import build

    torch.set_num_threads(1)
    return Lazy(lambda kind: build(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny replaced-token detectors, by kind."""
    from tests.tiny_models import build_detector

    return Lazy(lambda kind: build_detector(kind, tmp_path_factory.mktemp(f"{kind}_detector")))


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """Every kind of tokenizer, those without a model too."""
    from tests.tiny_models import build_tokenizer

    return Lazy(build_tokenizer)


@pytest.fixture(scope="session")
def models(tiny: dict[str, Path]) -> dict[str, Any]:
    """The tiny checkpoints as transformers loads them, for naive answers."""
    from transformers import AutoModelForMaskedLM

    return Lazy(lambda kind: AutoModelForMaskedLM.from_pretrained(tiny[kind]).eval())


@pytest.fixture(scope="session")
def backends(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One loaded backend a kind, on the CPU in float32."""
    from promptlab.backends.mlm import MaskedBackend

    def load(kind: str) -> MaskedBackend:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
            return MaskedBackend(str(tiny[kind]), device="cpu")

    return Lazy(load)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not forced to the disk, which no test could see and which takes a good part of the time.

    The file must be open all the same; processes that tests start do force it.
    """
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's cache and data folders out of every test."""
    monkeypatch.setenv("PROMPTLAB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("PROMPTLAB_DATA", "PROMPTLAB_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The gradient of each parameter that a fit moves, as it is before the first step, by name."""
    import numpy as np

    from promptlab.methods import attaching

    found: dict[str, Any] = {}
    train = attaching.train

    def spy(batch_loss: Any, parameters: Any, setting: Any, *, num_examples: int, **more: Any) -> Any:
        batch_loss(np.arange(num_examples)).backward()
        found.update({name: parameter.grad for name, parameter in parameters.items()})
        for parameter in parameters.values():
            parameter.grad = None
        return train(batch_loss, parameters, setting, num_examples=num_examples, **more)

    monkeypatch.setattr(attaching, "train", spy)
    return found
