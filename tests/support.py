"""What is supported on which architecture, found by doing it on tiny models.

`FEATURES` holds one function a feature. It gets a tiny checkpoint of an architecture, does the thing, and says `yes`,
`no` or `not applicable`, with a reason; where something is wrong it raises an AssertionError. To add a feature is to
write its function here and to run `python -m tests.support`, which writes the table that the docs show and that
`tests/contract/test_support.py` compares with what it finds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from promptlab.answering import Words, answer
from promptlab.auditing import preflight
from promptlab.backends.mlm import MaskedBackend
from promptlab.backends.replaced_token import ReplacedTokenBackend
from promptlab.batching import BatchSize
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.filling import Rule, reserve_of
from promptlab.fit_auditing import preflight_method
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.methods.base import Context, LabelledPrompts
from promptlab.methods.base import Words as LabelWords
from promptlab.registry import METHODS
from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import MultiToken, Verbalizer
from promptlab.types import EncodedPrompt, Example, Fill, Pieces, Prompt, WordTokens
from tests import oracles
from tests.oracles import MASK, SlotOracle, field, filled, mask_log_probs, prompt, single_id, tokenized, word_id
from tests.tiny_models import BYTE_LEVEL, build, build_detector

PATH = Path(__file__).parents[1] / "docs" / "reference" / "support.json"
ARCHITECTURES = {  # what the table calls them, and the kind of their vocabulary
    "bert": ("BERT uncased", "WordPiece"),
    "bert_cased": ("BERT cased", "WordPiece"),
    "bert_chinese": ("BERT Chinese", "characters"),
    "distilbert": ("DistilBERT", "WordPiece"),
    "electra": ("ELECTRA generator", "WordPiece"),
    "albert": ("ALBERT", "SentencePiece"),
    "xlm_roberta": ("XLM-RoBERTa", "SentencePiece"),
    "deberta_v2": ("DeBERTa-v2", "SentencePiece"),
    "roberta": ("RoBERTa", "byte-level BPE"),
    "modernbert": ("ModernBERT", "byte-level BPE"),
}
TOLERANCE, SUM_TOLERANCE, COARSE = 1e-5, 3e-5, 0.25  # kernels of bfloat16 differ with the number of rows
Status = Literal["yes", "no", "not applicable"]


@dataclass(frozen=True, slots=True)
class Support:
    """Whether an architecture has a feature, and why not or in which form, in a few words."""

    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A tiny checkpoint: its key, its folder, our backend, and the model as transformers loads it."""

    kind: str
    folder: Path
    backend: MaskedBackend
    model: Any

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint."""
        return self.backend.tokenizer

    @property
    def encoder(self) -> Encoder:
        """The encoder of the model's own limit."""
        return self.backend.encoder(None)

    @property
    def word(self) -> str:
        """A word that is one token of every vocabulary of its language."""
        return "好" if self.kind == "bert_chinese" else "great"

    def encoded(self, *asked: Prompt) -> list[EncodedPrompt]:
        """Prompts as the model reads them; all of them can be."""
        found = self.encoder.encode(asked)
        assert all(isinstance(one, EncodedPrompt) for one in found), found
        return found  # type: ignore[return-value]  # just looked at

    def scores(self, prompts: Sequence[EncodedPrompt]) -> np.ndarray[Any, Any]:
        """Log-probabilities of the whole vocabulary at the masks of one batch, a row a mask."""
        found: np.ndarray[Any, Any] = self.backend.score(prompts, np.arange(len(self.tokenizer))).log_probs
        return found

    def plain(self, one: EncodedPrompt, **inputs: Any) -> np.ndarray[Any, Any]:
        """The same from the plain forward of one prompt alone, the head at every position."""
        import torch

        ids = torch.from_numpy(one.input_ids[None].astype(np.int64))
        if self.encoder.uses_segment_ids and "token_type_ids" not in inputs:
            inputs["token_type_ids"] = torch.from_numpy(one.segment_ids[None].astype(np.int64))
        with torch.inference_mode():
            logits = self.model(input_ids=ids, **inputs).logits[0, list(one.mask_positions)]
        found: np.ndarray[Any, Any] = torch.log_softmax(logits.float(), dim=-1).numpy()
        return found


Feature = Callable[[Subject], Support]
FEATURES: dict[str, Feature] = {}
YES = Support("yes")


def feature(name: str) -> Callable[[Feature], Feature]:
    """Register a feature; the first line of its docstring says in the table what `yes` means."""

    def register(function: Feature) -> Feature:
        FEATURES[name] = function
        return function

    return register


def written() -> dict[str, Any]:
    """The table as it stands beside the docs."""
    stored: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return stored


def frame() -> dict[str, Any]:
    """The table without its cells: what `yes` says of each feature, and the architectures."""
    return {
        "features": {name: str(function.__doc__).splitlines()[0] for name, function in FEATURES.items()},
        "architectures": {kind: list(names) for kind, names in ARCHITECTURES.items()},
    }


def cell(name: str, subject: Subject) -> str:
    """A cell of the table, by doing it: `yes`, `no: why`, `not applicable: why`."""
    found = FEATURES[name](subject)
    return f"{found.status}: {found.reason}" if found.reason else found.status


def close(ours: np.ndarray[Any, Any], oracle: np.ndarray[Any, Any], tolerance: float = TOLERANCE) -> Support:
    """`yes`, where the numbers are those of the oracle; anything else is wrong and not a matter of support."""
    np.testing.assert_allclose(ours, oracle, atol=tolerance, rtol=0)
    return YES


IT_WAS = prompt(field("great, good"), " It was ", MASK, ".")
PAIR = render(
    compile_template(Template.from_text("{{ text }}{{ sep }}it was {{ mask }} again")),
    Example("0", 0, {"text": "great, good"}),
)
TWO_MASKS = prompt(field("great, good"), " It was ", MASK, ", ", MASK, ".")
LENGTHS = (IT_WAS, prompt(MASK, " it was ", field("no")), prompt(field("yes, no and good " * 4), " It was ", MASK, "."))
HOSTILE = "it [MASK] was <mask> no </s> [SEP] good"


@feature("score")
def score(subject: Subject) -> Support:
    """A cloze has the log-probabilities of the model's own forward, to 1e-5."""
    oracle = mask_log_probs(subject.model, subject.tokenizer, IT_WAS)
    return close(subject.scores(subject.encoded(IT_WAS)), oracle)


@feature("masks only")
def masks_only(subject: Subject) -> Support:
    """The vocabulary head runs on the states at masks alone."""
    path = subject.backend.facts()["head"]
    return YES if path == "masks only" else Support("no", f"the head runs at {path}")


@feature("pair")
def pair(subject: Subject) -> Support:
    """`{{ sep }}` gives the separators that the tokenizer puts between two texts."""
    (one,) = subject.encoded(PAIR)
    ids = tokenized(subject.tokenizer, PAIR)[0]
    assert ids == one.input_ids.tolist()
    return close(subject.scores([one]), mask_log_probs(subject.model, subject.tokenizer, PAIR))


@feature("segment ids")
def segment_ids(subject: Subject) -> Support:
    """The two parts of a pair have the segment ids 0 and 1."""
    (one,) = subject.encoded(PAIR)
    num_types = int(getattr(subject.model.config, "type_vocab_size", 0) or 0)
    if num_types < 2:
        assert not one.segment_ids.any()
        return Support("not applicable", f"the model has {('no', 'one')[num_types]} segment type")
    assert tokenized(subject.tokenizer, PAIR)[1] == one.segment_ids.tolist()
    assert {0, 1} == set(one.segment_ids.tolist())
    return YES


@feature("words in place")
def words_in_place(subject: Subject) -> Support:
    """A label word is its token in the written prompt: at the start, after a blank, in brackets, in quotes."""
    places = {
        "after a blank": IT_WAS,
        "at the start": prompt(MASK, " it was ", field("no")),
        "in brackets": prompt("It was (", MASK, ")"),
        "in quotes": prompt('It was "', MASK, '".'),
    }
    found = {}
    for place, asked in places.items():
        found[place] = single_id(find_word_ids(subject.encoder, [subject.word], [slot_contexts(asked)])[subject.word])
        assert word_id(subject.tokenizer, asked, subject.word) == found[place], place
    num_forms = len(set(found.values()))
    return Support("yes", f"{num_forms} forms of a word" if num_forms > 1 else "one form of a word")


def several_tokens(rule: Rule) -> Feature:
    """What scores words of several tokens by a rule, in one slot and over two, against one forward after the other."""

    def function(subject: Subject) -> Support:
        chinese = subject.kind == "bert_chinese"
        words = ("体育新闻", "好") if chinese else ("goodness", "great")
        for asked, several in ((IT_WAS, words), (TWO_MASKS, (f"{words[0]} + {words[1]}", f"{words[1]} + {words[1]}"))):
            found = find_word_ids(subject.encoder, several, [slot_contexts(asked)])
            tokens = {word: one for word, one in found.items() if isinstance(one, WordTokens)}
            assert len(several) == len(tokens), found
            assert next(iter(tokens.values())).is_split
            labels = {f"label {number}": word for number, word in enumerate(several)}
            verbalizer = Verbalizer.from_labels(labels, multi_token=rule)  # type: ignore[arg-type]  # one of its rules
            asks = [Words(verbalizer, tokens)]
            (ours,) = answer(subject.backend, subject.encoder, [asked], asks, batch_size=BatchSize(None, 4)).answers
            (one,) = subject.encoder.encode([asked], reserve=reserve_of(tokens.values(), rule))
            assert isinstance(one, EncodedPrompt)
            oracle = SlotOracle(subject.model, one, subject.encoder.mask_id)
            close(ours.sums[0], np.array([oracle.word(word.slots, rule) for word in tokens.values()]), SUM_TOLERANCE)
        return YES

    function.__doc__ = f"""Words of several tokens, for one mask and for two, are scored by the rule `{rule}`."""
    return function


for _rule in get_args(MultiToken):
    if _rule != "refuse":
        feature(_rule)(several_tokens(_rule))


def in_pieces(pieces: Pieces) -> Feature:
    """What scores a prompt that is assembled as another program does it."""

    def function(subject: Subject) -> Support:
        asked = replace(IT_WAS, pieces=pieces)
        (one,) = subject.encoded(asked)
        frame = ([subject.tokenizer.cls_token], [], [subject.tokenizer.sep_token])
        ids, _ = oracles.in_pieces(subject.tokenizer, asked, frame, has_blank=subject.kind in BYTE_LEVEL)
        assert ids == one.input_ids.tolist()
        return close(subject.scores([one]), subject.plain(one))

    function.__doc__ = f"""A template with `pieces: {pieces}` is scored as it is assembled."""
    return function


for _pieces in ("lm_bff", "pet"):
    feature(f"pieces: {_pieces}")(in_pieces(_pieces))


@feature("replaced tokens")
def replaced_tokens(subject: Subject) -> Support:
    """A discriminator of the family scores words in their place, `--scoring replaced_token`."""
    detectors = {"electra": "electra", "deberta_v2": "deberta_v3"}
    if subject.kind not in detectors:
        return Support("not applicable", "there is no discriminator of the family")
    with tempfile.TemporaryDirectory() as folder:
        backend = ReplacedTokenBackend(str(build_detector(detectors[subject.kind], Path(folder))), device="cpu")
        encoder = backend.encoder(None)
        (found,) = find_word_ids(encoder, ["goodness"], [slot_contexts(IT_WAS)]).values()
        assert isinstance(found, WordTokens)
        verbalizer = Verbalizer.from_labels({"a": "goodness", "b": "great"}, multi_token="left_to_right")
        asks = [Words(verbalizer, {"goodness": found})]
        (ours,) = answer(backend, encoder, [IT_WAS], asks, batch_size=BatchSize(None, 4)).answers
        (one,) = encoder.encode([IT_WAS])
        assert isinstance(one, EncodedPrompt)
        questions = list(enumerate(found.pieces))
        asked = filled(one, Fill(found.slots), encoder.mask_id, questions)
        alone = backend.score_fills([asked])
        close(ours.sums, np.array([[alone.sum()]]), SUM_TOLERANCE)
    return Support("yes", "ELECTRA discriminator" if subject.kind == "electra" else "DeBERTa-v3")


@feature("trainable words")
def trainable_words(subject: Subject) -> Support:
    """Trainable tokens that start from words, `{{ soft("it was") }}`, have unfitted the scores of their words."""
    template = Template.from_text("{{ soft('it was') }} {{ text }}, {{ soft('it was') }} {{ mask }}.")
    asked = render(compile_template(template), Example("0", 0, {"text": "good"}))
    hard = prompt("it was ", field("good"), ", it was ", MASK, ".")
    return close(subject.scores(subject.encoded(asked)), mask_log_probs(subject.model, subject.tokenizer, hard))


@feature("stored states")
def stored_states(subject: Subject) -> Support:
    """States at masks can be kept, and give the scores of any later word without a forward pass."""
    tokens = np.arange(len(subject.tokenizer))
    prompts = subject.encoded(*LENGTHS)
    try:
        found = subject.backend.score(prompts, tokens, keep_states=True)
        weight, bias = subject.backend.decoder_rows(tokens)
    except ModelError as error:
        return Support("no", str(error))
    assert found.states is not None
    return close(found.states @ weight.T + bias - found.log_normalizers[:, None], found.log_probs)


@feature("batches")
def batches(subject: Subject) -> Support:
    """Prompts of unlike lengths have the same scores alone and in one batch, in any order."""
    prompts = subject.encoded(*LENGTHS)
    alone = np.concatenate([subject.plain(one) for one in prompts])
    close(subject.scores(prompts[::-1])[::-1], alone)
    return close(subject.scores(prompts), alone)


@feature("padding on the left")
def padding_on_the_left(subject: Subject) -> Support:
    """The model's own forward gives the same where a batch is padded on the left; promptlab pads on the right."""
    prompts, tokens = subject.encoded(*LENGTHS), np.arange(len(subject.tokenizer))
    right, left = (subject.backend.plain_log_probs(prompts, tokens, pad_left=is_left) for is_left in (False, True))
    is_same = bool(np.abs(right - left).max() < 1e-3)
    return YES if is_same else Support("no", "positions count from the padding")


@feature("bfloat16")
def bfloat16(subject: Subject) -> Support:
    """The model runs in bfloat16, and its log-probabilities are float32 and sum to 1."""
    import torch
    from transformers import AutoModelForMaskedLM

    backend = MaskedBackend(str(subject.folder), device="cpu", dtype="bfloat16")
    (one,) = subject.encoded(IT_WAS)
    found = backend.score([one], np.arange(len(subject.tokenizer))).log_probs
    assert np.float32 == found.dtype
    assert abs(np.exp(found.astype(np.float64)).sum() - 1) < 1e-5
    model = AutoModelForMaskedLM.from_pretrained(subject.folder, dtype=torch.bfloat16).eval()
    twin = Subject(subject.kind, subject.folder, backend, model)
    return close(found, twin.plain(one), COARSE)


@feature("longest prompt")
def longest_prompt(subject: Subject) -> Support:
    """A prompt of as many tokens as the model has positions is scored."""
    (one,) = subject.encoded(prompt(field(f"{subject.word} " * 200), " It was ", MASK, "."))
    assert len(one) == subject.encoder.max_length
    return close(subject.scores([one]), subject.plain(one))


@feature("cut text")
def cut_text(subject: Subject) -> Support:
    """A row that is too long loses tokens of its own, and the mask and the text around it stay."""
    (whole,) = subject.encoded(IT_WAS)
    asked = prompt(field(f"{subject.word} " * 200, keep="tail"), " It was ", MASK, ".")
    (one,) = subject.backend.encoder(len(whole)).encode([asked])
    assert isinstance(one, EncodedPrompt)
    assert one.num_truncated > 0
    behind = len(whole) - whole.mask_positions[0]
    assert whole.input_ids[-behind:].tolist() == one.input_ids[-behind:].tolist()
    return close(subject.scores([one]), subject.plain(one))


@feature("special tokens in text")
def special_tokens_in_text(subject: Subject) -> Support:
    """A row that spells `[MASK]` or `</s>` adds no mask and no boundary."""
    (one,) = subject.encoded(prompt(field(HOSTILE), " It was ", MASK, "."))
    ids, tokenizer = one.input_ids.tolist(), subject.tokenizer
    assert [1, 1, 1] == [
        ids.count(i) for i in (tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    ]
    return close(subject.scores([one]), subject.plain(one))


def fits(name: str) -> Feature:
    """The feature of a method that is fitted."""

    def feature_of(subject: Subject) -> Support:
        method = METHODS.get(name)()
        reason = method.refusal(subject.backend)
        if reason is not None:
            return Support("no", reason)
        context, shots = make_fit(subject)
        mine = context if method.uses_words else replace(context, words=None)
        setting = replace(method.grid()[0], steps=2)
        preflight_method(method, shots, setting, mine)
        asked = context.label_words.token_ids if method.answers == "mask" else np.arange(2)
        with method.fit(shots, setting, mine) as fitted:
            expected = fitted.backend.score(shots.prompts, asked).log_probs
            tensors = {key: tensor.clone() for key, tensor in fitted.tensors.items()}
        with method.load(tensors, setting, mine) as loaded:
            return close(loaded.backend.score(shots.prompts, asked).log_probs, expected)

    feature_of.__doc__ = (
        f"`--methods {name}` can be fitted: tensors get gradients, answers change, do not depend on the batch, and "
        "come back from what is stored."
    )
    return feature_of


def make_fit(subject: Subject) -> tuple[Context, LabelledPrompts]:
    """Four shots of two labels, whose words are single tokens of the vocabulary."""
    words = ("好", "差") if subject.kind == "bert_chinese" else ("great", "good")
    verbalizer = Verbalizer.from_labels(dict(zip("ab", words, strict=True)))
    asked = [prompt(field(text), " It was ", MASK, ".") for text in ("great, good", "no", "yes, no", "good and great")]
    found = find_word_ids(subject.encoder, verbalizer.words, [slot_contexts(asked[0])])
    tokens = {word: one for word, one in found.items() if isinstance(one, WordTokens)}
    shots = LabelledPrompts(tuple(subject.encoded(*asked)), np.array([0, 1, 0, 1]))
    return Context(subject.backend, ("a", "b"), LabelWords.of(verbalizer, ("a", "b"), tokens), seed=0), shots


for method_name in METHODS.names():
    feature(f"method: {method_name}")(fits(method_name))


@feature("preflight")
def passes_preflight(subject: Subject) -> Support:
    """The checks that a run makes before its first forward pass are passed."""
    assert all(check.status in ("pass", "not applicable") for check in preflight(subject.backend))
    return YES


def main() -> None:
    """Build every architecture, do everything, and write the table."""
    from transformers import AutoModelForMaskedLM

    with tempfile.TemporaryDirectory() as root:

        def subject(kind: str) -> Subject:
            folder = build(kind, Path(root) / kind)
            model = AutoModelForMaskedLM.from_pretrained(folder).eval()
            return Subject(kind, folder, MaskedBackend(str(folder), device="cpu"), model)

        subjects = {kind: subject(kind) for kind in ARCHITECTURES}
        cells = {kind: {name: cell(name, subjects[kind]) for name in FEATURES} for kind in ARCHITECTURES}
    PATH.write_text(json.dumps({**frame(), "support": cells}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{PATH.name}: {len(FEATURES)} features on {len(ARCHITECTURES)} architectures")


if __name__ == "__main__":
    main()
