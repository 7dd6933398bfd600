"""The table of modules: what is in a layer is found, the head never, and what is unknown is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from promptlab.errors import ModelError
from promptlab.methods.modules import ROLES, modules_of, num_applications, refusal_of
from promptlab.registry import METHODS
from tests.tiny_models import FAMILIES

KINDS = [kind for kind in FAMILIES if kind != "bert_chinese"]
WITH_TABLE = ("adapter", "ia3", "layer_norm", "lora", "prefix")


def of_architecture(backend: Any, name: str) -> Any:
    """A backend that says it is of another architecture."""
    return SimpleNamespace(scorer=replace(backend.scorer, architecture=name))


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_map_of_the_layers_has_a_role(backends: dict[str, Any], kind: str) -> None:
    """All maps inside the layers are found and none outside; DeBERTa's maps of positions alone have no role."""
    import torch

    model, modules = backends[kind].model, modules_of(backends[kind], method="lora")
    found = {name for name, _ in modules.find(model, *modules.paths(ROLES))}
    maps = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    inside = {name for name in maps if re.search(r"layers?\.\d+\.", name) and "pos_" not in name}
    assert inside == found
    assert {layer for layer, _ in modules.layers(model)} == {re.sub(r"(.*\.\d+)\..*", r"\1", name) for name in found}


@pytest.mark.parametrize("kind", KINDS)
def test_names_lead_to_roles_and_back(backends: dict[str, Any], kind: str) -> None:
    """The path of a map in its layer has the roles that it was found by."""
    modules = modules_of(backends[kind], method="lora")
    for role in ROLES:
        name, _ = modules.find(backends[kind].model, *modules.paths([role]))[0]
        assert role in modules.roles(modules.path_in_layer(name) or "")
    assert modules.path_in_layer("cls.predictions.transform.dense") is None


@pytest.mark.parametrize(("kind", "expected"), [("bert", 2), ("albert", 2), ("distilbert", 2)])
def test_layers_are_counted_as_a_text_goes_through_them(backends: dict[str, Any], kind: str, expected: int) -> None:
    """ALBERT has one layer and a text goes through it twice."""
    assert expected == num_applications(backends[kind].model)
    grouped = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=3, inner_group_num=2))
    assert 6 == num_applications(grouped)
    held = 1 if kind == "albert" else 2
    assert held == len(modules_of(backends[kind], method="lora").layers(backends[kind].model))


@pytest.mark.parametrize("name", WITH_TABLE)
@pytest.mark.parametrize("architecture", ["MPNetForMaskedLM", "DebertaForMaskedLM", "XLMRobertaXLForMaskedLM"])
def test_unknown_architectures_are_refused(backends: dict[str, Any], name: str, architecture: str) -> None:
    """A name that is near one in the table is not in it; the sentence says what is."""
    expected = (
        f"{name} does not know the modules of {architecture}: it works with Bert, Roberta, XLMRoberta, Electra, "
        "DebertaV2, DistilBert, Albert, ModernBert. Choose prompt_fine_tune, which works with any."
    )
    stranger = of_architecture(backends["bert"], architecture)
    assert expected == METHODS.get(name)().refusal(stranger)
    with pytest.raises(ModelError, match="does not know the modules of"):
        modules_of(stranger, method=name)


def test_the_bare_class_is_known_too(backends: dict[str, Any]) -> None:
    """Some checkpoints name the body in place of the masked language model."""
    assert refusal_of(of_architecture(backends["bert"], "RobertaModel"), method="lora") is None


def test_names_that_are_not_there_are_refused(backends: dict[str, Any]) -> None:
    """A model that says it is another has no such modules."""
    modules = modules_of(backends["distilbert"], method="lora")
    with pytest.raises(ModelError, match=r"BertForMaskedLM has no modules named attention\.q_lin: choose another"):
        modules.find(backends["bert"].model, modules.query)
