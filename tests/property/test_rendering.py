"""For any row, a prompt reads as plain Jinja would print the template, and only text of the row may be cut."""

from __future__ import annotations

import jinja2
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlab.rendering import compile_template, render
from promptlab.specs.template import Template
from promptlab.types import Example, Prompt

TEMPLATES = [
    "{{ text }} It was {{ mask }}.",
    "{{ mask }}: {{ text }}\n\n{{ other }}",
    "{% if other %}{{ text ~ ' ' ~ other }}{% else %}{{ text | upper }}{% endif %} {{ mask }}",
    "{% set both = [text, other] %}{{ both | join(' / ') }} {{ mask }} {{ both | length }}",
    "{% for word in items %}{{ loop.index }}. {{ word | trim }}, {% endfor %}{{ mask }}",
    "{{ text | replace('a', other) | title }}{{ mask }}{{ other[:3] }}{{ items | last if items else 'nothing' }}",
    "{# a note #}{{ '{{' }}{{ text | truncate(9) }}{%- if text -%} {{ mask }} {%- else %} {{ mask }}{% endif %}",
]
texts = st.one_of(
    st.text(max_size=40), st.sampled_from(["[MASK]", "{{ mask }}", "{% set x = 1 %}", "</s>", "\ud800", ""])
)
checked = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def naive(text: str, fields: dict[str, object]) -> str:
    """The template as Jinja itself prints it, with a sign for the mask."""
    environment = jinja2.Environment(keep_trailing_newline=True, autoescape=False)
    return environment.from_string(text).render(**fields, mask="[MASK]")


def prompt_of(text: str, fields: dict[str, object]) -> Prompt:
    """The prompt of one row."""
    return render(compile_template(Template.from_text(text, name="t")), Example("r-0", 0, fields))


@checked
@given(text=st.sampled_from(TEMPLATES), a=texts, b=texts, items=st.lists(texts, max_size=3))
def test_the_shown_prompt_is_what_jinja_prints(text: str, a: str, b: str, items: list[str]) -> None:
    """Segments joined give the text of an ordinary Jinja rendering, for arbitrary fields."""
    fields: dict[str, object] = {"text": a, "other": b, "items": items}
    assert naive(text, fields) == prompt_of(text, fields).text


@checked
@given(text=st.sampled_from(TEMPLATES), a=texts, b=texts, items=st.lists(texts, max_size=3))
def test_masks_come_from_the_template_alone(text: str, a: str, b: str, items: list[str]) -> None:
    """Whatever a row says, there is one mask, it has no text, and literals hold nothing of the row."""
    fields: dict[str, object] = {"text": a, "other": b, "items": items}
    prompt = prompt_of(text, fields)
    assert [""] == [segment.text for segment in prompt.segments if segment.kind == "mask"]
    assert all(segment.is_shortenable == (segment.kind == "field") for segment in prompt.segments)
    marked: dict[str, object] = {"text": "\ue000", "other": "\ue000", "items": ["\ue000"]}
    assert not any(
        "\ue000" in segment.text for segment in prompt_of(text, marked).segments if segment.kind == "literal"
    )
