"""`templates/<family>/<name>.jinja` -> `Template`: a YAML head, then the text with its fields and its mask."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from promptlab.documents import parse_yaml, validate
from promptlab.errors import FileFault, UsageError
from promptlab.hashing import content_hash, text_hash
from promptlab.library import LibraryFile
from promptlab.specs.base import Spec, Words, as_tuple, load_all, only, read_text
from promptlab.types import Pieces

Tag = Literal["instructive", "irrelevant", "misleading", "null"]


def _as_tags(value: Any) -> Any:
    """Tags as a tuple; an unquoted `null`, which YAML reads as nothing, is the tag of that name."""
    tags = as_tuple(value)
    return tuple("null" if tag is None else tag for tag in tags) if isinstance(tags, tuple) else tags


class TemplateHead(Spec):
    """The YAML head of a template file."""

    fields: Words | None = None
    tags: Annotated[tuple[Tag, ...], BeforeValidator(_as_tags)] = ("instructive",)
    domain_prompt: str | None = None
    pieces: Pieces = "whole"
    reference: str | None = None
    notes: str | None = None


class Template(Spec):
    """A text with fields and a mask. `family` None means that it fits every task that has its fields."""

    name: str
    family: str | None
    path: str
    text: str
    first_line: int = 1
    fields: tuple[str, ...] | None = None
    tags: tuple[Tag, ...] = ("instructive",)
    domain_prompt: str | None = None
    pieces: Pieces = "whole"
    reference: str | None = None
    notes: str | None = None

    @property
    def hash(self) -> str:
        """Identifies the text and, where it is not tokenised whole, how: all that rendering and encoding see."""
        return text_hash(self.text) if self.pieces == "whole" else content_hash([self.text, self.pieces])

    @classmethod
    def from_text(cls, text: str, *, name: str | None = None, family: str | None = None) -> Template:
        """A template from its text alone; without a name it is called by the start of its hash."""
        if "{{" not in text:
            raise UsageError(f"template text {text!r} has no '{{{{ ... }}}}': write at least {{{{ mask }}}}.")
        name = name or f"inline-{text_hash(text)[:8]}"
        return cls(name=name, family=family, path=f"template {name}", text=text)

    @classmethod
    def load(cls, name_or_path: str, *, include: Sequence[str] = ()) -> Template:
        """The template of that name, file or text."""
        return only(load_templates([name_or_path], include=include), "template", name_or_path)


def load_templates(selectors: Sequence[str | Template], *, include: Sequence[str] = ()) -> list[Template]:
    """Templates by name, glob, path or inline text, in the order given, each once."""
    return load_all("template", selectors, read_template, _template_inline, include)


def read_template(file: LibraryFile) -> Template:
    """The template of a file.

    Raises:
        FileFault: every fault of its head.
    """
    return _parsed(file, read_text(file.path, file.shown))


@functools.lru_cache(maxsize=1024)
def _parsed(file: LibraryFile, text: str) -> Template:
    """What a file says, parsed once however often a plan asks for it."""
    head, body, first_line = _split_head(text, file.shown)
    document = parse_yaml(head, shown=file.shown, first_line=2)
    fields = validate(TemplateHead, document)
    return Template(
        name=file.name,
        family=file.family,
        path=file.shown,
        text=body,
        first_line=first_line,
        fields=fields.fields,
        tags=fields.tags,
        domain_prompt=fields.domain_prompt,
        pieces=fields.pieces,
        reference=fields.reference,
        notes=fields.notes,
    )


def _template_inline(selector: str) -> list[Template] | None:
    return [Template.from_text(selector)] if "{{" in selector else None


def _split_head(text: str, shown: str) -> tuple[str, str, int]:
    """Head, body and the body's first line of a template file; the newline at the very end does not count."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        body, first_line, head = text, 1, ""
    else:
        ends = [number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"]
        if not ends:
            raise FileFault(f"{shown}:1 the head that starts with '---' never ends: add a second '---' line.")
        head = "\n".join(lines[1 : ends[0]])
        body, first_line = "\n".join(lines[ends[0] + 1 :]), ends[0] + 2
    return head, body.removesuffix("\n"), first_line
