"""The net, its start from word vectors, the loss, checkpoints and a whole run of pretraining."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from promptlab.errors import DataError, StoreError, UsageError
from promptlab.pretraining import training
from promptlab.pretraining.architecture import build_model, masked_states
from promptlab.pretraining.checkpoints import read_progress
from promptlab.pretraining.corpus import Corpus
from promptlab.pretraining.job import Job, PretrainingStopped
from promptlab.pretraining.losses import masked_cross_entropy
from promptlab.pretraining.masking import mask_rows, masking_weights
from promptlab.pretraining.optimising import hold_whole_text_heads, moving_parameters, rate_factor
from promptlab.pretraining.recipe import Masking, Recipe, Shape, Stage, Vectors
from promptlab.pretraining.starting import start_from_vectors
from promptlab.pretraining.token_store import TokenStore
from promptlab.pretraining.training import pretrain
from promptlab.pretraining.vectors import learn_vectors
from promptlab.pretraining.vocabulary import MASK

SHAPE = Shape(width=16, layers=3, heads=2, mlp_width=8, max_length=32)
STAGES = [
    {"name": "context", "awake_layers": 1, "tokens": 32 * 12, "learning_rate": 0.01, "decay": 0.3},
    {"name": "depth", "awake_layers": 3, "tokens": 32 * 10, "learning_rate": 0.01, "vector_rate": 0.5},
]
RECIPE = Recipe.model_validate(
    {
        "vocabulary": {"size": 80, "whole_words": ["great"]},
        "shape": SHAPE.model_dump(),
        "held_out_one_in": 4,
        "stages": [
            stage | {"length": 16, "batch_tokens": 32, "masking": {"rate": 0.25, "content_share": 0.5}}
            for stage in STAGES
        ],
    }
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny nets are fastest on one thread."""
    torch.set_num_threads(1)


def _job(tmp_path: Path, folder: str = "out") -> Job:
    path = tmp_path / "fables.txt"
    if not path.exists():
        generator = np.random.default_rng(5)
        words = ["fox", "crow", "cheese", "tree", "sang", "fell", "the", "a", "of", "lion", "mouse", "net", "river"]
        path.write_text("\n\n".join(" ".join(generator.choice(words, 40)) for _ in range(60)))
    return Job(RECIPE, (Corpus(path),), tmp_path / folder, 3)


def _noisy(seed: int = 0) -> Any:
    """A net whose layers are all awake and say something."""
    model = build_model(SHAPE, vocabulary_size=60, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def test_masked_states_equal_the_transformers_forward() -> None:
    """Scores at the masked positions are those of the whole net run everywhere."""
    model = _noisy()
    ids = torch.randint(5, 60, (4, 20))
    positions = torch.tensor([[1, 7, 9], [2, 3, 18], [5, 6, 7], [1, 2, 19]])
    with torch.no_grad():
        short = model.decoder(masked_states(model, ids, positions, awake=3))
        whole = model(input_ids=ids).logits
    expected = torch.stack([whole[row, positions[row]] for row in range(4)])
    torch.testing.assert_close(short, expected, atol=1e-5, rtol=1e-5)


def test_silent_layers_change_nothing() -> None:
    """A fresh net gives the same states whether its silent layers run or are skipped."""
    model = build_model(SHAPE, vocabulary_size=60, seed=1).eval()
    ids, positions = torch.randint(5, 60, (2, 12)), torch.tensor([[1, 4], [3, 9]])
    states = [masked_states(model, ids, positions, awake=awake) for awake in (1, 3)]
    torch.testing.assert_close(states[0], states[1])


def test_chunked_loss_equals_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradients are torch's own, whatever the chunk."""
    monkeypatch.setattr("promptlab.pretraining.losses._CHUNK_ROWS", 3)
    tensors = [torch.randn(*shape, requires_grad=True) for shape in ((7, 5), (11, 5), (11,))]
    targets = torch.randint(0, 11, (7,))
    expected = F.cross_entropy(F.linear(*tensors), targets)
    wanted = torch.autograd.grad(2 * expected, tensors)
    loss = masked_cross_entropy(*tensors, targets)
    torch.testing.assert_close(loss, expected)
    for gradient, oracle in zip(torch.autograd.grad(2 * loss, tensors), wanted, strict=True):
        torch.testing.assert_close(gradient, oracle)


def test_vectors_place_words_by_the_company_they_keep() -> None:
    """Two words of the same contexts get near input vectors, two of different contexts do not."""
    generator = np.random.default_rng(0)
    documents = [generator.choice([10, 11, 12, 13] if index % 2 else [20, 21, 22, 23], 30) for index in range(200)]
    store = TokenStore(
        ids=np.concatenate(documents).astype(np.uint16),
        offsets=np.arange(0, 6001, 30),
        corpus_index=np.zeros(200, dtype=np.uint8),
        held_out=np.zeros(200, dtype=np.bool_),
    )
    rule = Vectors(window=4, subsample=1.0)
    vectors = learn_vectors(store, [1.0], vectors=rule, vocabulary_size=30, width=4, seed=0)
    same, other = vectors.inputs[10] @ vectors.inputs[11], vectors.inputs[10] @ vectors.inputs[20]
    assert same > other + 0.5
    assert float(vectors.inputs[5].norm()) == 0.0
    assert vectors.inputs[10] @ vectors.outputs[11] > vectors.inputs[10] @ vectors.outputs[20]
    _starts_better_than_frequencies(store, vectors)


def _starts_better_than_frequencies(store: TokenStore, vectors: Any) -> None:
    """A net started from the vectors predicts better than word frequencies, before any training."""
    model = build_model(SHAPE.model_copy(update={"width": 4}), vocabulary_size=30, seed=0)
    rule = Masking(rate=0.2)
    weights = masking_weights(vectors.frequencies, rule)
    sample = mask_rows(torch.from_numpy(store.ids[:3000].astype(np.int64)).view(100, 30), weights, rule, seed=0)
    frequencies = vectors.frequencies / vectors.frequencies.sum()
    unigram = -float(frequencies[sample.targets].log().mean())
    assert start_from_vectors(model, vectors, sample, weights=weights) < unigram - 0.1


def test_a_vocabulary_smaller_than_the_width_gives_padded_vectors() -> None:
    """Vectors always have the width of the net."""
    store = TokenStore(
        ids=np.tile(np.array([5, 6, 7], dtype=np.uint16), 10),
        offsets=np.array([0, 30]),
        corpus_index=np.zeros(1, dtype=np.uint8),
        held_out=np.zeros(1, dtype=np.bool_),
    )
    vectors = learn_vectors(store, [1.0], vectors=Vectors(), vocabulary_size=8, width=12, seed=0)
    assert (8, 12) == tuple(vectors.inputs.shape) == tuple(vectors.outputs.shape)
    assert bool(vectors.outputs.isfinite().all())


def test_rate_rises_stays_and_falls() -> None:
    """The course of the rate: linear rise, plateau, linear fall to its final share."""
    stage = Stage.model_validate(RECIPE.stages[0].model_dump() | {"warm_up": 0.1, "decay": 0.5, "final_rate": 0.2})
    assert pytest.approx([rate_factor(stage, step=step, steps=100) for step in (0, 9, 50, 75)], abs=1e-9) == [
        0.1,
        1.0,
        1.0,
        0.6,
    ]


def test_sleeping_layers_do_not_move() -> None:
    """The optimizer of a stage gets the layers that are awake, and the rest of the net."""
    model = build_model(SHAPE, vocabulary_size=60, seed=1)
    names = moving_parameters(model, awake=1)
    assert not [name for name in names if name.startswith(("model.layers.0.", "model.layers.1."))]
    assert "model.layers.2.attn.Wqkv.weight" in names and "decoder.weight" in names


def test_whole_text_heads_get_no_gradient() -> None:
    """The queries and keys of the held heads and the [MASK] vector stay; values and the other heads move."""
    model = _noisy()
    ids, positions = torch.full((2, 12), 9), torch.tensor([[1, 4], [3, 9]])
    ids[0, 1] = MASK
    masked_states(model, ids, positions, awake=3).square().sum().backward()
    hold_whole_text_heads(model, heads=1)
    moves = model.model.layers[-1].attn.Wqkv.weight.grad.abs().sum(1).reshape(3, 2, 8).sum(2) > 0
    assert moves.tolist() == [[False, True], [False, True], [True, True]]
    embedding = model.model.embeddings.tok_embeddings.weight.grad
    assert float(embedding[MASK].abs().sum()) == 0.0
    assert float(embedding[9].abs().sum()) > 0.0


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped in its second stage and resumed ends with the weights of one that was not, to the bit."""
    whole, cut = _job(tmp_path, "whole"), _job(tmp_path, "cut")
    pretrain(whole, resume=False, report=lambda line: None)
    (cut.output_path / "training").mkdir(parents=True)
    shutil.copy(whole.output_path / "training" / "tokenizer.json", cut.output_path / "training")

    masked: list[int] = []

    def kill_at_the_fifteenth_step(*args: Any, **options: Any) -> Any:
        masked.append(1)
        if len(masked) == 15:
            signal.raise_signal(signal.SIGTERM)
        return mask_rows(*args, **options)

    monkeypatch.setattr(training, "mask_rows", kill_at_the_fifteenth_step)
    with pytest.raises(PretrainingStopped, match="--resume goes on"):
        pretrain(cut, resume=False, report=lambda line: None)
    stopped_at, _ = read_progress(cut.checkpoint_path)
    assert (stopped_at.stage, stopped_at.step) == (1, 3)
    pretrain(cut, resume=True, report=lambda line: None)
    stored = [(job.output_path / "model.safetensors").read_bytes() for job in (whole, cut)]
    assert stored[0] == stored[1]


def test_the_folder_is_an_ordinary_transformers_folder(tmp_path: Path) -> None:
    """Plain transformers loads the model in float32 and a fast tokenizer, and the training lowered the loss."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    job = _job(tmp_path)
    said: list[str] = []
    pretrain(job, resume=False, report=said.append)
    model = AutoModelForMaskedLM.from_pretrained(job.output_path)
    tokenizer = AutoTokenizer.from_pretrained(job.output_path)
    assert torch.float32 == model.dtype and type(model).__name__ == "ModernBertForMaskedLM"
    assert tokenizer.is_fast and (tokenizer.mask_token_id, tokenizer.model_max_length) == (4, 32)
    encoded = tokenizer("The fox [MASK] great", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == [
        "[CLS]",
        "the",
        "fox",
        "[MASK]",
        "great",
        "[SEP]",
    ]
    assert model(**encoded).logits.shape == (1, 6, model.config.vocab_size)
    assert "done" in said[-1]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """A folder with a run wants --resume, one without refuses it, and another recipe may not go on with it."""
    job = _job(tmp_path)
    with pytest.raises(UsageError, match="there is no checkpoint"):
        pretrain(job, resume=True, report=lambda line: None)
    pretrain(job, resume=False, report=lambda line: None)
    with pytest.raises(UsageError, match="add --resume"):
        pretrain(job, resume=False, report=lambda line: None)
    with pytest.raises(UsageError, match="begun with another seed"):
        pretrain(replace(job, seed=4), resume=True, report=lambda line: None)


def test_a_damaged_checkpoint_is_explained(tmp_path: Path) -> None:
    """A file that is no checkpoint is named."""
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="is not a checkpoint"):
        read_progress(path)


def test_too_little_text_is_explained(tmp_path: Path) -> None:
    """Too small a corpus is a fault with its counts."""
    path = tmp_path / "small.txt"
    path.write_text("one short text\n\nand another")
    with pytest.raises(DataError, match="too few"):
        pretrain(Job(RECIPE, (Corpus(path),), tmp_path / "out", 3), resume=False, report=lambda line: None)
