"""Backend -> checks of what a model needs for its scores to be right, each with what was found and the remedy.

A check never changes the model and prints nothing. The cheap ones are what a run does before it spends time.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from promptlab.backends.base import Backend
from promptlab.checks import CHECKS, Check, Registered, absent, check, failed, passed, warned
from promptlab.encoding import Encoder
from promptlab.errors import ModelError
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.probing import (
    IT_WAS,
    KNOWN,
    MASK,
    NUM_BEST,
    PAIR,
    SEP,
    SHORT,
    SINGLE,
    SLACK,
    SPACED_WORDS,
    Subject,
    clause,
    make_prompt,
    row_text,
)
from promptlab.types import EncodedPrompt, WordTokens

if TYPE_CHECKING:
    from jaxtyping import Float32

DRIFT = 0.1  # largest median difference in log-probability between dtypes that needs no warning


def audit(backend: Backend) -> tuple[Check, ...]:
    """Every check of a model, in order."""
    return _audit(Subject(backend), CHECKS)


def preflight(backend: Backend) -> tuple[Check, ...]:
    """The cheap checks, on a few short prompts: what a run looks at before it spends time.

    Raises:
        ModelError: one of them failed, or the model cannot be scored at all.
    """
    subject = Subject(backend, SHORT)
    _ = subject.encoder, subject.facts
    checks = _audit(subject, [one for one in CHECKS if one.is_cheap])
    faults = [one for one in checks if one.status == "fail"]
    if faults:
        scorer = backend.scorer
        command = f"promptlab doctor --model {shlex.quote(scorer.model)}"
        command += f" --revision {scorer.revision}" if scorer.revision else ""
        command += f" --dtype {scorer.dtype}" if scorer.dtype != "float32" else ""
        command += f" --scoring {scorer.scoring}" if scorer.scoring != "mask" else ""
        raise ModelError(
            f"model '{scorer.model}' fails the preflight ({faults[0].name}: {faults[0].found}): `{command}` says what "
            "helps, and --skip-preflight scores it all the same."
        )
    return checks


def _audit(subject: Subject, checks: Sequence[Registered]) -> tuple[Check, ...]:
    return tuple(_run(one, subject) for one in checks)


def _run(asked: Registered, subject: Subject) -> Check:
    """A check with its name; what stops it is its failure, and a need that is not there leaves it out."""
    for need in asked.needs:
        if subject.fault(need) is not None:
            other = "head" if need == "model" else "tokenizer"
            return Check(asked.name, "not applicable", f"no {need} to look at, see '{other}'")
    try:
        return replace(asked.run(subject), name=asked.name)
    except (ModelError, MemoryError) as error:
        return Check(asked.name, "fail", clause(error), "Compare the checkpoint with what its author published.")


@check("head")
def check_head(subject: Subject) -> Check:
    """Every tensor of the head is in the file, and the decoder is tied where the config says so."""
    fault = subject.fault("model")
    if fault is not None:
        return failed(fault.removesuffix("."), "Use a checkpoint that was saved with its head.")
    kind, tying = subject.facts.get("architecture", "the model"), subject.backend.tying()
    whole = f"every tensor of {kind} is in the file"
    if tying is None:
        return passed(whole)
    if tying.is_promised and not tying.is_tied:
        return failed(
            "the config ties the decoder to the word embeddings, and the file has a decoder with other values",
            "Set tie_word_embeddings to false in config.json if that decoder was trained, else save the model again.",
        )
    return passed(f"{whole}, its decoder is {'tied to the word embeddings' if tying.is_tied else 'one of its own'}")


@check("tokenizer")
def check_tokenizer(subject: Subject) -> Check:
    """There is a fast tokenizer with a mask token, whose way to frame a text can be learned."""
    fault = subject.fault("encoder")
    if fault is not None:
        return failed(fault.removesuffix("."), "Use a checkpoint with its own fast tokenizer and a mask token.")
    return passed(f"a fast one of {len(subject.encoder.tokenizer)} tokens")


@check("mask", "encoder", is_cheap=True)
def check_mask(subject: Subject) -> Check:
    """There is one mask id, and a mask becomes that one token, found by its role."""
    encoder, tokenizer, mask_id = subject.encoder, subject.encoder.tokenizer, subject.encoder.mask_id
    if mask_id in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id):
        return failed(
            f"the id of the mask, {mask_id}, is also that of another special token",
            "Name the mask token that the model was trained with in tokenizer_config.json.",
        )
    for prompt in subject.prompts:
        if prompt.mask_positions != tuple(np.flatnonzero(prompt.input_ids == mask_id)):
            shown = " ".join(encoder.token_texts(prompt.input_ids.tolist()))
            return failed(f"a mask is not where its template has it: {shown}", "Take the tokenizer of the author.")
    written = tokenizer(f"It was {tokenizer.mask_token}.", add_special_tokens=False)["input_ids"]
    if list(written).count(mask_id) != 1:
        shown = " ".join(encoder.token_texts(written))
        return warned(
            f"the tokenizer does not read its own {tokenizer.mask_token}: {shown}",
            "promptlab puts the mask by its id; other tools, which write it as text, will not find it.",
        )
    return passed(f"{tokenizer.mask_token} is one token, id {mask_id}, found by its role")


@check("frame", "encoder", is_cheap=True)
def check_frame(subject: Subject) -> Check:
    """Special tokens around a text and a pair are the tokenizer's own, and stand there once."""
    encoder, shown = subject.encoder, list[str]()
    for texts in (SINGLE, PAIR):
        own = encoder.tokenizer(*texts, return_token_type_ids=True)
        (ours,) = encoder.encode([make_prompt(*texts) if len(texts) == 1 else make_prompt(texts[0], SEP, texts[1])])
        assert isinstance(ours, EncodedPrompt)
        is_same = ours.input_ids.tolist() == list(own["input_ids"])
        if encoder.uses_segment_ids:
            is_same = is_same and ours.segment_ids.tolist() == list(own["token_type_ids"])
        if not is_same:
            here, there = (_framed(encoder, ids) for ids in (ours.input_ids.tolist(), own["input_ids"]))
            what = f"{here} here and {there}" if here != there else f"{here} with other tokens or segment ids"
            return failed(
                f"a {'text' if len(texts) == 1 else 'pair'} is {what} by the tokenizer itself",
                "Its post-processor depends on the text: take tokenizer.json from the author of the model.",
            )
        shown.append(_framed(encoder, own["input_ids"]))
    return _judge_frame(encoder, shown)


def _judge_frame(encoder: Encoder, shown: Sequence[str]) -> Check:
    """Whether the frame stands once around a text, from the tokenizer's names of its tokens."""
    tokenizer = encoder.tokenizer
    ids, ends = list(tokenizer(*SINGLE)["input_ids"]), (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if any(ids.count(end) > ends.count(end) for end in ends if end is not None):
        return failed(
            f"a special token stands twice around one text: {shown[0]}",
            "Leave it to the post-processor alone: take the other setting out of tokenizer.json.",
        )
    if None not in ends and not set(ends) & set(ids):
        return warned(
            f"no {tokenizer.cls_token} and no {tokenizer.sep_token} around a text, though the tokenizer has both",
            "If the model was trained with them, put the post-processor back into tokenizer.json.",
        )
    return passed(f"{shown[0]} and {shown[1]}, as the tokenizer itself does")


def _framed(encoder: Encoder, ids: Sequence[int]) -> str:
    """Special tokens as they are spelled, with one ellipsis for the text between them."""
    texts = encoder.token_texts(ids)
    names = [text if token in encoder.special_ids else "…" for token, text in zip(ids, texts, strict=True)]
    return " ".join(name for number, name in enumerate(names) if name != "…" or names[number - 1 : number] != ["…"])


@check("blank before mask", "encoder", is_cheap=True)
def check_blank(subject: Subject) -> Check:
    """The blank before a mask is no token of its own, unless the vocabulary has a token for every blank."""
    encoder, prompt = subject.encoder, subject.encoded(IT_WAS)
    if "" in encoder.words(encoder.tokens("It was")):
        return absent("every blank is a token of this vocabulary")
    if prompt is None:
        return absent("the model is too short for a sentence")
    before = prompt.input_ids[: prompt.mask_positions[0]].tolist()[-1:]
    shown = " ".join(encoder.token_texts(prompt.input_ids.tolist()))
    if encoder.words(before) == [""]:
        return failed(
            f"a bare blank stands before the mask: {shown}",
            "Give the mask token lstrip in tokenizer.json: models are not trained with a blank there.",
        )
    return passed(f"none: {shown}")


@check("spaced word", "encoder")
def check_spaced_word(subject: Subject) -> Check:
    """A label word after a blank is the token with the blank, where the vocabulary tells the two apart."""
    encoder = subject.encoder
    found, head = find_word_ids(encoder, SPACED_WORDS, [slot_contexts(IT_WAS)]), encoder.tokens("It was")
    tokens = {word: encoder.tokens(f"It was {word}.") for word in SPACED_WORDS}
    known = {
        word: ids[len(head)]
        for word, ids in tokens.items()
        if len(ids) == len(head) + 2 and ids[: len(head)] == head and ids[-2] != encoder.unknown_id
    }
    for word, token in known.items():
        if found[word] != WordTokens(((token,),)):
            here = found[word]
            other = f"it has none: {here}" if isinstance(here, str) else " ".join(encoder.token_texts(here.pieces))
            return failed(
                f"'{word}' after a blank is {encoder.token_texts([token])[0]} to the tokenizer, and here {other}",
                "If 'blank before mask' passes, please report this tokenizer: its words are not found.",
            )
    if not known:
        return absent(f"none of {', '.join(SPACED_WORDS)} is one token")
    word, token = next(iter(known.items()))
    bare = encoder.tokens(f"({word}")[len(encoder.tokens("(")) :]
    spaced, glued = (" ".join(encoder.token_texts(ids)) for ids in ([token], bare))
    apart = (
        f"{spaced} after a blank and {glued} after a bracket" if spaced != glued else f"one form of a word: {spaced}"
    )
    return passed(apart)


@check("batch", "encoder", "model", is_cheap=True)
def check_batch(subject: Subject) -> Check:
    """A prompt has the same scores alone and in a batch."""
    return _compare(
        subject,
        subject.score(subject.prompts),
        f"{len(subject.prompts)} prompts alone and in a batch",
        "The model does not keep padding apart: score with --batch-size 1 and --skip-preflight.",
    )


@check("plain forward", "encoder", "model", is_cheap=True)
def check_plain_forward(subject: Subject) -> Check:
    """Scores equal those of the model's own forward with its head at all positions."""
    plain = [subject.score_plainly([prompt]) for prompt in subject.prompts]
    there = [one for one in plain if one is not None]
    if not there or len(there) < len(plain):
        return absent("the backend has no plain forward to compare with")
    return _compare(
        subject,
        np.concatenate(there),
        "our scores and those of the model's own forward, with its head at all positions,",
        "Please report this architecture: promptlab does not score it as transformers does.",
    )


@check("several tokens", "encoder", "model")
def check_several_tokens(subject: Subject) -> Check:
    """Word pieces and masks in a slot have the scores of the same prompt by the model's own forward."""
    if not subject.predicts_words:
        return absent("words stand in their slots in every other check")
    scores = subject.score_filled(IT_WAS)
    if scores is None:
        return absent("the model is too short, or the backend has no plain forward to compare with")
    return _judge(
        subject,
        _largest(*scores),
        "a word of three tokens with its first one in place, here and by the model's own forward,",
        "Please report this architecture: leave words of several tokens out.",
    )


def _compare(subject: Subject, others: Float32[np.ndarray, "mask token"], what: str, remedy: str) -> Check:
    """The largest difference from the scores of prompts alone, against the tolerance."""
    return _judge(subject, _largest(subject.alone, others), what, remedy)


def _judge(subject: Subject, difference: float, what: str, remedy: str) -> Check:
    """A difference against the tolerance."""
    tolerance = subject.tolerance
    found = f"{what} differ by {difference:.1e} at most, tolerance {tolerance:.0e}"
    if difference <= tolerance:
        return passed(found)
    if difference <= SLACK * tolerance:
        return warned(found, "That is rounding: margins below it are near-ties, and decide nothing.")
    return failed(found, remedy)


def _largest(some: Float32[np.ndarray, " ..."], others: Float32[np.ndarray, " ..."]) -> float:
    """The largest absolute difference in log-probability; NaN where one of them is no number."""
    return float(np.abs(some - others).max())


@check("padding side", "encoder", "model")
def check_padding_side(subject: Subject) -> Check:
    """Whether padding on the left, which promptlab never does, would change the model's own scores."""
    side = subject.encoder.tokenizer.padding_side
    try:
        right, left = (subject.score_plainly(subject.prompts, pad_left=is_left) for is_left in (False, True))
    except ModelError as error:
        return passed(f"right; with padding on the left {clause(error)}")
    if right is None or left is None:
        return absent("the backend has no plain forward to compare with")
    difference = _largest(right, left)
    if difference <= SLACK * subject.tolerance:
        return passed(f"right; on the left the plain forward gives the same, to {difference:.1e}")
    if side == "left":
        return warned(
            f"right; the tokenizer pads on the left, where the plain forward differs by up to {difference:.2g}",
            "Tools that follow the tokenizer give other numbers in a batch; compare with single prompts.",
        )
    return passed(f"right, as the tokenizer; on the left the plain forward differs by up to {difference:.2g}")


@check("dtype drift", "encoder", "model")
def check_drift(subject: Subject) -> Check:
    """How far log-probabilities move between float32 and bfloat16."""
    own = subject.backend.scorer.dtype
    other = "bfloat16" if own == "float32" else "float32"
    try:
        twin = subject.backend.in_dtype(other)
        if twin is None:
            return absent(f"the backend has no {other}")
        differences = np.abs(subject.score(subject.prompts, twin) - subject.score(subject.prompts))
    except (ModelError, MemoryError) as error:
        return absent(f"{other} cannot run here: {clause(error)}")
    median, largest = float(np.median(differences)), float(differences.max())
    found = f"{own} and {other} differ by {median:.2g} in the median, {largest:.2g} at most"
    if median <= DRIFT:
        return passed(f"{found}, in log-probability")
    return warned(f"{found}; more than {DRIFT} in the median is much", "Keep to float32, the default.")


@check("knowledge", "encoder", "model")
def check_knowledge(subject: Subject) -> Check:
    """Words that any English sentence model knows are among its best fills, or more original than wrong ones."""
    facts = subject.known_facts
    if 2 * len(facts) < len(KNOWN):
        return absent(f"{len(facts)} of {len(KNOWN)} English words are single tokens, too few to ask")
    unknown = [fact.word for fact in facts if not subject.knows(fact)]
    what = f"are among the {NUM_BEST} best fills" if subject.predicts_words else "are more original than a wrong word"
    found = f"{len(facts) - len(unknown)} of {len(facts)} plain facts {what}"
    if 2 * len(unknown) <= len(facts):
        return passed(found + (f" (not {', '.join(unknown)})" if unknown else ""))
    return warned(
        f"{found} (not {', '.join(unknown)})",
        "A small or random model knows little; if this one should, its head or its tokenizer is not its own.",
    )


@check("attention", "model")
def check_attention(subject: Subject) -> Check:
    """Which implementation of attention runs."""
    found = subject.facts.get("attention")
    return passed(f"{found} on {subject.backend.device}") if found else absent("the backend does not say")


@check("states", "model")
def check_states(subject: Subject) -> Check:
    """Whether states at masks can be kept, for words that come later."""
    if not subject.predicts_words:
        return absent("a replaced-token detector judges words in their place, from no states at masks")
    if subject.backend.scorer.dtype != "float32":
        return absent("states are kept in float32 alone")
    try:
        subject.backend.decoder_rows(np.zeros(1, dtype=np.int64))
    except ModelError as error:
        return warned(clause(error), "Leave --store-states out: new words then need a new forward pass.")
    return passed("can be kept: --store-states")


# The last one, because a device may be of no use after an index that is out of its range.
@check("position limit", "encoder", "model")
def check_limit(subject: Subject) -> Check:
    """A prompt as long as the encoder allows can be scored."""
    limit = subject.encoder.max_length
    prompt = subject.encoded(make_prompt(row_text("water and sand " * limit), " It was ", MASK, "."))
    if prompt is None or len(prompt) != limit:
        length = "none" if prompt is None else len(prompt)
        return failed(f"the longest prompt has {length} tokens and not {limit}", "Please report this tokenizer.")
    shorter = f"Give a --max-length below {limit}, and mend the number of positions in config.json."
    try:
        scores = subject.score([prompt])
    except ModelError as error:
        return failed(f"a prompt of {limit} tokens is allowed, and {clause(error)}", shorter)
    if not np.isfinite(scores).all():
        return failed(f"a prompt of {limit} tokens gets scores that are no numbers", shorter)
    said = subject.encoder.tokenizer.model_max_length
    if said < limit:
        return warned(
            f"a prompt of {limit} tokens runs, but the tokenizer stops at {said}",
            f"--max-length {said} keeps to what the tokenizer says.",
        )
    return passed(f"a prompt of {limit} tokens runs, the most that is allowed by default")
