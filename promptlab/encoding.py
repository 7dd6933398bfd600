"""Prompt -> token ids with roles: exactly what the tokenizer itself gives, with the masks where the template has them.

The text between two sentence boundaries is tokenised in one call, or in the pieces that its template asks for, with a
placeholder that the tokenizer treats as it treats its own mask token; special tokens in the text of a row are never
parsed. Roles follow from character offsets.
The special-token frame is learned by probing the tokenizer, not by the name of its class.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.characters import is_continued
from promptlab.errors import DataError, ModelError
from promptlab.piecewise import Piece, cut_pieces
from promptlab.types import EncodedPrompt, Pieces, Prompt, Role, Segment, Unscorable

if TYPE_CHECKING:
    from jaxtyping import Int32

PLACEHOLDER = "<|promptlab:mask|>"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to
_LOOKED_UP = ("<", "[", ".", ",")  # LM-BFF asks the vocabulary for a label word that begins so


@dataclass(frozen=True, slots=True)
class Frame:
    """Special tokens around one part or two, and the segment id of each part."""

    prefix: tuple[int, ...]
    between: tuple[int, ...]
    suffix: tuple[int, ...]
    segment_ids: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Part:
    """The tokens of the text on one side of a sentence boundary."""

    ids: list[int]
    roles: list[int]
    owners: list[int]  # index of the segment that a token belongs to
    spans: list[tuple[int, int]]  # the characters of `text` that a token is made of
    text: str


class Encoder:
    """Encodes prompts for one tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers, with a mask token.
        max_length: the most tokens of an encoded prompt, the frame included.
        uses_segment_ids: whether the model tells the two parts of a pair apart by segment ids.
        fills_with_words: whether words stand in the slots and never a mask: the text behind a slot is then tokenised
            as behind a word. SentencePiece vocabularies put a blank behind a mask, which stands behind no word.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int, uses_segment_ids: bool, fills_with_words: bool = False
    ) -> None:
        self.max_length = max_length
        self.uses_segment_ids = uses_segment_ids
        self._tokenizer = tokenizer
        self._backend, self._placeholder_id = _with_placeholder(tokenizer, fills_with_words=fills_with_words)
        self._mask_id = int(tokenizer.mask_token_id)
        self._special_ids = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self.unknown_id: int | None = tokenizer.unk_token_id
        self._frames: dict[tuple[int, bool], Frame] = {}
        self._frame(1, "whole")
        self._blank = self._probe_blank()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself, for audits of what is made with it."""
        return self._tokenizer

    @property
    def mask_id(self) -> int:
        """The id of every mask."""
        return self._mask_id

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that never stand for text (the unknown token is text)."""
        return self._special_ids

    def encode(self, prompts: Sequence[Prompt], *, reserve: int = 0) -> list[EncodedPrompt | Unscorable]:
        """Token ids of prompts, in order; a prompt whose protected text alone is too long is `Unscorable`.

        Args:
            prompts: rendered templates.
            reserve: how many tokens of the length are left free, for words of several tokens.

        Raises:
            DataError: a row contains the placeholder, or a prompt has more than two parts.
        """
        cut = [self._cut(prompt) for prompt in prompts]
        texts = [piece.text for parts in cut for pieces in parts for piece in pieces]
        encodings = iter(self._backend.encode_batch(texts, add_special_tokens=False))
        return [
            self._finish(prompt, [self._assemble(prompt, pieces, encodings) for pieces in parts], reserve)
            for prompt, parts in zip(prompts, cut, strict=True)
        ]

    def tokens(self, text: str) -> list[int]:
        """Ids of a text as it stands, without frame; the placeholder gives the mask."""
        ids = self._backend.encode(text, add_special_tokens=False).ids
        return [self._mask_id if token == self._placeholder_id else int(token) for token in ids]

    def word_tokens(self, word: str, pieces: Pieces) -> list[int]:
        """Ids of a label word by itself, as a program that cuts prompts into such pieces takes them."""
        if pieces == "lm_bff" and word.startswith(_LOOKED_UP):
            return self._look_up(word)
        return self.tokens((" " if pieces == "lm_bff" else self._blank) + word)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Word pieces as the vocabulary spells them."""
        return [str(text) for text in self._tokenizer.convert_ids_to_tokens([int(token) for token in ids])]

    def token_text(self, token: int) -> str:
        """One word piece as the vocabulary spells it."""
        return self.token_texts([token])[0]

    def words(self, ids: Sequence[int]) -> list[str]:
        """Tokens as a reader writes them, for fills; part of a character is spelled as in the vocabulary."""
        decoded = [str(self._tokenizer.decode([int(token)])).strip() for token in ids]
        pairs = zip(decoded, self.token_texts(ids), strict=True)
        return [piece if _REPLACEMENT in word else word for word, piece in pairs]

    def _frame(self, num_parts: int, pieces: Pieces) -> Frame:
        key = (num_parts, pieces == "lm_bff")
        if key not in self._frames:
            self._frames[key] = self._lm_bff_frame(num_parts) if key[1] else probe_frame(self._tokenizer, num_parts)
        return self._frames[key]

    def _lm_bff_frame(self, num_parts: int) -> Frame:
        """One separator between two parts, and no segment of their own: LM-BFF never hands segment ids on."""
        alone, sep = self._frame(1, "whole"), self._tokenizer.sep_token_id
        if num_parts > 1 and sep is None:
            raise ModelError("the tokenizer has no token to separate sentences, which pieces: lm_bff needs for a pair.")
        kinds = ((0,) * len(alone.prefix), *[(0,)] * (2 * num_parts - 1), (0,) * len(alone.suffix))
        return Frame(alone.prefix, (sep,) if num_parts > 1 else (), alone.suffix, kinds)

    def _probe_blank(self) -> str:
        """A blank where the tokenizer tells a word with one before it from the bare word, and does not write it apart.

        Byte-level BPE does. WordPiece has no blanks, and SentencePiece puts its own before a text.
        """
        bare, spaced, first, both = (self.tokens(text) for text in ("a", " a", "b", "b a"))
        return " " if spaced != bare and both == first + spaced else ""

    def _cut(self, prompt: Prompt) -> list[list[Piece]]:
        """The texts of a prompt that are tokenised apart."""
        return cut_pieces(_checked_parts(prompt), prompt.pieces, mask=PLACEHOLDER, blank=self._blank)

    def _look_up(self, text: str) -> list[int]:
        """The id of a text in the vocabulary, or the unknown token; where there is none either, what it is cut into."""
        token = self._tokenizer.convert_tokens_to_ids(text)
        return self.tokens(text) if token is None else [int(token)]

    def _assemble(self, prompt: Prompt, pieces: Sequence[Piece], encodings: Iterator[Any]) -> _Part:
        """The tokens of one part, with their roles and owners from character offsets."""
        part = _Part([], [], [], [], "".join(piece.text for piece in pieces))
        before = 0
        for piece in pieces:
            encoding = next(encodings)
            ids, spans = encoding.ids, encoding.offsets
            if piece.is_looked_up:
                ids = self._look_up(piece.text)
                spans = [(0, len(piece.text))] * len(ids)
            for token, (start, end) in zip(ids, spans, strict=True):
                owner = piece.owner_of(start, end)
                role = _role(prompt.segments, owner)
                is_slot = token == self._placeholder_id
                if is_slot:
                    token, role = self._mask_id, Role.SOFT if role == Role.SOFT else Role.MASK
                is_faked = not is_slot and token in self._special_ids
                safe = self._spelled_out(piece.text[start:end]) if is_faked else [int(token)]
                part.ids += safe
                part.roles += [int(role)] * len(safe)
                part.owners += [owner if owner is not None else piece.owners[0]] * len(safe)
                part.spans += [(before + start, before + end)] * len(safe)
            before += len(piece.text)
        return part

    def _spelled_out(self, text: str) -> list[int]:
        """Ids of a text that must not be one token: its first character apart from the rest.

        Text of a row can turn into a special token where a vocabulary holds '<mask>' as a word.
        """
        ids = [*self.tokens(text[:1]), *self.tokens(text[1:])]
        faked = [token for token in ids if token in self._special_ids]
        if faked:
            raise DataError(f"the text {text!r} turns into the special token {self.token_texts(faked[:1])[0]!r}.")
        return ids

    def _finish(self, prompt: Prompt, parts: list[_Part], reserve: int) -> EncodedPrompt | Unscorable:
        frame = self._frame(len(parts), prompt.pieces)
        num_special = len(frame.prefix) + len(frame.suffix) + len(frame.between) * (len(parts) - 1)
        num_truncated = _truncate(prompt, parts, self.max_length - num_special - reserve)
        if num_truncated is None:
            left_free = f", {reserve} of them left free for the longest label word" if reserve else ""
            return Unscorable(f"the text that must not be cut is longer than {self.max_length} tokens{left_free}")
        ids, roles = list(frame.prefix), [int(Role.SPECIAL)] * len(frame.prefix)
        segment_ids = list(frame.segment_ids[0])
        for number, part in enumerate(parts):
            closing = frame.suffix if number == len(parts) - 1 else frame.between
            ids += [*part.ids, *closing]
            roles += [*part.roles, *[int(Role.SPECIAL)] * len(closing)]
            part_segment, closing_segments = frame.segment_ids[1 + 2 * number], frame.segment_ids[2 + 2 * number]
            segment_ids += [part_segment[0]] * len(part.ids) + list(closing_segments)
        if not self.uses_segment_ids:
            segment_ids = [0] * len(ids)
        return encoded_prompt(ids, segment_ids, roles, num_truncated)


def encoded_prompt(
    ids: Sequence[int], segment_ids: Sequence[int], roles: Sequence[int], num_truncated: int = 0
) -> EncodedPrompt:
    """A prompt of tokens, one segment id and one role each, with its masks and the key that they give it."""
    arrays = [np.asarray(values, dtype=np.int32) for values in (ids, segment_ids, roles)]
    masks = tuple(int(position) for position in np.flatnonzero(arrays[2] == Role.MASK))
    return EncodedPrompt(_prompt_key(*arrays), arrays[0], arrays[1], arrays[2], masks, num_truncated)


def _prompt_key(*arrays: Int32[np.ndarray, " token"]) -> str:
    """32 hexadecimal digits that identify ids, segment ids, roles and with them the mask positions."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(len(arrays[0]).to_bytes(4, "little"))
    for array in arrays:
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()


def _with_placeholder(tokenizer: Any, *, fills_with_words: bool) -> tuple[Any, int]:
    """A copy of the tokenizer's engine that parses no special token, and the id of the placeholder in it.

    The placeholder strips blanks as the mask token does, so the text around it is cut as around a real mask.
    """
    from tokenizers import AddedToken, Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the tokenizer {type(tokenizer).__name__} is not a fast one (no tokenizer.json).")
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token, so the checkpoint is no masked language model.")
    engine = Tokenizer.from_str(_as_first_only(backend.to_str()) if fills_with_words else backend.to_str())
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    mask = backend.get_added_tokens_decoder().get(int(tokenizer.mask_token_id))
    lstrip, rstrip = (mask.lstrip, mask.rstrip) if mask is not None else (False, False)
    engine.add_tokens([AddedToken(PLACEHOLDER, special=False, normalized=False, lstrip=lstrip, rstrip=rstrip)])
    return engine, int(engine.token_to_id(PLACEHOLDER) or 0)


def _as_first_only(engine: str) -> str:
    """A tokenizer that marks a blank at the start of a text alone, and not behind every special token too."""
    described = json.loads(engine)
    pre_tokenizer = described.get("pre_tokenizer") or {}
    for part in (pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())):
        if part.get("prepend_scheme") == "always":
            part["prepend_scheme"] = "first"
    return json.dumps(described)


def probe_frame(tokenizer: Any, num_parts: int) -> Frame:
    """The special tokens that the tokenizer puts around one text or a pair, found by looking at what it does."""
    texts = ("a", "b")[:num_parts]
    inner = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    whole = tokenizer(*texts, return_token_type_ids=True)
    ids, types = list(whole["input_ids"]), list(whole["token_type_ids"])
    cuts, start = [], 0
    for part in inner:
        found = next((i for i in range(start, len(ids)) if ids[i : i + len(part)] == part), None)
        if found is None or not part:
            raise ModelError("the tokenizer changes a text when it adds special tokens, so prompts cannot be framed.")
        cuts += [found, found + len(part)]
        start = found + len(part)
    bounds = [0, *cuts, len(ids)]
    pieces = [tuple(ids[low:high]) for low, high in itertools.pairwise(bounds)]
    kinds = tuple(tuple(types[low:high]) for low, high in itertools.pairwise(bounds))
    return Frame(pieces[0], pieces[2] if num_parts == 2 else (), pieces[-1], kinds)


def check_text(prompt: Prompt) -> None:
    """Refuse a prompt whose text spells the placeholder of the mask, or that has more than two parts.

    Raises:
        DataError: the reason, without the place of the row.
    """
    _checked_parts(prompt)


def split_parts(prompt: Prompt) -> list[list[Segment]]:
    """The segments on each side of every sentence boundary."""
    parts: list[list[Segment]] = [[]]
    for segment in prompt.segments:
        if segment.kind == "sep":
            parts.append([])
        else:
            parts[-1].append(segment)
    return parts


def _checked_parts(prompt: Prompt) -> list[list[Segment]]:
    """The parts of a prompt, two at most; neighbouring texts may not spell the placeholder together either."""
    parts = split_parts(prompt)
    if len(parts) > 2:
        raise DataError(f"a prompt has {len(parts)} parts: {{{{ sep }}}} may stand once in a template.")
    for part in parts:
        slots = [1 if segment.kind == "mask" else segment.num_soft for segment in part]
        texts = zip(part, slots, strict=True)
        if "".join(PLACEHOLDER * slot or segment.text for segment, slot in texts).count(PLACEHOLDER) != sum(slots):
            raise DataError(f"a text contains {PLACEHOLDER!r}, which promptlab reserves for masks.")
    return parts


def _role(segments: Sequence[Segment], owner: int | None) -> Role:
    if owner is None:
        return Role.LITERAL
    return {"field": Role.FIELD, "soft": Role.SOFT}.get(segments[owner].kind, Role.LITERAL)


def _truncate(prompt: Prompt, parts: list[_Part], budget: int) -> int | None:
    """Cut row tokens until the parts fit the budget; how many were cut, or None where they cannot fit.

    One token at a time from the longest segment of the lowest `order`; a segment keeps its head, tail or middle.
    What is left of a character that was cut goes too, and so does a blank that would then stand bare before a mask: the
    mask token swallows it in a text that is not cut.
    """
    excess = sum(len(part.ids) for part in parts) - budget
    if excess <= 0:
        return 0
    places: dict[int, list[tuple[int, int]]] = {}
    for number, part in enumerate(parts):
        for position, (role, owner) in enumerate(zip(part.roles, part.owners, strict=True)):
            if role == Role.FIELD and prompt.segments[owner].is_shortenable:
                places.setdefault(owner, []).append((number, position))
    if sum(len(tokens) for tokens in places.values()) < excess:
        return None
    cut: set[tuple[int, int]] = set()
    for _ in range(excess):
        lowest = min(prompt.segments[owner].order for owner, tokens in places.items() if tokens)
        candidates = [owner for owner, tokens in places.items() if tokens and prompt.segments[owner].order == lowest]
        owner = max(candidates, key=lambda candidate: (len(places[candidate]), -candidate))
        keep = prompt.segments[owner].keep
        is_from_front = keep == "tail" or (keep == "middle" and len(places[owner]) % 2 == 0)
        cut.add(places[owner].pop(0 if is_from_front else -1))
    left = {place for tokens in places.values() for place in tokens}
    for number, part in enumerate(parts):
        cut |= _torn(part, number, cut, left)
        cut |= _bare_blanks(part, number, cut, left)
        kept = [position for position in range(len(part.ids)) if (number, position) not in cut]
        part.ids = [part.ids[position] for position in kept]
        part.roles = [part.roles[position] for position in kept]
        part.owners = [part.owners[position] for position in kept]
        part.spans = [part.spans[position] for position in kept]
    return len(cut)


def _torn(part: _Part, number: int, cut: set[tuple[int, int]], left: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Tokens that share a character, as a reader sees it, with a neighbour that was cut."""
    torn: set[tuple[int, int]] = set()
    pairs = list(itertools.pairwise(range(len(part.ids))))
    for one, other in [*pairs, *((after, before) for before, after in reversed(pairs))]:
        is_cut = (number, one) in cut or (number, one) in torn
        if is_cut and (number, other) in left - torn and _share_a_character(part, min(one, other)):
            torn.add((number, other))
    return torn


def _share_a_character(part: _Part, position: int) -> bool:
    """Whether a token and the next one have bytes or parts of one character."""
    end, start = part.spans[position][1], part.spans[position + 1][0]
    return start < end or is_continued(part.text, start)


def _bare_blanks(
    part: _Part, number: int, cut: set[tuple[int, int]], left: set[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Blanks of the row between what was cut and the mask that now follows them."""
    bare = set()
    for mask in (position for position, role in enumerate(part.roles) if role == Role.MASK):
        place = (number, mask - 1)
        is_cut_here = place in cut
        while is_cut_here and (place in cut or (place in left and _is_blank(part, place[1]))):
            bare.add(place)
            place = (number, place[1] - 1)
    return bare


def _is_blank(part: _Part, position: int) -> bool:
    """Whether a token has no visible character."""
    start, end = part.spans[position]
    return not part.text[start:end].strip()
