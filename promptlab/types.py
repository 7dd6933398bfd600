"""The frozen values that flow from row to result; each arrow of the design turns one into the next.

Example -> Prompt -> EncodedPrompt -> MaskScores, by way of FilledPrompt for words of several tokens; what follows is
arrays of label scores, one row an example.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, Int32, Int64

SegmentKind = Literal["literal", "field", "mask", "sep", "soft"]
Keep = Literal["head", "tail", "middle"]
Pieces = Literal["whole", "lm_bff", "pet"]


class Role(enum.IntEnum):
    """What a token of an encoded prompt stands for; stored inside the prompt key."""

    SPECIAL = 0  # the frame of the tokenizer: [CLS], </s> ...
    LITERAL = 1  # text of the template, never cut
    FIELD = 2  # text of the row, may be cut
    MASK = 3  # a slot that the model fills
    SOFT = 4  # a trainable token


@dataclass(frozen=True, slots=True)
class Example:
    """One validated row.

    `id` is the hash of the fields plus an occurrence number; `index` is the row's place in its source.
    """

    id: str
    index: int
    fields: Mapping[str, Any]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt. `order` says which shortenable segments are cut first (lowest first).

    `num_soft` is the number of trainable tokens that start from no words.
    """

    kind: SegmentKind
    text: str = ""
    is_shortenable: bool = False
    keep: Keep = "head"
    order: int = 0
    num_soft: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered template: ordered segments with at least one mask, and how they are cut before they are tokenised."""

    segments: tuple[Segment, ...]
    pieces: Pieces = "whole"

    @property
    def text(self) -> str:
        """The prompt as a reader sees it: `[MASK]`, ` | ` at a boundary, `[SOFT]` for a trainable token of no word."""
        shown = {"mask": "[MASK]", "sep": " | "}
        return "".join(shown.get(one.kind, one.text or "[SOFT]" * one.num_soft) for one in self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """Token ids of one prompt, ready to batch.

    `roles` has one `Role` a token; `num_truncated` counts the row tokens that were cut away; `key` is the hash of
    ids, segment ids, mask positions and roles.
    """

    key: str
    input_ids: Int32[np.ndarray, " token"]
    segment_ids: Int32[np.ndarray, " token"]
    roles: Int32[np.ndarray, " token"]
    mask_positions: tuple[int, ...]
    num_truncated: int = 0

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class WordTokens:
    """The tokens of a label word where a template has its slots: for each slot the pieces of the word there.

    `split` is how a message prints a word of several pieces: `splits into 2 tokens (un ##real) in '… ___.'`.
    """

    slots: tuple[tuple[int, ...], ...]
    split: str = field(default="", compare=False)

    @property
    def pieces(self) -> tuple[int, ...]:
        """The pieces of all slots, one after the other."""
        return tuple(piece for slot in self.slots for piece in slot)

    @property
    def is_split(self) -> bool:
        """Whether the word has several pieces in one slot."""
        return len(self.pieces) > len(self.slots)


@dataclass(frozen=True, slots=True)
class Fill:
    """What stands in the slots of a prompt: for each slot its word pieces, None where a mask stands.

    `{{ mask }}` is one slot. A word of three tokens asked left to right takes the fills `((None, None, None),)`,
    `((17, None, None),)` and `((17, 4, None),)`; two slots with a mask each are `((None,), (None,))`.
    """

    slots: tuple[tuple[int | None, ...], ...]

    @property
    def pieces(self) -> tuple[int | None, ...]:
        """The pieces of all slots, one after the other; a position of a fill counts these."""
        return tuple(piece for slot in self.slots for piece in slot)

    @property
    def is_plain(self) -> bool:
        """Whether every slot has one mask: the prompt as it is encoded, fill 0 of a block."""
        return all(slot == (None,) for slot in self.slots)


@dataclass(frozen=True, slots=True, eq=False)
class FilledPrompt:
    """An encoded prompt with a fill in its slots, and what is asked about it.

    `key` is that of the prompt without the fill. Question i is about `positions[i]` of the fill, which is the token
    index `asked[i]` of `input_ids`, and `token_ids[i]` is the token whose log-probability there is wanted.
    """

    key: str
    fill: Fill
    input_ids: Int32[np.ndarray, " token"]
    segment_ids: Int32[np.ndarray, " token"]
    positions: tuple[int, ...]
    asked: tuple[int, ...]
    token_ids: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class Unscorable:
    """Why a prompt cannot be scored; its row is counted in the open and never dropped."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class MaskScores:
    """Scores of the model's vocabulary at masks; natural logarithms, float32.

    `keys[i]`, `fills[i]` and `masks[i]` name a row: the prompt, the fill and the number of the mask.
    `log_probs[i, j]` is the log-probability of token `token_ids[j]` after a log-softmax over the full vocabulary;
    `log_normalizers[i]` is the log-sum-exp of the logits; `top_ids` and `top_log_probs` are the best fills, best first.
    `states[i]`, where asked for, is what the decoder of the head is applied to: logits = states @ weight.T + bias.
    """

    keys: tuple[str, ...]
    fills: Int32[np.ndarray, " row"]
    masks: Int32[np.ndarray, " row"]
    log_normalizers: Float32[np.ndarray, " row"]
    token_ids: Int64[np.ndarray, " candidate"]
    log_probs: Float32[np.ndarray, "row candidate"]
    top_ids: Int64[np.ndarray, "row top"]
    top_log_probs: Float32[np.ndarray, "row top"]
    states: Float32[np.ndarray, "row dim"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FillScores:
    """Answers about filled prompts, one row a question; natural logarithms, float32.

    `log_probs[i]` is about the prompt `keys[i]` with `fills[i]` in its slots: the log-probability of `token_ids[i]` at
    `positions[i]` of the fill.
    """

    keys: tuple[str, ...]
    fills: tuple[Fill, ...]
    positions: Int32[np.ndarray, " question"]
    token_ids: Int32[np.ndarray, " question"]
    log_probs: Float32[np.ndarray, " question"]

    @classmethod
    def of(cls, prompts: Sequence[FilledPrompt], log_probs: Float32[np.ndarray, " question"]) -> FillScores:
        """The answers to the questions of some prompts, in order of prompt, then of question."""
        import numpy as np

        return cls(
            keys=tuple(prompt.key for prompt in prompts for _ in prompt.asked),
            fills=tuple(prompt.fill for prompt in prompts for _ in prompt.asked),
            positions=np.array([at for prompt in prompts for at in prompt.positions], dtype=np.int32),
            token_ids=np.array([token for prompt in prompts for token in prompt.token_ids], dtype=np.int32),
            log_probs=log_probs,
        )
