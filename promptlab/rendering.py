"""Template + example -> Prompt: ordered segments that know what may be cut and where the masks are.

Every `{{ expression }}` over a field is a shortenable segment and every literal a protected one. Text of a row is never
looked at: it cannot become a mask, a boundary or a part of the template.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.runtime import Undefined
from jinja2.visitor import NodeTransformer

from promptlab import sandbox
from promptlab.errors import TemplateError, did_you_mean
from promptlab.seeding import derive_seed
from promptlab.specs.template import Template
from promptlab.types import Example, Keep, Prompt, Segment

RESERVED = ("mask", "sep", "soft", "options")
MAX_SOFT = 256  # trainable tokens that one `{{ soft(n) }}` may stand for
_FINAL_PUNCTUATION = ".,;:!?…。，；：！？"
_OUTERMOST = ("shorten", "fixed")


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTemplate:
    """A template ready to render: what it reads, and its compiled text; `num_masks` None where rows decide it."""

    template: Template
    fields: frozenset[str]
    uses_options: bool
    uses_choice: bool
    num_masks: int | None
    code: Any

    @property
    def shown(self) -> str:
        """The file or the name that messages print."""
        return self.template.path


class _Slot:
    """`{{ mask }}` and `{{ sep }}`: stand alone, are never text."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __str__(self) -> str:
        raise JinjaError(f"{{{{ {self.kind} }}}} must stand alone, not inside an expression or a filter")

    __repr__ = __str__  # a list of slots that is turned into text would print an address


@dataclass(frozen=True, slots=True)
class _Soft:
    """`{{ soft("It was") }}`: trainable tokens that start from words; `{{ soft(5) }}`: so many that start from none."""

    words: str
    number: int = 0

    def __str__(self) -> str:
        raise JinjaError("{{ soft(...) }} must stand alone, not inside an expression or a filter")


class _FieldText(str):
    """A text with instructions for truncation, made by the filters `shorten` and `fixed`."""

    is_fixed = False
    keep: Keep = "head"
    order = 0


@functools.lru_cache(maxsize=4096)
def compile_template(template: Template) -> CompiledTemplate:
    """The template, parsed and checked once.

    Raises:
        TemplateError: bad syntax, an unknown field or filter, no mask, `shorten` or `fixed` not outermost.
    """
    _add_filters()
    tree = sandbox.parse(template.text, shown=template.path, first_line=template.first_line)
    read = sandbox.free_names(tree)
    assigned = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    _refuse_names(template, tree, assigned)
    fields = frozenset(read - assigned - {*RESERVED, "loop", "range"})
    if "mask" not in read:
        raise TemplateError(
            f"{template.path}:{template.first_line} has no {{{{ mask }}}}: there is nothing to predict."
        )
    uses_choice = any(node.name == "choice" for node in tree.find_all(nodes.Filter))
    num_masks = _count_written_masks(tree)
    tainted = _tainted(tree, fields)
    marked = _MarkSegments(tainted).visit(tree)
    return CompiledTemplate(template, fields, "options" in read, uses_choice, num_masks, sandbox.compile_tree(marked))


def check_fields(compiled: CompiledTemplate, allowed: Sequence[str], *, of: str) -> None:
    """Refuse a template that reads a field that the task does not have."""
    for name in sorted(compiled.fields - set(allowed)):
        hint = did_you_mean(name, allowed)
        raise TemplateError(
            f"{_place_of_name(compiled, name)} field '{name}' is unknown in {of}.{hint} Fields: {', '.join(allowed)}."
        )


def render(
    compiled: CompiledTemplate,
    example: Example,
    *,
    options: Sequence[str] | None = None,
    seed: int = 0,
    is_fitted: bool = False,
) -> Prompt:
    """The prompt of an example.

    Args:
        compiled: the template.
        example: its fields are what the template may read; its label is never looked at.
        options: the label words, in label order, for templates that name `{{ options }}`.
        seed: the user's seed, for the filter `choice`.
        is_fitted: whether trainable tokens that start from no words are fitted, and so may be there.

    Raises:
        TemplateError: no mask was rendered, or a value could not be rendered.
    """
    shown = f"{compiled.shown}, row {example.id}:"
    values: dict[str, Any] = {name: _plain(example.fields[name]) for name in compiled.fields if name in example.fields}
    values |= {"mask": _Slot("mask"), "sep": _Slot("sep"), "choices__": [0]}
    values["soft"] = _fitted_soft if is_fitted else _soft
    values["choice_seed__"] = derive_seed(seed, "choice", compiled.template.hash, example.id)
    if options is not None:
        values["options"] = list(options)
    pieces = sandbox.run_compiled(compiled.code, values, shown=shown)
    parts = [piece if isinstance(piece, Segment) else Segment("literal", piece) for piece in pieces]
    if sum(len(part.text) for part in parts) > sandbox.MAX_CHARACTERS:
        raise TemplateError(f"{shown} is longer than {sandbox.MAX_CHARACTERS} characters.")
    segments = _merge(parts, keeps_empty_fields=compiled.template.pieces != "whole")
    if not any(segment.kind == "mask" for segment in segments):
        raise TemplateError(f"{shown} rendered no {{{{ mask }}}}.")
    return Prompt(segments, compiled.template.pieces)


def check_masks(compiled: CompiledTemplate, example: Example, prompt: Prompt, *, number: int) -> None:
    """Refuse a prompt with another number of masks than the first one has: label words are as many words.

    Raises:
        TemplateError: the prompt has more or fewer.
    """
    found = count_masks(prompt)
    if found != number:
        raise TemplateError(
            f"{compiled.shown}, row {example.id}: has {found} masks and the first row {number}: keep one number of "
            "{{ mask }} for every row."
        )


def count_masks(prompt: Prompt) -> int:
    """How many slots a prompt has."""
    return sum(segment.kind == "mask" for segment in prompt.segments)


def _merge(segments: list[Segment], *, keeps_empty_fields: bool) -> tuple[Segment, ...]:
    """Neighbouring literals become one, empty text goes; an empty field stays where the text is cut at fields."""
    merged: list[Segment] = []
    gone = ("literal",) if keeps_empty_fields else ("literal", "field")
    for segment in segments:
        if segment.kind in gone and not segment.text:
            continue
        if segment.kind == "literal" and merged and merged[-1].kind == "literal":
            merged[-1] = Segment("literal", merged[-1].text + segment.text)
        else:
            merged.append(segment)
    return tuple(merged)


def _plain(value: Any) -> Any:
    """Row values as templates may see them: a missing value is an empty text."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]


def _refuse_names(template: Template, tree: nodes.Template, assigned: set[str]) -> None:
    """Refuse assignments to reserved names, undeclared fields, and misplaced `shorten` and `fixed`."""
    for name in sorted(assigned & {*RESERVED, *(template.fields or ())}):
        raise TemplateError(f"{template.path}:{template.first_line} '{name}' must not be assigned.")
    outer = {id(child) for output in tree.find_all(nodes.Output) for child in output.nodes}
    for node in tree.find_all(nodes.Filter):
        if node.name in _OUTERMOST and id(node) not in outer:
            line = template.first_line + node.lineno - 1
            raise TemplateError(f"{template.path}:{line} '{node.name}' must be the last filter of its {{{{ ... }}}}.")
    if template.fields is None:
        return
    known = {*template.fields, *RESERVED, *assigned, "loop", "range"}
    for read in tree.find_all(nodes.Name):
        if read.ctx == "load" and read.name not in known:
            line = template.first_line + read.lineno - 1
            hint = did_you_mean(read.name, [*template.fields, *RESERVED])
            raise TemplateError(f"{template.path}:{line} field '{read.name}' is unknown.{hint}")


def _count_written_masks(tree: nodes.Template) -> int | None:
    """How many masks every prompt has; None where one stands in a condition, a loop or a variable."""
    written = [child for node in tree.body if isinstance(node, nodes.Output) for child in node.nodes]
    number = sum(isinstance(child, nodes.Name) and child.name == "mask" for child in written)
    return number if number == sum(name.name == "mask" for name in tree.find_all(nodes.Name)) else None


def _place_of_name(compiled: CompiledTemplate, name: str) -> str:
    template = compiled.template
    tree = sandbox.parse(template.text, shown=template.path, first_line=template.first_line)
    lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name]
    return f"{template.path}:{template.first_line + min(lines, default=1) - 1}"


def _tainted(tree: nodes.Template, fields: frozenset[str]) -> set[str]:
    """Names whose value depends on a field, followed through `set` and `for`."""
    tainted = set(fields)
    flows: list[tuple[nodes.Node, nodes.Node]] = [(node.target, node.node) for node in tree.find_all(nodes.Assign)]
    flows += [(node.target, node.iter) for node in tree.find_all(nodes.For)]
    for _ in flows:
        for target, source in flows:
            if sandbox.free_names(source) & tainted:
                tainted |= {name.name for name in _names(target)}
    return tainted


def _names(node: nodes.Node) -> list[nodes.Name]:
    """The names in an expression, which may be one itself."""
    return [*([node] if isinstance(node, nodes.Name) else []), *node.find_all(nodes.Name)]


class _MarkSegments(NodeTransformer):
    """Wraps every printed expression so that it yields a `Segment`."""

    def __init__(self, tainted: set[str]) -> None:
        self._tainted = tainted

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [child if isinstance(child, nodes.TemplateData) else self._mark(child) for child in node.nodes]
        return node

    def _mark(self, child: nodes.Expr) -> nodes.Expr:
        names = sandbox.free_names(child)
        is_field = bool(names & self._tainted)
        argument = nodes.Const(is_field, lineno=child.lineno)
        return nodes.Filter(child, "segment__", [argument], [], None, None, lineno=child.lineno)


@functools.cache
def _add_filters() -> None:
    filters = sandbox.environment().filters
    filters["segment__"] = _segment
    filters["shorten"] = _shorten
    filters["fixed"] = _fixed
    filters["lower_first"] = lambda text: str(text)[:1].lower() + str(text)[1:]
    filters["upper_first"] = lambda text: str(text)[:1].upper() + str(text)[1:]
    filters["drop_final_punctuation"] = _drop_final_punctuation
    filters["drop_last_character"] = lambda text: str(text)[:-1]
    filters["choice"] = _choice


@pass_context
def _segment(context: Any, value: Any, is_field: bool) -> Segment:
    """What one `{{ ... }}` yields; with the context passed, Jinja does not fold it into a constant."""
    if isinstance(value, Undefined):
        str(value)  # raises, with the name
    if isinstance(value, _Slot):
        return Segment(value.kind)
    if isinstance(value, _Soft):
        return Segment("soft", value.words, num_soft=value.number)
    if not isinstance(value, str | int | float | None):
        raise JinjaError(f"a {type(value).__name__} was printed: join it, such as {{{{ options | join(', ') }}}}")
    text = sandbox.bounded_value(str(value))
    if not is_field:
        return Segment("literal", text)
    if isinstance(value, _FieldText):
        return Segment("field", text, is_shortenable=not value.is_fixed, keep=value.keep, order=value.order)
    return Segment("field", text, is_shortenable=True)


def _soft(start: Any) -> _Soft:
    if isinstance(start, int):
        raise JinjaError(
            f"soft({start}) starts from random vectors and needs a fit: ask for --methods soft_prompt, or write "
            "soft('some words') to score it unfitted"
        )
    return _fitted_soft(start)


def _fitted_soft(start: Any) -> _Soft:
    if isinstance(start, int):
        if isinstance(start, bool) or not 1 <= start <= MAX_SOFT:
            raise JinjaError(f"soft({start}): write a number of tokens from 1 to {MAX_SOFT}, or words")
        return _Soft("", start)
    if not str(start).strip():
        raise JinjaError("soft('') has no words")
    return _Soft(str(start))


def _shorten(value: Any, keep: str = "head", order: int = 0) -> _FieldText:
    if keep not in ("head", "tail", "middle"):
        raise JinjaError(f"shorten(keep={keep!r}): keep is head, tail or middle")
    if not isinstance(order, int):
        raise JinjaError(f"shorten(order={order!r}): order is a whole number")
    text = _FieldText(value)
    text.keep, text.order = keep, order  # type: ignore[assignment]  # checked above
    return text


def _fixed(value: Any) -> _FieldText:
    text = _FieldText(value)
    text.is_fixed = True
    return text


def _drop_final_punctuation(value: Any) -> str:
    return str(value).rstrip().rstrip(_FINAL_PUNCTUATION).rstrip()


@pass_context
def _choice(context: Any, values: Any) -> Any:
    """One of the values, drawn by (seed, template, row, how many draws came before)."""
    items = list(values)
    if not items:
        raise JinjaError("choice of nothing")
    count = context["choices__"]
    count[0] += 1
    return items[derive_seed(context["choice_seed__"], count[0]) % len(items)]
