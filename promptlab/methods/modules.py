"""An architecture -> the names of the modules in its layers that methods add to, replace or free.

The table has what was looked at and tested; any other architecture is refused, since a name that matches by chance
would tune something else than a method says. Every name lies in a layer: the vocabulary head is never among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from promptlab.backends.base import Backend
from promptlab.errors import ModelError

Role = Literal["query", "key", "value", "attention_output", "feed_forward_in", "feed_forward_out"]
ROLES: tuple[Role, ...] = ("query", "key", "value", "attention_output", "feed_forward_in", "feed_forward_out")


@dataclass(frozen=True, slots=True)
class Modules:
    """Names of an architecture.

    `layer` is a pattern of a layer's name, and the linear maps of the roles are named from there; one that makes
    queries, keys and values at once has three roles. `attention` is the module that calls transformers' attention
    interface, or None where there is none. `last_norm` normalises the sum that a layer hands on; None: it hands on the
    sum. `norms` are last parts of the names of all norms, those outside the layers too.
    """

    layer: str
    attention: str | None
    query: str
    key: str
    value: str
    attention_output: str
    feed_forward_in: str
    feed_forward_out: str
    last_norm: str | None
    norms: tuple[str, ...]

    def paths(self, roles: Iterable[Role]) -> tuple[str, ...]:
        """The maps of some roles, each once, as they are named in a layer."""
        return tuple(dict.fromkeys(getattr(self, role) for role in roles))

    def pattern(self, paths: Iterable[str]) -> str:
        """A pattern of the full names of some modules of every layer."""
        return rf"{self.layer}\.({'|'.join(re.escape(path) for path in paths)})"

    def find(self, model: Any, *paths: str) -> list[tuple[str, Any]]:
        """The modules of those names in every layer, first layer first, with their full names.

        Raises:
            ModelError: there are none.
        """
        pattern = re.compile(self.pattern(paths))
        found = [(name, module) for name, module in model.named_modules() if pattern.fullmatch(name)]
        if not found:
            raise ModelError(
                f"{type(model).__name__} has no modules named {' or '.join(paths)}: choose another method."
            )
        return found

    def layers(self, model: Any) -> list[tuple[str, Any]]:
        """The layers themselves, with their full names; one that is shared stands once."""
        return [(name, module) for name, module in model.named_modules() if re.fullmatch(self.layer, name)]

    def path_in_layer(self, name: str) -> str | None:
        """How a module of a layer is named there, from its full name; None: it lies in no layer."""
        found = re.fullmatch(rf"{self.layer}\.(?P<path>.+)", name)
        return found["path"] if found else None

    def roles(self, path: str) -> tuple[Role, ...]:
        """What a map of a layer does, by its name there."""
        return tuple(role for role in ROLES if getattr(self, role) == path)


_OF_BERT = Modules(
    layer=r"[a-z]+\.encoder\.layer\.\d+",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    feed_forward_in="intermediate.dense",
    feed_forward_out="output.dense",
    last_norm="output.LayerNorm",
    norms=("LayerNorm", "layer_norm"),
)
_TABLE: dict[str, Modules] = {
    "Bert": _OF_BERT,
    "Roberta": _OF_BERT,
    "XLMRoberta": _OF_BERT,
    "Electra": _OF_BERT,
    "DebertaV2": Modules(
        layer=r"deberta\.encoder\.layer\.\d+",
        attention=None,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        attention_output="attention.output.dense",
        feed_forward_in="intermediate.dense",
        feed_forward_out="output.dense",
        last_norm="output.LayerNorm",
        norms=("LayerNorm", "layer_norm"),
    ),
    "DistilBert": Modules(
        layer=r"distilbert\.transformer\.layer\.\d+",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        feed_forward_in="ffn.lin1",
        feed_forward_out="ffn.lin2",
        last_norm="output_layer_norm",
        norms=("LayerNorm", "sa_layer_norm", "output_layer_norm", "vocab_layer_norm"),
    ),
    "Albert": Modules(
        layer=r"albert\.encoder\.albert_layer_groups\.\d+\.albert_layers\.\d+",
        attention="attention",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        feed_forward_in="ffn",
        feed_forward_out="ffn_output",
        last_norm="full_layer_layer_norm",
        norms=("LayerNorm", "full_layer_layer_norm"),
    ),
    "ModernBert": Modules(
        layer=r"model\.layers\.\d+",
        attention="attn",
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_output="attn.Wo",
        feed_forward_in="mlp.Wi",
        feed_forward_out="mlp.Wo",
        last_norm=None,
        norms=("norm", "attn_norm", "mlp_norm", "final_norm"),
    ),
}


def refusal_of(backend: Backend, *, method: str) -> str | None:
    """Why a method that needs the table cannot work with a model, or None."""
    architecture = backend.scorer.architecture
    if _look_up(architecture) is not None:
        return None
    known = ", ".join(_TABLE)
    return (
        f"{method} does not know the modules of {architecture}: it works with {known}. "
        "Choose prompt_fine_tune, which works with any."
    )


def modules_of(backend: Backend, *, method: str) -> Modules:
    """The names of a model's modules.

    Raises:
        ModelError: its architecture is not in the table.
    """
    found = _look_up(backend.scorer.architecture)
    if found is None:
        raise ModelError(refusal_of(backend, method=method) or "")
    return found


def num_applications(model: Any) -> int:
    """How many layers a text goes through; where weights are shared, more than there are."""
    return int(model.config.num_hidden_layers) * int(getattr(model.config, "inner_group_num", 1))


def _look_up(architecture: str) -> Modules | None:
    """The entry of an architecture: its name goes on with the kind of head, as in BertForMaskedLM."""
    found = (names for family, names in _TABLE.items() if re.match(rf"{family}(For|Model)", architecture))
    return next(found, None)
