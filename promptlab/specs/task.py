"""`tasks/<task>.yaml` -> `Task`: where rows come from, which fields and labels they give, what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from promptlab.documents import parse_yaml, validate
from promptlab.hashing import content_hash
from promptlab.library import LibraryFile
from promptlab.specs.base import Spec, as_tuple, load_all, only, read_text

RESERVED_FIELDS = frozenset({"mask", "sep", "soft", "options", "loop", "range"})


class HubSource(Spec):
    """A dataset of the hub. `revision` is a commit that somebody has seen; else `verified: false` is required."""

    path: str
    name: str | None = None
    revision: str | None = None
    verified: bool

    @model_validator(mode="after")
    def _is_honest(self) -> HubSource:
        if self.verified and not self.revision:
            raise ValueError("verified: true needs the revision (a commit) that was checked")
        return self


class LabelColumn(Spec):
    """Where the gold label stands, and our name for each raw value (the raw value itself where none is given)."""

    column: str
    values: dict[str | int | bool, str] | None = None


class Source(Spec):
    """One place a task's rows can come from: a folder under --data, one that ships with the task, files, or the hub.

    `files` names a file for each split, so their names are the splits.
    """

    local: str | None = None
    bundled: str | None = None
    files: Annotated[dict[str, str], Field(min_length=1)] | None = None
    hub: HubSource | None = None
    splits: dict[str, str]
    fields: dict[str, str]
    label: LabelColumn | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_splits_from_files(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("files"), dict):
            return values
        splits = {name: name for name in values["files"]}
        if values.get("splits", splits) != splits:
            raise ValueError("a source of files has the splits that files names: leave splits out")
        return {**values, "splits": splits}

    @field_validator("fields")
    @classmethod
    def _are_free_names(cls, fields: dict[str, str]) -> dict[str, str]:
        reserved = sorted(RESERVED_FIELDS & set(fields))
        if reserved:
            raise ValueError(f"'{reserved[0]}' has a meaning of its own in templates: give the field another name")
        return fields

    @model_validator(mode="after")
    def _is_one_place(self) -> Source:
        places = [name for name in ("local", "bundled", "files", "hub") if getattr(self, name) is not None]
        if len(places) != 1:
            raise ValueError("a source has exactly one of local, bundled, files and hub")
        if not self.fields:
            raise ValueError("a source needs at least one field")
        return self


class Task(Spec):
    """A dataset plus what is predicted. `labels` are our names, in order; `metrics[0]` is the headline."""

    name: str
    path: str
    title: str
    family: str
    kind: Literal["classification"]
    labels: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=2)]
    sources: Annotated[tuple[Source, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    metrics: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = ("accuracy", "macro_f1")
    language: str
    license: str
    citation: str
    homepage: str | None = None
    notes: str | None = None
    version: int = Field(ge=1)

    @field_validator("labels")
    @classmethod
    def _are_distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label stands twice")
        return labels

    @model_validator(mode="after")
    def _agree(self) -> Task:
        for number, source in enumerate(self.sources):
            values = set((source.label.values or {}).values()) if source.label else set()
            unknown = sorted(values - set(self.labels))
            if unknown:
                raise ValueError(f"sources.{number}.label.values names {unknown[0]!r}, which is not in labels")
        if len({frozenset(source.fields) for source in self.sources}) > 1:
            raise ValueError("all sources must give the same fields")
        return self

    @property
    def hash(self) -> str:
        """Identifies what the task says; its title, notes and citation may change without a new hash."""
        words = {"path", "title", "notes", "citation", "homepage", "license"}
        said = self.model_dump(mode="json", exclude=words)
        for source in said["sources"]:
            if source["files"] is None:  # the hash of a task without files is as it was before there were any
                del source["files"]
        return content_hash(said)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names that templates may use."""
        return tuple(self.sources[0].fields)

    @classmethod
    def load(cls, name_or_path: str, *, include: Sequence[str] = ()) -> Task:
        """The task of that name or file."""
        return only(load_tasks([name_or_path], include=include), "task", name_or_path)


def load_tasks(selectors: Sequence[str | Task], *, include: Sequence[str] = ()) -> list[Task]:
    """Tasks by name, glob or path, in the order given, each once."""
    return load_all("task", selectors, _task_from_file, lambda selector: None, include)


def _task_from_file(file: LibraryFile) -> Task:
    text = read_text(file.path, file.shown)
    document = parse_yaml(text, shown=file.shown)
    return validate(Task, document, name=file.name, path=str(file.path))
