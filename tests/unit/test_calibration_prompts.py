"""What calibrations ask beside the rows: seeded, of train rows that are not scored, and never of a gold label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pytest

from promptlab.calibration_prompts import (
    CONTENT_FREE_TEXTS,
    NUM_BAGS,
    NUM_SUPPORT,
    PromptGroup,
    TrainRows,
    bags,
    content_free,
    domain_prompt,
    draw_train_rows,
    make_group,
    support,
)
from promptlab.examples import Examples
from promptlab.hashing import content_hash
from promptlab.rendering import CompiledTemplate, compile_template, render
from promptlab.rows import RowSet
from promptlab.specs.template import Template
from promptlab.types import Example

LABELS = ("bad", "good")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
# Rows of 1 to 9 words: their median length is 5.
TEXTS = [" ".join(WORDS[:number]) for number in (9, 1, 8, 2, 7, 3, 6, 4, 5)]


def row_set(rows: Sequence[Mapping[str, Any]], *, split: str = "train", gold: Sequence[str | None] = ()) -> RowSet:
    """Rows with the ids that they get when they are read."""
    seen: Counter[str] = Counter()
    examples = []
    for index, fields in enumerate(rows):
        digest = content_hash(dict(fields))[:16]
        examples.append(Example(f"{digest}-{seen[digest]}", index, fields, gold[index] if gold else None))
        seen[digest] += 1
    names = list(rows[0]) if rows else ["text"]
    return RowSet("task", split, Examples.collect(examples, fields=names, labels=LABELS), {}, len(rows))


def texts(*values: str) -> list[dict[str, str]]:
    return [{"text": value} for value in values]


def train_rows(*values: Any) -> TrainRows:
    """Train rows of which none is scored; a value that is no mapping is the field `text`."""
    rows = [value if isinstance(value, Mapping) else {"text": value} for value in values]
    return draw_train_rows(row_set(rows), row_set([], split="test"), seed=0)


def bag_texts(train: TrainRows, *, seed: int = 0, field: str = "text") -> list[Any]:
    return [example.fields[field] for example in bags(train, [field], seed=seed).examples]


def template(text: str = "{{ text }} It was {{ mask }}.", prompt: str | None = None) -> CompiledTemplate:
    made = Template(name="made/it_was", family="made", path="made/it_was.jinja", text=text, domain_prompt=prompt)
    return compile_template(made)


def test_content_free_texts_are_those_of_the_paper() -> None:
    """Zhao et al. (2021) average over "N/A", the empty text and a placeholder word."""
    assert CONTENT_FREE_TEXTS == ("N/A", "", "none")


def test_content_free_texts_stand_in_every_field_together() -> None:
    """One prompt a text, the same in all fields of the task."""
    found = content_free(["premise", "hypothesis"])
    expected = [{"premise": text, "hypothesis": text} for text in ("N/A", "", "none")]
    assert expected == [dict(example.fields) for example in found.examples]
    assert found.template is None


def test_a_domain_prompt_is_the_text_in_the_head() -> None:
    """It is asked once, without a row, and by a template of its own."""
    found = domain_prompt(template(prompt="It was {{ mask }}."))
    assert isinstance(found, PromptGroup)
    assert found.template is not None
    (example,) = found.examples
    assert {} == dict(example.fields)
    assert "It was [MASK]." == render(found.template, example, options=None, seed=0).text


def test_a_template_without_a_domain_prompt_is_told() -> None:
    """The sentence says where it would stand."""
    assert "needs a domain_prompt in the head of the template, and it has none." == domain_prompt(template())


def test_support_rows_are_200_of_train() -> None:
    """200 of them, without their labels, each as it stands in its file; all where there are fewer."""
    rows = texts(*(f"row {number}" for number in range(300)))
    group = support(train_rows(*rows))
    assert NUM_SUPPORT == 200 == len(group.examples) == len({example.id for example in group.examples})
    assert all(rows[example.index] == dict(example.fields) for example in group.examples)
    assert 7 == len(support(train_rows(*rows[:7])).examples)


def test_support_rows_are_drawn_by_the_seed_and_not_by_the_order_of_the_file() -> None:
    """The same seed draws the same rows from a file in another order; another seed draws others."""
    rows = texts(*(f"row {number}" for number in range(300)))
    none = row_set([], split="test")
    first, again = (support(draw_train_rows(row_set(rows), none, seed=0)) for _ in range(2))
    turned = support(draw_train_rows(row_set(rows[::-1]), none, seed=0))
    other = support(draw_train_rows(row_set(rows), none, seed=1))
    assert first.hash == again.hash == turned.hash
    ids = [example.id for example in first.examples]
    assert ids == [example.id for example in turned.examples]
    assert set(ids) != {example.id for example in other.examples}


def test_rows_that_are_scored_are_left_out_and_counted() -> None:
    """A train row whose content stands in the scored split too is no support, however often it stands there."""
    train = row_set(texts("a", "b", "b", "c", "d"))
    found = draw_train_rows(train, row_set(texts("b", "x", "d", "d"), split="test"), seed=0)
    assert {"a", "c"} == {example.fields["text"] for example in found.examples}
    assert 3 == found.num_in_scored
    assert {"a", "c"} >= {word for text in bag_texts(found) for word in text.split()}


def test_where_all_train_rows_are_scored_there_is_nothing_to_draw() -> None:
    """The reason is kept for the calibrations that need them."""
    found = draw_train_rows(row_set(texts("a", "b")), row_set(texts("b", "a"), split="test"), seed=0)
    reason = "needs train rows that are not scored too, and there are none."
    assert (0, 2, reason) == (len(found.examples), found.num_in_scored, found.fault)
    assert [reason, reason] == [make_group(name, None, ["text"], found, seed=0) for name in ("domain", "support")]


@pytest.mark.parametrize("name", ["domain", "support"])
def test_no_gold_label_is_read(name: str) -> None:
    """Other gold labels, or none, give the same prompts, and no prompt carries one."""
    rows = texts(*(f"{word} {other}" for word in WORDS for other in WORDS))
    found = []
    for gold in (["good"] * 100, ["bad", "good"] * 50, []):
        train = draw_train_rows(row_set(rows, gold=gold), row_set([], split="test"), seed=3)
        group = make_group(name, None, ["text"], train, seed=3)
        assert isinstance(group, PromptGroup)
        found.append(group)
    assert 1 == len({group.hash for group in found})
    assert {None} == {example.label for group in found for example in group.examples}


def test_bags_are_20_texts_of_median_length() -> None:
    """Each has as many words as a train row has in the median, and only words of train rows."""
    found = bag_texts(train_rows(*TEXTS))
    assert NUM_BAGS == 20 == len(found)
    assert {median(len(text.split()) for text in TEXTS)} == {5} == {len(text.split()) for text in found}
    assert {word for text in found for word in text.split()} <= set(" ".join(TEXTS).split())


def test_bags_draw_words_as_often_as_they_stand_in_train() -> None:
    """A word that fills nine tenths of the train rows fills about nine tenths of the bags; order is lost."""
    found = bag_texts(train_rows(*(["the the the the the the the the the rare"] * 30)))
    share = Counter(" ".join(found).split())["the"] / 200
    assert 0.8 < share < 0.97
    assert 1 < len(set(found))


def test_bags_are_seeded() -> None:
    """The same seed gives the same bags, another one others."""
    train = train_rows(*TEXTS)
    assert bag_texts(train) == bag_texts(train)
    assert bag_texts(train) != bag_texts(train, seed=1)


def test_a_character_is_a_word_where_there_are_no_blanks() -> None:
    """Chinese rows give bags of as many characters as a row has, set without blanks; words beside them stay whole."""
    found = bag_texts(train_rows("很好吃", "不好", "服务WIFI很差"))
    assert all(not re.search(r"\s", text.replace(" WIFI", "").replace("WIFI ", "")) for text in found)
    signs = {sign for text in found for sign in re.findall(r"[a-zA-Z]+|\S", text)}
    assert signs <= {*"很好吃不服务差", "WIFI"}
    assert {3} == {len(re.findall(r"[a-zA-Z]+|\S", text)) for text in found}


def test_fields_are_drawn_apart_and_values_that_are_no_text_are_rows_values() -> None:
    """Each field has bags of its own words; a list or a number is taken whole from some row."""
    rows = [{"text": f"word{number}", "choices": [number, number + 1], "year": 1900 + number} for number in range(9)]
    train = train_rows(*rows)
    group = bags(train, ["text", "choices", "year"], seed=0)
    assert 20 == len(group.examples)
    for example in group.examples:
        assert example.fields["text"] in {row["text"] for row in rows}
        assert example.fields["choices"] in [row["choices"] for row in rows]
        assert example.fields["year"] in {row["year"] for row in rows}
    assert 1 < len({example.fields["year"] for example in group.examples})


def test_rows_without_words_give_empty_bags() -> None:
    """No word to draw is no crash."""
    assert [""] * 20 == bag_texts(train_rows("", "  ", ""))


@pytest.mark.parametrize("name", ["domain", "support"])
def test_a_task_without_train_rows_is_told(name: str) -> None:
    """Why there are no rows is passed on, whatever the reason was."""
    assert "needs train rows, and the task has none." == make_group(name, None, ["text"], None, seed=0)
    reason = "needs train rows: name a file of them with --train-rows."
    assert reason == make_group(name, None, ["text"], TrainRows((), fault=reason), seed=0)


def test_a_group_is_known_by_its_texts_and_its_template() -> None:
    """Other texts, another name or another domain prompt are another group; the block's own template is no part."""
    train = train_rows(*TEXTS)
    known = [
        content_free(["text"]),
        content_free(["text", "title"]),
        support(train),
        bags(train, ["text"], seed=0),
        bags(train, ["text"], seed=1),
        domain_prompt(template(prompt="It was {{ mask }}.")),
        domain_prompt(template(prompt="So it was {{ mask }}.")),
    ]
    hashes = {group.hash for group in known if isinstance(group, PromptGroup)}
    assert len(known) == len(hashes)
    again = domain_prompt(template("{{ text }}! It was {{ mask }}.", prompt="It was {{ mask }}."))
    assert isinstance(again, PromptGroup)
    assert again.hash in hashes
    assert "90d04c07717398fe3d5778306a31fa22" == again.hash  # stored scores are filed under it


def test_a_domain_prompt_is_cut_as_its_template_is() -> None:
    """In pieces it is another group than whole, and its prompts are in the same pieces."""
    whole = template(prompt="It was {{ mask }}.").template
    groups = [
        domain_prompt(compile_template(whole.model_copy(update={"pieces": pieces})))
        for pieces in ("whole", "lm_bff", "pet")
    ]
    found = [group for group in groups if isinstance(group, PromptGroup) and group.template is not None]
    assert ["whole", "lm_bff", "pet"] == [group.template.template.pieces for group in found if group.template]
    assert 3 == len({group.hash for group in found})
