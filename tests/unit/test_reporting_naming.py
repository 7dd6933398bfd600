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


def test_one_set_of_words_under_two_rules_is_told_apart() -> None:
    """What stands behind `@` is kept where there is room, and tells two names of the same words apart where not."""
    names = ["inline-aaaa1111@pet", "inline-aaaa1111@left_to_right@normalize=mean", "inline-aaaa1111"]
    texts = dict.fromkeys(names, "quite bad/very good")
    whole = ["quite bad/very good@pet", "quite bad/very good@left_to_right@…", "quite bad/very good"]
    assert whole == [*shown_names(names, texts, 35).values()]
    assert "quite bad/very…@pet" == shown_names(names, texts, 19)[names[0]]
    assert 3 == len(set(shown_names(names, texts, 19).values()))
