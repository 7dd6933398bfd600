"""What is kept of a fit, as one value: all that scoring with it needs, and what it must give on five made-up rows.

The rule it guards: everything that decides a number is in its hash. Names, versions and expected scores are not, so two
equal fits have one hash wherever they were made.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptlab._version import __version__
from promptlab.canaries import Canary
from promptlab.hashing import content_hash
from promptlab.methods.base import Method, Setting, Words
from promptlab.registry import METHODS
from promptlab.rendering import CompiledTemplate, compile_template
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1
CALIBRATION = "none"  # a fit sees to the prior by itself
_APART = ("canaries", "versions", "schema_version")  # what is stored beside what the hash is made of
_FREE_OF_BASE = ("model", "revision")


@dataclass(frozen=True, slots=True)
class Base:
    """The model that something was fitted inside: its name as the user gave it, and the parts of `Scorer.identity`."""

    model: str
    revision: str | None
    architecture: str
    identity: Mapping[str, str]

    @property
    def dtype(self) -> str:
        """The dtype in which it was fitted."""
        return self.identity["dtype"]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A fit that can be kept.

    `block` is the id that a run's block of the same fit has. `words` are the label words that the method looks at, with
    the token of each in `word_ids`; None where it looks at none. `row_ids` name the shots, whose texts are not kept.
    `seed` is the user's, `fit_seed` the one of this fit. The tensors are in `fitted`, or in the folder.
    """

    block: str
    method: str
    version: int
    setting: Setting
    template: Template
    words: Verbalizer | None
    word_ids: tuple[int, ...]
    labels: tuple[str, ...]
    task: str
    family: str
    fields: tuple[str, ...]
    max_length: int
    num_shots: int
    draw: int
    row_ids: tuple[str, ...]
    seed: int
    fit_seed: int
    record: Mapping[str, Any]
    base: Base
    tensors_hash: str
    canaries: tuple[Canary, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    fitted: Mapping[str, torch.Tensor] | None = None
    folder: Path | None = None

    @functools.cached_property
    def hash(self) -> str:
        """Identifies everything that decides its scores, and what was fitted how."""
        head = {name: value for name, value in describe(self).items() if name not in _APART}
        base = {name: value for name, value in head["base"].items() if name not in _FREE_OF_BASE}
        return content_hash({**head, "base": base})

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"artefact {self.folder}" if self.folder is not None else f"the fit of {self.method}"

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"{self.method}, {self.num_shots} shots a label of task '{self.task}', draw {self.draw}"

    @property
    def compiled(self) -> CompiledTemplate:
        """Its template, ready to render."""
        return compile_template(self.template)

    def make_method(self) -> Method:
        """The method that can load it."""
        method: Method = METHODS.get(self.method)()
        return method

    def make_words(self) -> Words | None:
        """The label words as the method was given them."""
        if self.words is None:
            return None
        return Words(self.words, self.labels, np.array(self.word_ids, dtype=np.int64))

    def answer_words(self) -> Verbalizer:
        """What its answers are decided by: its words, or each label for itself where it answers with labels."""
        if self.words is not None and self.make_method().answers == "mask":
            return self.words
        return labels_alone(self.labels, self.words)

    def options(self) -> list[str] | None:
        """The first word of each label, in label order, for a template that lists them."""
        bound = self.answer_words()
        return [bound.labels[label][0].text for label in self.labels]


def labels_alone(labels: tuple[str, ...], words: Verbalizer | None) -> Verbalizer:
    """What a method that answers with labels is decided by: each label stands for itself."""
    name = "labels" if words is None else f"{words.name}+learned"
    return Verbalizer.from_labels({label: label for label in labels}, name=name)


def describe(artefact: Artefact) -> dict[str, Any]:
    """An artefact without its tensors as plain values, for `artefact.json`."""
    template = artefact.template.model_dump(mode="json", exclude={"path", "first_line", "notes"}, exclude_none=True)
    base = artefact.base
    return {
        "schema_version": SCHEMA_VERSION,
        "block": artefact.block,
        "method": {"name": artefact.method, "version": artefact.version, "setting": artefact.setting.described()},
        "template": {**template, "hash": artefact.template.hash},
        "words": _describe_words(artefact.words, artefact.word_ids),
        "labels": list(artefact.labels),
        "calibration": CALIBRATION,
        "task": {"name": artefact.task, "family": artefact.family, "fields": list(artefact.fields)},
        "max_length": artefact.max_length,
        "shots": {"num_shots": artefact.num_shots, "draw": artefact.draw, "rows": list(artefact.row_ids)},
        "seed": artefact.seed,
        "fit_seed": artefact.fit_seed,
        "record": _plain(artefact.record),
        "base": {
            "model": base.model,
            "revision": base.revision,
            "architecture": base.architecture,
            **dict(base.identity),
        },
        "tensors": artefact.tensors_hash,
        "canaries": [_describe_canary(one, artefact.labels) for one in artefact.canaries],
        "versions": dict(artefact.versions),
    }


def parse(stored: Mapping[str, Any], folder: Path) -> Artefact:
    """The artefact that `describe` described; its tensors lie in the folder.

    Raises:
        KeyError, TypeError, ValueError: it is not what `describe` gives.
    """
    method, template, words = stored["method"], dict(stored["template"]), stored["words"]
    task, shots, base = stored["task"], stored["shots"], dict(stored["base"])
    template.pop("hash")
    named = {name: base.pop(name) for name in ("model", "revision", "architecture")}
    labels = tuple(stored["labels"])
    return Artefact(
        block=stored["block"],
        method=method["name"],
        version=method["version"],
        setting=_setting(method["setting"]),
        template=_template(template),
        words=_verbalizer(words) if words is not None else None,
        word_ids=tuple(words["token_ids"]) if words is not None else (),
        labels=labels,
        task=task["name"],
        family=task["family"],
        fields=tuple(task["fields"]),
        max_length=stored["max_length"],
        num_shots=shots["num_shots"],
        draw=shots["draw"],
        row_ids=tuple(shots["rows"]),
        seed=stored["seed"],
        fit_seed=stored["fit_seed"],
        record=stored["record"],
        base=Base(**named, identity=base),
        tensors_hash=stored["tensors"],
        canaries=tuple(_canary(one, labels) for one in stored["canaries"]),
        versions=stored["versions"],
        folder=folder,
    )


def find_versions() -> dict[str, str]:
    """Versions of what decides scores."""
    return {"promptlab": __version__, **{name: importlib.metadata.version(name) for name in ("torch", "transformers")}}


def _describe_words(words: Verbalizer | None, token_ids: tuple[int, ...]) -> dict[str, Any] | None:
    if words is None:
        return None
    return {
        "name": words.name,
        "family": words.family,
        "labels": [[label, [[one.word, one.weight] for one in several]] for label, several in words.labels.items()],
        "pool": words.pool,
        "multi_token": words.multi_token,
        "normalize": words.normalize,
        "token_ids": list(token_ids),
        "hash": words.hash,
    }


def _verbalizer(stored: Mapping[str, Any]) -> Verbalizer:
    """The words in the order in which they were kept, which is that of their token ids."""
    return Verbalizer(
        name=stored["name"],
        family=stored["family"],
        path=f"verbalizer {stored['name']}",
        labels={label: dict(pairs) for label, pairs in stored["labels"]},  # type: ignore[misc]  # a validator makes LabelWords
        pool=stored["pool"],
        multi_token=stored["multi_token"],
        normalize=stored["normalize"],
    )


def _template(stored: Mapping[str, Any]) -> Template:
    lists = {name: tuple(stored[name]) for name in ("fields", "tags") if name in stored}
    return Template.model_validate({"family": None, **stored, **lists, "path": f"template {stored['name']}"})


def _setting(stored: Mapping[str, Any]) -> Setting:
    """A setting whose lists are tuples again, as methods write them."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in stored["options"].items()}
    return Setting(**{**stored, "options": options})


def _describe_canary(canary: Canary, labels: tuple[str, ...]) -> dict[str, Any]:
    expected = canary.expected
    named = None if expected is None else dict(zip(labels, expected, strict=True))
    return {"fields": dict(canary.fields), "log_probabilities": named}


def _canary(stored: Mapping[str, Any], labels: tuple[str, ...]) -> Canary:
    named = stored["log_probabilities"]
    return Canary(stored["fields"], None if named is None else tuple(float(named[label]) for label in labels))


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples are lists, keys are texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
