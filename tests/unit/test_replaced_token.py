"""Replaced-token backend: log p(original) of words in their place, equal to a naive forward of one prompt at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from promptlab.backends.base import Scorer
from promptlab.backends.mlm import MaskedBackend
from promptlab.backends.replaced_token import ReplacedTokenBackend
from promptlab.errors import ModelError, UsageError
from promptlab.hashing import content_hash
from promptlab.registry import BACKENDS
from promptlab.types import EncodedPrompt, Fill, FilledPrompt
from tests.oracles import MASK, SEP, field, filled, plain_logits, prompt
from tests.tiny_models import DETECTORS, build_detector

TOLERANCE = 1e-5  # in log-probability, on the CPU in float32
BFLOAT16_TOLERANCE = 0.5
STORED_ID = "a59993ab001619145d79f08cdbc25d9e"  # of a scorer before there was another way to ask
PROMPTS = (
    prompt(field("A great film."), " It was ", MASK, "."),
    prompt(MASK, " news: ", field("the market rose 3 % and the team won (again)")),
    prompt(field("The team won."), SEP, MASK, ", ", field("it was a good day")),
    prompt("It was ", MASK, " and ", MASK, "."),
    prompt(MASK),
)


@pytest.fixture(scope="module")
def judges(detectors: dict[str, Path]) -> dict[str, ReplacedTokenBackend]:
    """One loaded backend a kind, on the CPU in float32."""
    return {kind: ReplacedTokenBackend(str(detectors[kind]), device="cpu") for kind in DETECTORS}


def encode(backend: ReplacedTokenBackend) -> list[EncodedPrompt]:
    """Encoded prompts, all of them scorable."""
    return [one for one in backend.encoder(None).encode(list(PROMPTS)) if isinstance(one, EncodedPrompt)]


def fills_of(backend: ReplacedTokenBackend) -> list[FilledPrompt]:
    """Every prompt with words of one piece and of three in its slots, every piece asked of, the last one first."""
    encoder, num_tokens, prompts = backend.encoder(None), len(backend.tokenizer), []
    for number, one in enumerate(encode(backend)):
        first, second, third = (num_tokens - 1 - (number + 7 * piece) % 20 for piece in range(3))
        for pieces in ((first,), (second,), (first, second, third)):
            fill = Fill((pieces,) * len(one.mask_positions))
            asked = [(place, piece) for place, piece in reversed(list(enumerate(fill.pieces))) if piece is not None]
            prompts.append(filled(one, fill, encoder.mask_id, asked))
    return prompts


def electra_logits(folder: Path, prompts: Sequence[FilledPrompt]) -> list[np.ndarray[Any, Any]]:
    """Logits at every token of each prompt alone, by the class of transformers."""
    from transformers import ElectraForPreTraining

    model = ElectraForPreTraining.from_pretrained(folder).eval()
    return [plain_logits(model, one) for one in prompts]


def deberta_logits(folder: Path, prompts: Sequence[FilledPrompt]) -> list[np.ndarray[Any, Any]]:
    """The same by the body of transformers and the tensors of the file, token by token, in float64."""
    from transformers import AutoModel

    tensors = {name: tensor.double().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    dense, norm, last = (
        [tensors[f"mask_predictions.{part}.{what}"] for what in ("weight", "bias")]
        for part in ("dense", "LayerNorm", "classifer")
    )
    model, found = AutoModel.from_pretrained(folder).eval(), []
    for one in prompts:
        states = plain_logits(model, one)
        logits = []
        for state in states:
            both = states[0] + state
            normal = (both - both.mean()) / np.sqrt(both.var() + model.config.layer_norm_eps) * norm[0] + norm[1]
            product = dense[0] @ normal + dense[1]
            logits.append((last[0] @ gelu(product) + last[1])[0])
        found.append(np.array(logits))
    return found


def gelu(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A value times the probability that a standard normal is below it."""
    from scipy.special import ndtr

    found: np.ndarray[Any, Any] = values * ndtr(values)
    return found


def naive(kind: str, folder: Path, prompts: Sequence[FilledPrompt]) -> np.ndarray[Any, Any]:
    """Log p(original) at every place asked for, as the plain formula has it."""
    logits = (electra_logits if kind == "electra" else deberta_logits)(folder, prompts)
    asked = [of_one[place] for of_one, one in zip(logits, prompts, strict=True) for place in one.asked]
    found: np.ndarray[Any, Any] = np.log(1 / (1 + np.exp(asked)))
    return found


@pytest.mark.parametrize("kind", DETECTORS)
def test_fills_equal_the_naive_forward_of_one_prompt(
    judges: dict[str, ReplacedTokenBackend], detectors: dict[str, Path], kind: str
) -> None:
    """Alone or in any batch a word in its place has the log p(original) of the plain formula, to 1e-5."""
    backend, prompts = judges[kind], fills_of(judges[kind])
    expected = naive(kind, detectors[kind], prompts)
    assert (len(expected), True) == (sum(len(one.asked) for one in prompts), bool(np.ptp(expected) > 0.1))
    for size in (1, 4, len(prompts)):
        for order in (1, -1):
            ordered = prompts[::order]
            batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
            found = np.concatenate([backend.score_fills(batch) for batch in batches])
            wanted = expected if order == 1 else naive(kind, detectors[kind], ordered)
            assert np.float32 == found.dtype
            np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_word_that_is_hardly_original_keeps_its_number(detectors: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """A logit of thousands is a log-probability of as many, where 1 - sigmoid would be 0 and its logarithm none."""
    folder = changed(detectors[kind], tmp_path / "model", scale_last)
    backend = ReplacedTokenBackend(str(folder), device="cpu")
    prompts = fills_of(backend)
    logits = (electra_logits if kind == "electra" else deberta_logits)(folder, prompts)
    asked = np.array([of_one[place] for of_one, one in zip(logits, prompts, strict=True) for place in one.asked])
    assert asked.max() > 200
    np.testing.assert_allclose(backend.score_fills(prompts), -np.logaddexp(0, asked), rtol=1e-4, atol=1e-5)


def scale_last(tensors: dict[str, Any]) -> None:
    """A thousand times the weights of the last product."""
    (name,) = [name for name in tensors if name.endswith(("classifer.weight", "dense_prediction.weight"))]
    tensors[name] *= 1000


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_place_may_be_asked_twice_and_a_prompt_not_at_all(judges: dict[str, ReplacedTokenBackend], kind: str) -> None:
    """There is one number a question, whatever token it names, in the order of questions."""
    backend = judges[kind]
    one = fills_of(backend)[2]
    place = one.asked[0]
    twice = replace(one, asked=(place, one.asked[1], place), token_ids=(5, 6, 7))
    silent = replace(one, asked=(), token_ids=())
    found = backend.score_fills([silent, twice, silent])
    assert ((3,), found[0]) == (found.shape, found[2])
    np.testing.assert_allclose(found[:2], backend.score_fills([one])[:2], atol=TOLERANCE)
    assert (0,) == backend.score_fills([silent]).shape


@pytest.mark.parametrize("kind", DETECTORS)
def test_masks_cannot_be_scored(judges: dict[str, ReplacedTokenBackend], kind: str) -> None:
    """One sentence says why, and which way there is."""
    backend = judges[kind]
    with pytest.raises(ModelError) as fault:
        backend.score(encode(backend), np.array([5]))
    assert str(fault.value) == (
        f"model '{backend.scorer.model}' is a replaced-token detector, which predicts no words: put each word into "
        "its slot, as --scoring replaced_token does."
    )


@pytest.mark.parametrize("kind", DETECTORS)
def test_words_for_audits_are_fills_of_every_mask(judges: dict[str, ReplacedTokenBackend], kind: str) -> None:
    """Row and column are the fill with that token in all slots, asked at that mask."""
    backend = judges[kind]
    encoded, tokens = encode(backend), np.array([20, 9])
    found, plain = backend.word_log_probs(encoded, tokens), backend.plain_log_probs(encoded, tokens)
    mask_id = backend.encoder(None).mask_id
    for column, token in enumerate(tokens.tolist()):
        fills = [
            filled(one, Fill(((token,),) * len(one.mask_positions)), mask_id, [(n, token) for n in range(len(masks))])
            for one in encoded
            for masks in [one.mask_positions]
        ]
        np.testing.assert_allclose(found[:, column], backend.score_fills(fills), atol=TOLERANCE)
    np.testing.assert_allclose(plain, found, atol=TOLERANCE)
    assert sum(len(one.mask_positions) for one in encoded) == len(found)


@pytest.mark.parametrize("kind", DETECTORS)
def test_padding_on_the_left_moves_prompts_to_the_right(judges: dict[str, ReplacedTokenBackend], kind: str) -> None:
    """For audits a batch is padded there as by hand, which changes the numbers of both families."""
    import torch

    backend, token = judges[kind], 9
    encoded = encode(backend)
    width, pad = max(len(one) for one in encoded), backend.tokenizer.pad_token_id
    expected = []
    for one in encoded:
        ids = np.where(np.isin(np.arange(len(one)), one.mask_positions), token, one.input_ids).tolist()
        num_pads = width - len(one)
        inputs = {"input_ids": [pad] * num_pads + ids, "attention_mask": [0] * num_pads + [1] * len(one)}
        if kind == "electra":
            inputs["token_type_ids"] = [0] * num_pads + one.segment_ids.tolist()
        with torch.inference_mode():
            logits = backend._model(**{name: torch.tensor([values]) for name, values in inputs.items()}).logits[0]
        expected += [-np.logaddexp(0, float(logits[num_pads + place])) for place in one.mask_positions]
    found = backend.plain_log_probs(encoded, np.array([token]), pad_left=True)[:, 0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert np.abs(found - backend.word_log_probs(encoded, np.array([token]))[:, 0]).max() > 1e-3


@pytest.mark.parametrize("kind", DETECTORS)
def test_bfloat16_stays_near_float32(
    judges: dict[str, ReplacedTokenBackend], detectors: dict[str, Path], kind: str
) -> None:
    """The numbers are float32 whatever the dtype of the weights, and are not rounded to it after the logit."""
    import torch

    rough = ReplacedTokenBackend(str(detectors[kind]), device="cpu", dtype="bfloat16")
    prompts = fills_of(rough)
    found = rough.score_fills(prompts)
    assert (np.float32, "bfloat16", "bfloat16") == (found.dtype, rough.scorer.dtype, rough.facts()["dtype"])
    np.testing.assert_allclose(found, judges[kind].score_fills(prompts), atol=BFLOAT16_TOLERANCE)
    assert found.tolist() != torch.from_numpy(found).bfloat16().tolist()


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_is_described_without_loading_weights(detectors: dict[str, Path], kind: str) -> None:
    """Scorer, device, limit and encoder are known before any weight is read; the weights can go and come back."""
    backend = BACKENDS.get("replaced_token")(str(detectors[kind]), device="cpu")
    assert ("replaced_token", "cpu", 64) == (backend.scorer.scoring, backend.device, backend.encoder(None).max_length)
    assert "_model" not in vars(backend)
    with pytest.raises(UsageError, match=r"--max-length 65: model '.*' reads at most 64 tokens\."):
        backend.encoder(65)
    prompts = fills_of(backend)
    with backend.session():
        before = backend.score_fills(prompts)
    backend.release()
    backend.release()
    assert "_model" not in vars(backend)
    with backend.session():
        assert before.tobytes() == backend.score_fills(prompts).tobytes()
    assert {"electra": "ElectraForPreTraining", "deberta_v3": "DebertaDetector"}[kind] == backend.facts()[
        "architecture"
    ]
    assert "all positions" == backend.facts()["head"]


def test_a_block_of_another_scoring_has_another_id(detectors: dict[str, Path]) -> None:
    """How a model is asked is part of the identity where it is not by its masks; ids of masks stay what they were."""
    asked = [kind(str(detectors["electra"]), device="cpu").scorer for kind in (MaskedBackend, ReplacedTokenBackend)]
    masked, judged = (one.identity() for one in asked)
    assert {"weights", "tokenizer", "dtype", "device_class", "attention"} == set(masked)
    assert {**masked, "scoring": "replaced_token"} == judged
    stored = Scorer("m", None, "w", "t", "BertForMaskedLM", "float32", "cpu", "default").identity()
    assert STORED_ID == content_hash(stored)


def test_both_spellings_of_the_published_head_are_read(detectors: dict[str, Path], tmp_path: Path) -> None:
    """Published files say `classifer`; a file that says `classifier` has the same numbers."""

    def spell(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "classifer" in name]:
            tensors[name.replace("classifer", "classifier")] = tensors.pop(name)

    folders = [detectors["deberta_v3"], changed(detectors["deberta_v3"], tmp_path / "model", spell)]
    first, second = (ReplacedTokenBackend(str(folder), device="cpu") for folder in folders)
    assert first.score_fills(fills_of(first)).tolist() == second.score_fills(fills_of(second)).tolist()


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_head_that_is_not_in_the_file_is_refused(detectors: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Missing tensors of the head are named, with what to do; noise is never scored."""

    def behead(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "_predictions" in name]:
            del tensors[name]

    folder = changed(detectors[kind], tmp_path / "model", behead)
    with pytest.raises(ModelError) as fault:
        ReplacedTokenBackend(str(folder), device="cpu").facts()
    number, name, first = {
        "electra": (4, "ElectraForPreTraining", "discriminator_predictions.dense.bias"),
        "deberta_v3": (6, "DebertaDetector", "mask_predictions.LayerNorm.bias"),
    }[kind]
    assert f" has no trained weights for {number} tensors of {name} ({first}, " in str(fault.value)
    assert str(fault.value).endswith(" ...): its scores would be noise. Use a checkpoint with its replaced-token head.")


def test_one_missing_tensor_is_enough(detectors: dict[str, Path], tmp_path: Path) -> None:
    """A DeBERTa-v3 without one bias of its head is refused, though everything else is there."""

    def drop(tensors: dict[str, Any]) -> None:
        del tensors["mask_predictions.classifer.bias"]

    folder = changed(detectors["deberta_v3"], tmp_path / "model", drop)
    with pytest.raises(ModelError, match=r"no trained weights for 1 tensors of DebertaDetector \(mask_predictions\."):
        ReplacedTokenBackend(str(folder), device="cpu").facts()


def test_a_type_without_a_detector_is_refused_before_anything_is_loaded(tiny: dict[str, Path]) -> None:
    """Encoder and weights say the same sentence."""
    backend = ReplacedTokenBackend(str(tiny["modernbert"]), device="cpu")
    for ask in (lambda: backend.encoder(None), backend.facts):
        with pytest.raises(ModelError, match=r"is of type 'modernbert', which has no replaced-token detector here: "):
            ask()


def test_pickled_weights_and_code_are_not_read(detectors: dict[str, Path], tmp_path: Path) -> None:
    """Modules named by `auto_map` are never imported, and a pickled file is never opened."""
    marker, folder = tmp_path / "was_run", tmp_path / "model"
    shutil.copytree(detectors["deberta_v3"], folder)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForPreTraining": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": code}))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    assert "DebertaDetector" == ReplacedTokenBackend(str(folder), device="cpu").facts()["architecture"]
    assert not marker.exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has only pickled weights, which can run code and are not read"):
        ReplacedTokenBackend(str(folder), device="cpu")


@pytest.mark.parametrize("kind", DETECTORS)
def test_memory_that_runs_out_is_a_memory_error(
    judges: dict[str, ReplacedTokenBackend], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch says when memory runs out reaches the caller as MemoryError."""
    backend = judges[kind]
    prompts = fills_of(backend)[:1]

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(backend._model, "forward", fail)
    with pytest.raises(MemoryError, match="out of memory"):
        backend.score_fills(prompts)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(detectors: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer that has more tokens than the model has rows does not belong to it."""
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    build_detector("electra", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["brandnewword"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"its tokenizer has \d+ tokens and its embeddings \d+ rows: they do not"):
        ReplacedTokenBackend(str(folder), device="cpu").facts()
