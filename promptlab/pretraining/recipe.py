"""A YAML file -> a checked recipe of a pretraining run.

The rule guarded here: an unknown key, a wrong type or an impossible value is named in one sentence before any work.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptlab.errors import FileFault

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """Frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Vocabulary(Part):
    """The word pieces: how many, and which words are one piece each."""

    size: Annotated[int, Field(ge=64, le=65_535)]
    whole_words: tuple[str, ...] = ()


class Shape(Part):
    """The net: a ModernBERT with global attention in every layer."""

    width: Count
    layers: Count
    heads: Count
    mlp_width: Count
    max_length: Annotated[int, Field(ge=16)]

    @model_validator(mode="after")
    def _heads_divide(self) -> "Shape":
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the heads, {2 * self.heads}")
        return self


class Vectors(Part):
    """Word vectors that start the net; window in pieces after thinning out the frequent ones."""

    window: Count = 12
    subsample: Positive = 1e-4


class Masking(Part):
    """What is hidden: the share of a row, and how much content words are preferred to function words."""

    rate: Annotated[float, Field(gt=0, le=0.9)]
    content_share: Share = 0.0
    subsample: Positive = 1e-4
    random_share: Share = 0.0
    keep_share: Share = 0.0


class Stage(Part):
    """One stretch of training.

    Its rate rises over `warm_up` of its tokens, stays, and falls linearly to `final_rate` of its peak over the last
    `decay` of them. `vector_rate` scales the rate of the input and output vectors. The first `whole_text_heads`
    heads of the last layer keep the queries and keys they started with, so they look at the whole text for ever.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    tokens: Count
    length: Annotated[int, Field(ge=16)]
    batch_tokens: Count
    awake_layers: Count
    whole_text_heads: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive
    vector_rate: Annotated[float, Field(ge=0)] = 1.0
    warm_up: Share = 0.02
    decay: Share = 0.0
    final_rate: Share = 0.0
    masking: Masking


class Recipe(Part):
    """All of a run but its corpora, seed and output folder."""

    vocabulary: Vocabulary
    shape: Shape
    vectors: Vectors = Vectors()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    line_corpora: tuple[str, ...] = ()
    held_out_one_in: Annotated[int, Field(ge=2)] = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 1.0
    checkpoint_minutes: Positive = 5.0

    def identity(self) -> dict[str, Any]:
        """What makes a run this run and no other; the length of a stage may change while it runs."""
        recipe = self.model_dump(mode="json")
        for stage in recipe["stages"]:
            del stage["tokens"]
        return {"recipe": recipe}

    @model_validator(mode="after")
    def _stages_fit(self) -> "Recipe":
        for stage in self.stages:
            if stage.awake_layers > self.shape.layers:
                raise ValueError(f"stage {stage.name} wakes {stage.awake_layers} of {self.shape.layers} layers")
            if stage.whole_text_heads > self.shape.heads:
                raise ValueError(f"stage {stage.name} keeps {stage.whole_text_heads} of {self.shape.heads} heads")
            if stage.length > self.shape.max_length:
                raise ValueError(
                    f"stage {stage.name} has rows of {stage.length}, max_length is {self.shape.max_length}"
                )
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFault(f"{path}: the recipe cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise FileFault(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise FileFault(f"{path}: a recipe is a mapping of keys; found {type(content).__name__}.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise FileFault([_describe(path, fault["loc"], fault["msg"]) for fault in error.errors()]) from error


def _describe(path: Path, place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place)
    return f"{path}: {where + ': ' if where else ''}{message}."
