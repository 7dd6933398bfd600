"""An artefact <-> a folder: artefact.json, tensors.safetensors and, for LoRA and IA3, a folder `peft` in peft's layout.

Every file is whole or not there, and artefact.json comes last, so a folder that has one is complete. What is loaded is
checked: the tensors against their hash, the model and its tokenizer against theirs, and the scores of the canaries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.artefacts import SCHEMA_VERSION, Artefact, describe, parse
from promptlab.backends.base import Backend, Scorer, make_backend
from promptlab.backends.mlm import MaskedBackend
from promptlab.canaries import check_canaries, encode_canaries, score_canaries, tolerance_of
from promptlab.encoding import Encoder
from promptlab.errors import ModelError, PromptlabError, StoreError, UsageError
from promptlab.files import read_json, write_bytes, write_json
from promptlab.methods.base import Context, Fitted
from promptlab.methods.peft_folders import ADAPTERS, write_peft, write_peft_prompt
from promptlab.registry import METHODS
from promptlab.types import EncodedPrompt

if TYPE_CHECKING:
    import torch

HEAD, TENSORS, PEFT = "artefact.json", "tensors.safetensors", "peft"
_OURS = {HEAD, TENSORS, PEFT}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An artefact inside its model: `fitted` scores prompts with it until it is detached."""

    artefact: Artefact
    backend: MaskedBackend
    encoder: Encoder
    fitted: Fitted


def check_folder(folder: Path) -> None:
    """Refuse a folder that something else lies in; what an interrupted save left may lie there.

    Raises:
        StoreError: it is a file, or holds files that are not an artefact's.
    """
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in _OURS and path.name[0] != ".")
        if others:
            raise StoreError(f"{folder}: holds '{others[0]}', which is no part of an artefact: give an empty folder.")
    elif folder.exists():
        raise StoreError(f"{folder}: is a file, and an artefact is a folder: give another name.")


def save_artefact(artefact: Artefact, folder: Path, backend: MaskedBackend, *, peft_prompt: bool = False) -> None:
    """Write an artefact; where the same one lies already it is written once more.

    Args:
        artefact: with its tensors, in memory or in another folder.
        folder: made where it is not there.
        backend: the model that it was fitted inside.
        peft_prompt: whether a soft prompt is written in peft's layout too, which scores otherwise: see
            `write_peft_prompt`.

    Raises:
        StoreError: the folder holds something else, or cannot be written.
        UsageError: a soft prompt that peft has no form for was to be written in peft's layout.
    """
    check_folder(folder)
    if (folder / HEAD).is_file():
        other = read_artefact(folder)
        if other.hash != artefact.hash:
            raise StoreError(f"{folder}: holds another artefact ({other.title}): give another folder, or delete it.")
    tensors = load_tensors(artefact)
    if peft_prompt:
        write_peft_prompt(folder / PEFT, artefact.method, tensors, _first_prompt(artefact, backend), backend)
    write_bytes(folder / TENSORS, as_bytes(tensors))
    if artefact.method in ADAPTERS:
        write_peft(folder / PEFT, artefact.method, tensors, artefact.setting, backend)
    write_json(folder / HEAD, {**describe(artefact), "hash": artefact.hash})


def read_artefact(folder: Path) -> Artefact:
    """The artefact of a folder, its tensors unread.

    Raises:
        StoreError: there is none, it is one of a newer promptlab, or it was changed after it was saved.
    """
    stored = _read_head(folder)
    try:
        artefact = parse(stored, folder)
        is_whole = stored["hash"] == artefact.hash
        hashes = [(stored["template"]["hash"], artefact.template.hash, "template")]
        if artefact.words is not None:
            hashes.append((stored["words"]["hash"], artefact.words.hash, "words"))
    except (KeyError, TypeError, ValueError, PromptlabError):
        raise StoreError(f"{folder / HEAD}: is not what promptlab writes: delete the folder and fit anew.") from None
    changed = next((what for was, found, what in hashes if was != found), "text" if not is_whole else None)
    if changed:
        raise StoreError(
            f"{folder / HEAD}: its {changed} was changed after it was saved: delete the folder and fit anew."
        )
    if artefact.method not in METHODS.names():
        known = ", ".join(METHODS.names())
        raise StoreError(f"{folder / HEAD}: method '{artefact.method}' is unknown here. Known: {known}.")
    return artefact


def load_artefact(folder: Path, *, device: str = "auto", dtype: str | None = None, model: str | None = None) -> Loaded:
    """Put an artefact into its model and check that it scores as it did when it was saved.

    Args:
        folder: where it lies.
        device: `auto` or a device in torch's words.
        dtype: of the model; None takes the one in which it was fitted.
        model: where the model lies on this machine; None takes the name that it had.

    Raises:
        StoreError: the folder holds no artefact, or a damaged one.
        UsageError: there is no such model, device or dtype.
        ModelError: it is another model, or the artefact does not score as it did.
    """
    artefact = read_artefact(folder)
    base = artefact.base
    revision = base.revision if model is None else None
    try:
        backend = make_backend(model or base.model, revision=revision, device=device, dtype=dtype or base.dtype)
    except UsageError as error:
        raise UsageError(f"{artefact.shown}: {error} Say by `model` where its model lies here.") from None
    assert isinstance(backend, MaskedBackend)
    fitted = restore(artefact, backend)
    return Loaded(artefact, backend, backend.encoder(artefact.max_length), fitted)


def restore(artefact: Artefact, backend: Backend) -> Fitted:
    """What was fitted, inside a model that may be on another device and in another dtype.

    Raises:
        StoreError: the tensors are missing or were changed.
        ModelError: the model is another one, the tensors do not fit it, or the canaries are scored otherwise.
    """
    check_base(artefact, backend.scorer)
    assert isinstance(backend, MaskedBackend)
    method = artefact.make_method()
    context = Context(backend, artefact.labels, artefact.make_words(), artefact.fit_seed)
    tensors = load_tensors(artefact)
    try:
        fitted = method.load(tensors, artefact.setting, context)
    except ModelError as error:
        raise ModelError(f"{artefact.shown}: {error}") from None
    try:
        _check_scores(artefact, fitted, context)
    except BaseException:
        fitted.detach()
        raise
    return fitted


def check_base(artefact: Artefact, scorer: Scorer) -> None:
    """Refuse another model or tokenizer than the one that was fitted inside.

    Raises:
        ModelError: the first of the two that differs, with both hashes.
    """
    found = scorer.identity()
    for part in ("weights", "tokenizer"):
        was, now = artefact.base.identity[part], found[part]
        if was != now:
            has = "have" if part == "weights" else "has"
            raise ModelError(
                f"{artefact.shown}: the {part} of model '{scorer.model}' {has} the hash {now[:12]}, and it was fitted "
                f"inside '{artefact.base.model}' with {was[:12]}: give that model."
            )


def load_tensors(artefact: Artefact) -> Mapping[str, torch.Tensor]:
    """What was fitted, by name, on the CPU.

    Raises:
        StoreError: the file is missing, or is not the one that was saved.
    """
    from safetensors.torch import load

    if artefact.fitted is not None:
        return artefact.fitted
    assert artefact.folder is not None
    path = artefact.folder / TENSORS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}: delete the folder and fit anew.") from None
    if bytes_hash(content) != artefact.tensors_hash:
        raise StoreError(f"{path}: is not the file that was saved with artefact.json: delete the folder and fit anew.")
    tensors: dict[str, torch.Tensor] = load(content)
    return tensors


def as_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors as a file of safetensors; equal tensors give equal bytes."""
    from safetensors.torch import save

    content: bytes = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    return content


def bytes_hash(content: bytes) -> str:
    """SHA-256, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def _read_head(folder: Path) -> dict[str, Any]:
    """The object of artefact.json."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: there is no such folder. `promptlab fit` makes an artefact.")
    if not (folder / HEAD).is_file():
        raise StoreError(f"{folder}: has no {HEAD}, so it is no artefact. `promptlab fit` makes one.")
    stored = read_json(folder / HEAD)
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if not isinstance(version, int):
        raise StoreError(f"{folder / HEAD}: is not what promptlab writes: delete the folder and fit anew.")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{folder / HEAD}: was written by a newer promptlab (schema {version}): upgrade promptlab.")
    found: dict[str, Any] = stored
    return found


def _prompts(artefact: Artefact, backend: Backend) -> list[EncodedPrompt | None]:
    """The prompts of the canaries."""
    rows, encoder = [canary.fields for canary in artefact.canaries], backend.encoder(artefact.max_length)
    return encode_canaries(rows, artefact.compiled, encoder, options=artefact.options(), seed=artefact.seed)


def _first_prompt(artefact: Artefact, backend: Backend) -> EncodedPrompt:
    """A prompt of the template.

    Raises:
        UsageError: no canary can be rendered with it.
    """
    found = next((prompt for prompt in _prompts(artefact, backend) if prompt is not None), None)
    if found is None:
        raise UsageError(f"{artefact.shown}: no made-up row fits its template, so where its tokens stand is unknown.")
    return found


def _check_scores(artefact: Artefact, fitted: Fitted, context: Context) -> None:
    prompts = _prompts(artefact, context.backend)
    found = score_canaries(prompts, fitted, context, artefact.make_method())
    tolerance = tolerance_of(artefact.base.dtype, context.backend.scorer.dtype)
    check_canaries(artefact.canaries, found, artefact.labels, tolerance=tolerance, shown=artefact.shown)
