"""Which tokens of a template are soft, what their vectors start from, and which words they are near afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab.errors import UsageError
from promptlab.methods.base import Context
from promptlab.seeding import derive_generator
from promptlab.types import EncodedPrompt, Role

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64

STARTS = ("words", "random", "vocabulary", "label_words")
NUM_SAMPLED = 5_000  # Lester et al. 2021, section 3.2: the most frequent tokens, which stand first in most vocabularies
NUM_NEAREST = 3


@dataclass(frozen=True, slots=True, eq=False)
class SoftTokens:
    """The soft tokens of a template: `ids[i]` is the word piece in the place of the i-th.

    Tokens of `{{ soft(n) }}` have no word, and then it is the mask. `role` says by which tokens they are found.
    """

    role: Role
    ids: Int64[np.ndarray, " soft"]

    @classmethod
    def find(cls, prompts: Sequence[EncodedPrompt]) -> SoftTokens:
        """The soft tokens of a template, from its prompts.

        Raises:
            UsageError: there are none, or they are not the same in every prompt.
        """
        role = Role.SOFT if any((prompt.roles == Role.SOFT).any() for prompt in prompts) else Role.LITERAL
        found = {tuple(prompt.input_ids[prompt.roles == role].tolist()) for prompt in prompts}
        if found == {()}:
            raise UsageError(
                "method 'soft_prompt': the template has no words of its own: write {{ soft(5) }} where the trained "
                "tokens go."
            )
        if len(found) > 1:
            raise UsageError(
                "method 'soft_prompt': the template's own words are not the same tokens in every row, so they cannot "
                'be trained: write {{ soft("...") }} around those that are.'
            )
        return cls(role, np.array(found.pop(), dtype=np.int64))

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> SoftTokens:
        """The soft tokens that `tensors` stored."""
        return cls(Role(int(tensors["role"])), tensors["ids"].numpy())

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is stored of them beside their vectors."""
        import torch

        return {"ids": torch.from_numpy(self.ids), "role": torch.tensor(int(self.role))}

    def mark(self, prompt: EncodedPrompt, size: int) -> EncodedPrompt:
        """The prompt with the numbers of the soft tokens, counted on from the size of the vocabulary, in their places.

        Raises:
            UsageError: the prompt has others than the ones that were fitted.
        """
        places = np.flatnonzero(prompt.roles == self.role)
        if not np.array_equal(prompt.input_ids[places], self.ids):
            raise UsageError(
                "method 'soft_prompt': a row has other words of the template than the shots have, so they cannot be "
                'trained: write {{ soft("...") }} around those that are always there.'
            )
        ids = prompt.input_ids.copy()
        ids[places] = size + np.arange(len(places), dtype=np.int32)
        return replace(prompt, input_ids=ids)


def start_vectors(tokens: SoftTokens, start: str, context: Context) -> Float[torch.Tensor, "soft dim"]:
    """What the vectors start from: embeddings of words, or noise as wide as the embeddings are.

    Raises:
        UsageError: there is no such start.
    """
    import torch

    if start not in STARTS:
        raise UsageError(f"method 'soft_prompt': start '{start}' is unknown. Known: {', '.join(STARTS)}.")
    weight = context.backend.model.get_input_embeddings().weight.detach().float()
    generator = derive_generator(context.seed, "soft_prompt", start)
    if start == "random":
        noise = generator.normal(size=(len(tokens.ids), weight.shape[1])).astype(np.float32)
        found: torch.Tensor = torch.from_numpy(noise).to(weight.device) * weight.std()
        return found
    ids = torch.from_numpy(_start_ids(tokens, start, context, generator))
    return torch.nn.functional.embedding(ids.to(weight.device), weight).clone()


def describe_vectors(
    vectors: Float[torch.Tensor, "soft dim"],
    start: Float[torch.Tensor, "soft dim"],
    tokens: SoftTokens,
    context: Context,
) -> list[dict[str, Any]]:
    """For each soft token the word it stands for, how far it went, and the nearest words.

    `drift` is the Euclidean distance from the start over the length of the start, None where that is 0. `nearest` has
    words with their cosine, nearest first, and `nearest_id` is the token of the first; special tokens are no words.
    """
    import torch

    weight = context.backend.model.get_input_embeddings().weight.detach().float()
    encoder, tokenizer = context.backend.encoder(None), context.backend.tokenizer
    cosines = torch.nn.functional.normalize(vectors, dim=1) @ torch.nn.functional.normalize(weight, dim=1).T
    cosines[:, list(tokenizer.all_special_ids)] = -torch.inf
    cosines[:, len(tokenizer) :] = -torch.inf
    best = cosines.topk(NUM_NEAREST, dim=1)
    return [
        {
            "word": encoder.token_text(int(token)),
            "drift": _drift(vectors[place], start[place]),
            "nearest_id": int(ids[0]),
            "nearest": list(zip(encoder.token_texts(ids.tolist()), map(float, values), strict=True)),
        }
        for place, (token, ids, values) in enumerate(zip(tokens.ids, best.indices, best.values, strict=True))
    ]


def _drift(vector: Float[torch.Tensor, " dim"], start: Float[torch.Tensor, " dim"]) -> float | None:
    length = float(start.norm())
    return float((vector - start).norm()) / length if length else None


def _start_ids(
    tokens: SoftTokens, start: str, context: Context, generator: np.random.Generator
) -> Int64[np.ndarray, " soft"]:
    """The word whose embedding each vector starts from."""
    if start == "label_words":
        return np.resize(context.label_words.token_ids, len(tokens.ids))
    tokenizer = context.backend.tokenizer
    special = {int(token) for token in tokenizer.all_special_ids}
    usable = [token for token in range(len(tokenizer)) if token not in special][:NUM_SAMPLED]
    sampled = generator.choice(usable, size=len(tokens.ids), replace=len(usable) < len(tokens.ids))
    if start == "vocabulary":
        return sampled.astype(np.int64)
    return np.where(tokens.ids == int(tokenizer.mask_token_id), sampled, tokens.ids).astype(np.int64)
