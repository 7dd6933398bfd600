"""What a template from a stranger may not do: each attempt is refused in one sentence, and at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from promptlab.errors import TemplateError
from promptlab.sandbox import compile_expression, free_names, parse, run

TOO_LARGE = "a value of more than 200000 characters or items is over the limit."
TOO_MANY = "its loops run more than 10000 times."
TOO_SLOW = "it handles more than 10000000 characters."
LONG = "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 17  # 131,072 characters


def render(text: str, /, **values: Any) -> list[Any]:
    """What a template yields."""
    return run(parse(text, shown="t.jinja"), values, shown="t.jinja, row 1:")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("t.jinja:1 '.__class__' is not allowed: use a filter", "{{ text.__class__ }}"),
        ("t.jinja:1 '.format' is not allowed: use a filter", "{% set f = text.format %}"),
        ("t.jinja:1 the call '...(...)' is not allowed: only range and soft can be", "{{ '{0.x}'.format(text) }}"),
        ("'str object' has no attribute '__class__'.", "{{ text['__class__'] ~ 1 }}"),
        ("'str object' has no attribute 'upper'.", "{{ text['upper'] ~ 1 }}"),
        ("'str object' has no attribute 'upper'.", "{{ [text] | join(attribute='upper') }}"),
        ("t.jinja:1 filter 'attr' is unknown. Known: abs, ", "{{ text | attr('__class__') }}"),
        ("t.jinja:1 filter 'random' is unknown. Known: abs, ", "{{ [1, 2] | random }}"),
        ("t.jinja:1 filter 'map' is unknown. Did you mean 'max'?", "{{ [text] | map('upper') }}"),
        ("t.jinja:1 filter 'loop_bound__' is unknown. Known: abs, ", "{{ [1] | loop_bound__ }}"),
        ("t.jinja:1 test 'callable' is unknown. Known: boolean, ", "{{ text is callable }}"),
        ("t.jinja:1 the call 'cycler(...)' is not allowed", "{{ cycler('a') }}"),
        ("t.jinja:1 the call 'lipsum(...)' is not allowed", "{{ lipsum() }}"),
        ("t.jinja:1 the call 'namespace(...)' is not allowed", "{% set n = namespace(a=1) %}"),
        ("t.jinja:1 the call 'self(...)' is not allowed", "{{ self() }}"),
        ("t.jinja:1 the call '...(...)' is not allowed", "{% for i in [1] %}{{ loop.cycle('a') }}{% endfor %}"),
        ("access to attribute '__init__' of 'LoopContext'", "{% for i in [1] %}{{ loop.__init__ ~ 1 }}{% endfor %}"),
        ("t.jinja:1 'range' must be called: range(...).", "{{ range | string }}"),
        ("t.jinja:1 'soft' must be called: soft(...).", "{% set s = soft %}"),
        ("t.jinja:1 'range' must not be assigned.", "{% set range = text %}{{ range(9) }}"),
        ("t.jinja:1 'loop' must not be assigned.", "{% set loop = text %}{{ loop.upper }}"),
        ("t.jinja:1 the name 'budget__' is not allowed", "{% set budget__ = 1 %}"),
        ("t.jinja:1 'macro' is not allowed in a template.", "{% macro m() %}{% endmacro %}"),
        ("t.jinja:1 'callblock' is not allowed in a template.", "{% call m() %}{% endcall %}"),
        ("t.jinja:1 'filterblock' is not allowed in a template.", "{% filter upper %}{% endfilter %}"),
        ("t.jinja:1 'include' is not allowed in a template.", "{% include 'x' %}"),
        ("t.jinja:1 'import' is not allowed in a template.", "{% import 'x' as y %}"),
        ("t.jinja:1 'fromimport' is not allowed in a template.", "{% from 'x' import y %}"),
        ("t.jinja:1 'extends' is not allowed in a template.", "{% extends 'x' %}"),
        ("t.jinja:1 'block' is not allowed in a template.", "{% block b %}{% endblock %}"),
        ("t.jinja:1 'with' is not allowed in a template.", "{% with %}{% endwith %}"),
        ("t.jinja:1 a recursive loop is not allowed.", "{% for i in [1] recursive %}{% endfor %}"),
        ("t.jinja:1 is not valid Jinja: Encountered unknown tag 'do'.", "{% do text %}"),
    ],
)  # fmt: skip
def test_nothing_reaches_python(message: str, text: str) -> None:
    """Attributes, calls, macros, imports and hidden names are refused by name."""
    with pytest.raises(TemplateError) as fault:
        render(text, text="abc")
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("'*' multiplies numbers only.", "{{ 'a' * 1000000000 }}"),
        ("'*' multiplies numbers only.", "{{ [1] * 1000000000 }}"),
        ("the operator '**' is not allowed.", "{{ 9 ** 9999999 }}"),
        ("the operator '%' is not allowed.", "{{ '%1000000000d' % 1 }}"),
        ("a number of more than 1024 bits is over the limit.", "{% set a = 99999 %}" + "{% set a = a * a %}" * 40),
        (TOO_LARGE, LONG + "{{ a ~ a }}"),
        (TOO_LARGE, LONG + "{{ a + a }}"),
        (TOO_LARGE, LONG + "{{ [a, a] }}"),
        (TOO_LARGE, "{% set a = 1 %}" + "{% set a = [a, a] %}" * 40),
        (TOO_LARGE, "{% set a = 1 %}" + "{% set a = {1: a, 2: a} %}" * 40),
        ("a replacement of more than 200000 characters is over the limit.", LONG + "{{ a | replace('x', a) }}"),
        ("a join of more than 200000 characters is over the limit.", LONG + "{{ a | join(a) }}"),
        ("round to 999999999 decimals is over the limit of 100.", "{{ 1 | round(999999999, 'ceil') }}"),
        ("range of 100000000 is over the limit of 10000.", "{{ range(100000000) | join }}"),
        (TOO_MANY, "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"),
        (TOO_MANY, "{% for i in range(9999) %}{% endfor %}" * 2),
        (TOO_SLOW, LONG + "{% for i in range(9999) %}{% set b = a | title %}{% endfor %}"),
        ("is nested too deeply", "{{ " + "-" * 5000 + "1 }}"),
        ("is nested too deeply", "{{ " + "[" * 99 + "]" * 99 + " }}"),
        ("is nested too deeply", "{% for i in [1] %}" * 9 + "{% endfor %}" * 9),
        ("is nested too deeply or holds too long a number.", "{{ " + "1" * 5000 + " }}"),
    ],
)  # fmt: skip
def test_nothing_grows_without_bound(message: str, text: str) -> None:
    """What could fill the memory or run for minutes is stopped within seconds, before it is built."""
    began = time.monotonic()
    with pytest.raises(TemplateError) as fault:
        render(text)
    assert message in str(fault.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("t.jinja:3 filter 'uper' is unknown. Did you mean 'upper'?", "one\n\n{{ text | uper }}"),
        ("t.jinja:2 is not valid Jinja: ", "one\n{{ text"),
        ("t.jinja, row 1: 'txt' is undefined.", "{{ txt | upper }}"),
        ("t.jinja, row 1: cannot be rendered: division by zero.", "{{ 1 / 0 }}"),
        ("t.jinja, row 1: cannot be rendered: expected length >= 3, got 2.", "{{ text | truncate(2) }}"),
    ],
)
def test_slips_are_one_sentence(message: str, text: str) -> None:
    """A mistyped filter names its line and the nearest one; a failing row is named."""
    with pytest.raises(TemplateError) as fault:
        render(text, text="abc")
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (["A B"], "{{ 'a b' | title }}"),
        ([5], "{{ 2 + 3 }}"),
        ([1], "{{ 7 % 2 }}"),
        (["a-b"], "{{ ['a', 'b'] | join('-') }}"),
        (["b-b"], "{{ 'a-a' | replace('a', 'b') }}"),
        (["b-a"], "{{ 'a-a' | replace('a', 'b', 1) }}"),
        ([["b", "a"]], "{{ ['a', 'b'] | reverse }}"),
        (["b"], "{{ {'a': 'b'}['a'] }}"),
        (["bc"], "{{ 'abc'[1:] }}"),
        ([1, 2], "{% for i in [0, 1] %}{{ loop.index }}{% endfor %}"),
        ([3.14], "{{ 3.14159 | round(2) }}"),
        (["yes"], "{{ 'yes' if 'a' in ('a', 'b') else 'no' }}"),
    ],
)
def test_what_templates_need_works(expected: list[Any], text: str) -> None:
    """Plain filters, items, slices, arithmetic, conditions and loops give their values."""
    assert expected == render(text)


def test_names_that_are_read() -> None:
    """Names of an expression are found in filters' arguments and conditions too, names that are set are not."""
    tree = parse("{% set d = a %}{{ b | default(c) if e else 'f' }}", shown="t")
    assert free_names(tree) == {"a", "b", "c", "e"}


def test_a_row_expression_is_a_function_of_columns() -> None:
    """An expression gives a value, and several rows their own."""
    join = compile_expression("title ~ ': ' ~ answers['text'][0]", shown="task.yaml fields.text")
    assert join({"title": "A", "answers": {"text": ["b"]}}) == "A: b"
    assert join({"title": "C", "answers": {"text": ["d"]}}) == "C: d"


@pytest.mark.parametrize(
    ("message", "expression"),
    [
        ("task.yaml fields.text: 'a }} {{ b' is not one expression.", "a }} {{ b"),
        ("task.yaml fields.text: 'titel' is undefined.", "titel"),
        ("task.yaml fields.text:1 is not valid Jinja: unexpected '~'.", "title ~~ 'a'"),
        ("task.yaml fields.text:1 '.text' is not allowed: use a filter, such as '| text', or an item", "answers.text"),
    ],
)
def test_a_wrong_row_expression_is_explained(message: str, expression: str) -> None:
    """A fault names the task's file and the field."""
    with pytest.raises(TemplateError) as fault:
        compile_expression(expression, shown="task.yaml fields.text")({"title": "A"})
    assert str(fault.value).startswith(message)
