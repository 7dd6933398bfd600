"""The rows that ship with promptlab are balanced, diverse and free of shallow give-aways.

Each promise of the data card (`tasks/data/README.md`) is asserted here, so that an edited row cannot break it silently.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from promptlab.library import library_root
from promptlab.specs.task import load_tasks

DATA = library_root() / "tasks" / "data"
BUNDLED = {task.name: task for task in load_tasks(["*"]) if task.sources[0].bundled}
TEXT_FIELDS = {name: list(task.fields) for name, task in BUNDLED.items()}
LABELS = {name: list(task.labels) for name, task in BUNDLED.items()}
TASKS = sorted(LABELS)


def read(task: str, split: str) -> list[dict[str, str]]:
    """Rows of one bundled split, in file order."""
    lines = (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def whole_text(task: str, row: dict[str, str]) -> str:
    """All text fields of a row, in order."""
    return " ".join(row[field] for field in TEXT_FIELDS[task])


def words(text: str) -> list[str]:
    """Words of a text, lower-cased, punctuation left out."""
    return re.findall(r"[\w']+", text.lower())


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_enough_and_balanced(task: str) -> None:
    """Every class has at least 32 train and 100 test rows, and as many as every other class."""
    for split, least in (("train", 32), ("test", 100)):
        counts = Counter(row["label"] for row in read(task, split))
        assert sorted(LABELS[task]) == sorted(counts)
        assert len(set(counts.values())) == 1
        assert min(counts.values()) >= least


@pytest.mark.parametrize("task", TASKS)
def test_rows_have_one_shape_and_are_distinct(task: str) -> None:
    """Rows have the same keys, none is repeated, and no text holds a mask or outer blanks."""
    rows = read(task, "train") + read(task, "test")
    assert {frozenset(row) for row in rows} == {frozenset([*TEXT_FIELDS[task], "label", "register"])}
    texts = [" ".join(words(whole_text(task, row))) for row in rows]
    assert len(texts) == len(set(texts))
    for row in rows:
        for field in TEXT_FIELDS[task]:
            assert row[field] == row[field].strip()
            assert "[MASK]" not in row[field]
            assert "\n" not in row[field]


@pytest.mark.parametrize("task", TASKS)
def test_rows_vary_in_length_and_register(task: str) -> None:
    """Lengths go from short to long within 5 to 120 words, and at least ten registers are used."""
    rows = read(task, "train") + read(task, "test")
    lengths = [len(words(whole_text(task, row))) for row in rows]
    assert min(lengths) >= 5
    assert max(lengths) <= 120
    assert np.quantile(lengths, 0.1) <= 15
    assert np.quantile(lengths, 0.95) >= 45
    assert len({row["register"] for row in rows}) >= 10


@pytest.mark.parametrize("task", TASKS)
def test_no_five_words_in_a_row_are_common(task: str) -> None:
    """No sequence of five words stands in more than three rows of a task."""
    rows_with: Counter[tuple[str, ...]] = Counter()
    for row in read(task, "train") + read(task, "test"):
        found = set()
        for field in TEXT_FIELDS[task]:
            tokens = words(row[field])
            found |= {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}
        rows_with.update(found)
    assert {} == {" ".join(gram): count for gram, count in rows_with.items() if count > 3}


def shallow_accuracy(task: str, kind: str) -> float:
    """Test accuracy of a classifier that sees only the length, the first word, or the bag of words."""
    train, test = read(task, "train"), read(task, "test")
    gold_train, gold_test = [r["label"] for r in train], [r["label"] for r in test]
    if kind == "length":
        model = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
        seen = [[[len(words(r[f])) for f in TEXT_FIELDS[task]] for r in part] for part in (train, test)]
    elif kind == "first word":
        model = make_pipeline(CountVectorizer(token_pattern=r"\S+"), MultinomialNB())
        field = TEXT_FIELDS[task][-1]
        seen = [[words(r[field])[0] for r in part] for part in (train, test)]
    else:
        model = make_pipeline(CountVectorizer(token_pattern=r"[\w']+"), LogisticRegression(max_iter=2000))
        seen = [[whole_text(task, r) for r in part] for part in (train, test)]
    model.fit(seen[0], gold_train)
    return float(np.mean(model.predict(seen[1]) == np.array(gold_test)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["length", "first word"])
def test_shallow_clues_say_nothing(task: str, kind: str) -> None:
    """Length alone and the first word alone stay within five points of chance."""
    chance = 1 / len(LABELS[task])
    assert chance == pytest.approx(shallow_accuracy(task, kind), abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_bag_of_words_does_not_solve_the_task(task: str) -> None:
    """Logistic regression on the words of the train rows stays below 90 %."""
    assert shallow_accuracy(task, "bag of words") < 0.90
