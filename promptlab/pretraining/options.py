"""Options of a run that goes on from a checkpoint -> one checked value.

The rule guarded here: an impossible value is named with its flag in one sentence before any work.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from promptlab.errors import UsageError
from promptlab.pretraining.recipe import Count, Masking, Part, Positive, Share
from promptlab.specs.run import flag

_AMOUNTS = ("steps", "tokens", "passes")
_FREE = ("model", "revision", "checkpoint_minutes", "store_dtype")  # may change while a run goes on


class Continuation(Part):
    """All of a run that goes on from a checkpoint but its corpora, seed and output folder.

    A step reads `accumulate` batches of `batch_rows` rows and moves the weights once, as one batch of all those rows
    would. One of `steps`, `tokens` and `passes` says how long it trains. The rate rises over `warm_up` of the steps and
    then follows the schedule.
    """

    model: str
    revision: str | None = None
    weights_hash: str = ""
    tokenizer_hash: str = ""
    masking_rate: Annotated[float, Field(gt=0, le=0.9)] = 0.15
    random_share: Share = 0.1
    keep_share: Share = 0.1
    whole_word: bool = False
    row_length: Annotated[int, Field(ge=8)] = 256
    batch_rows: Count = 32
    accumulate: Count = 1
    learning_rate: Positive = 5e-5
    warm_up: Share = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    steps: Count | None = None
    tokens: Count | None = None
    passes: Positive | None = None
    held_out_one_in: Annotated[int, Field(ge=2)] = 20
    measure_every: Count | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: Positive = 5.0
    store_dtype: Literal["float32", "original"] = "float32"

    @property
    def masking(self) -> Masking:
        """What is hidden and what is shown in its place."""
        return Masking(rate=self.masking_rate, random_share=self.random_share, keep_share=self.keep_share)

    @property
    def rows_a_step(self) -> int:
        """Rows that move the weights once."""
        return self.batch_rows * self.accumulate

    def count_steps(self, rows_a_pass: int) -> int:
        """Steps of the run, where a pass over the corpora has so many rows; one at least."""
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return max(1, self.tokens // (self.rows_a_step * self.row_length))
        return max(1, int((self.passes or 1.0) * rows_a_pass) // self.rows_a_step)

    def steps_between_measurements(self, steps: int) -> int:
        """Steps from one held-out loss to the next: as asked, or a tenth of the run."""
        return self.measure_every or max(1, steps // 10)

    def identity(self) -> dict[str, Any]:
        """What makes a run this run and no other: each option, and the contents of the checkpoint, not its name."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in _FREE}

    @model_validator(mode="after")
    def _fits_together(self) -> "Continuation":
        if self.random_share + self.keep_share > 1:
            raise ValueError(
                f"--random-share {self.random_share:g} and --keep-share {self.keep_share:g} are more than 1 together"
            )
        given = [flag(name) for name in _AMOUNTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how long to train: give one of them")
        return self


def parse_options(values: Mapping[str, Any]) -> Continuation:
    """Check what was asked for; None stands for what was not said.

    `batch_tokens` is taken in place of `batch_rows`.

    Raises:
        UsageError: the first fault, with its flag.
    """
    given = {key: value for key, value in values.items() if value is not None}
    batch_tokens = given.pop("batch_tokens", None)
    if batch_tokens is not None:
        if "batch_rows" in given:
            raise UsageError("--batch-rows and --batch-tokens both say how large a batch is: give one of them.")
        length = given.get("row_length", Continuation.model_fields["row_length"].default)
        if batch_tokens < length:
            raise UsageError(f"--batch-tokens {batch_tokens}: a batch has one row at least, of {length} tokens.")
        given["batch_rows"] = batch_tokens // length
    try:
        return Continuation.model_validate(given)
    except ValidationError as error:
        raise UsageError(_describe(error.errors()[0])) from None


def _describe(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    if not fault["loc"]:
        return f"{message}."
    return f"{flag(str(fault['loc'][0]))} {fault['input']}: {message}."
