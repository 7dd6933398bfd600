"""Templates and rows become segments that know what may be cut."""

from __future__ import annotations

from typing import Any

import pytest

from promptlab.errors import TemplateError
from promptlab.rendering import check_fields, compile_template, render
from promptlab.sandbox import MAX_CHARACTERS
from promptlab.specs.template import Template
from promptlab.types import Example, Prompt, Segment


def prompt_of(
    text: str, /, *, row: str = "r-0", seed: int = 0, options: list[str] | None = None, **fields: Any
) -> Prompt:
    """The prompt of a template's text for one row."""
    compiled = compile_template(Template.from_text(text, name="t"))
    return render(compiled, Example(row, 0, fields), options=options, seed=seed)


def kinds(prompt: Prompt) -> list[tuple[str, str]]:
    """Kind and text of each segment."""
    return [(segment.kind, segment.text) for segment in prompt.segments]


def cut_rule(text: str) -> Segment:
    """The field segment that an expression over `text` becomes."""
    return next(segment for segment in prompt_of(text + "{{ mask }}", text="abc").segments if segment.kind == "field")


def test_fields_may_be_cut_and_literals_may_not() -> None:
    """Each expression over a field is a shortenable segment, text between is protected, the mask stands between."""
    assert prompt_of("{{ text }} It was {{ mask }}.", text="Fine").segments == (
        Segment("field", "Fine", is_shortenable=True),
        Segment("literal", " It was "),
        Segment("mask"),
        Segment("literal", "."),
    )


def test_the_prompt_is_shown_as_a_reader_sees_it() -> None:
    """Masks and boundaries have a sign in the shown text."""
    assert prompt_of("{{ a }}{{ sep }}{{ mask }}, {{ b }}", a="x", b="y").text == "x | [MASK], y"


def test_neighbouring_literals_are_one_and_empty_text_goes() -> None:
    """Expressions without a field are literals; an empty field leaves no segment."""
    prompt = prompt_of("{{ text }}It {{ 'was' }} {{ 1 + 1 }} {{ mask }}", text="")
    assert kinds(prompt) == [("literal", "It was 2 "), ("mask", "")]


def test_a_prompt_says_how_its_template_is_cut_and_keeps_an_empty_field_where_it_is() -> None:
    """In pieces an empty field stands between two literals, which stay two."""
    template = Template.from_text("It {{ text }}was {{ mask }}").model_copy(update={"pieces": "pet"})
    prompt = render(compile_template(template), Example("r-0", 0, {"text": ""}))
    assert ("pet", "whole") == (prompt.pieces, prompt_of("{{ mask }}").pieces)
    assert [("literal", "It "), ("field", ""), ("literal", "was "), ("mask", "")] == kinds(prompt)


def test_text_of_a_row_is_never_looked_at() -> None:
    """A mask, a tag or a template in a row's text stays text of the row."""
    text = "[MASK] {{ mask }} {% set x = 1 %} </s> <mask>"
    assert kinds(prompt_of("{{ text }}{{ mask }}", text=text)) == [("field", text), ("mask", "")]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Segment("field", "abc", is_shortenable=True, keep="tail", order=2), "{{ text | shorten('tail', order=2) }}"),
        (Segment("field", "abc", is_shortenable=True, keep="middle"), "{{ text | shorten('middle') }}"),
        (Segment("field", "ABC", is_shortenable=True), "{{ text | upper | shorten }}"),
        (Segment("field", "abc"), "{{ text | fixed }}"),
        (Segment("field", "abc!", is_shortenable=True), "{{ text ~ '!' }}"),
        (Segment("field", "3", is_shortenable=True), "{{ text | length }}"),
    ],
)  # fmt: skip
def test_filters_say_how_a_field_is_cut(expected: Segment, text: str) -> None:
    """`shorten` sets the kept side and the order, `fixed` protects, other filters change the text alone."""
    assert expected == cut_rule(text)


@pytest.mark.parametrize(
    ("expected", "text", "value"),
    [
        ("the End", "{{ text | lower_first }}", "The End"),
        ("", "{{ text | lower_first }}", ""),
        ("É was", "{{ text | upper_first }}", "é was"),
        ("", "{{ text | upper_first }}", ""),
        ("It rain", "{{ text | drop_last_character }}", "It rains"),
        ("It rains. ", "{{ text | drop_last_character }}", "It rains.  "),
        ("", "{{ text | drop_last_character }}", ""),
        ("Really", "{{ text | drop_final_punctuation }}", "Really ?! "),
        ("e.g. this", "{{ text | drop_final_punctuation }}", "e.g. this…"),
        ("", "{{ text | drop_final_punctuation }}", "..."),
    ],
)
def test_filters_of_text(expected: str, text: str, value: str) -> None:
    """Small changes that templates need, on ordinary and on empty text."""
    assert f"{expected}[MASK]" == prompt_of(text + "{{ mask }}", text=value).text


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("field", "{% set t = text | upper %}{{ t }}"),
        ("field", "{% set a = text %}{% set b = a %}{{ b }}"),
        ("field", "{% for word in items %}{{ word }}{% endfor %}"),
        ("field", "{% for word in items %}{% set w = word %}{{ w }}{% endfor %}"),
        ("field", "{% set a, b = 'x', text %}{{ b }}"),
        ("field", "{{ 'yes' if text else 'no' }}"),
        ("literal", "{% set a = 'x' %}{{ a }}"),
        ("literal", "{% for a in ['x', 'y'] %}{{ a }}{% endfor %}"),
    ],
)
def test_what_comes_from_a_field_is_known_through_set_and_for(expected: str, text: str) -> None:
    """A name that depends on a field is as shortenable as the field; one that does not is protected."""
    prompt = prompt_of(text + "{{ mask }}", text="abc", items=["a"])
    assert expected == prompt.segments[0].kind


def test_choice_depends_on_the_row_and_not_on_the_order() -> None:
    """A row gets the same choice whenever it is rendered; rows, draws, templates and seeds differ."""
    text = "{{ ['a', 'b', 'c', 'd'] | choice }}{{ ['a', 'b', 'c', 'd'] | choice }}{{ mask }}"
    rows = [f"r{number}-0" for number in range(30)]
    forward = {row: prompt_of(text, row=row).text for row in rows}
    assert forward == {row: prompt_of(text, row=row).text for row in reversed(rows)}
    assert forward != {row: prompt_of(text, row=row, seed=1).text for row in rows}
    assert forward != {row: prompt_of(" " + text, row=row).text.strip() for row in rows}
    assert any(shown[0] != shown[1] for shown in forward.values())
    assert {"a", "b", "c", "d"} == {shown[0] for shown in forward.values()}


def test_boundaries_and_soft_words_are_segments() -> None:
    """`sep` is a boundary and `soft('It was')` trainable tokens that start from their words."""
    prompt = prompt_of("{{ text }}{{ sep }}{{ soft('It was') }} {{ mask }}", text="a")
    assert kinds(prompt) == [("field", "a"), ("sep", ""), ("soft", "It was"), ("literal", " "), ("mask", "")]


def test_options_are_the_label_words_in_order() -> None:
    """`options` is a list of protected words."""
    prompt = prompt_of("{{ options | join(' or ') }}? {{ mask }}", options=["bad", "good"])
    assert kinds(prompt) == [("literal", "bad or good? "), ("mask", "")]
    assert compile_template(Template.from_text("{{ options }}{{ mask }}")).uses_options


def test_missing_and_nested_values() -> None:
    """A missing value is an empty text, also inside a list, and items are reached by key."""
    assert prompt_of("{{ a }}{{ b['c'][1] }}{{ mask }}", a=None, b={"c": ["x", None]}).text == "[MASK]"
    assert prompt_of("{{ b['c'][0] }}{{ mask }}", b={"c": ["x", None]}).text == "x[MASK]"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("template t:1 has no {{ mask }}: there is nothing to predict.", "{{ text }}"),
        ("template t, row r-0: rendered no {{ mask }}.", "{% if text == 'x' %}{{ mask }}{% endif %}"),
        ("{{ mask }} must stand alone, not inside an expression or a filter.", "{{ mask | upper }}"),
        ("{{ mask }} must stand alone, not inside an expression or a filter.", "{{ [mask] | string }}"),
        ("{{ sep }} must stand alone, not inside an expression or a filter.", "{{ sep ~ '' }}{{ mask }}"),
        ("{{ soft(...) }} must stand alone", "{{ soft('a') | upper }}{{ mask }}"),
        ("soft(5) starts from random vectors and needs a fit", "{{ soft(5) }}{{ mask }}"),
        ("soft('') has no words.", "{{ soft('') }}{{ mask }}"),
        ("template t:2 'shorten' must be the last filter of its {{ ... }}.", "\n{{ text | shorten | int }}{{ mask }}"),
        ("template t:1 'fixed' must be the last filter of its {{ ... }}.", "{% set t = text | fixed %}{{ mask }}"),
        ("shorten(keep='front'): keep is head, tail or middle.", "{{ text | shorten('front') }}{{ mask }}"),
        ("shorten(order='x'): order is a whole number.", "{{ text | shorten(order='x') }}{{ mask }}"),
        ("template t:1 'mask' must not be assigned.", "{% set mask = 1 %}{{ mask }}"),
        ("a list was printed: join it, such as {{ options | join(', ') }}.", "{{ ['a'] }}{{ mask }}"),
        ("a list was printed: join it", "{{ ['a'] | unique }}{{ mask }}"),
        ("a range was printed: join it", "{{ range(3) }}{{ mask }}"),
        ("choice of nothing.", "{{ [] | choice }}{{ mask }}"),
        ("'options' is undefined.", "{{ options | join }}{{ mask }}"),
    ],
)  # fmt: skip
def test_a_wrong_template_is_explained(message: str, text: str) -> None:
    """What a template may not say is told with its place."""
    with pytest.raises(TemplateError) as fault:
        prompt_of(text, text="abc")
    assert message in str(fault.value)


def test_a_prompt_has_a_largest_size() -> None:
    """A loop cannot print more than any prompt could need."""
    text = "{% for i in range(9) %}{{ text }}{% endfor %}{{ mask }}"
    with pytest.raises(TemplateError, match=f"is longer than {MAX_CHARACTERS} characters"):
        prompt_of(text, text="x" * (MAX_CHARACTERS // 8))


def test_an_unknown_field_is_hinted_at_with_its_line() -> None:
    """The line is that of the file, behind the head, and the nearest field is named."""
    template = Template(name="a/b", family="a", path="a/b.jinja", text="One\n{{ premis }} {{ mask }}", first_line=5)
    with pytest.raises(TemplateError) as fault:
        check_fields(compile_template(template), ["premise", "hypothesis"], of="task 'cb'")
    assert str(fault.value) == (
        "a/b.jinja:6 field 'premis' is unknown in task 'cb'. Did you mean 'premise'? Fields: premise, hypothesis."
    )
    check_fields(compile_template(template), ["premis"], of="task 'cb'")


def test_declared_fields_are_the_only_ones() -> None:
    """A head that lists fields makes any other name a fault, with its line in the file."""
    text = "{{ premise }}\n{{ hypotesis }} {{ mask }}"
    template = Template(
        name="a/b", family="a", path="a/b.jinja", text=text, first_line=4, fields=("premise", "hypothesis")
    )
    with pytest.raises(TemplateError) as fault:
        compile_template(template)
    assert str(fault.value) == "a/b.jinja:5 field 'hypotesis' is unknown. Did you mean 'hypothesis'?"
