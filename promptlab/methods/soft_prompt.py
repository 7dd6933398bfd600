"""Trained vectors in the input embeddings, anywhere in a template, under a frozen model.

Prompt tuning (Lester et al. 2021), P-tuning (Liu et al. 2021) and mixed templates (OpenPrompt, Ding et al. 2022) are
settings of it: where the soft tokens stand, what they start from, and whether they come out of an MLP or an LSTM while
they are fitted.

The tokens of `{{ soft("It was") }}` and `{{ soft(5) }}` are soft; in a template without any, all of its own words are.
A vector that starts from its own word is that word's embedding, so the unfitted prompt scores as the hard one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from promptlab.errors import ModelError, UsageError
from promptlab.methods.attaching import Attachment, fit_at_mask, load_at_mask
from promptlab.methods.base import Context, Fitted, LabelledPrompts, Method, Setting
from promptlab.methods.soft_tokens import SoftTokens, describe_vectors, start_vectors
from promptlab.seeding import derive_seed

if TYPE_CHECKING:
    import torch

REPARAMETRISATIONS = ("none", "mlp", "lstm")


class SoftPrompt(Method):
    """Moves vectors in the place of word embeddings.

    Options: `start` is `words` (its own; a token without a word takes one of the vocabulary), `random`, `vocabulary` or
    `label_words`; `reparametrisation` is `none`, `mlp` or `lstm`.
    """

    name: ClassVar[str] = "soft_prompt"
    options: ClassVar[Mapping[str, Any]] = {"start": "words", "reparametrisation": "none"}
    has_projection: ClassVar[bool] = True

    def grid(self) -> tuple[Setting, ...]:
        """Learning rates, from the template's own words."""
        return tuple(Setting(learning_rate=rate) for rate in (3e-2, 1e-1, 1e-2, 3e-3))

    def fit(self, shots: LabelledPrompts, setting: Setting, context: Context) -> Fitted:
        """See `Method.fit`."""
        tokens = SoftTokens.find(shots.prompts)
        chosen = {**self.options, **setting.options}
        vectors = start_vectors(tokens, chosen["start"], context)
        source = _make_source(vectors, chosen["reparametrisation"], context.seed)
        attachment = _attach(source, tokens, context)
        fitted = fit_at_mask(attachment, shots, setting, context)
        found = source.fix()
        facts = {**fitted.record.facts, "soft_tokens": describe_vectors(found, vectors, tokens, context)}
        tensors = {"vectors": found.cpu(), **tokens.tensors()}
        return replace(fitted, record=replace(fitted.record, facts=facts), tensors=tensors)

    def load(self, tensors: Mapping[str, torch.Tensor], setting: Setting, context: Context) -> Fitted:
        """See `Method.load`."""
        embeddings = context.backend.model.get_input_embeddings().weight
        if tuple(tensors["vectors"].shape) != (len(tensors["ids"]), embeddings.shape[1]):
            raise ModelError(
                f"the tuned tensors do not fit the model: 'vectors' has the shape {tuple(tensors['vectors'].shape)} "
                f"and should have {(len(tensors['ids']), embeddings.shape[1])}."
            )
        tokens = SoftTokens.of(tensors)
        source = _make_source(tensors["vectors"].to(embeddings.device), "none", 0)
        attachment = _attach(source, tokens, context)
        fitted = load_at_mask(attachment, {"vectors": tensors["vectors"]}, context)
        source.fix()
        return replace(fitted, tensors=tensors)


def _attach(source: Any, tokens: SoftTokens, context: Context) -> Attachment:
    """Let the word embeddings of a model know the soft tokens, whose ids follow those of the vocabulary.

    The wrapped forward looks at nothing but its ids and the vectors, so batches can run side by side.
    """
    import torch

    embeddings = context.backend.model.get_input_embeddings()
    size, plain = len(embeddings.weight), embeddings.forward

    def forward(ids: torch.Tensor) -> torch.Tensor:
        is_soft = ids >= size
        known: torch.Tensor = plain(torch.where(is_soft, 0, ids))
        vectors = source()[torch.where(is_soft, ids - size, 0)]
        return torch.where(is_soft[..., None], vectors.to(known.dtype), known)

    def detach() -> None:
        embeddings.__dict__.pop("forward", None)

    embeddings.forward = forward
    return Attachment(dict(source.named_parameters()), detach, lambda prompt: tokens.mark(prompt, size))


def _make_source(vectors: torch.Tensor, kind: str, seed: int) -> Any:
    """The module that gives the vectors; every kind gives the start itself before it is fitted."""
    import torch

    from promptlab.methods.reparametrising import Vectors

    if kind not in REPARAMETRISATIONS:
        raise UsageError(
            f"method 'soft_prompt': reparametrisation '{kind}' is unknown. Known: {', '.join(REPARAMETRISATIONS)}."
        )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "reparametrisation"))
        return Vectors(vectors, kind)
