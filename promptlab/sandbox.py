"""The Jinja in which templates and row expressions run: sandboxed, bounded, and giving values instead of text.

Templates are shared between people, so nothing in one may reach Python: no attributes, calls, macros or imports, no
random, and limits on depth, on loops, on the size of every value and on the work of a whole rendering. A fault names
file and line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_context, pass_eval_context
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.filters import FILTERS, do_join, do_round
from jinja2.nativetypes import NativeEnvironment
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import _PassArg
from jinja2.visitor import NodeTransformer

from promptlab.errors import TemplateError, did_you_mean

MAX_CHARACTERS = 200_000
MAX_ITERATIONS = 10_000
MAX_WORK = 10_000_000  # characters and items that the filters and operators of one rendering may read or build
MAX_DEPTH = 50
MAX_NESTED_LOOPS = 5
MAX_BITS = 1024
MAX_DECIMALS = 100
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

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item of a list or mapping, never an attribute."""
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The operators that could build huge values, within bounds."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise JinjaError(f"the operator '{operator}' is not allowed")
        if operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise JinjaError("'*' multiplies numbers only")
        value = bounded_value(super().call_binop(context, operator, left, right))
        context["budget__"].work(value)
        return value


class _Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self._iterations = MAX_ITERATIONS
        self._work = MAX_WORK

    def iterate(self) -> None:
        self._iterations -= 1
        if self._iterations < 0:
            raise JinjaError(f"its loops run more than {MAX_ITERATIONS} times")

    def work(self, *values: Any) -> None:
        self._work -= 1 + sum(_size(value) for value in values)
        if self._work < 0:
            raise JinjaError(f"it handles more than {MAX_WORK} characters")


@functools.cache
def environment() -> Environment:
    """The one environment, with promptlab's own filters registered by `add_filter`."""
    made = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, extensions=[])
    own = {"join": _join, "replace": _replace, "round": _round}
    made.filters = {name: _bounded_filter(own.get(name, FILTERS[name])) for name in PLAIN_FILTERS}
    made.filters["loop_bound__"] = _bounded_iterable
    made.filters["bound__"] = bounded_value
    made.filters["concat__"] = _bounded_filter(lambda values: "".join(str(value) for value in values))
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
        _refuse_depth(tree)
    except TemplateSyntaxError as error:
        raise TemplateError(f"{shown}:{first_line + error.lineno - 1} {_syntax_message(error)}") from None
    except (RecursionError, ValueError):  # a ValueError is a number of thousands of digits
        raise TemplateError(f"{shown}:{first_line} is nested too deeply or holds too long a number.") from None
    called = {id(node.node) for node in tree.find_all(nodes.Call)}
    for node in tree.find_all(nodes.Node):
        fault = _fault(node) or (None if id(node) in called else _uncalled_fault(node))
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
    context = compiled.new_context({**values, "budget__": _Budget()})
    try:
        return list(compiled.root_render_func(context))
    except JinjaError as error:
        raise TemplateError(f"{shown} {str(error).rstrip('.')}.") from None
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise TemplateError(f"{shown} cannot be rendered: {error}.") from None


def compile_expression(text: str, *, shown: str) -> Callable[[Mapping[str, Any]], Any]:
    """A Jinja expression over a row, as a function of its columns."""
    tree = parse("{{ " + text + " }}", shown=shown)
    shown = f"{shown}:"
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
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise JinjaError(f"a number of more than {MAX_BITS} bits is over the limit")
    if _size(value) > MAX_CHARACTERS:
        raise JinjaError(f"a value of more than {MAX_CHARACTERS} characters or items is over the limit")
    return value


def _size(value: Any) -> int:
    """Characters and items in a value and in what it holds, counted until they are over the limit."""
    if isinstance(value, str):
        return len(value)
    total, waiting = 0, [value]
    while waiting and total <= MAX_CHARACTERS:
        part = waiting.pop()
        if isinstance(part, str | list | tuple | Mapping):
            total += len(part)
        if isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
    return total


def _refuse_depth(tree: nodes.Template) -> None:
    """Refuse what Python itself could not compile."""
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        loops += isinstance(node, nodes.For)
        if depth > MAX_DEPTH or loops > MAX_NESTED_LOOPS:
            raise RecursionError
        waiting += [(child, depth + 1, loops) for child in node.iter_child_nodes()]


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
    if isinstance(node, nodes.Name) and node.name.endswith("__"):
        return f"the name '{node.name}' is not allowed: names that end in '__' are promptlab's own."
    if isinstance(node, nodes.Name) and node.ctx == "store" and node.name in (*CALLABLES, "loop"):
        return f"'{node.name}' must not be assigned."
    if isinstance(node, nodes.Filter) and (node.name not in environment().filters or node.name.endswith("__")):
        return _unknown("filter", node.name, environment().filters)
    if isinstance(node, nodes.Test) and node.name not in environment().tests:
        return _unknown("test", node.name, environment().tests)
    if isinstance(node, nodes.For) and node.recursive:
        return "a recursive loop is not allowed."
    return None


def _uncalled_fault(node: nodes.Node) -> str | None:
    """Why a name that is not called is not allowed, or None: as text a function is its address in memory."""
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in CALLABLES:
        return f"'{node.name}' must be called: {node.name}(...)."
    return None


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(name for name in known if not name.endswith("__"))
    return f"{kind} '{name}' is unknown.{did_you_mean(name, names)} Known: {', '.join(names)}."


def _syntax_message(error: TemplateSyntaxError) -> str:
    message = (error.message or "bad syntax").rstrip(".")
    return f"is not valid Jinja: {message}."


class _Bound(NodeTransformer):
    """Puts a bound around what loops, literals and concatenation can build."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "loop_bound__")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concat__")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "bound__")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx == "store" else _filtered(node, "bound__")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "bound__")


def _filtered(expression: Any, name: str) -> nodes.Filter:
    return nodes.Filter(expression, name, [], [], None, None, lineno=expression.lineno)


@pass_context
def _bounded_iterable(context: Any, iterable: Iterable[Any]) -> Iterator[Any]:
    for item in iterable:
        context["budget__"].iterate()
        yield item


def _bounded_range(*limits: int) -> range:
    made = range(*limits)
    if len(made) > MAX_ITERATIONS:
        raise JinjaError(f"range of {len(made)} is over the limit of {MAX_ITERATIONS}")
    return made


def _bounded_filter(function: Any) -> Any:
    """A filter of Jinja whose value and work are bounded; what Jinja passes first to the filter is kept."""
    wants = _PassArg.from_obj(function)

    @pass_context
    def bounded(context: Any, *args: Any, **kwargs: Any) -> Any:
        context["budget__"].work(*args)
        first = {_PassArg.environment: context.environment, _PassArg.eval_context: context.eval_ctx}
        value = function(first[wants], *args, **kwargs) if wants else function(*args, **kwargs)
        return bounded_value(list(value) if isinstance(value, Iterator) else value)

    return bounded


@pass_eval_context
def _join(eval_context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
    """Jinja's `join`, refused before it builds what is too large."""
    items = list(value)
    if _size(items) + len(items) * len(str(d)) > MAX_CHARACTERS:
        raise JinjaError(f"a join of more than {MAX_CHARACTERS} characters is over the limit")
    return do_join(eval_context, items, d, attribute)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    """Jinja's `replace`, refused before it builds what is too large."""
    text, old, new = str(value), str(old), str(new)
    number = text.count(old) if count < 0 else min(count, text.count(old))
    if number * len(new) > MAX_CHARACTERS:
        raise JinjaError(f"a replacement of more than {MAX_CHARACTERS} characters is over the limit")
    return text.replace(old, new, count)


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    """Jinja's `round`, for as many decimals as a number can have."""
    if not -MAX_DECIMALS <= precision <= MAX_DECIMALS:
        raise JinjaError(f"round to {precision} decimals is over the limit of {MAX_DECIMALS}")
    return do_round(value, precision, method)
