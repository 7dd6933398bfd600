"""Continued pretraining of tiny models: the loss on masked rows, exact resume, early stopping, what it leaves."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import DataError, ModelError, UsageError
from promptlab.pretraining import continuing
from promptlab.pretraining.continuing import continue_pretraining
from promptlab.pretraining.corpus import Corpus
from promptlab.pretraining.domain import find_spelling
from promptlab.pretraining.job import Job, PretrainingStopped
from promptlab.pretraining.masked_loss import measure_loss, summed_loss
from promptlab.pretraining.masking import hide_words
from promptlab.pretraining.options import Continuation, parse_options
from promptlab.pretraining.recipe import Masking
from promptlab.pretraining.standing import Standing
from tests.tiny_models import SENTENCES

ARCHITECTURES = ("bert", "roberta", "modernbert", "xlm_roberta", "distilbert", "albert", "electra", "deberta_v2")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny nets are fastest on one thread."""
    torch.set_num_threads(1)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A toy corpus of many short documents."""
    path = tmp_path / "notes.txt"
    path.write_text("\n\n".join(SENTENCES * 12))
    return path


def make_job(model: Path, notes: Path, folder: str, **options: Any) -> Job[Continuation]:
    """A run of a few steps."""
    few = {"row_length": 32, "batch_rows": 4, "steps": 6, "learning_rate": 3e-3, "held_out_one_in": 4}
    spec = parse_options({"model": str(model), "measure_every": 2, **few, **options})
    return Job(spec, (Corpus(notes),), notes.parent / folder, 1)


def adapt(job: Job[Continuation], *, resume: bool = False, general: tuple[Corpus, ...] = ()) -> list[str]:
    """Run it and give what it said."""
    said: list[str] = []
    continue_pretraining(job, general=general, resume=resume, report=said.append)
    return said


def log_of(job: Job[Continuation], key: str) -> dict[int, float]:
    """The values of a key of the log by step, each step once."""
    lines = (job.output_path / "training" / "log.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if key in entry]
    assert len({entry["step"] for entry in entries}) == len(entries)
    return {entry["step"]: entry[key] for entry in entries}


def record_of(job: Job[Continuation]) -> dict[str, Any]:
    """The record of a finished run."""
    record: dict[str, Any] = json.loads((job.output_path / "training" / "adaptation.json").read_text())
    return record


def weights_of(job: Job[Continuation]) -> bytes:
    """The bytes of the written weights."""
    return (job.output_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_loss_on_masked_rows_is_that_of_the_plain_forward(tiny: dict[str, Path], kind: str) -> None:
    """Value and gradients equal the model's own loss with -100 wherever nothing is hidden, to 1e-5."""
    backend = MaskedBackend(str(tiny[kind]), device="cpu")
    model = backend.model.eval()
    assert backend.facts()["head"] == "masks only"
    size = len(model.get_input_embeddings().weight)
    spelling = find_spelling(backend.tokenizer, num_embeddings=size)
    rows = spelling.can_hide.nonzero().flatten()[torch.randint(int(spelling.can_hide.sum()), (3, 20))]
    places = hide_words(rows, None, spelling.can_hide, Masking(rate=0.3), mask_id=spelling.mask_id, seed=2)
    labels = torch.full_like(rows, -100)
    labels[places.rows, places.positions] = places.targets
    plain = model(input_ids=places.ids, labels=labels).loss
    plain.backward()
    wanted = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    loss = summed_loss(backend, places) / len(places.targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert pytest.approx(float(loss.detach()), abs=1e-5) == measure_loss(backend, places)


def test_where_the_head_needs_all_positions_the_loss_is_the_same(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fall-back computes what the shortcut does."""
    rows = torch.randint(5, 100, (2, 12))
    places = hide_words(rows, None, torch.ones(2000, dtype=torch.bool), Masking(rate=0.3), mask_id=4, seed=2)
    short = float(summed_loss(MaskedBackend(str(tiny["bert"]), device="cpu"), places).detach())
    monkeypatch.setattr(MaskedBackend, "_probe", lambda self, model: False)
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    assert backend.facts()["head"] == "all positions"
    assert pytest.approx(short, rel=1e-5) == float(summed_loss(backend, places).detach())


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_run_that_goes_on_makes_the_losses_of_one_that_was_whole(
    tiny: dict[str, Path], notes: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With dropout, whole words and accumulation: the same losses to 1e-6 and the same bytes of weights.

    A polite stop stores the step it is in; after a kill, the steps since the last checkpoint are made again.
    """
    options = {"whole_word": True, "accumulate": 2, "batch_rows": 2, "precision": "float32"}
    whole, cut = (make_job(tiny["bert"], notes, folder, **options) for folder in ("whole", "cut"))
    adapt(whole)
    calls: list[int] = []

    def break_off(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            if way == "killed":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
        return hide_words(*args, **more)

    if way == "killed":
        cut = replace(cut, recipe=cut.recipe.model_copy(update={"checkpoint_minutes": 1e-9}))
    monkeypatch.setattr(continuing, "hide_words", break_off)
    with pytest.raises(PretrainingStopped if way == "stopped" else KeyboardInterrupt):
        adapt(cut)
    assert not (cut.output_path / "model.safetensors").exists()
    said = adapt(cut, resume=True)
    assert f"going on from step {4 if way == 'stopped' else 3} of 6" in said
    assert pytest.approx(log_of(whole, "loss"), abs=1e-6) == log_of(cut, "loss")
    assert pytest.approx(log_of(whole, "held_out_loss"), abs=1e-6) == log_of(cut, "held_out_loss")
    assert [1, 2, 3, 4, 5, 6] == sorted(log_of(cut, "loss")) and [0, 2, 4, 6] == sorted(log_of(cut, "held_out_loss"))
    assert weights_of(whole) == weights_of(cut)


def test_dropout_is_on_in_training_and_off_in_measuring(tiny: dict[str, Path], notes: Path) -> None:
    """The loss of the first step is not that of a net without dropout, and what is measured is."""
    job = make_job(tiny["bert"], notes, "out", steps=1, measure_every=1, learning_rate=1e-9)
    adapt(job)
    still = make_job(_without_dropout(tiny["bert"], notes.parent / "still"), notes, "calm", steps=1, learning_rate=1e-9)
    adapt(still)
    assert log_of(job, "loss")[1] != pytest.approx(log_of(still, "loss")[1], abs=1e-4)
    assert pytest.approx(log_of(job, "held_out_loss")[0], abs=1e-6) == log_of(still, "held_out_loss")[0]


def test_accumulation_equals_a_larger_batch(tiny: dict[str, Path], notes: Path) -> None:
    """Two batches of three rows move the weights as one batch of six does, to 1e-6."""
    still = _without_dropout(tiny["bert"], notes.parent / "still")
    parts = [("one", {"batch_rows": 6}), ("two", {"batch_rows": 3, "accumulate": 2})]
    jobs = [make_job(still, notes, folder, steps=2, learning_rate=1e-4, **options) for folder, options in parts]
    for job in jobs:
        adapt(job)
    assert pytest.approx(log_of(jobs[0], "loss"), abs=1e-6) == log_of(jobs[1], "loss")
    assert log_of(jobs[0], "tokens") == log_of(jobs[1], "tokens") == {1: 192, 2: 384}


def _without_dropout(model: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    zero = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | zero))
    return folder


def test_what_a_run_leaves(tiny: dict[str, Path], notes: Path) -> None:
    """Held-out perplexity falls; plain transformers loads the folder, and it scores what was measured."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    job = make_job(tiny["roberta"], notes, "out", steps=20, measure_every=10)
    general = notes.parent / "other.txt"
    general.write_text("\n\n".join(f"{text} once more" for text in reversed(SENTENCES * 3)))
    said = adapt(job, general=(Corpus(general),))
    losses, record = log_of(job, "held_out_loss"), record_of(job)
    assert losses[20] < losses[0] - 0.5
    assert f"held-out perplexity {math.exp(losses[0]):,.2f} before, {math.exp(losses[20]):,.2f} after" in said[-1]
    assert {"before": losses[0], "after": losses[20]} == record["measured"]["held-out text"]
    assert {"held-out text", "general text"} == set(record["measured"])
    base = MaskedBackend(str(tiny["roberta"]), device="cpu").scorer
    assert (base.weights_hash, base.tokenizer_hash) == (
        record["base"]["weights_hash"],
        record["base"]["tokenizer_hash"],
    )
    assert (20, 20 * 4 * 32, 1) == tuple(record[key] for key in ("steps", "tokens", "seed"))
    assert tiny["roberta"].name == record["base"]["name"] == record["options"]["model"]
    assert str(notes.parent) not in json.dumps(record) + (job.output_path / "README.md").read_text()
    model = AutoModelForMaskedLM.from_pretrained(job.output_path)
    assert type(model).__name__ == "RobertaForMaskedLM" and torch.float32 == model.dtype
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert AutoTokenizer.from_pretrained(job.output_path).is_fast
    assert base.tokenizer_hash == MaskedBackend(str(job.output_path), device="cpu").scorer.tokenizer_hash
    assert {"config.json", "model.safetensors", "README.md", "training"} < {
        one.name for one in job.output_path.iterdir()
    }


def test_a_written_model_scores_what_was_measured_and_early_stopping_keeps_the_best(
    tiny: dict[str, Path], notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the held-out loss rises, the run stops after so many measurements, and the weights are the best ones."""
    kept: list[Any] = []
    prepare = continuing.prepare_domain
    monkeypatch.setattr(continuing, "prepare_domain", lambda *a, **o: kept.append(prepare(*a, **o)) or kept[-1])
    rising = {"learning_rate": 0.02, "steps": 40, "schedule": "constant", "warm_up": 0.0, "patience": 2}
    job = make_job(tiny["bert"], notes, "out", **rising)
    said = adapt(job)
    losses, record = log_of(job, "held_out_loss"), record_of(job)
    best = min(losses, key=losses.__getitem__)
    assert record["kept_step"] == best and record["steps"] == best + 4 < 40
    assert f"the weights of step {best:,} are kept" in said[-2]
    written = measure_loss(MaskedBackend(str(job.output_path), device="cpu"), kept[0].held_out)
    assert (
        pytest.approx(losses[best], abs=1e-5) == written == pytest.approx(record["measured"]["held-out text"]["after"])
    )
    before = weights_of(job)
    adapt(job, resume=True)
    assert before == weights_of(job) and losses == log_of(job, "held_out_loss")


def test_patience_counts_measurements_since_the_best() -> None:
    """Equal losses are not better; the base counts as the first."""
    standing = Standing(step=6, measured=((0, 3.0, None), (2, 2.0, None), (4, 2.0, None), (6, 2.5, None)))
    assert 2 == standing.best.step
    assert [False, True, True, False] == [standing.is_exhausted(patience) for patience in (0, 1, 2, 3)]
    assert not Standing().is_exhausted(1)


def test_the_dtype_of_the_base_is_kept_where_it_is_asked_for(tiny: dict[str, Path], notes: Path) -> None:
    """--store-dtype original writes float16 where the base has it; float32 is written otherwise."""
    from transformers import AutoModelForMaskedLM

    half = notes.parent / "half"
    AutoModelForMaskedLM.from_pretrained(tiny["bert"], dtype=torch.float16).save_pretrained(half)
    for path in tiny["bert"].glob("tokenizer*"):
        (half / path.name).write_bytes(path.read_bytes())
    sizes = {}
    for dtype in ("float32", "original"):
        job = make_job(half, notes, dtype, steps=1, store_dtype=dtype)
        adapt(job)
        sizes[dtype] = len(weights_of(job))
    assert 1.8 < sizes["float32"] / sizes["original"] < 2.2


def test_bfloat16_is_near_float32(tiny: dict[str, Path], notes: Path) -> None:
    """Products in bfloat16 change the loss a little, and weights stay in float32."""
    jobs = [make_job(tiny["bert"], notes, name, precision=name, steps=1) for name in ("float32", "bfloat16")]
    for job in jobs:
        adapt(job)
    full, low = (log_of(job, "loss")[1] for job in jobs)
    assert full != low and pytest.approx(full, abs=0.1) == low


def test_folders_and_runs_are_not_mixed(tiny: dict[str, Path], notes: Path) -> None:
    """A run wants --resume and its own options; a folder with another model is refused before any work."""
    job = make_job(tiny["bert"], notes, "out", steps=1)
    with pytest.raises(UsageError, match="there is no checkpoint"):
        adapt(job, resume=True)
    adapt(job)
    with pytest.raises(UsageError, match="add --resume"):
        adapt(job)
    with pytest.raises(UsageError, match="was begun with another learning_rate and seed"):
        adapt(replace(make_job(tiny["bert"], notes, "out", steps=1, learning_rate=1.0), seed=9), resume=True)
    with pytest.raises(UsageError, match="was begun with another weights_hash"):
        adapt(make_job(tiny["bert_cased"], notes, "out", steps=1), resume=True)
    with pytest.raises(UsageError, match="holds a model that is not of this run"):
        adapt(replace(job, output_path=tiny["bert"]))
    assert not (tiny["bert"] / "training").exists()


def test_what_cannot_be_trained_is_one_sentence(tiny: dict[str, Path], detectors: dict[str, Path], notes: Path) -> None:
    """Too long or too short rows, too little text, too large batches, a checkpoint without a head, a wild rate."""
    few = notes.parent / "few.txt"
    few.write_text("one text\n\nanother")
    small = Corpus(few)
    with pytest.raises(UsageError, match=r"--row-length 65: model .* reads at most 64 tokens"):
        adapt(make_job(tiny["roberta"], notes, "a", row_length=65))
    with pytest.raises(DataError, match="too few for a held-out row of 32 tokens; lower --row-length"):
        adapt(make_job(tiny["bert"], few, "b"))
    with pytest.raises(DataError, match=r"a step takes 4000; lower --batch-rows, --accumulate or --row-length"):
        adapt(make_job(tiny["bert"], notes, "c", batch_rows=4000))
    with pytest.raises(DataError, match=r"--general .*few.txt: one document in 4 is measured"):
        adapt(make_job(tiny["bert"], notes, "d"), general=(small,))
    with pytest.raises(ModelError, match="ELECTRA discriminator, which predicts no words"):
        adapt(make_job(detectors["electra"], notes, "e"))
    wild = {"learning_rate": 1e30, "clip_norm": 1e30, "warm_up": 0.0, "measure_every": 6}
    with pytest.raises(ModelError, match="lower --learning-rate"):
        adapt(make_job(tiny["bert"], notes, "f", **wild))
