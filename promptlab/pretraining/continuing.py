"""A masked checkpoint of transformers and raw text -> the checkpoint after more masked-LM pretraining on that text.

The rule guarded here: what happens at a step depends on the options, the checkpoint, the corpora, the seed and the step
alone, dropout included, so a run that was killed and goes on makes the losses and the weights of one that was not, and
several processes those of one, up to rounding.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import ModelError, UsageError
from promptlab.pretraining.checkpoints import load_model, load_moments, save_checkpoint
from promptlab.pretraining.clock import Clock
from promptlab.pretraining.corpus import Corpus
from promptlab.pretraining.denormals import flushed_denormals
from promptlab.pretraining.domain import Domain, make_batches, prepare_domain
from promptlab.pretraining.job import Job, PretrainingStopped, Report, find_standing
from promptlab.pretraining.masked_loss import measure_loss, summed_loss
from promptlab.pretraining.masking import HiddenPlaces, hide_words
from promptlab.pretraining.optimising import build_plain_optimizer, scheduled_factor, set_rate
from promptlab.pretraining.options import Continuation
from promptlab.pretraining.processes import ALONE, Processes
from promptlab.pretraining.recording import RunLog, export_continued, make_record, write_record
from promptlab.pretraining.sharing import seeded_dropout, share_step
from promptlab.pretraining.standing import Measured, Standing
from promptlab.pretraining.stopping import StopWish, listen_for_stop
from promptlab.seeding import derive_seed


@flushed_denormals()
def continue_pretraining(
    job: Job[Continuation],
    *,
    general: tuple[Corpus, ...] = (),
    resume: bool,
    report: Report,
    processes: Processes = ALONE,
) -> None:
    """Train on from a checkpoint and leave a transformers folder.

    Args:
        job: The run; its recipe names the checkpoint.
        general: Text that is measured and never trained on, to see what the model forgets.
        resume: Go on from the run's own checkpoint.
        report: Takes a line of progress.
        processes: Who shares the work; the first writes and reports.
    """
    report = processes.voice(report)
    trainer, standing = processes.in_turn(lambda: _prepare(job, general, processes, resume=resume, report=report))
    with listen_for_stop() as wish:
        trainer.run(standing, wish)


def _prepare(
    job: Job[Continuation], general: tuple[Corpus, ...], processes: Processes, *, resume: bool, report: Report
) -> tuple["_Trainer", Standing | None]:
    """Read checkpoint and corpora, and find where the run stands; nothing but the encoded corpora is written."""
    options = job.recipe
    share_step(processes, batch_rows=options.batch_rows, accumulate=options.accumulate)  # refuses before hours of work
    backend = MaskedBackend(options.model, revision=options.revision, device=job.device)
    scorer = backend.scorer
    hashes = {"weights_hash": scorer.weights_hash, "tokenizer_hash": scorer.tokenizer_hash}
    job = replace(job, recipe=options.model_copy(update=hashes))
    standing = find_standing(job, Standing, resume=resume)
    if standing is None and (job.output_path / "config.json").exists():
        raise UsageError(f"{job.output_path} holds a model that is not of this run; choose another --output-path.")
    if (backend.device, options.precision) == ("cpu", "bfloat16"):  # torch's fused attention is slower there
        backend.model.set_attn_implementation("eager")
    domain = prepare_domain(job, backend, general, report=report)
    return _Trainer(job, backend, domain, report, processes), standing


@dataclass(frozen=True)
class _Stepped:
    """A step: the mean loss before it, the tokens read, and whether a process was asked to stop."""

    loss: float
    num_tokens: int
    is_to_stop: bool


class _Trainer:
    """Steps through the run; its state is the net, the optimizer and where the run stands.

    Every process has one and decides alike; the first one writes.
    """

    def __init__(
        self, job: Job[Continuation], backend: MaskedBackend, domain: Domain, report: Report, processes: Processes
    ) -> None:
        self.job = job
        self.options = job.recipe
        self.backend = backend
        self.domain = domain
        self.report = report
        self.processes = processes
        self.shares = share_step(processes, batch_rows=self.options.batch_rows, accumulate=self.options.accumulate)
        self.batches, self.starts = make_batches(job, domain)
        self.steps = self.options.count_steps(len(self.batches.rows))
        self.precision = getattr(torch, self.options.precision)
        self.optimizer = build_plain_optimizer(
            backend.model, learning_rate=self.options.learning_rate, weight_decay=self.options.weight_decay
        )
        self.log: RunLog | None = None

    def run(self, stored: Standing | None, wish: StopWish) -> None:
        """Run what is left of the steps, and write the model."""
        standing = self._begin(stored)
        clock = Clock("continuing", self.steps, report=self.report)
        earlier, saved_at = standing.seconds, time.monotonic()
        every = self.options.steps_between_measurements(self.steps)
        while standing.step < self.steps and not standing.is_exhausted(self.options.patience):
            done = self._step(standing.step, wish)
            standing = replace(standing, step=standing.step + 1, tokens=standing.tokens + done.num_tokens)
            standing = replace(standing, seconds=earlier + clock.seconds)
            self._log_step(standing, done.loss)
            clock.tick(standing, loss=done.loss, tokens=done.num_tokens)
            is_last = standing.step == self.steps
            if standing.step % every == 0 or is_last:
                standing = self._measure(standing)
                self._keep_best(standing)
            is_due = time.monotonic() - saved_at > 60 * self.options.checkpoint_minutes
            if is_due or done.is_to_stop or is_last or standing.is_exhausted(self.options.patience):
                self._save(standing)
                saved_at = time.monotonic()
            if done.is_to_stop and not is_last:
                stopped = f"Stopped at step {standing.step:,} of {self.steps:,}; --resume goes on."
                self.processes.leave(PretrainingStopped(stopped))
        self._finish(standing)

    def _begin(self, stored: Standing | None) -> Standing:
        """Go on from what is stored; a fresh run measures the base and stores where it begins."""
        if self.processes.is_first:
            self.log = RunLog(self.job.output_path, step=None if stored is None else stored.step)
        if stored is not None:
            load_model(self.job.checkpoint_path, self.backend.model)
            load_moments(self.job.checkpoint_path, self.backend.model, self.optimizer, step=stored.step)
            self.report(f"going on from step {stored.step:,} of {self.steps:,}")
            return stored
        standing = self._measure(Standing())
        self._save(standing)
        self._keep_best(standing)
        return standing

    def _step(self, step: int, wish: StopWish) -> _Stepped:
        """Move the weights once."""
        hidden = self._hide(step)
        set_rate(
            self.optimizer,
            scheduled_factor(self.options.schedule, warm_up=self.options.warm_up, step=step, steps=self.steps),
        )
        mine = self._add_gradients(hidden, step)
        parameters = list(self.backend.model.parameters())
        self.processes.sum_gradients(parameters)
        loss, num_wishes = self.processes.sum_numbers(mine, float(wish.is_made))
        if not math.isfinite(loss):
            fault = f"The loss of step {step + 1:,} is {loss}: lower --learning-rate, or use float32."
            self.processes.leave(ModelError(fault))
        torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return _Stepped(loss, hidden.ids.numel(), is_to_stop=num_wishes > 0)

    def _add_gradients(self, hidden: HiddenPlaces, step: int) -> float:
        """Add the gradients of this process's rows to those of the net, and give their part of the mean loss.

        Both are divided by the hidden tokens of all processes, so that the sum over them is the mean over the step.
        """
        part_of_loss = 0.0
        self.backend.model.train()
        for share in self.shares:
            before = share.batch * self.options.batch_rows
            part = hidden.part(before + share.first, before + share.last)
            seed = derive_seed(self.job.seed, "dropout", step, share.batch)
            with seeded_dropout(seed, share, row_length=self.options.row_length, device=self.backend.device):
                loss = summed_loss(self.backend, part, precision=self.precision) / max(1, len(hidden.targets))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            part_of_loss += float(loss.detach())
        return part_of_loss

    def _hide(self, step: int) -> HiddenPlaces:
        spelling = self.domain.spelling
        starts = None if self.starts is None else self.starts.at(step)
        seed = derive_seed(self.job.seed, "masks", step)
        rows, masking = self.batches.at(step), self.options.masking
        return hide_words(rows, starts, spelling.can_hide, masking, mask_id=spelling.mask_id, seed=seed)

    def _log_step(self, standing: Standing, loss: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        self._note(step=standing.step, tokens=standing.tokens, seconds=standing.seconds, loss=loss, rate=rate)

    def _note(self, **entry: float | None) -> None:
        """Add a line to the log."""
        if self.log is not None:
            self.log.append(**entry)

    def _measure(self, standing: Standing) -> Standing:
        """Measure the held-out and the general text, and say so."""
        held_out = measure_loss(self.backend, self.domain.held_out, self.processes)
        other = self.domain.general
        general = None if other is None else measure_loss(self.backend, other, self.processes)
        standing = replace(standing, measured=(*standing.measured, (standing.step, held_out, general)))
        self._note(step=standing.step, held_out_loss=held_out, general_loss=general)
        beside = "" if general is None else f", general {math.exp(general):,.2f}"
        self.report(f"step {standing.step:,}: held-out perplexity {math.exp(held_out):,.2f}{beside}")
        return standing

    def _save(self, standing: Standing) -> None:
        if self.processes.is_first:
            save_checkpoint(
                self.job.checkpoint_path,
                model=self.backend.model,
                optimizer=self.optimizer,
                progress=standing,
                identity=self.job.identity,
            )

    def _keep_best(self, standing: Standing) -> None:
        """Write the model if the last measurement is the best, where the best weights are wanted."""
        if self.options.patience and standing.best.step == standing.step:
            self._export()

    def _export(self) -> None:
        if self.processes.is_first:
            base, folder = self.backend.checkpoint, self.job.output_path
            export_continued(self.backend.model, base, folder, store_dtype=self.options.store_dtype)

    def _finish(self, standing: Standing) -> None:
        """Write the model, unless the best of it lies there already, and the record of the run."""
        if not self.options.patience:
            self._export()
        kept = standing.best if self.options.patience else standing.measurements[-1]
        if self.processes.is_first:
            write_record(self.job.output_path, self._record(standing, kept))
        if kept.step < standing.step:
            self.report(f"the weights of step {kept.step:,} are kept: nothing after it was better on held-out text")
        before, after = (math.exp(one.held_out) for one in (standing.measurements[0], kept))
        self.report(f"held-out perplexity {before:,.2f} before, {after:,.2f} after: {self.job.output_path}")

    def _record(self, standing: Standing, kept: Measured) -> dict[str, Any]:
        return make_record(
            self.job,
            self.backend.scorer,
            standing,
            kept,
            num_measured_tokens=len(self.domain.held_out.targets),
            runs_on={**self.backend.facts(), "processes": self.processes.number},
        )
