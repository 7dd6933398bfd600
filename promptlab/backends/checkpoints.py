"""A model's name -> a folder on disk with its hashes, and the faults that can be seen without loading it.

Only safetensors are read: a pickled weights file can run code, so it is converted once, by an explicit command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.cache import FileHashes, cache_path
from promptlab.errors import ModelError, UsageError
from promptlab.hashing import content_hash
from promptlab.library import bundled_model_path

BUNDLED_NAMES = ("mini", "promptlab/mini")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "bpe.codes", "spiece.model", "spm.model", "tokenizer.model",
    "sentencepiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt.index", "model.pt")
_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A pretrained model on disk."""

    name: str
    revision: str | None
    folder: Path
    config: dict[str, Any]
    weights_hash: str
    tokenizer_hash: str

    @property
    def architecture(self) -> str:
        """The class that the checkpoint says it is."""
        return str((self.config.get("architectures") or [self.config.get("model_type", "unknown")])[0])


def find_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint of a bundled name, a folder, or a hub name.

    Raises:
        UsageError: there is no such model, or it cannot be fetched.
        ModelError: the folder is no checkpoint, or has no safetensors.
    """
    folder = _find_folder(name, revision)
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ModelError(f"model '{name}': {folder} has no config.json, so it is no checkpoint of transformers.")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"model '{name}': config.json is not valid JSON: {error}.") from None
    if not isinstance(config, dict):
        raise ModelError(f"model '{name}': config.json must hold keys and values, found {type(config).__name__}.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(_no_safetensors(name, folder))
    hashes = FileHashes(cache_path("file-hashes.json"))
    weights_hash = content_hash([[path.name, hashes.hash(path)] for path in weights] + [config])
    tokenizer = [[file, hashes.hash(folder / file)] for file in TOKENIZER_FILES if (folder / file).is_file()]
    if not tokenizer:
        raise ModelError(f"model '{name}': {folder} has no tokenizer files (tokenizer.json, vocab.txt ...).")
    return Checkpoint(name, revision, folder, config, weights_hash, content_hash(tokenizer))


def convert_checkpoint(name: str, output: Path, *, revision: str | None = None) -> Path:
    """Write the pickled weights of a checkpoint as safetensors, with its other files beside; nothing is executed.

    Raises:
        ModelError: there is no pickled file, or it holds more than tensors.
    """
    import shutil

    from safetensors.torch import save_file

    folder = _find_folder(name, revision, patterns=[*_DOWNLOADED, "pytorch_model*.bin"])
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if not pickled:
        raise ModelError(f"model '{name}': {folder} has no pytorch_model.bin to convert.")
    tensors = {key: tensor for path in pickled for key, tensor in _unpickle_tensors(path).items()}
    output.mkdir(parents=True, exist_ok=True)
    is_elsewhere = output.resolve() != folder.resolve()
    for path in folder.iterdir() if is_elsewhere else ():
        if path.is_file() and path.suffix in (".json", ".txt", ".model") and not path.name.endswith(".bin.index.json"):
            shutil.copy(path, output / path.name)
    target = output / "model.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, target, metadata={"format": "pt"})
    return target


def _unpickle_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a pickled file, read by a loader that knows tensors and executes nothing."""
    import pickle

    import torch

    refused = f"{path.name}: holds more than tensors and is not read:"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).strip().splitlines() or ["the file ends too early"])[0]
        raise ModelError(f"{refused} {reason}") from None
    entries = loaded.items() if isinstance(loaded, dict) else [("the file itself", loaded)]
    for key, value in entries:
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{refused} {key} is a {type(value).__name__}.")
    return dict(entries)


def _find_folder(name: str, revision: str | None, patterns: list[str] | None = None) -> Path:
    folder = bundled_model_path() if name in BUNDLED_NAMES else Path(name).expanduser()
    if name in BUNDLED_NAMES or folder.is_dir():
        if revision is not None:
            raise UsageError(f"--revision {revision}: model '{name}' is a folder, only hub models have revisions.")
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"model '{name}': there is no such folder. `promptlab ls models` lists what is at hand.")
    return _fetch(name, revision, patterns or _DOWNLOADED)


def _fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    """A snapshot of a hub model, from the local cache where it is there already."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # a dozen kinds of the hub and of the network, all meaning that the model is not here
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(
            f"model '{name}' is neither a folder nor bundled ({', '.join(BUNDLED_NAMES)}), and the hub did not give it "
            f"({reason}). Check the name and the network, or give the folder of a copy."
        ) from None


def _no_safetensors(name: str, folder: Path) -> str:
    if any((folder / file).exists() for file in _PICKLED):
        return (
            f"model '{name}' has only pickled weights, which can run code and are not read. Convert them once: "
            f"promptlab convert {name} --output-path {Path(name).name}-safetensors"
        )
    return (
        f"model '{name}': {folder} has no *.safetensors file. If the hub has only pickled weights, convert them once: "
        f"promptlab convert {name} --output-path {Path(name).name}-safetensors"
    )
