"""Inline templates and verbalizers are called by their own words, in tables, charts and the terminal."""

from __future__ import annotations

import pytest

from promptlab.reporting.naming import shorten, shown_names, template_texts, verbalizer_texts


def test_a_template_is_shown_with_its_fields_and_a_blank() -> None:
    """Fields in braces, the mask as a blank, statements and line ends left out; library templates are not touched."""
    texts = {"inline-1": "{{ text | fixed }}\n{% if a %}It{% endif %} was {{ mask }}.", "made/it_was": "{{ mask }}"}
    manifest = {"templates": {name: {"text": text} for name, text in texts.items()}}
    assert template_texts(manifest) == {"inline-1": "{text} It was ___."}


def test_a_verbalizer_is_shown_by_its_words_in_the_order_of_the_labels() -> None:
    """Words of a label by bars, labels by slashes; a verbalizer of other labels is another task's."""
    words = {"positive": ["great", "good"], "negative": ["bad"]}
    manifest = {"verbalizers": {"inline-1": {"labels": words}, "inline-2": {"labels": {"yes": ["a"], "no": ["b"]}}}}
    assert verbalizer_texts(manifest, ("negative", "positive")) == {"inline-1": "bad/great|good"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{text} It was ___.", "{text} It was ___."),
        ("{text} All in all, it was ___.", "…all, it was ___."),
        ("___ news: {title} and {body}.", "___ news: {title} …"),
        ("wonderful|great/terrible", "wonderful|great/te…"),
        ("x" * 30 + "___" + "y" * 30, "…xxxxxxx___yyyyyyy…"),
    ],
)
def test_a_long_text_keeps_what_stands_around_its_blank(text: str, shown: str) -> None:
    """At most so many characters, and the blank is among them."""
    assert shorten(text, 19) == shown
    assert len(shown) <= 19


def test_texts_that_look_alike_get_the_end_of_their_hash() -> None:
    """Two names are never the same; names of the library lose their family."""
    texts = {
        "inline-aaaa1111": "{text} One. It was all in all, so ___.",
        "inline-bbbb2222": "Two. It was all in all, so ___.",
    }
    assert shown_names(["made/it_was", *texts], texts, 19) == {
        "made/it_was": "it_was",
        "inline-aaaa1111": "…all, so ___. 1111",
        "inline-bbbb2222": "…all, so ___. 2222",
    }


def test_verbalizers_of_the_same_words_are_told_apart_by_their_rules() -> None:
    """Behind the words stands the rule in full; where words only look alike, the end of their hash stands before it."""
    rules = ["@pet", "@left_to_right", "@left_to_right@normalize=mean", ""]
    texts = {f"inline-aaaa1111{rule}": "bad/goodness|good" for rule in rules}
    expected = ["bad/goodness… @pet", "bad/goo… @left_to_right", "bad/goo… @left_to_right@normalize=mean", "1111"]
    shown = list(shown_names(texts, texts, 18).values())
    assert expected == [*shown[:3], shown[3].rpartition(" ")[2]]
    longer = texts | {f"inline-bbbb2222{rule}": "bad/goodness|good|great" for rule in rules}
    names = list(shown_names(longer, longer, 14).values())
    assert len(names) == len(set(names))
    assert "bad/goo… 2222@pet" in names
