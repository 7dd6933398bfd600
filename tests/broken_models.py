"""Copies of checkpoints that are broken on purpose, for tests of the checks that must see it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edited(folder: Path, to: Path, file: str, change: Callable[[Any], Any]) -> Path:
    """A copy of a checkpoint in which one JSON file was changed in place."""
    shutil.copytree(folder, to)
    content = json.loads((to / file).read_text(encoding="utf-8"))
    change(content)
    (to / file).write_text(json.dumps(content), encoding="utf-8")
    return to


def set_up(folder: Path, to: Path, **settings: Any) -> Path:
    """A copy with other settings of the tokenizer; None removes one."""

    def change(content: dict[str, Any]) -> None:
        content.update(settings)
        for name in [name for name, value in settings.items() if value is None]:
            del content[name]

    return edited(folder, to, "tokenizer_config.json", change)


def framed(folder: Path, to: Path, *, single: str | None, pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1") -> Path:
    """A copy of a BERT whose post-processor frames texts otherwise; None takes it out."""
    from tokenizers import Tokenizer, processors

    shutil.copytree(folder, to)
    path = str(to / "tokenizer.json")
    engine = Tokenizer.from_file(path)
    if single is None:
        edited_engine = json.loads(engine.to_str()) | {"post_processor": None}
        Path(path).write_text(json.dumps(edited_engine), encoding="utf-8")
        return to
    ids = [(token, engine.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    engine.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    engine.save(path)
    return to


def without_lstrip(folder: Path, to: Path) -> Path:
    """A copy whose mask token leaves the blank before it alone."""

    def change(content: dict[str, Any]) -> None:
        (mask,) = [token for token in content["added_tokens"] if token["content"] == "<mask>"]
        mask["lstrip"] = False

    edited(folder, to, "tokenizer.json", change)
    settings = json.loads((to / "tokenizer_config.json").read_text(encoding="utf-8"))
    if isinstance(settings["mask_token"], dict):
        settings["mask_token"]["lstrip"] = False
        (to / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return to


def without_head(folder: Path, to: Path) -> Path:
    """A BERT that was saved without its masked-LM head."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    AutoModelForMaskedLM.from_pretrained(folder).bert.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def with_new_decoder(folder: Path, to: Path) -> Path:
    """A BERT whose decoder was drawn anew, though its config ties it to the word embeddings."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    path = to / "model.safetensors"
    tensors = load_file(path)
    words = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = torch.randn(words.shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors, path, metadata={"format": "pt"})
    return to
