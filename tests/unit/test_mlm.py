"""Masked backend: log-probabilities at masks, equal to what plain transformers gives for one prompt at a time.

States at masks, where they are asked for, give the same numbers with the rows of the decoder, or are refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.loading import resolve_device
from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import ModelError, UsageError
from promptlab.types import EncodedPrompt, Fill, FilledPrompt, MaskScores, Prompt
from tests.oracles import MASK, SEP, field, filled, mask_log_probs, plain_logits, prompt
from tests.tiny_models import FAMILIES, KINDS, build_tokenizer

TOLERANCE = 1e-5  # in log-probability, on the CPU in float32
BFLOAT16_TOLERANCE = 0.5  # 8 bits of mantissa on logits of about 10; at most 0.13 was seen
PROMPTS = (
    prompt(field("A great film."), " It was ", MASK, "."),
    prompt(MASK, " news: ", field("the market rose 3 % and the team won (again) in all the world of sports")),
    prompt(field("The team won."), SEP, " The answer is ", MASK, ", ", field("it was a good day, but not fine")),
    prompt("It was ", MASK, " and ", MASK, "."),
    prompt(field("no"), " ", MASK),
    prompt(MASK),
)


# Heads of other shapes: factorised embeddings, a wider output, weights that are used without a call, a bias of its own.
OTHERS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "esm": {},
    "ibert": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "mpnet": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "xlm-roberta": {},
}
WITHOUT_STATES = ("esm", "mobilebert")


@pytest.fixture(scope="module")
def varied(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of more architectures, whose parameters, biases too, are all drawn."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    folders = {}
    for kind in (*KINDS, *OTHERS):
        torch.manual_seed(0)
        tokenizer = build_tokenizer("bert") if kind in OTHERS else AutoTokenizer.from_pretrained(tiny[kind])
        if kind in OTHERS:
            shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
            more = {"intermediate_size": 64, "max_position_embeddings": 70, "pad_token_id": 0, **OTHERS[kind]}
            model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **shape, **more)).eval()
        else:
            model = AutoModelForMaskedLM.from_pretrained(tiny[kind]).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folders[kind] = tmp_path_factory.mktemp(kind)
        tokenizer.save_pretrained(folders[kind])
        model.save_pretrained(folders[kind])
    return folders


def encode(backend: MaskedBackend, asked: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Encoded prompts, all of them scorable."""
    encoded = backend.encoder(None).encode(list(asked))
    return [one for one in encoded if isinstance(one, EncodedPrompt)]


def every_token(backend: MaskedBackend) -> np.ndarray[Any, Any]:
    return np.arange(len(backend.tokenizer), dtype=np.int64)


def score(backend: MaskedBackend, asked: Sequence[Prompt]) -> MaskScores:
    """Scores of every token of the vocabulary."""
    return backend.score(encode(backend, asked), every_token(backend))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_plain_forward_of_one_prompt(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str
) -> None:
    """Alone or in any batch, first or last, a prompt has the log-probabilities of the plain forward, to 1e-5."""
    backend = backends[kind]
    naive = {one: mask_log_probs(models[kind], backend.tokenizer, one) for one in PROMPTS}
    for size in (1, 2, 3, len(PROMPTS)):
        for asked in (PROMPTS, PROMPTS[::-1]):
            for batch in (asked[start : start + size] for start in range(0, len(asked), size)):
                expected = np.concatenate([naive[one] for one in batch])
                np.testing.assert_allclose(score(backend, batch).log_probs, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_normalised_over_the_whole_vocabulary(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str
) -> None:
    """Probabilities of all tokens sum to 1, a subset of candidates has the same numbers, in the order asked for."""
    backend = backends[kind]
    whole = score(backend, PROMPTS)
    np.testing.assert_allclose(np.exp(whole.log_probs).sum(axis=1), 1, atol=1e-5)
    few = backend.score(encode(backend, PROMPTS), np.array([9, 5, 7]))
    assert [9, 5, 7] == few.token_ids.tolist()
    np.testing.assert_allclose(few.log_probs, whole.log_probs[:, [9, 5, 7]], atol=1e-6, rtol=0)
    assert np.float32 == whole.log_probs.dtype


def test_rows_are_named_by_prompt_and_mask(backends: dict[str, MaskedBackend]) -> None:
    """Rows come in the order of prompts, then of masks, with fill 0."""
    backend = backends["bert"]
    encoded = encode(backend, PROMPTS[2:5])
    found = backend.score(encoded, np.array([5]))
    keys = [one.key for one in encoded]
    assert (keys[0], keys[1], keys[1], keys[2]) == found.keys
    assert ([0, 0, 1, 0], [0, 0, 0, 0]) == (found.masks.tolist(), found.fills.tolist())


def test_the_best_fills_come_first(backends: dict[str, MaskedBackend]) -> None:
    """The five tokens of highest probability are given, best first."""
    found = score(backends["modernbert"], PROMPTS)
    expected = np.sort(found.log_probs, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(found.top_log_probs, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(found.log_probs, found.top_ids, axis=1), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_fill_mask_pipeline(
    backends: dict[str, MaskedBackend], tiny: dict[str, Path], kind: str
) -> None:
    """Probabilities of single-token targets are those of the fill-mask pipeline of transformers."""
    from transformers import pipeline

    backend = backends[kind]
    targets = ["great", "good", "no"] if kind.startswith("bert") else ["\u0120great", "\u0120good", "\u0120no"]
    fill = pipeline("fill-mask", model=str(tiny[kind]), tokenizer=str(tiny[kind]), device="cpu")
    asked = prompt(field("A good film."), " It was ", MASK, ".")
    answers = fill(f"A good film. It was {backend.tokenizer.mask_token}.", targets=targets, top_k=len(targets))
    expected = {answer["token"]: answer["score"] for answer in answers}
    found = backend.score(encode(backend, [asked]), np.array(sorted(expected)))
    np.testing.assert_allclose(np.exp(found.log_probs[0]), [expected[t] for t in sorted(expected)], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_sees_masks_only(backends: dict[str, MaskedBackend], kind: str) -> None:
    """Only the states at masks go through the vocabulary head, in every architecture and dtype."""
    assert "masks only" == backends[kind].facts()["head"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_head_gives_the_same(
    backends: dict[str, MaskedBackend], tiny: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the probe fails, the head runs on all positions and gives the same numbers."""
    monkeypatch.setattr(MaskedBackend, "_probe", lambda self, model: False)
    plain = MaskedBackend(str(tiny[kind]), device="cpu")
    assert "all positions" == plain.facts()["head"]
    np.testing.assert_allclose(
        score(plain, PROMPTS).log_probs, score(backends[kind], PROMPTS).log_probs, atol=TOLERANCE
    )


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_equal_the_plain_forward(varied: dict[str, Path], kind: str) -> None:
    """Heads of other shapes give in one batch what the plain forward gives for each prompt alone."""
    from transformers import AutoModelForMaskedLM

    backend, model = MaskedBackend(str(varied[kind]), device="cpu"), AutoModelForMaskedLM.from_pretrained(varied[kind])
    expected = np.concatenate([mask_log_probs(model.eval(), backend.tokenizer, one) for one in PROMPTS])
    tolerance = 1e-3 if kind == "mobilebert" else TOLERANCE  # it has no normalisation: its states are some thousands
    np.testing.assert_allclose(score(backend, PROMPTS).log_probs, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *OTHERS) if kind not in WITHOUT_STATES])
def test_states_and_decoder_rows_give_the_scores(varied: dict[str, Path], kind: str) -> None:
    """State @ row + bias - log_normalizer is the log-probability of every token, alone and in a batch, to 1e-5."""
    backend = MaskedBackend(str(varied[kind]), device="cpu")
    weight, bias = backend.decoder_rows(every_token(backend))
    assert (len(backend.tokenizer),) == bias.shape
    assert bias.any()
    plain = score(backend, PROMPTS)
    for batch in (PROMPTS, PROMPTS[:1], PROMPTS[3:5]):
        found = backend.score(encode(backend, batch), every_token(backend), keep_states=True)
        assert found.states is not None
        assert (np.float32, np.float32, np.float32) == (found.states.dtype, weight.dtype, bias.dtype)
        product = found.states @ weight.T + bias - found.log_normalizers[:, None]
        np.testing.assert_allclose(product, found.log_probs, atol=TOLERANCE, rtol=0)
        rows = [plain.keys.index(key) + mask for key, mask in zip(found.keys, found.masks, strict=True)]
        np.testing.assert_allclose(product, plain.log_probs[rows], atol=TOLERANCE, rtol=0)
    assert plain.states is None


@pytest.mark.parametrize("kind", KINDS)
def test_states_change_no_score(backends: dict[str, MaskedBackend], kind: str) -> None:
    """With and without them a batch has the same bytes, and a later batch without them has none."""
    backend, encoded = backends[kind], encode(backends[kind], PROMPTS)
    before = backend.score(encoded, every_token(backend))
    kept = backend.score(encoded, every_token(backend), keep_states=True)
    after = backend.score(encoded, every_token(backend))
    assert before.log_probs.tobytes() == kept.log_probs.tobytes() == after.log_probs.tobytes()
    assert (None, None) == (before.states, after.states)


def test_decoder_rows_come_in_the_order_asked_for(backends: dict[str, MaskedBackend]) -> None:
    """A few tokens have the rows that they have among all."""
    backend = backends["bert"]
    weight, bias = backend.decoder_rows(every_token(backend))
    few, some = backend.decoder_rows(np.array([9, 5, 7]))
    np.testing.assert_array_equal(weight[[9, 5, 7]], few)
    np.testing.assert_array_equal(bias[[9, 5, 7]], some)


def test_states_of_batches_side_by_side_are_apart(varied: dict[str, Path]) -> None:
    """Batches that run in threads at the same time keep their own states."""
    backend = MaskedBackend(str(varied["bert"]), device="cpu")
    encoded = encode(backend, [prompt(field("great " * number), " It was ", MASK, ".") for number in range(1, 41)])
    tokens = every_token(backend)
    weight, bias = backend.decoder_rows(tokens)
    with backend.session(), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: backend.score([one], tokens, keep_states=True), encoded))
    for one, scores in zip(encoded, found, strict=True):
        assert (one.key,) == scores.keys
        assert scores.states is not None
        product = scores.states @ weight.T + bias - scores.log_normalizers[:, None]
        np.testing.assert_allclose(product, scores.log_probs, atol=TOLERANCE, rtol=0)


def refuse_states(backend: MaskedBackend) -> None:
    """Both ways to states are refused in one sentence each, and plain scores are not."""
    encoded, architecture = encode(backend, PROMPTS), backend.scorer.architecture
    with pytest.raises(ModelError) as fault:
        backend.score(encoded, np.array([5]), keep_states=True)
    assert str(fault.value) == (
        f"model '{backend.scorer.model}': the head of {architecture} is no plain product with the states at masks, so "
        "--store-states cannot keep them."
    )
    with pytest.raises(ModelError) as fault:
        backend.decoder_rows(np.array([5]))
    assert str(fault.value) == f"model '{backend.scorer.model}': its backend keeps no states at masks."
    assert backend.score(encoded, np.array([5])).states is None


@pytest.mark.parametrize("kind", WITHOUT_STATES)
def test_a_head_without_a_plain_decoder_is_refused_states(varied: dict[str, Path], kind: str) -> None:
    """A head that adds its bias after the decoder, or uses the decoder's weight without calling it, keeps no states."""
    refuse_states(MaskedBackend(str(varied[kind]), device="cpu"))


def test_a_head_that_changes_the_logits_is_refused_states(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits that are scaled behind the decoder are noticed when states are asked for."""
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    plain = BertLMPredictionHead.forward
    monkeypatch.setattr(BertLMPredictionHead, "forward", lambda self, states: plain(self, states) * 2)
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    assert "masks only" == backend.facts()["head"]
    refuse_states(backend)


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_head_runs_on_all_positions_states_are_refused(
    tiny: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the shortcut there are no states at masks to keep."""
    monkeypatch.setattr(MaskedBackend, "_probe", lambda self, model: False)
    refuse_states(MaskedBackend(str(tiny[kind]), device="cpu"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_that_sees_other_states_is_noticed(
    tiny: dict[str, Path], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe refuses a shortcut that hands the head the states of other masks."""
    keep = MaskedBackend._keep_mask_states

    def swapped(self: MaskedBackend, module: Any, args: Any, output: Any) -> Any:
        num_positions = output[0].shape[1]
        kept = keep(self, module, args, output)
        if kept[0].shape[1] != num_positions:
            kept["last_hidden_state"] = kept[0].flip(1)
        return kept

    monkeypatch.setattr(MaskedBackend, "_keep_mask_states", swapped)
    assert "all positions" == MaskedBackend(str(tiny["bert"]), device="cpu", dtype=dtype).facts()["head"]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32(backends: dict[str, MaskedBackend], tiny: dict[str, Path], kind: str) -> None:
    """In bfloat16 the log-probabilities are float32 numbers within the stated loose tolerance of float32."""
    rough = MaskedBackend(str(tiny[kind]), device="cpu", dtype="bfloat16")
    found = score(rough, PROMPTS)
    np.testing.assert_allclose(found.log_probs, score(backends[kind], PROMPTS).log_probs, atol=BFLOAT16_TOLERANCE)
    assert (np.float32, "masks only", "bfloat16") == (found.log_probs.dtype, rough.facts()["head"], rough.scorer.dtype)


def fills_of(backend: MaskedBackend) -> list[FilledPrompt]:
    """Every prompt with nothing, a first piece, two pieces and a whole word of three in its slots, each asked of."""
    encoder, num_tokens, filled_prompts = backend.encoder(None), len(backend.tokenizer), []
    for number, one in enumerate(encode(backend, PROMPTS)):
        first, second, third = (num_tokens - 1 - (number + 7 * piece) % 20 for piece in range(3))
        for pieces in ((None,), (None, None, None), (first, None, None), (first, second, None), (first, second, third)):
            fill = Fill((pieces,) * len(one.mask_positions))
            places = range(len(fill.pieces))
            asked = [(place, token) for place in reversed(places) for token in (third, first, third)]
            filled_prompts.append(filled(one, fill, encoder.mask_id, asked))
    return [one for one in filled_prompts if len(one) <= encoder.max_length]


def naive_fills(model: Any, prompts: Sequence[FilledPrompt]) -> np.ndarray[Any, Any]:
    """One plain forward a prompt, a log-softmax over the whole vocabulary, one number a question."""
    found = []
    for one in prompts:
        logits = plain_logits(model, one)
        logits -= logits.max(axis=-1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        found += [log_probs[place, token] for place, token in zip(one.asked, one.token_ids, strict=True)]
    return np.array(found)


@pytest.mark.parametrize("kind", FAMILIES)
def test_fills_equal_the_plain_forward_of_one_prompt(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str
) -> None:
    """A token at a place of a filled prompt has the log-probability of the plain forward, alone and in any batch."""
    backend, prompts = backends[kind], fills_of(backends[kind])
    expected = naive_fills(models[kind], prompts)
    assert len(expected) == sum(len(one.asked) for one in prompts)
    for size in (1, 4, len(prompts)):
        batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        found = np.concatenate([backend.score_fills(batch) for batch in batches])
        assert np.float32 == found.dtype
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_head_gives_the_same_fills(
    backends: dict[str, MaskedBackend], tiny: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the probe fails, the head runs on all positions and gives the same numbers."""
    monkeypatch.setattr(MaskedBackend, "_probe", lambda self, model: False)
    plain, prompts = MaskedBackend(str(tiny[kind]), device="cpu"), fills_of(backends[kind])
    np.testing.assert_allclose(plain.score_fills(prompts), backends[kind].score_fills(prompts), atol=TOLERANCE)
    assert "all positions" == plain.facts()["head"]


def test_a_place_that_is_asked_often_goes_through_the_head_once(
    backends: dict[str, MaskedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many words may begin at the same mask: the head is not run for each of them."""
    backend, seen = backends["bert"], []
    logits = MaskedBackend._logits
    monkeypatch.setattr(
        MaskedBackend, "_logits", lambda self, *rest, **more: seen.append(logits(self, *rest, **more)) or seen[-1]
    )
    (one,) = encode(backend, PROMPTS[:1])
    asked = [(0, token) for token in range(20)] * 2
    found = backend.score_fills([filled(one, Fill(((None, 7),)), backend.encoder(None).mask_id, asked)])
    assert ([(1, len(backend.tokenizer))], 40) == ([tuple(one.shape) for one in seen], len(found))
    assert found[:20].tolist() == found[20:].tolist()


def test_one_mask_that_is_asked_plainly_has_its_score(backends: dict[str, MaskedBackend]) -> None:
    """The fill that changes nothing gives what `score` gives, and a prompt that asks nothing gives nothing."""
    backend = backends["roberta"]
    encoded = encode(backend, PROMPTS)
    mask_id = backend.encoder(None).mask_id
    plain = [
        filled(
            one, Fill(((None,),) * len(one.mask_positions)), mask_id, [(n, 9) for n in range(len(one.mask_positions))]
        )
        for one in encoded
    ]
    assert all(one.fill.is_plain for one in plain)
    expected = backend.score(encoded, np.array([9])).log_probs[:, 0]
    np.testing.assert_allclose(backend.score_fills(plain), expected, atol=1e-6)
    silent = filled(encoded[0], Fill(((None,),)), mask_id, [])
    np.testing.assert_allclose(backend.score_fills([silent, *plain, silent]), expected, atol=1e-6)
    assert (0,) == backend.score_fills([silent]).shape


def test_fills_in_bfloat16_stay_near_float32(backends: dict[str, MaskedBackend], tiny: dict[str, Path]) -> None:
    """The numbers are float32, normalised in float32, within the stated loose tolerance."""
    rough, prompts = MaskedBackend(str(tiny["bert"]), device="cpu", dtype="bfloat16"), fills_of(backends["bert"])
    found = rough.score_fills(prompts)
    assert np.float32 == found.dtype
    np.testing.assert_allclose(found, backends["bert"].score_fills(prompts), atol=BFLOAT16_TOLERANCE)


def test_a_backend_is_described_without_loading_weights(tiny: dict[str, Path]) -> None:
    """Scorer, device and encoder are known before any weight is read."""
    backend = MaskedBackend(str(tiny["roberta"]), device="cpu")
    assert ("RobertaForMaskedLM", "cpu", "float32") == (
        backend.scorer.architecture, backend.scorer.device_class, backend.scorer.dtype,
    )  # fmt: skip
    assert 64 == backend.encoder(None).max_length
    assert "_model" not in vars(backend)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 64), ("roberta", 64), ("modernbert", 64)])
def test_the_limit_is_what_the_model_has_positions_for(
    backends: dict[str, MaskedBackend], kind: str, limit: int
) -> None:
    """RoBERTa's 66 positions hold 64 tokens; more, or fewer than 4, is refused with the limit named."""
    backend = backends[kind]
    assert limit == backend.encoder(None).max_length == backend.encoder(limit).max_length
    with pytest.raises(UsageError, match=f"--max-length {limit + 1}: model '.*' reads at most {limit} tokens"):
        backend.encoder(limit + 1)
    with pytest.raises(UsageError, match=f"--max-length 3: write a whole number from 4 to {limit}"):
        backend.encoder(3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_of_the_limit_can_be_scored(
    backends: dict[str, MaskedBackend], models: dict[str, Any], kind: str
) -> None:
    """The longest prompt that the encoder makes runs, and equals the plain forward."""
    backend = backends[kind]
    (encoded,) = encode(backend, [prompt(field("great " * 100), MASK)])
    assert 64 == len(encoded)
    shown = prompt("great " * (len(encoded) - 3), MASK)
    found = backend.score([encoded], every_token(backend)).log_probs
    np.testing.assert_allclose(found, mask_log_probs(models[kind], backend.tokenizer, shown), atol=TOLERANCE)


def copied(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with other values in its config; None removes a key."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (to / "config.json").write_text(json.dumps(config))
    return to


def test_a_vocabulary_as_large_as_the_positions_keeps_the_limit(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Word embeddings with a padding row are not taken for positions."""
    folder = copied(tiny["bert"], tmp_path / "model", vocab_size=64, max_position_embeddings=64)
    assert 64 == MaskedBackend(str(folder), device="cpu").encoder(None).max_length


def test_segment_types_left_out_of_the_config_are_the_architectures(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A BERT config that does not name its two segment types has them all the same."""
    folder = copied(tiny["bert"], tmp_path / "model", type_vocab_size=None)
    (encoded,) = encode(MaskedBackend(str(folder), device="cpu"), [PROMPTS[2]])
    assert {0, 1} == set(encoded.segment_ids.tolist())


def test_a_head_that_was_never_trained_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint without its masked-LM head is refused, and the missing tensors are named."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    AutoModelForMaskedLM.from_pretrained(tiny["bert"]).bert.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny["bert"]).save_pretrained(tmp_path)
    backend = MaskedBackend(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match=r"\(BertModel\) has no trained weights for \d tensors of BertForMaskedLM"):
        backend.facts()


def test_a_causal_checkpoint_is_refused() -> None:
    """A causal language model is named as one without a masked language model, before any forward."""
    folder = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the causal checkpoint is not here")
    with pytest.raises(ModelError, match=r"is of type 'llama', which has no masked language model"):
        MaskedBackend(str(folder), device="cpu").encoder(None)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer that has more tokens than the model has rows does not belong to it."""
    from transformers import AutoTokenizer

    folder = copied(tiny["bert"], tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["brandnewword"])
    tokenizer.save_pretrained(folder)
    expected = rf"its tokenizer has {size + 1} tokens and its embeddings {size} rows: they do not belong together\."
    with pytest.raises(ModelError, match=expected):
        MaskedBackend(str(folder), device="cpu").facts()


def test_broken_weights_are_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A weights file that is cut off is one sentence with the model's name."""
    folder = copied(tiny["bert"], tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"model '.*' cannot be loaded: .+"):
        MaskedBackend(str(folder), device="cpu").facts()


def test_a_broken_tokenizer_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer.json that holds no tokenizer is one sentence with the model's name."""
    folder = copied(tiny["bert"], tmp_path / "model")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    with pytest.raises(ModelError, match=r"model '.*': its tokenizer cannot be loaded: .+"):
        MaskedBackend(str(folder), device="cpu").encoder(None)


def test_code_that_comes_with_a_checkpoint_is_not_run(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Modules named by `auto_map` are never imported."""
    marker = tmp_path / "was_run"
    code = {"AutoConfig": "evil.Evil", "AutoModelForMaskedLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    folder = copied(tiny["bert"], tmp_path / "model", auto_map=code)
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "auto_map": code}))
    assert "BertForMaskedLM" == MaskedBackend(str(folder), device="cpu").facts()["architecture"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu9", r"--device tpu9: write auto, cpu, cuda, cuda:N or mps\."),
        ("meta", r"--device meta: write auto, cpu, cuda, cuda:N or mps\."),
        ("cuda:99", r"--device cuda:99: this machine has \d+ CUDA devices\."),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: str, message: str) -> None:
    """A device is a word of torch, and one that this machine has."""
    with pytest.raises(UsageError, match=message):
        resolve_device(device)


def test_devices_are_resolved() -> None:
    """`auto` names what it took."""
    import torch

    assert "cpu" == resolve_device("cpu")
    assert ("cuda:0" if torch.cuda.is_available() else "cpu") == resolve_device("auto")


def test_an_unknown_dtype_is_refused(tiny: dict[str, Path]) -> None:
    """The message lists the dtypes."""
    with pytest.raises(UsageError, match=r"--dtype float8: choose one of float32, bfloat16, float16\."):
        MaskedBackend(str(tiny["bert"]), device="cpu", dtype="float8")


@pytest.mark.parametrize("error", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory: you tried to"])
def test_memory_that_runs_out_is_a_memory_error(
    backends: dict[str, MaskedBackend], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """What torch says when memory runs out reaches the caller as MemoryError; any other error stays itself."""
    encoded = encode(backends["bert"], PROMPTS[:1])

    def fail(self: MaskedBackend, *arguments: Any, **options: Any) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(MaskedBackend, "mask_logits", fail)
    with pytest.raises(MemoryError, match=error[:12]):
        backends["bert"].score(encoded, np.array([5]))
    with monkeypatch.context() as patch, pytest.raises(MemoryError, match=error[:12]):
        patch.setattr(MaskedBackend, "_logits", fail)
        backends["bert"].score_fills(fills_of(backends["bert"])[:1])
    error = "a shape is wrong"
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        backends["bert"].score(encoded, np.array([5]))


def test_released_weights_come_back_with_the_same_numbers(tiny: dict[str, Path]) -> None:
    """A backend that let its weights go loads them again and scores the same; letting go twice is no fault."""
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    (encoded,) = backend.encoder(None).encode([PROMPTS[0]])
    assert isinstance(encoded, EncodedPrompt)
    token_ids = np.arange(20)
    before = backend.score([encoded], token_ids).log_probs
    backend.release()
    backend.release()
    assert "_model" not in vars(backend)
    assert before.tolist() == backend.score([encoded], token_ids).log_probs.tolist()
