"""A recipe and corpora -> a trained model folder, in as many sittings as it takes.

The rule guarded here: what happens at a step depends on the recipe, the corpora, the seed and the step alone, so a run
that was stopped and goes on from its checkpoint makes the same losses as one that was not.
"""

import json
import time
from dataclasses import asdict, replace

import torch
from transformers import ModernBertForMaskedLM

from promptlab.pretraining.architecture import build_model, masked_states
from promptlab.pretraining.batches import Batches
from promptlab.pretraining.checkpoints import Progress, load_model, load_moments, save_checkpoint
from promptlab.pretraining.clock import Clock
from promptlab.pretraining.denormals import flushed_denormals
from promptlab.pretraining.exporting import export_model
from promptlab.pretraining.job import Job, PretrainingStopped, Report, find_start
from promptlab.pretraining.losses import masked_cross_entropy
from promptlab.pretraining.masking import MaskedRows, mask_rows, masking_weights
from promptlab.pretraining.measuring import measure_loss
from promptlab.pretraining.optimising import build_optimizer, hold_whole_text_heads, rate_factor, set_rate
from promptlab.pretraining.packing import Rows, pack_pass
from promptlab.pretraining.preparing import Material, prepare, start_model
from promptlab.pretraining.recipe import Recipe, Stage
from promptlab.pretraining.stopping import StopWish, listen_for_stop
from promptlab.seeding import derive_seed


@flushed_denormals()
def pretrain(job: Job[Recipe], *, resume: bool, report: Report) -> None:
    """Train by the recipe and leave a transformers folder.

    Args:
        job: The run.
        resume: Go on from the run's checkpoint.
        report: Takes a line of progress.
    """
    progress = find_start(job, resume=resume)
    material = prepare(job, report=report)
    shape = job.recipe.shape
    size = material.tokenizer.get_vocab_size()
    model = build_model(shape, vocabulary_size=size, seed=derive_seed(job.seed, "weights") % 2**31)
    if progress is None:
        start_model(model, job, material, report=report)
    else:
        load_model(job.checkpoint_path, model)
        report(f"going on from stage {job.recipe.stages[progress.stage].name}, step {progress.step:,}")
    model.to(job.device).train()
    with listen_for_stop() as wish:
        _Trainer(job, material, model, report, wish).run(progress or Progress(), restored=progress is not None)


class _Trainer:
    """Steps through the stages; its state is the net, the optimizer and the progress."""

    def __init__(
        self, job: Job[Recipe], material: Material, model: ModernBertForMaskedLM, report: Report, wish: StopWish
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
        batches = self._batches(stage, progress.stage, rows_a_step)
        clock = Clock(stage.name, steps, report=self.report)
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

    def _batches(self, stage: Stage, stage_index: int, rows_a_step: int) -> Batches:
        seed = derive_seed(self.job.seed, "stage", stage_index)
        store, weights = self.material.store, self.job.weights

        def pack(pass_index: int) -> Rows:
            return pack_pass(store, weights, length=stage.length, seed=seed, pass_index=pass_index)

        return Batches(pack, rows_a_step=rows_a_step, remedy=f"lower batch_tokens of stage {stage.name}")

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
