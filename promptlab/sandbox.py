"""The Jinja in which templates and row expressions run: sandboxed, bounded, and giving values instead of text.

Templates are shared between people, so nothing in one may reach Python: no attributes, calls, macros or imports, no
random, and limits on loops and on the size of every value. A fault names file and line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.filters import FILTERS
from jinja2.nativetypes import NativeEnvironment
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from promptlab.errors import TemplateError, did_you_mean

MAX_CHARACTERS = 200_000
MAX_ITERATIONS = 10_000
CALLABLES = ("range", "soft")
PLAIN_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "first", "float", "int", "join", "last", "length", "list", "lower",
    "max", "min", "replace", "reverse", "round", "sort", "string", "sum", "title", "trim", "truncate", "unique",
    "upper", "wordcount",
)  # fmt: skip
PLAIN_TESTS = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "gt", "greaterthan", "in",
    "integer", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence", "string", "true",
    "undefined", "upper",
)  # fmt: skip
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const,
    nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.UnaryExpr, nodes.BinExpr, nodes.Concat,
    nodes.CondExpr, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
    nodes.Keyword, nodes.Call,
)  # fmt: skip


class Environment(ImmutableSandboxedEnvironment, NativeEnvironment):
    """Jinja that is sandboxed and yields the values of `{{ ... }}` themselves."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The operators that could build huge values, within bounds."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise JinjaError(f"the operator '{operator}' is not allowed")
        if operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise JinjaError("'*' multiplies numbers only")
        return bounded_value(super().call_binop(context, operator, left, right))


@functools.cache
def environment() -> Environment:
    """The one environment, with promptlab's own filters registered by `add_filter`."""
    made = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, extensions=[])
    made.filters = {name: _bounded_filter(FILTERS[name]) for name in PLAIN_FILTERS}
    made.filters["loop_bound__"] = _bounded_iterable
    made.filters["concat__"] = lambda values: bounded_value("".join(str(value) for value in values))
    made.tests = {name: TESTS[name] for name in PLAIN_TESTS}
    made.globals = {"range": _bounded_range}
    return made


def parse(text: str, *, shown: str, first_line: int = 1) -> nodes.Template:
    """The checked syntax tree of a template text.

    Raises:
        TemplateError: bad syntax, an unknown filter or test, or something that the sandbox does not allow.
    """
    try:
        tree = environment().parse(text)
    except TemplateSyntaxError as error:
        raise TemplateError(f"{shown}:{first_line + error.lineno - 1} {_syntax_message(error)}") from None
    for node in tree.find_all(nodes.Node):
        fault = _fault(node)
        if fault:
            raise TemplateError(f"{shown}:{first_line + (node.lineno or 1) - 1} {fault}")
    bounded: nodes.Template = _Bound().visit(tree)
    return bounded


def run(tree: nodes.Template, values: Mapping[str, Any], *, shown: str) -> list[Any]:
    """What a compiled tree yields for the given names: texts of the template and values of its expressions."""
    return run_compiled(compile_tree(tree), values, shown=shown)


def compile_tree(tree: nodes.Template) -> Any:
    """A Jinja template from a checked tree."""
    return environment().from_string(tree)


def run_compiled(compiled: Any, values: Mapping[str, Any], *, shown: str) -> list[Any]:
    """As `run`, for a tree that was compiled once."""
    context = compiled.new_context({**values, "loop_budget__": [MAX_ITERATIONS]})
    try:
        return list(compiled.root_render_func(context))
    except JinjaError as error:
        raise TemplateError(f"{shown} {str(error).rstrip('.')}.") from None
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise TemplateError(f"{shown} cannot be rendered: {error}.") from None


def compile_expression(text: str, *, shown: str) -> Callable[[Mapping[str, Any]], Any]:
    """A Jinja expression over a row, as a function of its columns."""
    tree = parse("{{ " + text + " }}", shown=shown)
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output) or len(tree.body[0].nodes) != 1:
        raise TemplateError(f"{shown} {text!r} is not one expression.")
    compiled = compile_tree(tree)

    def evaluate(row: Mapping[str, Any]) -> Any:
        values = run_compiled(compiled, row, shown=shown)
        value = values[0] if values else ""
        if isinstance(value, Undefined):
            raise TemplateError(f"{shown} {value._undefined_message}.")
        return value

    return evaluate


def free_names(tree: nodes.Node) -> set[str]:
    """Names that an expression or template reads."""
    own = {tree.name} if isinstance(tree, nodes.Name) and tree.ctx == "load" else set()
    return own | {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}


def bounded_value(value: Any) -> Any:
    """The value, refused where it is larger than any prompt could need."""
    if isinstance(value, str | list | tuple) and len(value) > MAX_CHARACTERS:
        raise JinjaError(f"a value of {len(value)} characters or items is over the limit of {MAX_CHARACTERS}")
    return value


def _fault(node: nodes.Node) -> str | None:
    """Why a node is not allowed, or None."""
    if not isinstance(node, _ALLOWED):
        return f"'{type(node).__name__.lower()}' is not allowed in a template."
    if isinstance(node, nodes.Getattr) and not (isinstance(node.node, nodes.Name) and node.node.name == "loop"):
        instead = f"use a filter, such as '| {node.attr}', or an item, such as ['{node.attr}']"
        return f"'.{node.attr}' is not allowed: {instead}."
    if isinstance(node, nodes.Call):
        name = node.node.name if isinstance(node.node, nodes.Name) else "..."
        if name not in CALLABLES:
            return f"the call '{name}(...)' is not allowed: only {' and '.join(CALLABLES)} can be called."
    if isinstance(node, nodes.Filter) and node.name not in environment().filters:
        return _unknown("filter", node.name, environment().filters)
    if isinstance(node, nodes.Test) and node.name not in environment().tests:
        return _unknown("test", node.name, environment().tests)
    if isinstance(node, nodes.For) and node.recursive:
        return "a recursive loop is not allowed."
    return None


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(name for name in known if not name.endswith("__"))
    return f"{kind} '{name}' is unknown.{did_you_mean(name, names)} Known: {', '.join(names)}."


def _syntax_message(error: TemplateSyntaxError) -> str:
    message = (error.message or "bad syntax").rstrip(".")
    return f"is not valid Jinja: {message}."


class _Bound(NodeTransformer):
    """Puts a bound around what loops and concatenation can build."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "loop_bound__")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concat__")


def _filtered(expression: Any, name: str) -> nodes.Filter:
    return nodes.Filter(expression, name, [], [], None, None, lineno=expression.lineno)


@pass_context
def _bounded_iterable(context: Any, iterable: Iterable[Any]) -> Iterator[Any]:
    budget = context["loop_budget__"]
    for item in iterable:
        budget[0] -= 1
        if budget[0] < 0:
            raise JinjaError(f"its loops run more than {MAX_ITERATIONS} times")
        yield item


def _bounded_range(*limits: int) -> range:
    made = range(*limits)
    if len(made) > MAX_ITERATIONS:
        raise JinjaError(f"range of {len(made)} is over the limit of {MAX_ITERATIONS}")
    return made


def _bounded_filter(function: Any) -> Any:
    """A filter of Jinja whose value is bounded; its context and environment marks are kept."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        return bounded_value(function(*args, **kwargs))

    return bounded
