"""A recipe and corpora -> a trained model folder, in as many sittings as it takes.

The rule guarded here: what happens at a step depends on the recipe, the corpora, the seed and the step alone, so a run
that was killed and goes on from its checkpoint makes the same losses as one that was not.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import ModernBertForMaskedLM

from promptlab.errors import DataError, PromptlabError, UsageError
from promptlab.pretraining.architecture import build_model, masked_states
from promptlab.pretraining.checkpoints import Progress, load_model, load_moments, read_progress, save_checkpoint
from promptlab.pretraining.corpus import Corpus, digest_file
from promptlab.pretraining.exporting import export_model
from promptlab.pretraining.losses import masked_cross_entropy
from promptlab.pretraining.masking import MaskedRows, mask_rows, masking_weights
from promptlab.pretraining.measuring import HeldOut, mask_held_out, measure_loss
from promptlab.pretraining.optimising import build_optimizer, hold_whole_text_heads, rate_factor, set_rate
from promptlab.pretraining.packing import Rows, pack_held_out, pack_pass
from promptlab.pretraining.recipe import Recipe, Stage
from promptlab.pretraining.starting import start_from_vectors
from promptlab.pretraining.stopping import StopWish, listen_for_stop
from promptlab.pretraining.token_store import TokenStore, open_store, training_documents
from promptlab.pretraining.vectors import count_tokens, learn_vectors
from promptlab.pretraining.vocabulary import load_tokenizer, train_vocabulary
from promptlab.seeding import derive_seed

Report = Callable[[str], None]

_HELD_OUT_LENGTH = 128
_MAX_HELD_OUT_ROWS = 1_000
_REPORT_SECONDS = 30.0


class PretrainingStopped(PromptlabError):
    """The user stopped a run; its state is stored."""

    exit_code = 130


@dataclass(frozen=True)
class Job:
    """One pretraining run: what it reads, by which recipe, where it writes."""

    recipe: Recipe
    corpora: tuple[Corpus, ...]
    output_path: Path
    seed: int
    device: str = "cpu"

    @property
    def checkpoint_path(self) -> Path:
        """The file of the state."""
        return self.output_path / "training" / "checkpoint.safetensors"

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each corpus."""
        return tuple(corpus.weight for corpus in self.corpora)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes a run this run and no other; the length of a stage may change while it runs."""
        recipe = self.recipe.model_dump(mode="json")
        for stage in recipe["stages"]:
            del stage["tokens"]
        corpora = [[corpus.name, corpus.weight, corpus.separator, digest_file(corpus.path)] for corpus in self.corpora]
        return {"recipe": recipe, "corpora": corpora, "seed": self.seed}


@dataclass(frozen=True)
class _Material:
    """What the training reads: the same in every sitting."""

    tokenizer: Tokenizer
    store: TokenStore
    frequencies: Tensor
    held_out: HeldOut


def pretrain(job: Job, *, resume: bool, report: Report) -> None:
    """Train by the recipe and leave a transformers folder.

    Args:
        job: The run.
        resume: Go on from the run's checkpoint.
        report: Takes a line of progress.
    """
    torch.set_flush_denormal(True)
    progress = _starting_point(job, resume=resume)
    material = _prepare(job, report=report)
    shape = job.recipe.shape
    size = material.tokenizer.get_vocab_size()
    model = build_model(shape, vocabulary_size=size, seed=derive_seed(job.seed, "weights") % 2**31)
    if progress is None:
        _start(model, job, material, report=report)
    else:
        load_model(job.checkpoint_path, model)
        report(f"going on from stage {job.recipe.stages[progress.stage].name}, step {progress.step:,}")
    model.to(job.device).train()
    with listen_for_stop() as wish:
        _Trainer(job, material, model, report, wish).run(progress or Progress(), restored=progress is not None)


def _starting_point(job: Job, *, resume: bool) -> Progress | None:
    """Find where a run stands, and refuse to mix two runs."""
    path = job.checkpoint_path
    if not path.exists():
        if resume:
            raise UsageError(f"--resume: there is no checkpoint {path}; leave the flag out to begin.")
        return None
    if not resume:
        raise UsageError(f"{job.output_path} holds a run already; add --resume to go on, or choose another folder.")
    progress, identity = read_progress(path)
    different = [key for key, value in job.identity.items() if identity.get(key) != value]
    if different:
        raise UsageError(f"--resume: the run in {job.output_path} was begun with another {' and '.join(different)}.")
    return progress


def _prepare(job: Job, *, report: Report) -> _Material:
    """Make the vocabulary, the token store and the held-out rows, or find them where an earlier sitting left them."""
    folder = job.output_path / "training"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(job, folder / "tokenizer.json", report=report)
    store = open_store(
        job.corpora,
        tokenizer,
        cache_path=folder,
        seed=job.seed,
        held_out_one_in=job.recipe.held_out_one_in,
        report=report,
    )
    counts = count_tokens(store, job.weights, vocabulary_size=tokenizer.get_vocab_size())
    frequencies = torch.from_numpy(counts).float()
    rows = pack_held_out(store, length=min(_HELD_OUT_LENGTH, job.recipe.shape.max_length))
    if not len(rows) or not counts.sum():
        raise DataError(
            f"The corpora hold {len(store.lengths):,} documents with {len(store.ids):,} tokens, "
            f"{int(store.held_out.sum()):,} of them held out: too few for one row each of training and held-out text."
        )
    every = -(-len(rows) // _MAX_HELD_OUT_ROWS)
    held_out = mask_held_out(_as_tensor(rows[::every]), frequencies, seed=job.seed)
    report(f"{len(store.ids):,} tokens in {len(store.lengths):,} documents; {len(rows[::every]):,} held-out rows")
    return _Material(tokenizer, store, frequencies, held_out)


def _tokenizer(job: Job, path: Path, *, report: Report) -> Tokenizer:
    if path.exists():
        return load_tokenizer(path)
    report("training the vocabulary")
    rule = job.recipe.vocabulary
    documents = training_documents(job.corpora, seed=job.seed, held_out_one_in=job.recipe.held_out_one_in)
    tokenizer = train_vocabulary(documents, size=rule.size, whole_words=rule.whole_words)
    tokenizer.save(str(path))
    return tokenizer


def _start(model: ModernBertForMaskedLM, job: Job, material: _Material, *, report: Report) -> None:
    report("learning word vectors")
    vectors = learn_vectors(
        material.store,
        job.weights,
        vectors=job.recipe.vectors,
        vocabulary_size=material.tokenizer.get_vocab_size(),
        width=job.recipe.shape.width,
        seed=job.seed,
    )
    masking = job.recipe.stages[0].masking
    loss = start_from_vectors(
        model, vectors, material.held_out.content_words, weights=masking_weights(material.frequencies, masking)
    )
    report(f"the net starts as a bag of words: held-out loss {loss:.3f} on content words")


def _as_tensor(rows: Rows) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64))


class _Trainer:
    """Steps through the stages; its state is the net, the optimizer and the progress."""

    def __init__(
        self, job: Job, material: _Material, model: ModernBertForMaskedLM, report: Report, wish: StopWish
    ) -> None:
        self.job = job
        self.material = material
        self.model = model
        self.report = report
        self.wish = wish
        self.precision = getattr(torch, job.recipe.precision)

    def run(self, progress: Progress, *, restored: bool) -> None:
        """Run what is left of the stages."""
        for index in range(progress.stage, len(self.job.recipe.stages)):
            stage = self.job.recipe.stages[index]
            optimizer = build_optimizer(self.model, stage, self.job.recipe)
            if restored:
                load_moments(self.job.checkpoint_path, self.model, optimizer, step=progress.step)
                restored = False
            progress = self._run_stage(stage, optimizer, progress)
            if index + 1 < len(self.job.recipe.stages):
                progress = replace(progress, stage=index + 1, step=0)
        export_model(self.model, self.material.tokenizer, self.job.output_path)
        self.report(f"done: {self.job.output_path}")

    def _run_stage(self, stage: Stage, optimizer: torch.optim.Optimizer, progress: Progress) -> Progress:
        rows_a_step = max(1, stage.batch_tokens // stage.length)
        steps = max(1, stage.tokens // (rows_a_step * stage.length))
        weights = masking_weights(self.material.frequencies, stage.masking)
        batches = _Batches(self.job, self.material.store, stage, progress.stage, rows_a_step)
        clock = _Clock(stage.name, steps, report=self.report)
        saved_at = time.monotonic()
        before = progress
        for step in range(progress.step, steps):
            seed = derive_seed(self.job.seed, "masks", progress.stage, step)
            masked = mask_rows(batches.at(step), weights, stage.masking, seed=seed)
            set_rate(optimizer, rate_factor(stage, step=step, steps=steps))
            loss = self._step(masked, optimizer, stage)
            progress = replace(progress, step=step + 1, tokens=progress.tokens + masked.ids.numel())
            progress = replace(progress, seconds=before.seconds + clock.seconds)
            clock.tick(progress, loss=loss, tokens=masked.ids.numel())
            is_due = time.monotonic() - saved_at > 60 * self.job.recipe.checkpoint_minutes
            if is_due or self.wish.is_made or step + 1 == steps:
                self._save(optimizer, progress, stage)
                saved_at = time.monotonic()
            if self.wish.is_made:
                raise PretrainingStopped(f"Stopped at step {step + 1:,} of stage {stage.name}; --resume goes on.")
        return progress

    def _step(self, masked: MaskedRows, optimizer: torch.optim.Optimizer, stage: Stage) -> float:
        device = self.job.device
        ids, positions = masked.ids.to(device), masked.positions.to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision is torch.bfloat16):
            states = masked_states(self.model, ids, positions, awake=stage.awake_layers)
        decoder = self.model.decoder
        loss = masked_cross_entropy(
            states.flatten(0, 1).float(),
            decoder.weight,
            decoder.bias,
            masked.targets.to(device).flatten(),
            precision=self.precision,
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        hold_whole_text_heads(self.model, heads=stage.whole_text_heads)
        moving = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(moving, self.job.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _save(self, optimizer: torch.optim.Optimizer, progress: Progress, stage: Stage) -> None:
        save_checkpoint(
            self.job.checkpoint_path,
            model=self.model,
            optimizer=optimizer,
            progress=progress,
            identity=self.job.identity,
        )
        export_model(self.model, self.material.tokenizer, self.job.output_path)
        self.model.eval()
        loss = measure_loss(self.model, self.material.held_out, awake=stage.awake_layers)
        self.model.train()
        self.report(f"held-out loss {loss.any_word:.3f} on any word, {loss.content_words:.3f} on content words")
        entry = {"stage": stage.name, **asdict(progress), "held_out": asdict(loss)}
        with (self.job.output_path / "training" / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")


class _Batches:
    """The rows of each step; a pass is packed when its first row is wanted."""

    def __init__(self, job: Job, store: TokenStore, stage: Stage, stage_index: int, rows_a_step: int) -> None:
        self.job = job
        self.store = store
        self.stage = stage
        self.stage_index = stage_index
        self.rows_a_step = rows_a_step
        self.first_step = 0
        self.rows = self._pack(0)
        self.pass_index = 0

    def at(self, step: int) -> Tensor:
        """Give the rows of a step, shape (row, token); steps are asked for in rising order."""
        while (step - self.first_step + 1) * self.rows_a_step > len(self.rows):
            self.first_step += len(self.rows) // self.rows_a_step
            self.pass_index += 1
            self.rows = self._pack(self.pass_index)
        start = (step - self.first_step) * self.rows_a_step
        return _as_tensor(self.rows[start : start + self.rows_a_step])

    def _pack(self, pass_index: int) -> Rows:
        seed = derive_seed(self.job.seed, "stage", self.stage_index)
        rows = pack_pass(self.store, self.job.weights, length=self.stage.length, seed=seed, pass_index=pass_index)
        if len(rows) < self.rows_a_step:
            raise DataError(
                f"A pass over the corpora has {len(rows)} rows of {self.stage.length} tokens, "
                f"but a step of stage {self.stage.name} takes {self.rows_a_step}; lower batch_tokens."
            )
        return rows


class _Clock:
    """Counts the time of a stage and says now and then how far it is."""

    def __init__(self, name: str, steps: int, *, report: Report) -> None:
        self.name = name
        self.steps = steps
        self.report = report
        self.begun = self.last = time.monotonic()
        self.losses: list[float] = []
        self.tokens = 0

    @property
    def seconds(self) -> float:
        """Seconds since this sitting of the stage began."""
        return time.monotonic() - self.begun

    def tick(self, progress: Progress, *, loss: float, tokens: int) -> None:
        """Take note of a step; speak at most every half minute, and at the end."""
        self.losses.append(loss)
        self.tokens += tokens
        now = time.monotonic()
        if now - self.last < _REPORT_SECONDS and progress.step < self.steps:
            return
        rate = self.tokens / max(now - self.last, 1e-9)
        left = (self.steps - progress.step) * tokens / rate / 60
        self.report(
            f"{self.name} {progress.step:,}/{self.steps:,} steps  {progress.tokens / 1e6:.1f} M tokens  "
            f"loss {sum(self.losses) / len(self.losses):.3f}  {rate:,.0f} tokens/s  {left:.1f} min left"
        )
        self.last, self.losses, self.tokens = now, [], 0
