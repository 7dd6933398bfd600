"""IA3: what is scaled, and how many scales there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from promptlab.methods.base import Setting
from promptlab.methods.ia3 import Ia3
from tests.contract.test_methods import make_context, make_shots, shortened

LAYER = "bert.encoder.layer.1"


def test_keys_and_values_are_scaled_after_and_inner_states_before_their_map(backends: dict[str, Any]) -> None:
    """Scales l: l * (W x + b) for keys and values, W (l * x) + b where the feed-forward part ends; queries stay."""
    backend, made = backends["bert"], torch.Generator().manual_seed(1)
    states, inner = torch.randn(5, 32, generator=made), torch.randn(5, 64, generator=made)
    maps = {part: backend.model.get_submodule(f"{LAYER}.{part}") for part in ("attention.self.value", "output.dense")}
    value, leaving = maps["attention.self.value"], maps["output.dense"]
    query = backend.model.get_submodule(f"{LAYER}.attention.self.query")
    with Ia3().fit(make_shots(backend), shortened(Ia3()), make_context(backend)) as fitted, torch.no_grad():
        of_value, of_inner = (fitted.tensors[f"{LAYER}.{part}.ia3_l"].flatten() for part in maps)
        assert (32, 64) == (len(of_value), len(of_inner))
        expected = of_value * (states @ value.weight.T + value.bias)
        found = backend.model.get_submodule(f"{LAYER}.attention.self.value")(states)
        assert torch.allclose(expected, found, atol=1e-6)
        expected = (of_inner * inner) @ leaving.weight.T + leaving.bias
        assert torch.allclose(expected, backend.model.get_submodule(f"{LAYER}.output.dense")(inner), atol=1e-6)
        assert query is backend.model.get_submodule(f"{LAYER}.attention.self.query")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("bert", 2 * (32 + 32 + 64)), ("albert", 32 + 32 + 64), ("modernbert", 2 * (96 + 64)), ("distilbert", 256)],
)
def test_parameters_are_counted(backends: dict[str, Any], kind: str, expected: int) -> None:
    """A scale for each number of a key, a value and an inner state; in ModernBERT of a query too."""
    backend = backends[kind]
    with Ia3().fit(make_shots(backend), Setting(steps=1), make_context(backend)) as fitted:
        assert expected == fitted.record.num_parameters == sum(one.numel() for one in fitted.tensors.values())
