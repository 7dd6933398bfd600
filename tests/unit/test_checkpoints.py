"""Checkpoints: names to folders with hashes, and pickles that are converted and never executed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.checkpoints import convert_checkpoint, find_checkpoint
from promptlab.backends.mlm import MaskedBackend
from promptlab.cache import cache_dir
from promptlab.errors import ModelError, UsageError
from promptlab.types import EncodedPrompt
from tests.oracles import MASK, field, prompt


def copied(folder: Path, to: Path) -> Path:
    """A copy of a checkpoint."""
    shutil.copytree(folder, to)
    return to


def pickled(folder: Path, to: Path, content: Any = None) -> Path:
    """A copy of a checkpoint whose weights are pickled, or anything else in their place."""
    import torch
    from safetensors.torch import load_file

    copied(folder, to)
    torch.save(content if content is not None else load_file(to / "model.safetensors"), to / "pytorch_model.bin")
    (to / "model.safetensors").unlink()
    return to


class Malicious:
    """A pickle that would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.target,)


def test_a_folder_is_described_by_what_it_holds(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Folders with the same files have the same hashes, whatever they are called."""
    one, other = find_checkpoint(str(tiny["bert"])), find_checkpoint(str(copied(tiny["bert"], tmp_path / "other")))
    assert (one.weights_hash, one.tokenizer_hash) == (other.weights_hash, other.tokenizer_hash)
    assert ("BertForMaskedLM", None) == (one.architecture, one.revision)
    cased = find_checkpoint(str(tiny["bert_cased"]))
    assert one.weights_hash != cased.weights_hash
    assert one.tokenizer_hash != cased.tokenizer_hash


@pytest.mark.parametrize(
    ("file", "changes"), [("model.safetensors", "weights"), ("config.json", "weights"), ("tokenizer.json", "tokenizer")]
)
def test_a_changed_file_changes_its_hash(tiny: dict[str, Path], tmp_path: Path, file: str, changes: str) -> None:
    """One changed byte of weights, or a changed value of config or tokenizer, makes another checkpoint."""
    before = find_checkpoint(str(tiny["bert"]))
    path = copied(tiny["bert"], tmp_path / "model") / file
    content = path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1]) if path.suffix != ".json" else content.replace(b"512", b"64", 1)
    path.write_bytes(changed if changed != content else content.replace(b"64", b"63", 1))
    after = find_checkpoint(str(path.parent))
    is_changed = (before.weights_hash != after.weights_hash, before.tokenizer_hash != after.tokenizer_hash)
    assert (changes == "weights", changes == "tokenizer") == is_changed


@pytest.mark.parametrize("file", ["spm.model", "tokenizer.model", "sentencepiece.model", "bpe.codes"])
def test_every_vocabulary_file_is_in_the_hash(tiny: dict[str, Path], tmp_path: Path, file: str) -> None:
    """A vocabulary of DeBERTa or Llama that changes makes another tokenizer."""
    path = copied(tiny["bert"], tmp_path / "model") / file
    hashes = {find_checkpoint(str(path.parent)).tokenizer_hash}
    for content in (b"one", b"two"):
        path.write_bytes(content)
        hashes.add(find_checkpoint(str(path.parent)).tokenizer_hash)
    assert len(hashes) == 3


def test_hashes_are_remembered_in_the_cache_folder(tiny: dict[str, Path]) -> None:
    """Hashes of weights are kept in PROMPTLAB_CACHE_DIR, so that a start is fast."""
    find_checkpoint(str(tiny["bert"]))
    assert (cache_dir() / "file-hashes.json").is_file()
    assert Path(os.environ["PROMPTLAB_CACHE_DIR"]) == cache_dir()


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    """A folder that holds no checkpoint is named."""
    with pytest.raises(ModelError, match=r"model '.*': .* has no config\.json, so it is no checkpoint of"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("{", "is not valid JSON"), ("[1]", "must hold keys and values")])
def test_a_broken_config_is_refused(tiny: dict[str, Path], tmp_path: Path, text: str, message: str) -> None:
    """A config.json that is no JSON object is named as such."""
    folder = copied(tiny["bert"], tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=rf"model '.*': config\.json {message}"):
        find_checkpoint(str(folder))


def test_a_folder_without_tokenizer_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Weights without a tokenizer cannot be prompted."""
    folder = copied(tiny["bert"], tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer files \(tokenizer\.json, vocab\.txt \.\.\.\)\."):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(name: str) -> None:
    """What reads as a path is not looked up on the hub."""
    with pytest.raises(UsageError, match=rf"model '{name}': there is no such folder\. `promptlab ls models` lists"):
        find_checkpoint(name)


def test_an_unknown_name_is_refused_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that is neither a folder, nor bundled, nor in the local cache of the hub is one sentence."""
    with pytest.raises(UsageError) as caught:
        find_checkpoint("nobody/no-such-model")
    start = (
        "model 'nobody/no-such-model' is neither a folder nor bundled (mini, promptlab/mini), and the hub did not give"
    )
    assert str(caught.value).startswith(start)
    assert 1 == len(str(caught.value).splitlines())
    assert 2 == caught.value.exit_code


def test_pickled_weights_are_refused_with_the_command_that_converts_them(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A folder with only pickles says why they are not read and what to run."""
    folder = pickled(tiny["bert"], tmp_path / "old")
    expected = (
        f"model '{folder}' has only pickled weights, which can run code and are not read. Convert them once: "
        f"promptlab convert {folder} --output-path old-safetensors"
    )
    with pytest.raises(ModelError) as caught:
        find_checkpoint(str(folder))
    assert expected == str(caught.value)


def test_no_weights_at_all_are_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A folder without weights says so."""
    folder = copied(tiny["bert"], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no \*\.safetensors file\."):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("in_place", [True, False])
def test_converted_weights_score_the_same(
    backends: dict[str, MaskedBackend], tiny: dict[str, Path], tmp_path: Path, in_place: bool
) -> None:
    """A converted checkpoint loads and gives equal scores, written elsewhere or beside its pickle."""
    folder = pickled(tiny["bert"], tmp_path / "old")
    output = folder if in_place else tmp_path / "new"
    assert output / "model.safetensors" == convert_checkpoint(str(folder), output)
    asked, token_ids = [prompt(field("A great film."), " It was ", MASK, ".")], np.arange(200)
    scores = []
    for backend in (backends["bert"], MaskedBackend(str(output), device="cpu")):
        (encoded,) = backend.encoder(None).encode(asked)
        assert isinstance(encoded, EncodedPrompt)
        scores.append(backend.score([encoded], token_ids).log_probs)
    np.testing.assert_array_equal(scores[0], scores[1])
    files = sorted(path.name for path in output.iterdir() if path.name != "pytorch_model.bin")
    assert sorted(path.name for path in tiny["bert"].iterdir()) == files


def test_a_malicious_pickle_is_refused_and_not_executed(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A pickle that would run code is named, runs nothing and leaves no output."""
    folder = pickled(tiny["bert"], tmp_path / "old", {"weight": Malicious(tmp_path / "was_run")})
    expected = r"pytorch_model\.bin: holds more than tensors and is not read: "
    with pytest.raises(ModelError, match=expected):
        convert_checkpoint(str(folder), tmp_path / "new")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [{"epoch": 3, "model": {}}, [1, 2]])
def test_a_pickle_of_other_things_is_refused(tiny: dict[str, Path], tmp_path: Path, content: Any) -> None:
    """A training state or a list is no table of tensors, and is refused in a sentence."""
    folder = pickled(tiny["bert"], tmp_path / "old", content)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: holds more than tensors and is not read: "):
        convert_checkpoint(str(folder), tmp_path / "new")


@pytest.mark.parametrize("content", [b"", b"not a pickle"])
def test_a_broken_pickle_is_refused(tiny: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    """An empty or broken file is refused in a sentence."""
    folder = pickled(tiny["bert"], tmp_path / "old")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: holds more than tensors and is not read: "):
        convert_checkpoint(str(folder), tmp_path / "new")


def test_nothing_to_convert_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A folder without pickles has nothing to convert."""
    with pytest.raises(ModelError, match=r"has no pytorch_model\.bin to convert\."):
        convert_checkpoint(str(tiny["bert"]), tmp_path / "new")


def test_the_config_says_what_the_checkpoint_is(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Without `architectures` the model type names it."""
    folder = copied(tiny["bert"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "bert" == find_checkpoint(str(folder)).architecture
