"""A fit that was just made -> an artefact: with its canaries scored while it still stands in its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptlab.artefact_folders import HEAD, TENSORS, as_bytes, bytes_hash, read_artefact
from promptlab.artefacts import Artefact, Base, find_versions
from promptlab.backends.base import Backend
from promptlab.backends.mlm import MaskedBackend
from promptlab.canaries import Canary, canary_rows, encode_canaries, score_canaries
from promptlab.errors import StoreError
from promptlab.fitting import Fit
from promptlab.hashing import file_hash
from promptlab.planning import PlannedBlock

FITS = "fits"  # the folder of a run's artefacts inside the run's own


def make_artefact(planned: PlannedBlock, found: Fit, backend: Backend, *, seed: int) -> Artefact:
    """What is kept of the fit of a block; its canaries are scored here, so nothing may be detached yet.

    Args:
        planned: the block that it was fitted for.
        found: the fit.
        backend: the model that it is fitted inside.
        seed: the user's seed, for templates that draw.
    """
    fit, context = planned.fit, found.context
    assert fit is not None and context is not None and isinstance(backend, MaskedBackend)
    scorer, words, task = backend.scorer, context.words, planned.task
    rows, max_length = canary_rows(task.fields), int(planned.identity["max_length"])
    prompts = encode_canaries(rows, planned.template, backend.encoder(max_length), options=planned.options, seed=seed)
    expected = score_canaries(prompts, found.fitted, context, fit.method)
    return Artefact(
        block=planned.block_id,
        method=fit.method.name,
        version=fit.method.version,
        setting=found.setting,
        template=planned.template.template,
        words=fit.verbalizer,
        word_ids=tuple(words.token_ids.tolist()) if words is not None else (),
        labels=task.labels,
        task=task.name,
        family=task.family,
        fields=task.fields,
        max_length=max_length,
        num_shots=fit.shots.num_shots,
        draw=fit.shots.draw,
        row_ids=tuple(fit.shots.examples.id_texts()),
        seed=seed,
        fit_seed=fit.seed,
        record=_without_log(found.record),
        base=Base(scorer.model, scorer.revision, scorer.architecture, scorer.identity()),
        tensors_hash=bytes_hash(as_bytes(found.fitted.tensors)),
        canaries=tuple(Canary(fields, one) for fields, one in zip(rows, expected, strict=True)),
        versions=find_versions(),
        fitted=found.fitted.tensors,
    )


def folder_of(planned: PlannedBlock, run: Path) -> Path:
    """Where a run keeps what it fitted for a block: `fits/<task>-<method>-<shots>-<draw>-<id>`."""
    fit = planned.fit
    assert fit is not None
    parts = (planned.task.name, fit.method.name, fit.shots.num_shots, fit.shots.draw, planned.block_id[:16])
    return run / FITS / "-".join(map(str, parts))


def is_kept(planned: PlannedBlock, folder: Path) -> bool:
    """Whether a folder has the whole artefact of a block already, so that nothing need be fitted once more."""
    if not all((folder / name).is_file() for name in (HEAD, TENSORS)):
        return False
    try:
        artefact = read_artefact(folder)
    except StoreError:
        return False
    return artefact.block == planned.block_id and artefact.tensors_hash == file_hash(folder / TENSORS)


def _without_log(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its log step by step, which a block keeps and an artefact does not."""
    return {name: value for name, value in record.items() if name != "log"}
