"""`run.yaml` or flags or keyword arguments -> `RunSpec`: what is to be scored, before anything is looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from promptlab.documents import Document, parse_yaml, validate
from promptlab.errors import UsageError
from promptlab.specs.base import read_text
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

BUNDLED_TASKS = ("everyday_nli", "news_topic", "review_sentiment")


def _as_selectors(value: Any) -> Any:
    """One selector or a list of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class RunSpec(BaseModel):
    """One run as it was asked for. Selectors are names, globs, paths, inline text or loaded values.

    Every key is also a flag of `promptlab run` and an argument of `promptlab.run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    models: Annotated[tuple[str, ...], BeforeValidator(_as_selectors), Field(min_length=1)] = ("mini",)
    revision: str | None = None
    tasks: Annotated[tuple[str | Task, ...], BeforeValidator(_as_selectors), Field(min_length=1)] = BUNDLED_TASKS
    templates: Annotated[tuple[str | Template, ...], BeforeValidator(_as_selectors), Field(min_length=1)] = ("*",)
    verbalizers: Annotated[
        tuple[str | dict[str, Any] | Verbalizer, ...], BeforeValidator(_as_selectors), Field(min_length=1)
    ] = ("*",)
    calibrations: Annotated[tuple[str, ...], BeforeValidator(_as_selectors), Field(min_length=1)] = (
        "none",
        "contextual",
    )
    data: str | None = None
    include: Annotated[tuple[str, ...], BeforeValidator(_as_selectors)] = ()
    split: str = "test"
    limit: str | int | None = None
    max_length: int | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: str | int = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    output_path: str = "results"
    name: Annotated[str, Field(pattern=r"^[\w][\w.+-]*$")] | None = None
    no_text: bool = False


def make_run_spec(values: dict[str, Any], *, config: str | None = None) -> RunSpec:
    """The run of a config file with the given values on top.

    Raises:
        UsageError: a value that no run can have; every fault is named.
        FileFault: a fault of the config file, with its line.
    """
    document = Document({}, {}, "the arguments of the run")
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise UsageError(f"--config {config}: there is no such file.")
        document = parse_yaml(read_text(path, config), shown=config)
        validate(RunSpec, document)
    merged = Document({**document.data, **values}, {}, "the arguments of the run")
    return _validated(merged)


def _validated(document: Document) -> RunSpec:
    from pydantic import ValidationError

    from promptlab.errors import did_you_mean

    try:
        return RunSpec.model_validate(document.data)
    except ValidationError as error:
        sentences = []
        for fault in error.errors():
            name = str(fault["loc"][0])
            flag = f"--{name.replace('_', '-')}"
            if fault["type"] == "extra_forbidden":
                known = list(RunSpec.model_fields)
                sentences.append(f"argument '{name}' is unknown.{did_you_mean(name, known)} Known: {', '.join(known)}.")
            else:
                sentences.append(f"{flag}: {fault['msg']}, found {fault['input']!r}.")
        raise UsageError("\n".join(dict.fromkeys(sentences))) from None
