"""A checkpoint -> its device, tokenizer, limits and weights; a head that was never trained is refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from promptlab.backends.checkpoints import Checkpoint
from promptlab.errors import ModelError, UsageError

DETECTOR_TYPES = ("electra", "deberta-v2")

# What a file holds in place of the head that is asked for -> what to do; the first that is there counts.
_MASKED_ADVICE = {
    "discriminator_predictions": "It is an ELECTRA discriminator, which predicts no words: use the generator, or "
    "--scoring replaced_token.",
    "mask_predictions": "It is a replaced-token detector, as DeBERTa-v3 is, which predicts no words: use --scoring "
    "replaced_token.",
    "lm_predictions": 'Its head has DeBERTa\'s newer names: write "legacy": false into its config.json.',
    "": "Use a checkpoint with its masked-LM head.",
}
_DETECTOR_ADVICE = {
    "generator_": "It is an ELECTRA generator, a masked language model: use the discriminator, or leave --scoring out.",
    "cls.": "It is a masked language model: leave --scoring out.",
    "lm_predictions": "It is a masked language model: leave --scoring out.",
    "": "Use a checkpoint with its replaced-token head.",
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
    """The masked language model with a head that was trained; a missing or new head is refused."""
    from transformers import AutoModelForMaskedLM

    return _load(AutoModelForMaskedLM, checkpoint, dtype, _MASKED_ADVICE)


def load_detector(checkpoint: Checkpoint, dtype: str) -> Any:
    """The replaced-token detector with a head that was trained; a missing or new head is refused."""
    refuse_other_types(checkpoint)
    if checkpoint.config["model_type"] == "electra":
        from transformers import ElectraForPreTraining

        return _load(ElectraForPreTraining, checkpoint, dtype, _DETECTOR_ADVICE)
    from promptlab.backends.deberta import RENAMED, DebertaDetector

    return _load(DebertaDetector, checkpoint, dtype, _DETECTOR_ADVICE, key_mapping=RENAMED)


def refuse_other_types(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose type has no replaced-token detector that is scored alike in every batch.

    Raises:
        ModelError: it is of another type.
    """
    kind = checkpoint.config.get("model_type", "unknown")
    if kind not in DETECTOR_TYPES:
        raise ModelError(
            f"model '{checkpoint.name}' is of type '{kind}', which has no replaced-token detector here: use an ELECTRA "
            "discriminator or a DeBERTa-v3, or leave --scoring out to score a masked language model."
        )


def _load(kind: Any, checkpoint: Checkpoint, dtype: str, advice: Mapping[str, str], **options: Any) -> Any:
    """A model of a class of transformers, every tensor of it from the file."""
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    _quiet(logging)
    torch.set_float32_matmul_precision("highest")
    try:
        model, info = kind.from_pretrained(
            checkpoint.folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        if "Unrecognized configuration class" in str(error):
            found = checkpoint.config.get("model_type", "unknown")
            raise ModelError(
                f"model '{checkpoint.name}' is of type '{found}', which has no masked language model: "
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
            f"noise. {_choose(advice, _tensor_names(checkpoint))}"
        )
    return model.eval()


def _choose(advice: Mapping[str, str], names: Sequence[str]) -> str:
    """What to do about a head that is missing, from the tensors that the file has in its place."""
    return next(text for prefix, text in advice.items() if any(name.startswith(prefix) for name in names))


def _tensor_names(checkpoint: Checkpoint) -> list[str]:
    """The tensors of the file; transformers passes over some of them and does not name them."""
    from safetensors import safe_open

    names: list[str] = []
    for path in sorted(checkpoint.folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            names += file.keys()
    return names


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
