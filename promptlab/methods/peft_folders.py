"""Fitted LoRA and IA3 <-> a folder as peft writes and reads one: adapter_config.json and adapter_model.safetensors.

The vectors of a soft prompt can be written so too, but peft puts them elsewhere: see `write_peft_prompt`.

`peft.PeftModel.from_pretrained(base_model, folder)` gives the same logits, with the base model from
`AutoModelForMaskedLM`. What promptlab cannot do as the folder's configuration says is refused, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import ModelError, UsageError
from promptlab.files import write_bytes
from promptlab.methods.base import Setting
from promptlab.methods.ia3 import Ia3, ia3_config
from promptlab.methods.lora import Lora, lora_config
from promptlab.methods.modules import ROLES, Modules, modules_of
from promptlab.methods.modules import Role as MapRole
from promptlab.methods.soft_prompt import SoftPrompt
from promptlab.methods.soft_tokens import SoftTokens
from promptlab.types import EncodedPrompt, Role

if TYPE_CHECKING:
    import torch

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
ADAPTERS = (Lora.name, Ia3.name)  # the methods that peft has in the form in which they are fitted here
_IN_FRONT = "base_model.model."
# What says where an adapter stands, where it came from or how it began, and not what it computes.
_FREE = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "exclude_modules", "feedforward_modules", "inference_mode",
        "init_ia3_weights", "init_lora_weights", "layers_pattern", "layers_to_transform", "peft_version", "revision",
        "target_modules", "task_type", "lora_alpha", "lora_dropout", "r",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PeftAdapter:
    """What stands in a folder of peft: the name of the method, a setting with its options, and its tensors."""

    method: str
    setting: Setting
    tensors: Mapping[str, torch.Tensor]


def write_peft(
    folder: Path, method: str, tensors: Mapping[str, torch.Tensor], setting: Setting, backend: MaskedBackend
) -> None:
    """Write what `lora` or `ia3` fitted.

    Args:
        folder: made where it is not there.
        method: the name of the method.
        tensors: those of the fit.
        setting: that of the fit.
        backend: the model that was fitted.

    Raises:
        UsageError: peft has no such method.
    """
    from safetensors.torch import save

    config = _config(method, setting, modules_of(backend, method=method))
    config.base_model_name_or_path, config.revision = backend.scorer.model, backend.scorer.revision
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{_IN_FRONT}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / TENSORS, save(named, metadata={"format": "pt"}))
    config.save_pretrained(folder)


def write_peft_prompt(
    folder: Path, method: str, tensors: Mapping[str, torch.Tensor], prompt: EncodedPrompt, backend: MaskedBackend
) -> None:
    """Write the vectors of a soft prompt whose tokens all stand first, as peft's prompt tuning.

    peft puts its tokens before the first special token, and promptlab behind it: [CLS] p1 p2 the text. So every
    position is another one, and what peft computes is not what was fitted, however near. Such a folder is a start for
    further training with peft, or for somebody who puts the vectors where they belong by hand, and never a stand-in
    for the artefact; that is why it is written on demand alone.

    Args:
        folder: made where it is not there.
        method: the name of the method.
        tensors: those of the fit.
        prompt: any prompt of the template, by which it is seen where the tokens stand.
        backend: the model that was fitted.

    Raises:
        UsageError: it is no soft prompt, or its tokens do not all stand first.
    """
    from safetensors.torch import save

    if method != SoftPrompt.name:
        raise UsageError(f"method '{method}' has no prompt embeddings: peft's layout of them is for {SoftPrompt.name}.")
    places = np.flatnonzero(prompt.roles == SoftTokens.of(tensors).role)
    first = int(np.flatnonzero(prompt.roles != Role.SPECIAL)[0])
    if places.tolist() != list(range(first, first + len(places))):
        raise UsageError(
            "method 'soft_prompt': its tokens do not all stand first in the template, and peft has no other place for "
            "them: save it without peft's layout."
        )
    vectors = tensors["vectors"].contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / TENSORS, save({"prompt_embeddings": vectors}, metadata={"format": "pt"}))
    _prompt_config(vectors, backend).save_pretrained(folder)


def read_peft(folder: Path, backend: MaskedBackend) -> PeftAdapter:
    """Read an adapter of a model, which peft or `write_peft` wrote; `Method.load` puts it into the model.

    Raises:
        ModelError: it is no LoRA or IA3, is one that computes something else, or stands at other modules.
    """
    from peft import PeftConfig
    from safetensors.torch import load

    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}: it is no adapter that peft wrote with safetensors.")
    found = PeftConfig.from_pretrained(str(folder))
    method = str(getattr(found.peft_type, "value", found.peft_type)).lower()
    if method not in ADAPTERS:
        raise ModelError(f"{folder / CONFIG}: peft_type is {method.upper()}: promptlab reads LORA and IA3.")
    tensors = {name.removeprefix(_IN_FRONT): tensor for name, tensor in load((folder / TENSORS).read_bytes()).items()}
    modules = modules_of(backend, method=method)
    setting = _setting(method, found, _roles(tensors, modules, folder))
    _refuse_other(found, _config(method, setting, modules), folder)
    return PeftAdapter(method, setting, tensors)


def _prompt_config(vectors: torch.Tensor, backend: MaskedBackend) -> Any:
    """The configuration of peft's prompt tuning, of the task type that leaves a masked language model as it is."""
    from peft import PromptTuningConfig

    config = backend.model.config
    return PromptTuningConfig(
        task_type="FEATURE_EXTRACTION",
        inference_mode=True,
        num_virtual_tokens=vectors.shape[0],
        token_dim=vectors.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=getattr(config, "num_attention_heads", 1),
        num_layers=getattr(config, "num_hidden_layers", 1),
        base_model_name_or_path=backend.scorer.model,
        revision=backend.scorer.revision,
    )


def _config(method: str, setting: Setting, modules: Modules) -> Any:
    """A setting as a configuration of peft."""
    if method not in ADAPTERS:
        raise UsageError(f"method '{method}' has no form of peft's: choose one of {', '.join(ADAPTERS)}.")
    return lora_config(setting, modules) if method == Lora.name else ia3_config(modules)


def _setting(method: str, found: Any, roles: tuple[MapRole, ...]) -> Setting:
    """The options that a configuration of peft stands for."""
    if method == Ia3.name:
        return Setting()
    options: dict[str, Any] = {"rank": found.r, "alpha": found.lora_alpha, "targets": roles}
    if found.lora_dropout:
        options["lora_dropout"] = found.lora_dropout
    return Setting(dropout=bool(found.lora_dropout), options=options)


def _roles(tensors: Mapping[str, torch.Tensor], modules: Modules, folder: Path) -> tuple[MapRole, ...]:
    """What the maps do that have tensors, in the order of `ROLES`."""
    found: set[MapRole] = set()
    for name in tensors:
        path = modules.path_in_layer(name.rpartition(".lora_")[0] or name.rpartition(".ia3_")[0])
        roles = modules.roles(path) if path else ()
        if not roles:
            raise ModelError(f"{folder / TENSORS}: '{name}' stands at no map inside a layer of the model.")
        found.update(roles)
    return tuple(role for role in ROLES if role in found)


def _refuse_other(found: Any, ours: Any, folder: Path) -> None:
    """Refuse a configuration that computes something else than ours with the same options."""
    wanted = ours.to_dict()
    for key, value in found.to_dict().items():
        if key not in _FREE and value != wanted.get(key):
            raise ModelError(f"{folder / CONFIG}: {key} is {value!r}: promptlab reads {wanted.get(key)!r} alone.")
