"""The norms: all of them and nothing else, on every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from promptlab.methods.base import Setting
from promptlab.methods.layer_norm import LayerNorm
from tests.contract.test_methods import make_context, make_shots
from tests.tiny_models import FAMILIES


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "bert_chinese"])
def test_what_moves_is_the_norms(backends: dict[str, Any], kind: str) -> None:
    """The names of the table find what torch calls a norm; ModernBERT, on which peft's own fails, is one of them."""
    backend = backends[kind]
    norms = [name for name, module in backend.model.named_modules() if isinstance(module, torch.nn.LayerNorm)]
    expected = {name for name, _ in backend.model.named_parameters() if name.rpartition(".")[0] in norms}
    with LayerNorm().fit(make_shots(backend), Setting(steps=1), make_context(backend)) as fitted:
        assert expected == set(fitted.tensors)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bert", 64 + 2 * 2 * 64 + 64),  # embeddings, two a layer, head: a scale and a shift each
        ("albert", 2 * 16 + 2 * 64 + 2 * 16),  # embeddings and head are narrower
        ("modernbert", 32 + (32 + 2 * 32) + 32 + 32),  # no shifts, and no norm before the first attention
    ],
)
def test_parameters_are_counted(backends: dict[str, Any], kind: str, expected: int) -> None:
    """Scales and shifts."""
    backend = backends[kind]
    with LayerNorm().fit(make_shots(backend), Setting(steps=1), make_context(backend)) as fitted:
        assert expected == fitted.record.num_parameters
