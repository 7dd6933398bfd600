"""LoRA: the formula, where its pairs stand, how they start, and its dropout."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError
from promptlab.methods.base import Context, Setting
from promptlab.methods.lora import Lora
from promptlab.methods.modules import ROLES
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of, shortened

PATH = "bert.encoder.layer.0.attention.self.query"


def fit(backend: Any, setting: Setting, seed: int = 0) -> Any:
    """A fit of the shots of the contract."""
    context = make_context(backend)
    return Lora().fit(make_shots(backend), setting, Context(backend, context.labels, context.words, seed))


def test_a_map_is_changed_by_the_scaled_product_of_its_pair(backends: dict[str, Any]) -> None:
    """W x + b + (alpha / rank) B A x."""
    backend = backends["bert"]
    setting = replace(shortened(Lora()), options={"rank": 4, "alpha": 12})
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    plain = backend.model.get_submodule(PATH)
    with fit(backend, setting) as fitted, torch.no_grad():
        a, b = (fitted.tensors[f"{PATH}.lora_{letter}.weight"] for letter in "AB")
        expected = states @ plain.weight.T + plain.bias + 12 / 4 * states @ a.T @ b.T
        found = backend.model.get_submodule(PATH)(states)
    assert ((4, 32), (32, 4)) == (tuple(a.shape), tuple(b.shape))
    assert torch.allclose(expected, found, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("bert", {}, 2 * 2 * (8 * 32 + 32 * 8)),  # 2 layers, queries and values
        ("bert", {"rank": 2}, 2 * 2 * (2 * 32 + 32 * 2)),
        ("albert", {}, 2 * (8 * 32 + 32 * 8)),  # one layer that is run twice
        ("modernbert", {}, 2 * (8 * 32 + 96 * 8)),  # one map makes queries, keys and values
        ("modernbert", {"targets": ROLES}, 2 * 8 * ((32 + 96) + (32 + 32) + (32 + 128) + (64 + 32))),
    ],
)
def test_parameters_are_counted(backends: dict[str, Any], kind: str, options: dict[str, Any], expected: int) -> None:
    """A pair has rank x (in + out) numbers."""
    with fit(backends[kind], Setting(steps=1, options=options)) as fitted:
        assert expected == fitted.record.num_parameters == sum(one.numel() for one in fitted.tensors.values())


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta_v2"])
def test_head_has_no_pair(backends: dict[str, Any], kind: str) -> None:
    """With every role asked for, pairs stand inside the layers alone: 6 maps in each of 2."""
    with fit(backends[kind], Setting(steps=1, options={"targets": ROLES})) as fitted:
        places = {name.rpartition(".lora_")[0] for name in fitted.tensors}
    assert 12 == len(places)
    assert all(re.search(r"\.layer\.\d+\.", place) for place in places)


def test_start_is_decided_by_the_seed(backends: dict[str, Any]) -> None:
    """A is uniform within 1/sqrt(in) from the context's seed and the name, whatever torch drew before; B is zero."""
    still, found = Setting(learning_rate=0.0, steps=1), []
    for seed in (0, 0, 1):
        torch.rand(3)
        with fit(backends["bert"], still, seed) as fitted:
            found.append(fitted.tensors)
    starts = [tensors[f"{PATH}.lora_A.weight"] for tensors in found]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], found[0][f"{PATH.replace('query', 'value')}.lora_A.weight"])
    assert 0.9 * 32**-0.5 < starts[0].abs().max() <= 32**-0.5
    assert not any(tensor.any() for name, tensor in found[0].items() if "lora_B" in name)


def test_dropout_is_on_in_the_fit_alone(backends: dict[str, Any]) -> None:
    """Of two fits that drop, the same seed gives the same; what is scored, fitted or loaded, drops nothing."""
    backend, context = backends["modernbert"], make_context(backends["modernbert"])
    setting = replace(shortened(Lora()), dropout=True, options={"lora_dropout": 0.5})
    unseen, words = prompts_of(backend, UNSEEN), context.label_words.token_ids
    with fit(backend, setting) as fitted:
        expected = [fitted.backend.score(unseen, words).log_probs for _ in range(2)]
    with Lora().load(fitted.tensors, setting, context) as loaded:
        found = loaded.backend.score(unseen, words).log_probs
    assert np.array_equal(expected[0], expected[1])
    assert np.allclose(expected[0], found, atol=1e-6)
    with fit(backend, replace(setting, options={})) as other:
        assert any(not torch.equal(other.tensors[name], tensor) for name, tensor in fitted.tensors.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "lora: its option rank is 0: a rank is 1 or more."),
        (
            {"targets": ("query", "head")},
            "lora: its option targets is ['query', 'head']: choose some of query, key, value, attention_output, "
            "feed_forward_in, feed_forward_out.",
        ),
    ],
)
def test_unknown_options_are_refused(backends: dict[str, Any], options: dict[str, Any], message: str) -> None:
    """The sentence says what there is."""
    with pytest.raises(ModelError) as caught:
        fit(backends["bert"], Setting(options=options))
    assert message == str(caught.value)


def test_a_second_adapter_of_peft_is_refused(backends: dict[str, Any]) -> None:
    """Two in one model would share their names; the first is left as it is."""
    with fit(backends["bert"], shortened(Lora(), steps=1)):
        with pytest.raises(ModelError, match="the model has an adapter of peft already: detach it first"):
            fit(backends["bert"], shortened(Lora(), steps=1))
        assert backends["bert"].model.get_submodule(f"{PATH}.lora_A") is not None


def test_dropout_without_the_settings_is_refused(backends: dict[str, Any]) -> None:
    """An option that would do nothing is not passed over, and the model is left alone."""
    message = r"^lora: its option lora_dropout is 0.1, and the setting has dropout off: set dropout=True\.$"
    with pytest.raises(ModelError, match=message):
        fit(backends["bert"], Setting(options={"lora_dropout": 0.1}))
    assert not hasattr(backends["bert"].model, "peft_config")
