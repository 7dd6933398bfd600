"""Several processes share a step: the same rows, masks, dropout, losses and weights as one process alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import DataError, UsageError
from promptlab.pretraining import processes as module
from promptlab.pretraining.continuing import continue_pretraining
from promptlab.pretraining.corpus import Corpus
from promptlab.pretraining.domain import find_spelling
from promptlab.pretraining.job import Job
from promptlab.pretraining.masked_loss import measure_loss, summed_loss
from promptlab.pretraining.masking import HiddenPlaces, hide_words
from promptlab.pretraining.options import Continuation, parse_options
from promptlab.pretraining.processes import ALONE, Processes, join_processes
from promptlab.pretraining.recipe import Masking
from promptlab.pretraining.sharing import Share, seeded_dropout, share_step
from promptlab.pretraining.stopping import StopWish
from tests.tiny_models import SENTENCES
from tests.two_processes import run_two

ARCHITECTURES = ("bert", "roberta", "modernbert", "xlm_roberta", "distilbert", "albert", "electra", "deberta_v2")


@pytest.mark.parametrize(
    ("number", "batch_rows", "accumulate"), [(1, 3, 2), (2, 3, 4), (3, 6, 1), (2, 4, 3), (4, 4, 4)]
)
def test_every_row_of_a_step_is_of_one_process(number: int, batch_rows: int, accumulate: int) -> None:
    """The shares are equally large, do not meet and leave nothing out."""
    shares = [share_step(Processes(number, i), batch_rows=batch_rows, accumulate=accumulate) for i in range(number)]
    taken = [
        [share.batch * batch_rows + row for share in of_one for row in range(share.first, share.last)]
        for of_one in shares
    ]
    assert list(range(batch_rows * accumulate)) == sorted(row for rows in taken for row in rows)
    assert 1 == len({len(rows) for rows in taken})


def test_whole_batches_are_shared_where_that_is_possible() -> None:
    """Four batches among two processes are cut nowhere; what cannot be shared is refused in one sentence."""
    assert [0, 2] == [share.batch for share in share_step(Processes(2), batch_rows=4, accumulate=4)]
    assert all(share.is_whole for share in share_step(Processes(2), batch_rows=4, accumulate=4))
    with pytest.raises(UsageError, match="--batch-rows 4: 3 processes cannot share a batch evenly; make it a multiple"):
        share_step(Processes(3), batch_rows=4, accumulate=2)


def masked_rows(backend: MaskedBackend, num_rows: int) -> HiddenPlaces:
    """Rows that hide unequal numbers of tokens: more of them in the first half."""
    spelling = find_spelling(backend.tokenizer, num_embeddings=len(backend.model.get_input_embeddings().weight))
    generator = torch.Generator().manual_seed(3)
    rows = spelling.can_hide.nonzero().flatten()[
        torch.randint(int(spelling.can_hide.sum()), (num_rows, 16), generator=generator)
    ]
    rows[num_rows // 2 :, 6:] = backend.tokenizer.sep_token_id
    return hide_words(rows, None, spelling.can_hide, Masking(rate=0.4), mask_id=spelling.mask_id, seed=2)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_shares_of_a_batch_have_its_dropout(tiny: dict[str, Path], kind: str) -> None:
    """Losses and gradients of a batch's parts in training, down to single rows, add up to its own, to 1e-5."""
    backend = MaskedBackend(str(tiny[kind]), device="cpu")
    places, model = masked_rows(backend, 4), backend.model.train()
    assert len(places.part(0, 2).targets) > len(places.part(2, 4).targets)

    def losses(shares: list[Share], seed: int = 5) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for share in shares:
            with seeded_dropout(seed, share, row_length=16, device="cpu"):
                loss = summed_loss(backend, places.part(share.first, share.last))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            total += float(loss.detach())
        return total, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    whole, wanted = losses([Share(0, 0, 4, 4)])
    for rows in (2, 1):
        parts, found = losses([Share(0, first, first + rows, 4) for first in range(0, 4, rows)])
        assert pytest.approx(whole, rel=1e-5) == parts
        assert wanted.keys() == found.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-4, msg=name)
    has_dropout = any(isinstance(part, torch.nn.Dropout) and part.p for part in model.modules())
    assert has_dropout is (losses([Share(0, 0, 4, 4)], seed=6)[0] != whole)


def test_gradients_are_added_in_buckets_and_keep_their_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter with a gradient gets its own sum, whatever fits into a bucket; the others stay without."""
    asked: list[int] = []

    def twice(self: Processes, tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor.numel())
        return tensor * 2

    monkeypatch.setattr(Processes, "sum", twice)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 7)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (1,), (4, 4), (2,), (5,))]
    for parameter in parameters[:4]:
        parameter.grad = torch.arange(parameter.numel(), dtype=torch.float32).view_as(parameter)
    wanted = [2 * parameter.grad for parameter in parameters[:4] if parameter.grad is not None]
    Processes(2).sum_gradients(parameters)
    assert [7, 16, 2] == asked
    for gradient, parameter in zip(wanted, parameters, strict=False):
        torch.testing.assert_close(parameter.grad, gradient)
    assert parameters[4].grad is None


def test_held_out_losses_are_added_over_processes(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes measure half of the rows each, and divide by the hidden tokens of both."""
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    places = masked_rows(backend, 70)
    parts: list[float] = []
    monkeypatch.setattr(Processes, "sum_numbers", lambda self, value: parts.append(value) or [value])
    alone = measure_loss(backend, places, ALONE)
    for index in range(2):
        measure_loss(backend, places, Processes(2, index))
    assert all(0 < part < parts[0] for part in parts[1:])
    assert pytest.approx(alone, rel=1e-9) == sum(parts[1:]) / len(places.targets)


def test_a_fault_is_told_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that has it raises it, the others leave in silence with its exit code."""
    with pytest.raises(SystemExit, match="2"):
        Processes(2, 1).leave(UsageError("no"))
    with pytest.raises(UsageError, match="no"):
        Processes(2, 0).leave(UsageError("no"))
    monkeypatch.setattr(Processes, "sum_numbers", lambda self, *codes: [0.0, 1.0])
    with pytest.raises(SystemExit, match="1"):
        Processes(2, 0).in_turn(lambda: 3)
    monkeypatch.setattr(Processes, "sum_numbers", lambda self, *codes: list(codes))
    with pytest.raises(DataError, match="mine"):
        Processes(2, 1).in_turn(_fail)


def _fail() -> None:
    raise DataError("mine")


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no accelerate; where a launcher started several, what is missing is named."""
    for name in ("WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join_processes("cpu") as alone:
        assert Processes(1, 0, "cpu") == alone and [2.5] == alone.sum_numbers(2.5) and 3 == alone.in_turn(lambda: 3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=r"4 processes were started, and torch finds 2 CUDA devices"), _join("cuda"):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"accelerate, which is not installed: pip install 'promptlab\[devices\]'"):
        _join("cpu").__enter__()


def _join(device: str) -> Any:
    return join_processes(device)


def test_two_signals_at_once_are_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher repeats what the terminal sends; a later signal stops at once."""
    now = [10.0]
    monkeypatch.setattr("promptlab.pretraining.stopping.time.monotonic", lambda: now[0])
    wish = StopWish()
    wish.make(2, None)
    wish.make(15, None)
    assert wish.is_made
    now[0] = 13.0
    with pytest.raises(KeyboardInterrupt):
        wish.make(2, None)


def make_job(model: Path, notes: Path, folder: str, **options: Any) -> Job[Continuation]:
    """A run of six steps with dropout and words hidden whole."""
    few = {"row_length": 32, "batch_rows": 4, "steps": 6, "learning_rate": 3e-3, "held_out_one_in": 4}
    spec = parse_options({"model": str(model), "measure_every": 2, "whole_word": True, **few, **options})
    return Job(spec, (Corpus(notes),), notes.parent / folder, 1)


def log_of(job: Job[Continuation]) -> dict[tuple[int, str], float]:
    """Every loss of the log, each written once."""
    lines = map(json.loads, (job.output_path / "training" / "log.jsonl").read_text().splitlines())
    found = [((line["step"], key), line[key]) for line in lines for key in ("loss", "held_out_loss") if key in line]
    assert len(found) == len(dict(found))
    return dict(found)


def test_two_processes_make_the_run_of_one(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Cut batches with dropout, stopped in one process and resumed: losses to 1e-5, one log, one record, one voice."""
    from safetensors.torch import load_file

    notes = tmp_path / "notes.txt"
    notes.write_text("\n\n".join(SENTENCES * 12))
    one, two = (make_job(tiny["bert"], notes, folder) for folder in ("one", "two"))
    continue_pretraining(one, resume=False, report=lambda line: None)
    torch.set_num_threads(1)
    assert [130, 130] == run_two(tmp_path, {"job": two, "resume": False}, stop_at=3)
    assert (tmp_path / "said-0.txt").read_text().endswith("Stopped at step 3 of 6; --resume goes on.\n")
    assert "" == (tmp_path / "said-1.txt").read_text()
    assert [0, 0] == run_two(tmp_path, {"job": two, "resume": True})
    assert "going on from step 3 of 6" in (tmp_path / "said-0.txt").read_text()
    assert pytest.approx(log_of(one), abs=1e-5) == log_of(two) and 10 == len(log_of(two))
    wanted, found = (load_file(job.output_path / "model.safetensors") for job in (one, two))
    for name in [name for name in wanted if not name.endswith("key.bias")]:  # its gradient is 0 but for rounding
        torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=1e-3, msg=name)
    record = json.loads((two.output_path / "training" / "adaptation.json").read_text())
    assert (2, 6, 6 * 4 * 32) == (record["runs_on"]["processes"], record["steps"], record["tokens"])
    assert [2, 2] == run_two(tmp_path, {"job": replace(two, output_path=tmp_path / "no"), "resume": True})
    said = [(tmp_path / f"said-{index}.txt").read_text() for index in range(2)]
    assert said[0].startswith("--resume: there is no checkpoint") and "" == said[1]
