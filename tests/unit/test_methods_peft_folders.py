"""LoRA and IA3 in peft's layout: peft reads what was written, what peft wrote is read, and the rest is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import Setting
from promptlab.methods.modules import ROLES
from promptlab.methods.peft_folders import CONFIG, read_peft, write_peft
from promptlab.registry import METHODS
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of, shortened

# peft's own model class asks transformers for something by its older name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(5, 17).reshape(2, 6)
PAIRS = [
    ("lora", "bert", {}), ("lora", "modernbert", {"targets": ROLES, "rank": 2, "alpha": 3}), ("lora", "albert", {}),
    ("lora", "deberta_v2", {"targets": ("query", "feed_forward_out")}), ("lora", "distilbert", {}),
    ("ia3", "roberta", {}), ("ia3", "modernbert", {}), ("ia3", "albert", {}),
]  # fmt: skip


def base_model(tiny: dict[str, Path], kind: str) -> Any:
    """The model as a user of peft loads it."""
    from transformers import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(tiny[kind]).eval()


def write_foreign(folder: Path, model: Any, **options: Any) -> Any:
    """An adapter that peft made and wrote, away from its start; peft's model."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **options))
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize(("name", "kind", "options"), PAIRS)
def test_peft_answers_as_the_fit_does(
    tiny: dict[str, Path], backends: dict[str, Any], tmp_path: Path, name: str, kind: str, options: dict[str, Any]
) -> None:
    """`PeftModel.from_pretrained` gives the logits of the fitted model; read again, it is the same adapter."""
    from peft import PeftModel

    backend, context = backends[kind], make_context(backends[kind])
    method, unseen = METHODS.get(name)(), prompts_of(backend, UNSEEN)
    setting = replace(shortened(method), options=options)
    with method.fit(make_shots(backend), setting, context) as fitted, torch.no_grad():
        expected = backend.model(IDS).logits
        scored = fitted.backend.score(unseen, context.label_words.token_ids).log_probs
    write_peft(tmp_path, name, fitted.tensors, setting, backend)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base_model(tiny, kind), str(tmp_path)).eval()(IDS).logits
    assert torch.allclose(expected, found, atol=1e-6)
    again = read_peft(tmp_path, backend)
    assert name == again.method
    with method.load(again.tensors, again.setting, context) as loaded:
        assert (scored == loaded.backend.score(unseen, context.label_words.token_ids).log_probs).all()


def test_what_peft_wrote_is_read(tiny: dict[str, Path], backends: dict[str, Any], tmp_path: Path) -> None:
    """Rank, alpha, dropout and targets come from the folder, however peft named the targets."""
    options = {"r": 3, "lora_alpha": 5, "lora_dropout": 0.1, "target_modules": ["key", "intermediate.dense"]}
    adapted = write_foreign(tmp_path, base_model(tiny, "bert"), **options)
    found = read_peft(tmp_path, backends["bert"])
    expected = {"rank": 3, "alpha": 5, "lora_dropout": 0.1, "targets": ("key", "feed_forward_in")}
    assert ("lora", True, expected) == (found.method, found.setting.dropout, found.setting.options)
    context = make_context(backends["bert"])
    with METHODS.get("lora")().load(found.tensors, found.setting, context), torch.no_grad():
        assert torch.allclose(adapted(IDS).logits, backends["bert"].model(IDS).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True, "target_modules": ["query"]}, "use_dora is True: promptlab reads False alone."),
        ({"use_rslora": True, "target_modules": ["query"]}, "use_rslora is True: promptlab reads False alone."),
        ({"target_modules": ["transform.dense"]}, "stands at no map inside a layer of the model."),
    ],
)
def test_what_computes_something_else_is_refused(
    tiny: dict[str, Path], backends: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """What promptlab would leave out is named with its file."""
    write_foreign(tmp_path, base_model(tiny, "bert"), **options)
    with pytest.raises(ModelError) as caught:
        read_peft(tmp_path, backends["bert"])
    assert str(caught.value).startswith(str(tmp_path))
    assert str(caught.value).endswith(message)


def test_other_methods_and_folders_are_refused(backends: dict[str, Any], tmp_path: Path) -> None:
    """Neither a prompt of peft's nor a folder of something else is taken for an adapter."""
    with pytest.raises(ModelError, match=f"has no {CONFIG}: it is no adapter that peft wrote with safetensors"):
        read_peft(tmp_path, backends["bert"])
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="peft_type is PROMPT_TUNING: promptlab reads LORA and IA3"):
        read_peft(tmp_path, backends["bert"])
    with pytest.raises(UsageError, match="method 'adapter' has no form of peft's: choose one of lora, ia3"):
        write_peft(tmp_path, "adapter", {}, Setting(), backends["bert"])
