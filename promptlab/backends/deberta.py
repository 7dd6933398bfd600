"""DeBERTa-v3 as it was pretrained: token ids -> a logit a token, large where it is taken for replaced.

Transformers has the body of this model and passes over its head, so the head is written here from He et al. (2023),
"DeBERTaV3: Improving DeBERTa using ELECTRA-Style Pre-Training with Gradient-Disentangled Embedding Sharing", and
the names of its published tensors. Heavy libraries are imported at the top: whoever imports this loads a model.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model, DebertaV2PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import TokenClassifierOutput

RENAMED = {r"^mask_predictions\.classifer\.": "mask_predictions.classifier."}  # as published files spell it


class ReplacedTokenHead(nn.Module):
    """States of a text -> a logit a token.

    A token is judged by its own state and that of the first one, which has seen the whole text:
    logit_i = w . act(W LayerNorm(h_0 + h_i) + b) + c.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, states: Tensor) -> Tensor:
        """Logits (batch, token) of last states (batch, token, dim); label 1 is replaced."""
        judged = self.dense(self.LayerNorm(states[:, :1] + states))
        logits: Tensor = self.classifier(self.activation(judged)).squeeze(-1)
        return logits


class DebertaDetector(DebertaV2PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """The body of transformers under the head of He et al. (2023); called as `ElectraForPreTraining` is."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        self.deberta = DebertaV2Model(config)
        self.mask_predictions = ReplacedTokenHead(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Any:
        """Logits (batch, token) as the attribute `logits`; label 1 is replaced."""
        output = self.deberta(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return TokenClassifierOutput(logits=self.mask_predictions(output.last_hidden_state))
