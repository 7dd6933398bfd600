"""`run.yaml` or flags or keyword arguments -> `RunSpec`: what is to be scored, before anything is looked up.

A value is checked here wherever it came from, so a flag, a key of a file and an argument get the same sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from promptlab.documents import parse_yaml, validate
from promptlab.errors import UsageError, did_you_mean
from promptlab.specs.base import Spec, read_text
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

BUNDLED_TASKS = ("everyday_nli", "news_topic", "review_sentiment")
Scoring = Literal["mask", "replaced_token"]

DTYPES = ("float32", "bfloat16", "float16")
SCORINGS: tuple[str, ...] = get_args(Scoring)
SELECTIONS = ("cross_validation", "mdl", "default")
SHORT_SHOTS = ("refuse", "all")
ZERO_SHOT, PROJECTED = "zero_shot", "soft_prompt_projected"
_NAME = re.compile(r"\w[\w.+-]*")


def _as_text(value: Any) -> Any:
    """A text; a path of Python is written out."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"must be a text, found {value!r}")
    return value


def _as_selectors(value: Any) -> Any:
    """One selector or a list of them."""
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    selectors = tuple(os.fspath(item) if isinstance(item, os.PathLike) else item for item in several)
    for item in selectors:
        if not isinstance(item, str | Mapping | Spec) or item == "":
            raise ValueError(f"each must be a name, a glob, a path or a text, found {item!r}")
    return selectors


def _as_choices(value: Any) -> Any:
    """Selectors, of which there must be one at least."""
    selectors = _as_selectors(value)
    if not selectors:
        raise ValueError("name at least one")
    return selectors


def _number(at_least: int, hint: str, *, words: tuple[str | None, ...] = ()) -> BeforeValidator:
    """A whole number, which flags write as a text, or one of some words."""
    return BeforeValidator(lambda value: value if value in words else _whole(value, at_least, hint))


def _whole(value: Any, at_least: int, hint: str) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if not isinstance(number, Integral) or isinstance(number, bool) or number < at_least:
        raise ValueError(f"write {hint}, found {value!r}")
    return int(number)


def _as_limit(value: Any) -> Any:
    """A number of rows, or `first:` and a number."""
    if value is None or (isinstance(value, str) and re.fullmatch(r"first:0*[1-9][0-9]*", value)):
        return value
    return _whole(value, 1, "a whole number from 1, or first:N for the first N rows")


def as_pairs(value: Any) -> Any:
    """`key=value` texts, or a mapping, as a mapping of texts."""
    if value is None or isinstance(value, Mapping):
        return value if value is None else {str(key): item for key, item in value.items()}
    pairs: dict[str, str] = {}
    for text in value if isinstance(value, list | tuple) else (value,):
        key, equals, item = (part.strip() for part in str(text).partition("="))
        if not isinstance(text, str) or not equals or not key or not item:
            raise ValueError(f"write name=value, found {text!r}")
        if key in pairs:
            raise ValueError(f"'{key}' stands twice")
        pairs[key] = item
    return pairs


def _as_ensembles(value: Any) -> Any:
    """`*`, `name=sentiment/*|just` or a mapping from name to selectors, as a mapping of tuples."""
    if isinstance(value, Mapping):
        return {str(name): _as_choices(selectors) for name, selectors in value.items()}
    named: dict[str, tuple[Any, ...]] = {}
    for text in _as_selectors(value):
        if not isinstance(text, str):
            raise ValueError(f"write a glob, or name=selector|selector, found {text!r}")
        name, equals, selectors = text.partition("=")
        parts = [part.strip() for part in (selectors if equals else text).split("|")]
        if not name.strip() or not all(parts):
            raise ValueError(f"write a glob, or name=selector|selector, found {text!r}")
        if name.strip() in named:
            raise ValueError(f"'{name.strip()}' stands twice")
        named[name.strip()] = tuple(parts)
    return named


def _as_dtype(value: Any) -> Any:
    if value not in DTYPES:
        raise ValueError(f"choose one of {', '.join(DTYPES)}, found {value!r}")
    return value


def _as_scoring(value: Any) -> Any:
    if value not in SCORINGS:
        raise ValueError(f"choose one of {', '.join(SCORINGS)}, found {value!r}")
    return value


def _as_shots(value: Any) -> Any:
    """Numbers of shots a label, smallest first, each once."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(sorted({_whole(one, 1, "whole numbers from 1, such as 4,16,64") for one in several}))


def _one_of(names: tuple[str, ...]) -> BeforeValidator:
    """One of some names."""

    def check(value: Any) -> Any:
        if value not in names:
            raise ValueError(f"choose one of {', '.join(names)}, found {value!r}")
        return value

    return BeforeValidator(check)


def _as_name(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
        raise ValueError(f"write letters, digits, '_', '.', '+' and '-', no '/', found {value!r}")
    return value


Text = Annotated[str, BeforeValidator(_as_text)]


class RunSpec(BaseModel):
    """One run as it was asked for. Selectors are names, globs, paths, inline text or loaded values.

    Every key is also a flag of `promptlab run` and an argument of `promptlab.run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    models: Annotated[tuple[str, ...], BeforeValidator(_as_choices)] = ("mini",)
    revision: Text | None = None
    tasks: Annotated[tuple[str | Task, ...], BeforeValidator(_as_choices)] = BUNDLED_TASKS
    templates: Annotated[tuple[str | Template, ...], BeforeValidator(_as_choices)] = ("*",)
    verbalizers: Annotated[tuple[str | dict[str, Any] | Verbalizer, ...], BeforeValidator(_as_choices)] = ("*",)
    calibrations: Annotated[tuple[str, ...], BeforeValidator(_as_choices)] = ("none", "contextual")
    prepare: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    ensembles: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_as_ensembles)] = Field(default_factory=dict)
    metrics: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    methods: Annotated[tuple[str, ...], BeforeValidator(_as_choices)] = (ZERO_SHOT,)
    shots: Annotated[tuple[int, ...], BeforeValidator(_as_shots)] = ()
    seeds: Annotated[int, _number(1, "a whole number from 1")] = 5
    shots_short: Annotated[str, _one_of(SHORT_SHOTS)] = "refuse"
    selection: Annotated[str, _one_of(SELECTIONS)] = "cross_validation"
    settings: Annotated[dict[str, str] | None, BeforeValidator(as_pairs)] = None
    folds: Annotated[int, _number(2, "a whole number from 2")] = 4
    fit_templates: Annotated[tuple[str | Template, ...], BeforeValidator(_as_selectors)] = ()
    fit_verbalizers: Annotated[tuple[str | dict[str, Any] | Verbalizer, ...], BeforeValidator(_as_selectors)] = ()
    artefacts: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    save_fits: bool = False
    no_projection: bool = False
    rows: Text | None = None
    train_rows: Text | None = None
    text_column: Text | None = None
    fields: Annotated[dict[str, str] | None, BeforeValidator(as_pairs)] = None
    label_column: Text | None = None
    label_values: Annotated[dict[str, str] | None, BeforeValidator(as_pairs)] = None
    labels: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    family: Text | None = None
    data: Text | None = None
    include: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    split: Text = "test"
    limit: Annotated[str | int | None, BeforeValidator(_as_limit)] = None
    max_length: Annotated[int | None, _number(4, "a whole number from 4", words=(None,))] = None
    device: Text = "auto"
    dtype: Annotated[str, BeforeValidator(_as_dtype)] = "float32"
    scoring: Annotated[Scoring, BeforeValidator(_as_scoring)] = "mask"
    batch_size: Annotated[str | int, _number(1, "auto or a whole number from 1", words=("auto",))] = "auto"
    seed: Annotated[int, _number(0, "a whole number from 0")] = 0
    output_path: Text = "results"
    name: Annotated[str | None, BeforeValidator(_as_name)] = None
    no_text: bool = False
    store_states: bool = False
    skip_preflight: bool = False

    @model_validator(mode="after")
    def _agree(self) -> RunSpec:
        given = self.model_fields_set
        if self.rows is None:
            for key in OWN_ROWS:
                if getattr(self, key) not in (None, ()):
                    raise ValueError(f"{flag(key)} says something about --rows FILE, which is missing")
        elif "tasks" in given and self.tasks != BUNDLED_TASKS:
            raise ValueError("--rows and --tasks contradict each other: give the file, or the tasks")
        elif "split" in given and self.split != "test":
            raise ValueError("--rows and --split contradict each other: the rows of the file are what is scored")
        elif self.label_values is not None and self.label_column is None:
            raise ValueError("--label-values needs --label-column, whose values it names")
        elif self.text_column is not None and "text" in (self.fields or {}):
            raise ValueError("--text-column and --field text=... contradict each other: give one of them")
        self._agree_on_shots()
        if self.store_states and self.dtype != "float32":
            raise ValueError("--store-states keeps float32 states: leave --dtype out")
        if self.store_states and self.scoring != "mask":
            raise ValueError("--store-states keeps states at masks: leave --scoring out")
        return self

    def _agree_on_shots(self) -> None:
        """Shots and methods go together."""
        fitted = [name for name in self.methods if name != ZERO_SHOT]
        if fitted and not self.shots:
            raise ValueError(f"--methods {fitted[0]} needs labelled examples: say how many a label, such as --shots 16")
        if fitted and self.scoring != "mask":
            raise ValueError("--methods fits models that are asked at masks: leave --scoring out")
        if self.artefacts and self.scoring != "mask":
            raise ValueError("--artefact was fitted inside a model that is asked at masks: leave --scoring out")
        if self.save_fits and not fitted:
            raise ValueError("--save-fits keeps what methods fit: name one with --methods and --shots")
        if self.shots and self.split == "train":
            raise ValueError("--shots are drawn from the train split, which cannot be scored too: leave --split out")
        if not self.shots:
            for key in SHOT_KEYS:
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{flag(key)} says something about --shots, which is missing")


SHOT_KEYS = (
    "settings",
    "seeds",
    "shots_short",
    "selection",
    "folds",
    "fit_templates",
    "fit_verbalizers",
    "no_projection",
)
OWN_ROWS = ("train_rows", "text_column", "fields", "label_column", "label_values", "labels", "family")
_FLAGS = {
    "models": "--model",
    "settings": "--setting",
    "fields": "--field",
    "ensembles": "--ensemble",
    "artefacts": "--artefact",
}


def flag(key: str) -> str:
    """The flag of a key of a run."""
    return _FLAGS.get(key, f"--{key.replace('_', '-')}")


def make_run_spec(values: Mapping[str, Any], *, config: str | os.PathLike[str] | None = None) -> RunSpec:
    """The run of a config file with the given values on top.

    Raises:
        UsageError: a value that no run can have; every fault is named.
        FileFault: a fault of the config file, with its line.
    """
    stored: dict[str, Any] = {}
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise UsageError(f"--config {config}: there is no such file.")
        document = parse_yaml(read_text(path, str(config)), shown=str(config))
        validate(RunSpec, document)
        stored = document.data
    try:
        return RunSpec.model_validate({**stored, **values})
    except ValidationError as error:
        sentences = [_sentence(fault) for fault in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(sentences))) from None


def _sentence(fault: Any) -> str:
    """One fault of a flag or an argument."""
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return f"{message}."
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        known = list(RunSpec.model_fields)
        return f"argument '{name}' is unknown.{did_you_mean(name, known)} Known: {', '.join(known)}."
    found = "" if fault["type"] == "value_error" else f", found {fault['input']!r}"
    return f"{flag(name)}: {message}{found}."
