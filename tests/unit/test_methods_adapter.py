"""Bottlenecks: where they stand, what they compute, how many numbers they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from promptlab.errors import ModelError
from promptlab.methods.adapter import Adapter
from promptlab.methods.base import Setting
from tests.contract.test_methods import make_context, make_shots, shortened


def bottleneck(tensors: Mapping[str, torch.Tensor], place: str, states: torch.Tensor) -> torch.Tensor:
    """U gelu(D h + d) + u, naively."""
    down, up = (tensors[f"{place}.{part}.weight"] for part in ("down", "up"))
    inner = functional.gelu(states @ down.T + tensors[f"{place}.down.bias"])
    return inner @ up.T + tensors[f"{place}.up.bias"]


def fit(backend: Any, **options: Any) -> Any:
    """A short fit of the shots of the contract, far enough from its start to be seen."""
    setting = replace(shortened(Adapter(), steps=3), learning_rate=0.03, options={"reduction": 8, **options})
    return Adapter().fit(make_shots(backend), setting, make_context(backend))


def naive_bert_layer(layer: Any, states: torch.Tensor, change: Any) -> torch.Tensor:
    """A layer of BERT on one text without padding; `change` is told where it stands."""
    attention, output = layer.attention, layer.output
    query, key, value = (
        getattr(attention.self, part)(states).unflatten(-1, (4, 8)).transpose(0, 1)
        for part in ("query", "key", "value")
    )
    seen = torch.softmax(query @ key.transpose(1, 2) / 8**0.5, dim=-1) @ value
    mapped = change("attention", attention.output.dense(seen.transpose(0, 1).flatten(1)))
    states = attention.output.LayerNorm(mapped + states)
    mapped = change("feed_forward", output.dense(functional.gelu(layer.intermediate.dense(states))))
    return change("sum", mapped + states)


def changes(placement: str, tensors: Mapping[str, torch.Tensor], number: int, norm: Any) -> Any:
    """What the bottlenecks of a layer make of what `naive_bert_layer` shows them."""

    def change(place: str, given: torch.Tensor) -> torch.Tensor:
        if place != "sum":
            return given + bottleneck(tensors, f"{place}.{number}", given) if placement == "houlsby" else given
        added = bottleneck(tensors, f"feed_forward.{number}", norm(given)) if placement == "pfeiffer" else 0
        return norm(given + added)

    return change


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_bert_is_changed_where_it_is_said(backends: dict[str, Any], placement: str) -> None:
    """Houlsby: after both maps, before residual and norm. Pfeiffer: norm(s + bottleneck(norm(s))) of the last sum."""
    bert, ids = backends["bert"].model.bert, torch.arange(5, 15)[None]
    with fit(backends["bert"], placement=placement) as fitted, torch.no_grad():
        found = bert(ids).last_hidden_state[0]
    with torch.no_grad():
        states = bert.embeddings(ids)[0]
        for number, layer in enumerate(bert.encoder.layer):
            change = changes(placement, fitted.tensors, number, layer.output.LayerNorm)
            states = naive_bert_layer(layer, states, change)
    assert torch.allclose(states, found, atol=2e-5)


def shifted(backend: Any, place: str, added: torch.Tensor) -> Any:
    """Bottlenecks that do nothing, but for one that adds a vector everywhere."""
    setting, context = Setting(learning_rate=0.0, steps=1), make_context(backend)
    with Adapter().fit(make_shots(backend), setting, context) as fitted:
        tensors = {**fitted.tensors, f"{place}.up.bias": added}
    return Adapter().load(tensors, setting, context)


def test_albert_has_a_bottleneck_for_each_time_that_it_runs_its_layer(backends: dict[str, Any]) -> None:
    """The bottleneck of the second layer changes the second layer alone, with the same weights as the first."""
    albert, ids, added = backends["albert"].model.albert, torch.arange(5, 15)[None], torch.linspace(0, 2, 32)
    layer = albert.encoder.albert_layer_groups[0].albert_layers[0]
    with shifted(backends["albert"], "feed_forward.1", added), torch.no_grad():
        found = albert(ids).last_hidden_state
    with torch.no_grad():
        states = layer(albert.encoder.embedding_hidden_mapping_in(albert.embeddings(ids)))
        attended = layer.attention(states)[0]
        expected = layer.full_layer_layer_norm(layer.ff_chunk(attended) + added + attended)
    assert torch.allclose(expected, found, atol=2e-5)


def test_modernbert_is_changed_after_the_sum_of_a_layer(backends: dict[str, Any]) -> None:
    """It norms at the start of each part, so that one bottleneck a layer reads what leaves the layer and adds to it."""
    model, ids = backends["modernbert"].model.model, torch.arange(5, 15)[None]
    with fit(backends["modernbert"], placement="pfeiffer") as fitted, torch.no_grad():
        found = model(ids).last_hidden_state

    def naive(number: int) -> Any:
        return lambda module, args, output: output + bottleneck(fitted.tensors, f"feed_forward.{number}", output)

    handles = [layer.register_forward_hook(naive(number)) for number, layer in enumerate(model.layers)]
    with torch.no_grad():
        expected = model(ids).last_hidden_state
    for handle in handles:
        handle.remove()
    assert torch.allclose(expected, found, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("bert", {"reduction": 8}, 2 * 2 * (4 * 32 + 4 + 32 * 4 + 32)),  # two in each of two layers
        ("bert", {"reduction": 8, "placement": "pfeiffer"}, 2 * (4 * 32 + 4 + 32 * 4 + 32)),
        ("albert", {}, 2 * 2 * (2 * 32 + 2 + 32 * 2 + 32)),  # of width 32 / 16; not shared
        ("modernbert", {"reduction": 100}, 2 * 2 * (32 + 1 + 32 + 32)),  # never narrower than 1
    ],
)
def test_parameters_are_counted(backends: dict[str, Any], kind: str, options: dict[str, Any], expected: int) -> None:
    """Two matrices and two vectors a bottleneck."""
    backend = backends[kind]
    with Adapter().fit(make_shots(backend), Setting(steps=1, options=options), make_context(backend)) as fitted:
        assert expected == fitted.record.num_parameters == sum(one.numel() for one in fitted.tensors.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "parallel"}, "the placement 'parallel' is unknown: choose one of houlsby, pfeiffer."),
        ({"reduction": 0}, "the reduction is 0: it is above 0."),
        ({"activation": "tanh"}, "the activation 'tanh' is unknown: choose one of gelu, relu."),
    ],
)
def test_unknown_options_are_refused(backends: dict[str, Any], options: dict[str, Any], message: str) -> None:
    """The sentence says what there is."""
    with pytest.raises(ModelError) as caught:
        fit(backends["bert"], **options)
    assert f"adapter: {message}" == str(caught.value)
