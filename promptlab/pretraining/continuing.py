"""A masked checkpoint of transformers and raw text -> the checkpoint after more masked-LM pretraining on that text.

The rule guarded here: what happens at a step depends on the options, the checkpoint, the corpora, the seed and the step
alone, dropout included, so a run that was killed and goes on makes the losses and the weights of one that was not.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from promptlab._version import __version__
from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import ModelError, UsageError
from promptlab.pretraining.checkpoints import load_model, load_moments, save_checkpoint
from promptlab.pretraining.clock import Clock
from promptlab.pretraining.corpus import Corpus, digest_file
from promptlab.pretraining.denormals import flushed_denormals
from promptlab.pretraining.domain import Domain, make_batches, prepare_domain
from promptlab.pretraining.job import Job, PretrainingStopped, Report, find_standing
from promptlab.pretraining.masked_loss import measure_loss, summed_loss
from promptlab.pretraining.masking import HiddenPlaces, hide_words
from promptlab.pretraining.optimising import build_plain_optimizer, scheduled_factor, set_rate
from promptlab.pretraining.options import Continuation
from promptlab.pretraining.recording import RunLog, export_continued, write_record
from promptlab.pretraining.standing import Measured, Standing
from promptlab.pretraining.stopping import StopWish, listen_for_stop
from promptlab.seeding import derive_seed


@flushed_denormals()
def continue_pretraining(
    job: Job[Continuation], *, general: tuple[Corpus, ...] = (), resume: bool, report: Report
) -> None:
    """Train on from a checkpoint and leave a transformers folder.

    Args:
        job: The run; its recipe names the checkpoint.
        general: Text that is measured and never trained on, to see what the model forgets.
        resume: Go on from the run's own checkpoint.
        report: Takes a line of progress.
    """
    options = job.recipe
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
    with listen_for_stop() as wish:
        _Trainer(job, backend, domain, report, wish).run(standing)


class _Trainer:
    """Steps through the run; its state is the net, the optimizer and where the run stands."""

    def __init__(
        self, job: Job[Continuation], backend: MaskedBackend, domain: Domain, report: Report, wish: StopWish
    ) -> None:
        self.job = job
        self.options = job.recipe
        self.backend = backend
        self.domain = domain
        self.report = report
        self.wish = wish
        self.batches, self.starts = make_batches(job, domain)
        self.steps = self.options.count_steps(len(self.batches.rows))
        self.precision = getattr(torch, self.options.precision)
        self.optimizer = build_plain_optimizer(
            backend.model, learning_rate=self.options.learning_rate, weight_decay=self.options.weight_decay
        )

    def run(self, stored: Standing | None) -> None:
        """Run what is left of the steps, and write the model."""
        standing = self._begin(stored)
        clock = Clock("continuing", self.steps, report=self.report)
        earlier, saved_at = standing.seconds, time.monotonic()
        every = self.options.steps_between_measurements(self.steps)
        while standing.step < self.steps and not standing.is_exhausted(self.options.patience):
            loss, num_tokens = self._step(standing.step)
            standing = replace(standing, step=standing.step + 1, tokens=standing.tokens + num_tokens)
            standing = replace(standing, seconds=earlier + clock.seconds)
            self._log_step(standing, loss)
            clock.tick(standing, loss=loss, tokens=num_tokens)
            is_last = standing.step == self.steps
            if standing.step % every == 0 or is_last:
                standing = self._measure(standing)
                self._keep_best(standing)
            is_due = time.monotonic() - saved_at > 60 * self.options.checkpoint_minutes
            if is_due or self.wish.is_made or is_last or standing.is_exhausted(self.options.patience):
                self._save(standing)
                saved_at = time.monotonic()
            if self.wish.is_made and not is_last:
                raise PretrainingStopped(f"Stopped at step {standing.step:,} of {self.steps:,}; --resume goes on.")
        self._finish(standing)

    def _begin(self, stored: Standing | None) -> Standing:
        """Go on from what is stored; a fresh run measures the base and stores where it begins."""
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

    def _step(self, step: int) -> tuple[float, int]:
        """Move the weights once; the mean loss before it, and the tokens read."""
        hidden = self._hide(step)
        set_rate(
            self.optimizer,
            scheduled_factor(self.options.schedule, warm_up=self.options.warm_up, step=step, steps=self.steps),
        )
        total = 0.0
        self.backend.model.train()
        with _seeded(derive_seed(self.job.seed, "dropout", step), self.backend.device):
            for number in range(self.options.accumulate):
                first = number * self.options.batch_rows
                part = hidden.part(first, first + self.options.batch_rows)
                loss = summed_loss(self.backend, part, precision=self.precision) / max(1, len(hidden.targets))
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
                total += float(loss.detach())
        if not math.isfinite(total):
            raise ModelError(f"The loss of step {step + 1:,} is {total}: lower --learning-rate, or use float32.")
        torch.nn.utils.clip_grad_norm_(self.backend.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, hidden.ids.numel()

    def _hide(self, step: int) -> HiddenPlaces:
        spelling = self.domain.spelling
        starts = None if self.starts is None else self.starts.at(step)
        seed = derive_seed(self.job.seed, "masks", step)
        rows, masking = self.batches.at(step), self.options.masking
        return hide_words(rows, starts, spelling.can_hide, masking, mask_id=spelling.mask_id, seed=seed)

    def _log_step(self, standing: Standing, loss: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        self.log.append(step=standing.step, tokens=standing.tokens, seconds=standing.seconds, loss=loss, rate=rate)

    def _measure(self, standing: Standing) -> Standing:
        """Measure the held-out and the general text, and say so."""
        held_out = measure_loss(self.backend, self.domain.held_out)
        general = None if self.domain.general is None else measure_loss(self.backend, self.domain.general)
        standing = replace(standing, measured=(*standing.measured, (standing.step, held_out, general)))
        self.log.append(step=standing.step, held_out_loss=held_out, general_loss=general)
        beside = "" if general is None else f", general {math.exp(general):,.2f}"
        self.report(f"step {standing.step:,}: held-out perplexity {math.exp(held_out):,.2f}{beside}")
        return standing

    def _save(self, standing: Standing) -> None:
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
        base = self.backend.checkpoint
        export_continued(self.backend.model, base, self.job.output_path, store_dtype=self.options.store_dtype)

    def _finish(self, standing: Standing) -> None:
        """Write the model, unless the best of it lies there already, and the record of the run."""
        if not self.options.patience:
            self._export()
        write_record(self.job.output_path, self._record(standing))
        kept = self._kept(standing)
        if kept.step < standing.step:
            self.report(f"the weights of step {kept.step:,} are kept: nothing after it was better on held-out text")
        before, after = (math.exp(one.held_out) for one in (standing.measurements[0], kept))
        self.report(f"held-out perplexity {before:,.2f} before, {after:,.2f} after: {self.job.output_path}")

    def _kept(self, standing: Standing) -> Measured:
        return standing.best if self.options.patience else standing.measurements[-1]

    def _record(self, standing: Standing) -> dict[str, Any]:
        scorer, first, kept = self.backend.scorer, standing.measurements[0], self._kept(standing)
        name = Path(scorer.model).name if Path(scorer.model).is_dir() else scorer.model
        measured: dict[str, Any] = {"held-out text": {"before": first.held_out, "after": kept.held_out}}
        if first.general is not None:
            measured["general text"] = {"before": first.general, "after": kept.general}
        return {
            "base": {**dataclasses.asdict(scorer), "model": name, "name": name},
            "corpora": [
                {"name": corpus.name, "weight": corpus.weight, "sha256": digest_file(corpus.path)}
                for corpus in self.job.corpora
            ],
            "options": self.options.model_dump(mode="json") | {"model": name},
            "seed": self.job.seed,
            "steps": standing.step,
            "kept_step": kept.step,
            "tokens": standing.tokens,
            "seconds": standing.seconds,
            "measured": measured,
            "num_measured_tokens": len(self.domain.held_out.targets),
            "runs_on": self.backend.facts(),
            "versions": {
                "promptlab": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }


@contextlib.contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Draw what torch draws by itself, which is dropout, from a seed, and leave its state as it was."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield
