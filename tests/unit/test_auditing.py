"""Checks of a model: all pass on sound checkpoints, and each fails, in its own sentence, on one broken for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab import auditing, probing
from promptlab.auditing import audit, preflight
from promptlab.backends.base import Backend, Scorer
from promptlab.backends.mlm import MaskedBackend
from promptlab.backends.placement import Placement
from promptlab.backends.replaced_token import ReplacedTokenBackend
from promptlab.checks import CHECKS, Check
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.probing import SHORT, Subject
from promptlab.types import EncodedPrompt, MaskScores, WordTokens
from tests.broken_models import framed, set_up, with_new_decoder, without_head, without_lstrip
from tests.oracles import mask_log_probs
from tests.tiny_models import DETECTORS, KINDS

NAMES = [
    "head", "tokenizer", "mask", "frame", "blank before mask", "spaced word", "batch", "plain forward",
    "several tokens", "padding side", "dtype drift", "knowledge", "attention", "states", "position limit",
]  # fmt: skip
CHEAP = ["mask", "frame", "blank before mask", "batch", "plain forward"]
OF_TOKENIZER = ["tokenizer", "mask", "frame", "blank before mask", "spaced word"]


def look(backend: Backend) -> dict[str, Check]:
    """Every check of a backend, by name."""
    return {check.name: check for check in audit(backend)}


def look_at(folder: Path) -> dict[str, Check]:
    """Every check of a checkpoint, by name."""
    return look(MaskedBackend(str(folder), device="cpu"))


def not_passed(checks: dict[str, Check]) -> set[str]:
    """Names of the checks that warn or fail."""
    return {name for name, check in checks.items() if check.status in ("warn", "fail")}


def shift_scores(monkeypatch: pytest.MonkeyPatch, *, alone: float, together: float) -> None:
    """Let the backend give log-probabilities that are off by so much, alone and in a batch."""
    score = MaskedBackend.score

    def shifted(self: MaskedBackend, prompts: Sequence[EncodedPrompt], *rest: Any, **options: Any) -> MaskScores:
        found = score(self, prompts, *rest, **options)
        by = np.float32(alone if len(prompts) == 1 else together)
        return replace(found, log_probs=found.log_probs + by)

    monkeypatch.setattr(MaskedBackend, "score", shifted)


def attend_to_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model see padding as it sees text."""
    pad = Placement.pad

    def seen(self: Placement, prompts: Any, **options: Any) -> Any:
        inputs = pad(self, prompts, **options)
        return inputs | {"attention_mask": np.ones_like(inputs["attention_mask"])}

    monkeypatch.setattr(Placement, "pad", seen)


class Foreign(Backend):
    """A backend of somebody else, which has nothing but what a backend must have."""

    def __init__(self, inner: MaskedBackend) -> None:
        self._inner = inner

    @property
    def scorer(self) -> Scorer:
        """That of the other."""
        return self._inner.scorer

    @property
    def device(self) -> str:
        """That of the other."""
        return self._inner.device

    def encoder(self, max_length: int | None) -> Encoder:
        """That of the other."""
        return self._inner.encoder(max_length)

    def score(self, prompts: Any, token_ids: Any, *, keep_states: bool = False) -> MaskScores:
        """By the other."""
        return self._inner.score(prompts, token_ids)

    def facts(self) -> dict[str, Any]:
        """Nothing is known."""
        return {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_checkpoint_passes_every_check(backends: dict[str, Any], kind: str) -> None:
    """In order, with nothing to remedy; random vocabularies have no words to ask for knowledge."""
    checks = audit(backends[kind])
    assert NAMES == [check.name for check in checks]
    expected = {name: "pass" for name in NAMES} | {"knowledge": "not applicable"}
    assert expected == {check.name: check.status for check in checks}
    assert {""} == {check.remedy for check in checks}


def test_the_bundled_model_passes_every_check() -> None:
    """Its knowledge too: half of the plain facts at least are among its ten best fills."""
    checks = look(MaskedBackend("mini", device="cpu"))
    assert {"pass"} == {check.status for check in checks.values()}
    assert "every tensor of ModernBertForMaskedLM is in the file, its decoder is one of its own" == checks["head"].found
    assert "plain facts are among the 10 best fills" in checks["knowledge"].found


def test_what_was_found_is_said_in_the_words_of_the_model(backends: dict[str, Any]) -> None:
    """Frames, masks, neighbours and words are shown as the vocabulary spells them."""
    bert, roberta = look(backends["bert"]), look(backends["roberta"])
    assert "every tensor of BertForMaskedLM is in the file, its decoder is tied to the word embeddings" == (
        bert["head"].found
    )
    assert "[MASK] is one token, id 4, found by its role" == bert["mask"].found
    assert "[CLS] … [SEP] and [CLS] … [SEP] … [SEP], as the tokenizer itself does" == bert["frame"].found
    assert "<s> … </s> and <s> … </s> </s> … </s>, as the tokenizer itself does" == roberta["frame"].found
    assert "none: <s> I t Ġwas <mask> . </s>" == roberta["blank before mask"].found
    assert "one form of a word: great" == bert["spaced word"].found
    assert "Ġgreat after a blank and great after a bracket" == roberta["spaced word"].found
    assert bert["padding side"].found.startswith("right, as the tokenizer; on the left the plain forward differs by")
    assert roberta["padding side"].found.startswith("right; on the left the plain forward gives the same, to")
    assert "sdpa on cpu" == bert["attention"].found
    assert "a prompt of 64 tokens runs, the most that is allowed by default" == bert["position limit"].found


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_forward_equals_the_naive_oracle(backends: dict[str, Any], models: dict[str, Any], kind: str) -> None:
    """What checks compare with is the whole head of transformers on the text that the tokenizer itself encodes."""
    subject = Subject(backends[kind], SHORT)
    expected = [mask_log_probs(models[kind], backends[kind].tokenizer, one) for one in SHORT]
    plain = [subject.score_plainly([prompt]) for prompt in subject.prompts]
    np.testing.assert_allclose(np.concatenate(plain), np.concatenate(expected), atol=1e-5)


def test_padding_on_the_left_moves_prompts_to_the_right(backends: dict[str, Any]) -> None:
    """RoBERTa counts positions from its padding, so a padded prompt has the scores of the bare one."""
    subject = Subject(backends["roberta"], SHORT)
    bare = np.concatenate([subject.score_plainly([prompt]) for prompt in subject.prompts])
    padded = subject.score_plainly(subject.prompts, pad_left=True)
    np.testing.assert_allclose(padded, bare, atol=1e-5)


def test_a_tokenizer_without_a_mask_token_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """The sentence of the refusal is kept, and what needs the encoder is not applicable."""
    checks = look_at(set_up(tiny["bert"], tmp_path / "model", mask_token=None))
    assert Check(
        "tokenizer", "fail", "the tokenizer has no mask token, so the checkpoint is no masked language model",
        "Use a checkpoint with its own fast tokenizer and a mask token.",
    ) == checks["tokenizer"]  # fmt: skip
    assert {"tokenizer"} == not_passed(checks)
    for name in set(NAMES) - {"tokenizer", "head", "attention", "states"}:
        assert Check(name, "not applicable", "no encoder to look at, see 'tokenizer'") == checks[name]


def test_a_mask_that_is_another_special_token_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A mask that is the unknown token would be every unknown word."""
    check = look_at(set_up(tiny["bert"], tmp_path / "model", mask_token="[UNK]"))["mask"]
    assert ("fail", "the id of the mask, 1, is also that of another special token") == (check.status, check.found)


def test_a_mask_that_is_not_in_its_place_fails(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids at the positions by role are looked at, and those elsewhere."""
    encode = Encoder.encode

    def moved(self: Encoder, prompts: Any) -> Any:
        return [replace(one, mask_positions=(1,)) for one in encode(self, prompts)]

    monkeypatch.setattr(Encoder, "encode", moved)
    check = look(backends["bert"])["mask"]
    assert ("fail", "a mask is not where its template has it: [CLS] it was [MASK] . [SEP]") == (
        check.status, check.found,
    )  # fmt: skip


def test_a_tokenizer_that_cannot_read_its_own_mask_is_warned_about(
    backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask is put by its id, so the scores are right, and other tools differ."""
    tokenizer = backends["bert"].tokenizer
    monkeypatch.setattr(type(tokenizer), "mask_token", "great great", raising=False)
    check = look(backends["bert"])["mask"]
    assert ("warn", "the tokenizer does not read its own great great: it was great great .") == (
        check.status, check.found,
    )  # fmt: skip


def test_a_frame_that_stands_twice_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A doubled special token is what the tokenizer itself gives, and wrong all the same."""
    checks = look_at(framed(tiny["bert"], tmp_path / "model", single="[CLS] [CLS] $A [SEP]"))
    assert Check(
        "frame", "fail", "a special token stands twice around one text: [CLS] [CLS] … [SEP]",
        "Leave it to the post-processor alone: take the other setting out of tokenizer.json.",
    ) == checks["frame"]  # fmt: skip
    assert {"frame"} == not_passed(checks)


def test_a_frame_that_depends_on_the_text_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A post-processor that repeats a text is learned from one letter, and is not so for another text."""
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1 $A"
    check = look_at(framed(tiny["bert"], tmp_path / "model", single="[CLS] $A [SEP]", pair=pair))["frame"]
    assert ("fail", "a pair is [CLS] … [SEP] … [SEP] … with other tokens or segment ids by the tokenizer itself") == (
        check.status, check.found,
    )  # fmt: skip


def test_segment_ids_are_part_of_the_frame(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second part of a pair in the first segment is another input to a model with two."""
    encode = Encoder.encode

    def flat(self: Encoder, prompts: Any) -> Any:
        return [replace(one, segment_ids=one.segment_ids * 0) for one in encode(self, prompts)]

    monkeypatch.setattr(Encoder, "encode", flat)
    check = look(backends["bert"])["frame"]
    assert ("fail", "a pair is [CLS] … [SEP] … [SEP] with other tokens or segment ids by the tokenizer itself") == (
        check.status, check.found,
    )  # fmt: skip


def test_other_tokens_are_another_frame(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without segments is compared by its tokens, the frame shown from both sides."""
    encode = Encoder.encode

    def closed(self: Encoder, prompts: Any) -> Any:
        return [replace(one, input_ids=np.append(one.input_ids[:-1], 0)) for one in encode(self, prompts)]

    monkeypatch.setattr(Encoder, "encode", closed)
    check = look(backends["roberta"])["frame"]
    assert ("fail", "a text is <s> … <s> here and <s> … </s> by the tokenizer itself") == (check.status, check.found)


def test_a_pair_that_cannot_be_framed_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A pair whose parts change places keeps the encoder's own sentence, and single texts are checked on."""
    folder = framed(tiny["bert"], tmp_path / "model", single="[CLS] $A [SEP]", pair="[CLS] $B [SEP] $A [SEP]")
    checks = look_at(folder)
    assert "fail" == checks["frame"].status
    assert "the tokenizer changes a text when it adds special tokens, so prompts cannot be framed" == (
        checks["frame"].found
    )
    assert {"frame"} == not_passed(checks)


def test_a_frame_that_is_missing_is_warned_about(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A model may have been trained so; more often the post-processor was lost."""
    check = look_at(framed(tiny["bert"], tmp_path / "model", single=None))["frame"]
    assert ("warn", "no [CLS] and no [SEP] around a text, though the tokenizer has both") == (check.status, check.found)
    assert "If the model was trained with them, put the post-processor back into tokenizer.json." == check.remedy


def test_a_bare_blank_before_the_mask_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A byte-level mask token that does not strip the blank before it leaves it as a token."""
    checks = look_at(without_lstrip(tiny["roberta"], tmp_path / "model"))
    assert Check(
        "blank before mask", "fail", "a bare blank stands before the mask: <s> I t Ġwas Ġ <mask> . </s>",
        "Give the mask token lstrip in tokenizer.json: models are not trained with a blank there.",
    ) == checks["blank before mask"]  # fmt: skip
    assert {"blank before mask", "spaced word"} == not_passed(checks)
    assert "'great' after a blank is Ġgreat to the tokenizer, and here it has none: label word 'great' changes its" in (
        checks["spaced word"].found
    )


def test_a_word_without_its_blank_fails(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Label words after a blank must be what the tokenizer makes of the whole sentence."""
    encoder = backends["roberta"].encoder(None)
    glued = {word: WordTokens((tuple(encoder.tokens(word)[:1]),)) for word in auditing.SPACED_WORDS}
    monkeypatch.setattr(
        auditing, "find_word_ids", lambda encoder, words, contexts: {w: glued.get(w, "") for w in words}
    )
    check = look(backends["roberta"])["spaced word"]
    assert ("fail", "'great' after a blank is Ġgreat to the tokenizer, and here great") == (check.status, check.found)


def test_a_head_that_is_not_in_the_file_fails_with_the_refusal(tiny: dict[str, Path], tmp_path: Path) -> None:
    """The tokenizer is checked all the same, and what needs the model is not applicable."""
    checks = look_at(without_head(tiny["bert"], tmp_path / "model"))
    assert "fail" == checks["head"].status
    assert "(BertModel) has no trained weights for 6 tensors of BertForMaskedLM" in checks["head"].found
    assert "Use a checkpoint that was saved with its head." == checks["head"].remedy
    assert ["pass"] * 5 == [checks[name].status for name in OF_TOKENIZER]
    for name in set(NAMES) - {"head", *OF_TOKENIZER}:
        assert Check(name, "not applicable", "no model to look at, see 'head'") == checks[name]


def test_a_model_that_cannot_be_loaded_is_tried_once(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large checkpoint that fails is not read again for every check."""
    from promptlab.backends import mlm

    load, calls = mlm.load_model, []
    monkeypatch.setattr(mlm, "load_model", lambda *arguments: calls.append(1) or load(*arguments))
    look_at(without_head(tiny["bert"], tmp_path / "model"))
    assert 1 == len(calls)


def test_a_decoder_that_was_drawn_anew_fails(tiny: dict[str, Path], tmp_path: Path) -> None:
    """The config ties the decoder to the word embeddings, and the file has another one."""
    checks = look_at(with_new_decoder(tiny["bert"], tmp_path / "model"))
    assert Check(
        "head", "fail",
        "the config ties the decoder to the word embeddings, and the file has a decoder with other values",
        "Set tie_word_embeddings to false in config.json if that decoder was trained, else save the model again.",
    ) == checks["head"]  # fmt: skip


def test_scores_that_depend_on_the_batch_fail(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference over the tolerance is told with its size and what to do."""
    shift_scores(monkeypatch, alone=0, together=0.01)
    checks = look(backends["bert"])
    assert Check(
        "batch", "fail", "6 prompts alone and in a batch differ by 1.0e-02 at most, tolerance 1e-05",
        "The model does not keep padding apart: score with --batch-size 1 and --skip-preflight.",
    ) == checks["batch"]  # fmt: skip
    assert {"batch"} == not_passed(checks)


def test_attention_to_padding_fails(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward that attends to padding has other scores in a batch, in every architecture."""
    attend_to_padding(monkeypatch)
    assert ["fail"] * len(KINDS) == [look(backends[kind])["batch"].status for kind in KINDS]


def test_pieces_that_are_scored_otherwise_fail(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of several tokens must have the scores of the plain forward with the same pieces in place."""
    score_fills = MaskedBackend.score_fills
    monkeypatch.setattr(MaskedBackend, "score_fills", lambda self, prompts: score_fills(self, prompts) + 0.01)
    checks = look(backends["bert"])
    what = "a word of three tokens with its first one in place, here and by the model's own forward,"
    assert Check(
        "several tokens", "fail", f"{what} differ by 1.0e-02 at most, tolerance 1e-05",
        "Please report this architecture: leave words of several tokens out.",
    ) == checks["several tokens"]  # fmt: skip
    assert {"several tokens"} == not_passed(checks)


def test_a_little_rounding_is_warned_about(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to ten times the tolerance nothing is wrong but near-ties."""
    shift_scores(monkeypatch, alone=0, together=5e-5)
    check = look(backends["bert"])["batch"]
    assert ("warn", "That is rounding: margins below it are near-ties, and decide nothing.") == (
        check.status, check.remedy,
    )  # fmt: skip


@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_scores_that_are_not_those_of_transformers_fail(
    backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    """What is the same in every batch can be wrong all the same; what is no number equals nothing."""
    shift_scores(monkeypatch, alone=by, together=by)
    check = look(backends["modernbert"])["plain forward"]
    assert "fail" == check.status
    assert f"with its head at all positions, differ by {by:.1e} at most, tolerance 1e-05" in check.found
    assert "Please report this architecture: promptlab does not score it as transformers does." == check.remedy


def test_a_forward_that_stops_is_a_failure_with_its_reason(
    backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a strange architecture raises is a sentence in the table."""

    def stop(self: MaskedBackend, *arguments: Any, **options: Any) -> MaskScores:
        raise RuntimeError("shapes do not fit.\nmore")

    monkeypatch.setattr(MaskedBackend, "score", stop)
    checks = look(backends["bert"])
    assert Check(
        "batch", "fail", "a forward pass stops with RuntimeError: shapes do not fit",
        "Compare the checkpoint with what its author published.",
    ) == checks["batch"]  # fmt: skip
    assert {"batch", "plain forward", "knowledge", "position limit"} >= not_passed(checks)


@pytest.mark.parametrize(("kind", "status"), [("bert", "warn"), ("roberta", "pass")])
def test_a_tokenizer_that_pads_on_the_left_is_told(
    tiny: dict[str, Path], tmp_path: Path, kind: str, status: str
) -> None:
    """Where the side changes the model's own scores, other tools will differ."""
    check = look_at(set_up(tiny[kind], tmp_path / "model", padding_side="left"))["padding side"]
    assert status == check.status
    if status == "warn":
        assert check.found.startswith("right; the tokenizer pads on the left, where the plain forward differs by up to")


def test_bfloat16_that_drifts_far_is_warned_about(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The median difference is held against the threshold, which the warning states."""
    monkeypatch.setattr(auditing, "DRIFT", 1e-6)
    check = look(backends["bert"])["dtype drift"]
    assert ("warn", "Keep to float32, the default.") == (check.status, check.remedy)
    assert check.found.startswith("float32 and bfloat16 differ by 0.0")
    assert check.found.endswith("more than 1e-06 in the median is much")


def test_the_drift_is_that_of_two_backends(backends: dict[str, Any], tiny: dict[str, Path]) -> None:
    """Median and largest difference are those of the same prompts scored in each dtype."""
    subject = Subject(backends["bert"])
    rough = MaskedBackend(str(tiny["bert"]), device="cpu", dtype="bfloat16")
    differences = np.abs(
        backends["bert"].score(subject.prompts, subject.token_ids).log_probs
        - rough.score(subject.prompts, subject.token_ids).log_probs
    )
    shown = f"{np.median(differences):.2g} in the median, {differences.max():.2g} at most"
    assert f"float32 and bfloat16 differ by {shown}, in log-probability" == look(backends["bert"])["dtype drift"].found
    assert f"bfloat16 and float32 differ by {shown}, in log-probability" == look(rough)["dtype drift"].found


def test_a_machine_without_bfloat16_has_no_drift(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot run cannot be compared, and is no failure."""

    def stop(self: MaskedBackend, dtype: str) -> MaskedBackend:
        raise ModelError("no kernel for BFloat16.")

    monkeypatch.setattr(MaskedBackend, "in_dtype", stop)
    assert (
        Check("dtype drift", "not applicable", "bfloat16 cannot run here: no kernel for BFloat16")
        == (look(backends["bert"])["dtype drift"])
    )


def test_a_model_that_knows_nothing_is_warned_about(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights put few words among their ten best; that is never a failure."""
    words = ("great", "world", "yes", "news", "business", "science")
    monkeypatch.setattr(probing, "KNOWN", [("the answer is ", word, ".", "no") for word in words])
    check = look(backends["bert"])["knowledge"]
    assert "warn" == check.status
    assert "of 6 plain facts are among the 10 best fills (not " in check.found
    assert check.remedy.startswith("A small or random model knows little; if this one should,")


def test_states_that_cannot_be_kept_are_told(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence of the backend, and what that means for new words."""
    monkeypatch.setattr(MaskedBackend, "_decoder", None)
    check = look_at(tiny["bert"])["states"]
    assert ("warn", "Leave --store-states out: new words then need a new forward pass.") == (check.status, check.remedy)
    assert check.found.endswith("its backend keeps no states at masks")


def test_a_limit_that_the_model_does_not_have_fails(
    backends: dict[str, Any], tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tokens than there are positions stop the forward pass, which is told with its reason."""
    monkeypatch.setattr("promptlab.backends.placement.find_limits", lambda checkpoint: (80, 2))
    check = look(MaskedBackend(str(tiny["bert"]), device="cpu"))["position limit"]
    assert "fail" == check.status
    assert check.found.startswith("a prompt of 80 tokens is allowed, and a forward pass stops with ")
    assert "Give a --max-length below 80, and mend the number of positions in config.json." == check.remedy


def test_a_tokenizer_that_stops_earlier_is_told(tiny: dict[str, Path], tmp_path: Path) -> None:
    """The tokenizer's own limit is lower than the positions of the model."""
    check = look_at(set_up(tiny["bert"], tmp_path / "model", model_max_length=32))["position limit"]
    assert ("warn", "a prompt of 64 tokens runs, but the tokenizer stops at 32") == (check.status, check.found)
    assert "--max-length 32 keeps to what the tokenizer says." == check.remedy


def test_a_backend_without_a_plain_forward_is_checked_as_far_as_it_goes(backends: dict[str, Any]) -> None:
    """What another backend does not offer is not applicable, or told, and never a failure."""
    checks = look(Foreign(backends["roberta"]))
    absent = {name for name, check in checks.items() if check.status == "not applicable"}
    assert {"plain forward", "several tokens", "padding side", "dtype drift", "knowledge", "attention"} == absent
    assert {"states"} == not_passed(checks)
    assert "every tensor of the model is in the file" == checks["head"].found


def test_the_preflight_is_the_cheap_part(backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five checks on four short prompts: each once alone, once plainly, and all in one batch."""
    score, plain, sizes = MaskedBackend.score, MaskedBackend.plain_log_probs, []

    def counted(of: Any) -> Any:
        return lambda self, prompts, *rest, **options: sizes.append(len(prompts)) or of(self, prompts, *rest, **options)

    monkeypatch.setattr(MaskedBackend, "score", counted(score))
    monkeypatch.setattr(MaskedBackend, "plain_log_probs", counted(plain))
    assert CHEAP == [check.name for check in preflight(backends["bert"])]
    assert CHEAP == [one.name for one in CHECKS if one.is_cheap]
    assert [1] * 8 + [4] == sorted(sizes)


def test_a_failed_preflight_names_the_command_that_says_more(tiny: dict[str, Path], tmp_path: Path) -> None:
    """One sentence: the model, the check, what was found, the doctor and the way past it."""
    folder = framed(tiny["bert"], tmp_path / "my model", single="[CLS] [CLS] $A [SEP]")
    with pytest.raises(ModelError) as caught:
        preflight(MaskedBackend(str(folder), device="cpu", dtype="bfloat16"))
    assert (
        f"model '{folder}' fails the preflight (frame: a special token stands twice around one text: [CLS] [CLS] … "
        f"[SEP]): `promptlab doctor --model '{folder}' --dtype bfloat16` says what helps, and --skip-preflight scores "
        "it all the same."
    ) == str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_coarser_dtype_passes_the_preflight(tiny: dict[str, Path], kind: str, dtype: str) -> None:
    """The tolerance is that of the dtype, so that rounding stops no run."""
    checks = preflight(MaskedBackend(str(tiny[kind]), device="cpu", dtype=dtype))
    assert {"pass"} == {check.status for check in checks}


@pytest.fixture(scope="module")
def judges(detectors: dict[str, Path]) -> dict[str, ReplacedTokenBackend]:
    """One loaded replaced-token detector a kind."""
    return {kind: ReplacedTokenBackend(str(detectors[kind]), device="cpu") for kind in DETECTORS}


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_sound_detector_passes_every_check_that_applies(judges: dict[str, Any], kind: str) -> None:
    """The checks of tokenizer, batch, forward, padding and dtype hold for it; it has no states at masks."""
    checks = audit(judges[kind])
    assert NAMES == [one.name for one in checks]
    absent = ("knowledge", "several tokens", "states")
    expected = {name: "pass" for name in NAMES} | dict.fromkeys(absent, "not applicable")
    assert expected == {one.name: one.status for one in checks}
    by_name = {one.name: one.found for one in checks}
    kept = {"electra": "ElectraForPreTraining", "deberta_v3": "DebertaDetector"}[kind]
    assert f"every tensor of {kept} is in the file" == by_name["head"]
    assert "a replaced-token detector judges words in their place, from no states at masks" == by_name["states"]
    assert by_name["padding side"].startswith("right, as the tokenizer; on the left the plain forward differs by")


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_sound_detector_passes_the_preflight(detectors: dict[str, Path], kind: str, dtype: str) -> None:
    """The cheap checks run on fills, in every dtype."""
    checks = preflight(ReplacedTokenBackend(str(detectors[kind]), device="cpu", dtype=dtype))
    assert [(name, "pass") for name in CHEAP] == [(one.name, one.status) for one in checks]


def test_a_detector_is_asked_of_few_tokens_one_forward_each(judges: dict[str, Any], monkeypatch: Any) -> None:
    """Three tokens of the whole vocabulary, in each of which a batch has one forward pass."""
    log_original, sizes = ReplacedTokenBackend._log_original, []

    def counted(self: Any, prompts: Any, **options: Any) -> Any:
        sizes.append((len(prompts), {one.fill.pieces[0] for one in prompts}))
        return log_original(self, prompts, **options)

    monkeypatch.setattr(ReplacedTokenBackend, "_log_original", counted)
    subject = Subject(judges["electra"], SHORT)
    assert (4, 3) == subject.score(subject.prompts).shape
    num_tokens = len(judges["electra"].tokenizer)
    assert [(4, {num_tokens * part // 4}) for part in (1, 2, 3)] == sizes


def test_a_detector_that_depends_on_the_batch_fails(judges: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention to padding is noticed for both families."""
    attend_to_padding(monkeypatch)
    assert ["fail"] * 2 == [look(judges[kind])["batch"].status for kind in DETECTORS]


@pytest.mark.parametrize("is_right", [True, False])
def test_a_detector_knows_what_is_original(
    judges: dict[str, Any], monkeypatch: pytest.MonkeyPatch, is_right: bool
) -> None:
    """A word counts as known where it is more original than the wrong one; a model that prefers those is warned of."""
    backend = judges["electra"]
    words = ("great", "world", "yes", "news", "business", "science")
    facts = [("the answer is ", word, ".", "no") for word in words]
    monkeypatch.setattr(probing, "KNOWN", facts)
    tokens = {word: backend.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (*words, "no")}

    def judge(self: Any, prompts: Any, **options: Any) -> Any:
        likes = [(one.fill.pieces[0] == tokens["no"]) != is_right for one in prompts for _ in one.asked]
        return np.log(np.where(likes, 0.9, 0.1)).astype(np.float32)

    monkeypatch.setattr(ReplacedTokenBackend, "_log_original", judge)
    check = look(backend)["knowledge"]
    if is_right:
        assert ("pass", "6 of 6 plain facts are more original than a wrong word") == (check.status, check.found)
        return
    assert ("warn", f"0 of 6 plain facts are more original than a wrong word (not {', '.join(words)})") == (
        check.status, check.found,
    )  # fmt: skip


def test_a_fact_whose_wrong_word_is_no_token_is_asked_of_masked_models_alone(
    judges: dict[str, Any], backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector compares two words, so both must be single tokens."""
    monkeypatch.setattr(probing, "KNOWN", [("the answer is ", "great", ".", "zyzzyva")])
    assert [1, 0] == [len(Subject(one).known_facts) for one in (backends["bert"], judges["electra"])]


def test_a_failed_preflight_of_a_detector_names_its_scoring(
    judges: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that says more asks the model as the run did."""
    backend = judges["electra"]
    attend_to_padding(monkeypatch)
    command = rf"`promptlab doctor --model {backend.scorer.model} --scoring replaced_token` says what helps"
    with pytest.raises(ModelError, match=command):
        preflight(backend)


def test_a_masked_model_given_as_a_detector_fails_at_its_head(tiny: dict[str, Path]) -> None:
    """The refusal is the finding, and what needs the model is not applicable."""
    checks = look(ReplacedTokenBackend(str(tiny["electra"]), device="cpu"))
    assert {"head"} == not_passed(checks)
    assert checks["head"].found.endswith("use the discriminator, or leave --scoring out")
    assert "no model to look at, see 'head'" == checks["states"].found
