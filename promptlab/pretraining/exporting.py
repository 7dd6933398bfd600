"""A trained net and its tokenizer -> an ordinary transformers folder.

The rule guarded here: the weights are stored as float16 to be small, but the folder asks to be run in float32, so a
plain `from_pretrained` computes as the training measured.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import ModernBertForMaskedLM, PreTrainedTokenizerFast

from promptlab.pretraining.checkpoints import write_safely


def export_model(model: ModernBertForMaskedLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    Args:
        model: The net.
        tokenizer: Its tokenizer.
        folder: Where the files go; it is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_diff_dict() | {"architectures": ["ModernBertForMaskedLM"], "dtype": "float32"}
    config["global_attn_every_n_layers"] = 1  # versions of transformers before 5 read this, not layer_types
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    half = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    write_safely(folder / "model.safetensors", half, metadata={"format": "pt"})
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_max_length=model.config.max_position_embeddings,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    _name_plainly(folder / "tokenizer_config.json")


def _name_plainly(path: Path) -> None:
    """Put the class name that every version of transformers with fast tokenizers knows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("backend", None)
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
