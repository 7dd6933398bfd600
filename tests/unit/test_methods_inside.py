"""What holds for every method that adds something inside a frozen model, or frees its norms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.backends.mlm import MaskedBackend
from promptlab.methods.base import Setting
from promptlab.registry import METHODS
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of, shortened

NAMES = ("adapter", "ia3", "layer_norm", "lora", "prefix")
VARIANTS = [
    ("adapter", {}), ("adapter", {"placement": "pfeiffer", "activation": "relu"}), ("ia3", {}), ("layer_norm", {}),
    ("lora", {"targets": ("key", "feed_forward_in")}), ("prefix", {}), ("prefix", {"reparametrisation": "mlp"}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny products are not shared between threads."""
    torch.set_num_threads(1)


def tensors_of(name: str, backend: Any, setting: Setting) -> dict[str, torch.Tensor]:
    """What a short fit moves."""
    with METHODS.get(name)().fit(make_shots(backend), setting, make_context(backend)) as fitted:
        return dict(fitted.tensors)


@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_gradient_reaches_every_tensor(backends: dict[str, Any], kind: str, name: str, options: dict[str, Any]) -> None:
    """After a few steps no tensor, and no layer of one, is what it was; the model's own weights all are."""
    setting = replace(shortened(METHODS.get(name)(), steps=3), options=options)
    start = tensors_of(name, backends[kind], replace(setting, learning_rate=0.0))
    moved = tensors_of(name, backends[kind], setting)
    assert start.keys() == moved.keys()
    for tensor, before in start.items():
        parts = zip(moved[tensor], before, strict=True) if name == "prefix" else [(moved[tensor], before)]
        assert all(not torch.equal(after, part) for after, part in parts), tensor


@pytest.mark.parametrize("name", NAMES)
def test_start_answers_as_the_model_does(backends: dict[str, Any], name: str) -> None:
    """Before the first step nothing is changed, but for a prefix, which texts attend to from the start."""
    backend = backends["roberta"]
    context, setting = make_context(backend), replace(shortened(METHODS.get(name)(), steps=1), learning_rate=0.0)
    unseen, words = prompts_of(backend, UNSEEN), context.label_words.token_ids
    expected = backend.score(unseen, words).log_probs
    with METHODS.get(name)().fit(make_shots(backend), setting, context) as fitted:
        found = fitted.backend.score(unseen, words).log_probs
    assert np.allclose(expected, found, atol=1e-6) == (name != "prefix")


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_the_settings(backends: dict[str, Any], name: str) -> None:
    """Without dropout the order of the shots alone is random; with it a fit moves elsewhere, and again the same."""
    setting = replace(shortened(METHODS.get(name)(), steps=2), batch_size=8)
    without = [tensors_of(name, backends["bert"], setting) for _ in range(2)]
    torch.manual_seed(5)
    with_dropout = [tensors_of(name, backends["bert"], replace(setting, dropout=True)) for _ in range(2)]
    assert all(torch.equal(without[0][key], without[1][key]) for key in without[0])
    assert all(torch.equal(with_dropout[0][key], with_dropout[1][key]) for key in without[0])
    assert any(not torch.equal(without[0][key], with_dropout[0][key]) for key in without[0])


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_products_run(backends: dict[str, Any], name: str, kind: str) -> None:
    """Products in bfloat16 lower the loss too, and what moves stays float32."""
    backend = backends[kind]
    setting = replace(shortened(METHODS.get(name)(), steps=12), precision="bfloat16")
    with METHODS.get(name)().fit(make_shots(backend), setting, make_context(backend)) as fitted:
        assert fitted.record.losses[-1] < fitted.record.losses[0]
        assert {torch.float32} == {tensor.dtype for tensor in fitted.tensors.values()}


@pytest.mark.parametrize("name", ["adapter", "ia3", "lora", "prefix"])
def test_a_model_in_bfloat16_is_fitted_in_float32(tiny: dict[str, Path], name: str) -> None:
    """What is added to weights in bfloat16 moves in float32, and answers are finite."""
    backend = MaskedBackend(str(tiny["bert"]), device="cpu", dtype="bfloat16")
    with METHODS.get(name)().fit(make_shots(backend), shortened(METHODS.get(name)()), make_context(backend)) as fitted:
        assert {torch.float32} == {tensor.dtype for tensor in fitted.tensors.values()}
        found = fitted.backend.score(prompts_of(backend, UNSEEN), make_context(backend).label_words.token_ids)
        assert np.isfinite(found.log_probs).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_that_fails_leaves_the_model_as_it_was(backends: dict[str, Any], name: str) -> None:
    """Modules, hooks, attention, gradients and weights are what they were."""
    backend, context = backends["bert"], make_context(backends["bert"])
    before = facts_of(backend.model)
    broken = replace(make_shots(backend), labels=np.full(8, 7))  # there is no such label
    with pytest.raises(IndexError):
        METHODS.get(name)().fit(broken, shortened(METHODS.get(name)()), context)
    assert before == facts_of(backend.model)


@pytest.mark.parametrize("name", NAMES)
def test_detaching_leaves_nothing(backends: dict[str, Any], name: str) -> None:
    """After a fit, and after tensors were loaded, the model has its own modules and no hook of ours."""
    backend, context, setting = backends["albert"], make_context(backends["albert"]), Setting(steps=2)
    before = facts_of(backend.model)
    assert all(parameter.requires_grad for parameter in backend.model.parameters())
    with METHODS.get(name)().fit(make_shots(backend), setting, context) as fitted:
        assert name == "layer_norm" or before != facts_of(backend.model)
    assert before == facts_of(backend.model)
    with METHODS.get(name)().load(fitted.tensors, setting, context):
        pass
    assert before == facts_of(backend.model)
    assert not [name for module in backend.model.modules() for name in vars(module) if "prefix" in name]


def facts_of(model: Any) -> list[Any]:
    """All of a model that a method may touch."""
    modules = [
        (
            name,
            id(module),
            module.training,
            sorted(vars(module)),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
        )
        for name, module in model.named_modules()
    ]
    weights = [
        (name, float(weight.detach().double().sum()), weight.requires_grad) for name, weight in model.named_parameters()
    ]
    return [modules, weights, model.config._attn_implementation, sorted(vars(model.config))]


@pytest.mark.parametrize(
    ("name", "kind"), [("prefix", "albert"), ("adapter", "albert"), ("prefix", "modernbert"), ("lora", "bert")]
)
def test_batches_side_by_side_are_scored_as_one_after_the_other(backends: dict[str, Any], name: str, kind: str) -> None:
    """Threads do not count each other's layers."""
    backend, context = backends[kind], make_context(backends[kind])
    words, unseen = context.label_words.token_ids, prompts_of(backend, UNSEEN)
    with METHODS.get(name)().fit(make_shots(backend), shortened(METHODS.get(name)(), steps=2), context) as fitted:
        expected = [fitted.backend.score([prompt], words).log_probs for prompt in unseen]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda prompt: fitted.backend.score([prompt], words).log_probs, unseen * 12))
    assert all(np.array_equal(expected[place % 4], one) for place, one in enumerate(found))


@pytest.mark.parametrize("name", NAMES)
def test_grid_is_four_settings_of_one_budget(name: str) -> None:
    """Every method may search as much as the others."""
    grid = METHODS.get(name)().grid()
    assert 4 == len(grid)
    assert {(Setting().steps, Setting().batch_size)} == {(setting.steps, setting.batch_size) for setting in grid}
