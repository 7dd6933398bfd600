"""A checkpoint -> its device, tokenizer, limits and weights; a head that was never trained is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from promptlab.backends.checkpoints import Checkpoint
from promptlab.errors import ModelError, UsageError

_ADVICE = {
    "discriminator_predictions": "It is an ELECTRA discriminator, which predicts no words: use the generator.",
    "lm_predictions": 'Its head has DeBERTa\'s newer names: write "legacy": false into its config.json.',
}


def resolve_device(device: str) -> str:
    """The device in torch's words; `auto` takes CUDA where there is one.

    Raises:
        UsageError: the name is no device, or the device is not there.
    """
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: write auto, cpu, cuda, cuda:N or mps.") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count()
        raise UsageError(f"--device {device}: this machine has {number} CUDA devices. Use --device cpu, or auto.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has no such device. Use --device cpu, or auto.")
    if found.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {device}: write auto, cpu, cuda, cuda:N or mps.")
    return f"cuda:{found.index or 0}" if found.type == "cuda" else found.type


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The fast tokenizer of a checkpoint.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model '{checkpoint.name}': its tokenizer cannot be loaded: {reason}") from None


def load_model(checkpoint: Checkpoint, dtype: str) -> Any:
    """The model with a head that was trained; a missing or new head is refused."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForMaskedLM
    from transformers.utils import logging

    _quiet(logging)
    torch.set_float32_matmul_precision("highest")
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(
            checkpoint.folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        if "Unrecognized configuration class" in str(error):
            kind = checkpoint.config.get("model_type", "unknown")
            raise ModelError(
                f"model '{checkpoint.name}' is of type '{kind}', which has no masked language model: "
                "use a checkpoint of BERT, RoBERTa, ModernBERT or another masked model."
            ) from None
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model '{checkpoint.name}' cannot be loaded: {reason}") from None
    missing = sorted(info["missing_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise ModelError(
            f"model '{checkpoint.name}' ({checkpoint.architecture}) has no trained weights for "
            f"{len(missing)} tensors of {type(model).__name__} ({shown}): its scores would be "
            f"noise. {_advice(info['unexpected_keys'])}"
        )
    return model.eval()


def _advice(unexpected: Iterable[str]) -> str:
    """What to do about a head that is missing, from the tensors that the checkpoint has in its place."""
    for prefix, advice in _ADVICE.items():
        if any(key.startswith(prefix) for key in unexpected):
            return advice
    return "Use a checkpoint with its masked-LM head."


def _quiet(logging: Any) -> None:
    """Promptlab says itself what loads; the library's bars would stand between its lines."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


@functools.lru_cache(maxsize=16)
def _limits_of(config_json: str) -> tuple[int, int]:
    import json

    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    fields = json.loads(config_json)
    config = AutoConfig.for_model(**fields)
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    limit = int(getattr(config, "max_position_embeddings", 0) or 0) or 10**9
    num_segment_types = int(getattr(config, "type_vocab_size", 0) or 0)
    words = model.get_input_embeddings()  # as many words as positions are no positions
    for module in model.modules():
        is_embedding = isinstance(module, torch.nn.Embedding) and module is not words
        if is_embedding and module.num_embeddings == limit and module.padding_idx is not None:
            return limit - int(module.padding_idx) - 1, num_segment_types
    return limit, num_segment_types


def find_limits(checkpoint: Checkpoint) -> tuple[int, int]:
    """The most tokens that the model has positions for, and its number of segment types.

    Positions that start behind the padding index cost some.
    """
    import json

    try:
        return _limits_of(json.dumps(checkpoint.config, sort_keys=True))
    except (ValueError, KeyError, TypeError) as error:
        kind = checkpoint.config.get("model_type", "unknown")
        reason = str(error).strip().splitlines()[0][:160]
        raise ModelError(
            f"model '{checkpoint.name}' is of type '{kind}', which has no masked language model here ({reason})."
        ) from None
