"""The record of a model that was adapted to a domain -> its facts in a run; a run's models -> which was made of which.

The rule guarded here: a record counts only beside the weights that it names, and a base is known by its weights and
never by its name. Of a record only names, counts and losses go into a run, so that no path of the machine does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.errors import StoreError
from promptlab.files import read_json

RECORD = Path("training") / "adaptation.json"
DOMAIN, GENERAL = "held-out text", "general text"
_COUNTS = ("seed", "steps", "kept_step", "tokens", "num_measured_tokens")


@dataclass(frozen=True, slots=True)
class Losses:
    """The masked-language-model loss of some text before and after, nats a hidden token."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A model of a run that was made of another one.

    Args:
        base: The model before, as the run calls it.
        adapted: The model after.
        corpora: Names of the corpora that it read, with their weights.
        tokens: How many it read.
        steps: In how many steps.
        kept_step: After which of them the weights are.
        losses: By text: that of the domain, which was held out, and general text where it was measured.
    """

    base: str
    adapted: str
    corpora: Mapping[str, float]
    tokens: int
    steps: int
    kept_step: int
    losses: Mapping[str, Losses]


def read_adaptation(folder: Path | None, *, weights_hash: str) -> dict[str, Any] | None:
    """What a run keeps of the record in a model's folder; None where there is none, or one of other weights.

    Args:
        folder: The model's folder, None where it has none.
        weights_hash: Of the weights in it.
    """
    if folder is None or not (folder / RECORD).is_file():
        return None
    try:
        record = read_json(folder / RECORD)
        if record["result"]["weights_hash"] != weights_hash:
            return None
        return {
            "base": {"name": str(record["base"]["name"]), "weights": str(record["base"]["weights_hash"])},
            "corpora": [{"name": str(one["name"]), "weight": float(one["weight"])} for one in record["corpora"]],
            **{name: int(record[name]) for name in _COUNTS},
            "losses": {
                str(name): {side: float(one[side]) for side in ("before", "after")}
                for name, one in record["measured"].items()
            },
        }
    except (StoreError, AttributeError, KeyError, TypeError, ValueError):
        return None  # a file of that name which is no record of ours


def find_adaptations(manifest: Mapping[str, Any]) -> list[Adaptation]:
    """The models of a run whose base is in the run too, in the order of its models."""
    models: Sequence[Mapping[str, Any]] = manifest.get("models", ())
    return [
        _adaptation(base["model"], model["model"], model["adaptation"])
        for model in models
        for base in models
        if "adaptation" in model and model["adaptation"]["base"]["weights"] == base.get("weights")
    ]


def _adaptation(base: str, adapted: str, facts: Mapping[str, Any]) -> Adaptation:
    return Adaptation(
        base=base,
        adapted=adapted,
        corpora={corpus["name"]: corpus["weight"] for corpus in facts["corpora"]},
        tokens=facts["tokens"],
        steps=facts["steps"],
        kept_step=facts["kept_step"],
        losses={name: Losses(**losses) for name, losses in facts["losses"].items()},
    )
