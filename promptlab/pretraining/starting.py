"""Word vectors -> a net that predicts from the mean of its context, before any training.

The last layer's attention copies (its value and output matrices are multiples of the identity) and looks at each word
in proportion to word2vec's rate of keeping it; the decoder holds the output vectors and the log frequencies. So a
masked word is scored as by a continuous bag of words, and what the vectors know is in the net by construction.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ModernBertForMaskedLM

from promptlab.pretraining.architecture import masked_states
from promptlab.pretraining.masking import MaskedRows
from promptlab.pretraining.vectors import WordVectors
from promptlab.pretraining.vocabulary import MASK

_CONTEXT_STRENGTH = 8.0
_KEEP_RATE_SUBSAMPLE = 1e-4
_RIDGE = 1e-3
_SCALES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)


@torch.no_grad()
def start_from_vectors(
    model: ModernBertForMaskedLM, vectors: WordVectors, sample: MaskedRows, *, weights: Tensor
) -> float:
    """Write the word vectors into a fresh net.

    Args:
        model: The net, with random small weights.
        vectors: Input and output vectors and frequencies.
        sample: Masked rows by which the scale of the scores is chosen.
        weights: How readily each piece is hidden; with the frequencies they are the odds of the answers, which the
            decoder's bias holds, shape (vocabulary,).

    Returns:
        The loss on the sample, nats a masked token.
    """
    width = model.config.hidden_size
    embedding = model.model.embeddings.tok_embeddings.weight
    seen = vectors.inputs.norm(dim=1) > 0
    spread = width**-0.5
    embedding.copy_(torch.where(seen[:, None], vectors.inputs, embedding * (spread / embedding.std())))
    _copy_context(model)
    _look_at_content(model, vectors)
    answers = vectors.frequencies * weights + 0.5
    model.decoder.bias.copy_((answers / answers.sum()).log())
    states = masked_states(model, sample.ids, sample.positions, awake=1).flatten(0, 1)
    losses = {}
    for scale in _SCALES:
        scores = F.linear(states, vectors.outputs * scale, model.decoder.bias)
        losses[scale] = float(F.cross_entropy(scores, sample.targets.flatten()))
    best = min(losses, key=losses.__getitem__)
    model.decoder.weight.copy_(vectors.outputs * best)
    return losses[best]


def _copy_context(model: ModernBertForMaskedLM) -> None:
    width = model.config.hidden_size
    attention = model.model.layers[-1].attn
    attention.Wqkv.weight[2 * width :].copy_(torch.eye(width))
    attention.Wo.weight.copy_(_CONTEXT_STRENGTH * torch.eye(width))
    model.head.dense.weight.copy_(torch.eye(width))


def _look_at_content(model: ModernBertForMaskedLM, vectors: WordVectors) -> None:
    """Make the score between [MASK] and a word the log of the rate of keeping that word, in each head.

    The score lives in the slowest rotary dimension of a head, which hardly turns, so it holds at any distance. The log
    rate is read from the input vectors by a ridge regression weighted by the square root of the frequencies.
    """
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    head_dim = width // heads
    table: Tensor = model.model.embeddings.norm(model.model.embeddings.tok_embeddings.weight)
    relative = vectors.frequencies / vectors.frequencies.sum()
    log_rate = (_KEEP_RATE_SUBSAMPLE / relative.clamp_min(1e-12)).sqrt().clamp_max(1.0).log()
    importance = vectors.frequencies.sqrt()
    importance = importance / importance.sum()
    centred = table - (importance[:, None] * table).sum(0)
    gram = centred.T @ (importance[:, None] * centred) + _RIDGE * torch.eye(width)
    reader = torch.linalg.solve(gram, centred.T @ (importance * log_rate))
    question = table[MASK] * (head_dim**0.5 / table[MASK].square().sum())
    for head in range(heads):
        row = head * head_dim + head_dim // 2 - 1
        model.model.layers[-1].attn.Wqkv.weight[row].copy_(question)
        model.model.layers[-1].attn.Wqkv.weight[width + row].copy_(reader)
