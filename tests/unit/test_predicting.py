"""New rows get the label that a run of the same rows would give them, window by window."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab import predicting
from promptlab.errors import LabelWordError, UsageError
from promptlab.harness import execute
from promptlab.predicting import Predicted, Predictor
from promptlab.rendering import compile_template
from promptlab.specs.run import RunSpec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import RunStore
from promptlab.types import Example
from tests.tiny_library import write_text

TEXTS = [
    "a great film about the world",
    "nothing was fine , it was terrible",
    "so",
    "an awful day , and everything about it was bad , terrible , awful and wrong from the start to the very end",
    "the market rose and the team won again",
    "a great film about the world",
]
LOST = 3  # the place of the text that is too long where it must not be cut
PLAIN = '---\ndomain_prompt: "It was {{ mask }}."\n---\n{{ text }} It was {{ mask }}.'
FIXED = '---\ndomain_prompt: "All {{ mask }}."\n---\n{{ text | fixed }} All in all , {{ mask }}.'
OPTIONS = "{{ text }} {{ options | join(' or ') }}? {{ mask }}."
DRAWN = "{{ text }} {{ ['It', 'All', 'So', 'The'] | choice }} was {{ mask }}."
VERBALIZER = Verbalizer.from_labels({"bad": ["terrible", "awful"], "good": {"great": 1.0, "fine": 0.5}})


def template(folder: Path, text: str, name: str = "own") -> Template:
    """A template of a file, which may have a head."""
    write_text(folder / f"{name}.jinja", text)
    return Template.load(str(folder / f"{name}.jinja"))


def predictor(backend: Any, templates: Sequence[Template], **changes: Any) -> Predictor:
    values: dict[str, Any] = {
        "backend": backend, "encoder": backend.encoder(24), "verbalizer": VERBALIZER, "fields": ["text"],
        "templates": [compile_template(one) for one in templates],
    }  # fmt: skip
    return Predictor(**{**values, **changes})


def examples(texts: Sequence[str] = TEXTS) -> list[Example]:
    return [Example(f"row-{number}", number, {"text": text}) for number, text in enumerate(texts)]


def by_run(folder: Path, model: Path, templates: Sequence[Template], calibration: str, **more: Any) -> list[Predicted]:
    """What a run over the same rows decides: its one template, or the ensemble over all of them."""
    write_text(folder / "rows.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    spec = RunSpec(
        models=str(model), rows=str(folder / "rows.jsonl"), templates=tuple(templates), verbalizers=(VERBALIZER,),
        calibrations=calibration, output_path=str(folder / "runs"), device="cpu", max_length=24,
        ensembles={"all": [one.name for one in templates]} if len(templates) > 1 else {}, **more,
    )  # fmt: skip
    run = execute(spec)
    cell = run.results[-1]
    assert cell.skipped is None
    rows = RunStore(run.folder).read_samples(cell.samples, cell.cell).to_pylist()
    found = []
    for row in rows:
        values = row["log_probabilities"] or []
        probabilities = {label: float(np.exp(value)) for label, value in zip(cell.labels, values, strict=False)}
        mass = None if row["log_mass"] is None else float(np.exp(row["log_mass"]))
        found.append(Predicted(row["predicted"], probabilities, mass, row["reason"]))
    return found


def assert_equal(expected: Sequence[Predicted], found: Sequence[Predicted], tolerance: float = 1e-6) -> None:
    """The same labels, reasons, and numbers within the tolerance."""
    assert [one.label for one in expected] == [one.label for one in found]
    assert [one.reason for one in expected] == [one.reason for one in found]
    for one, other in zip(expected, found, strict=True):
        assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=tolerance)
        assert one.mass == (None if other.mass is None else pytest.approx(other.mass, abs=tolerance))


@pytest.mark.parametrize("calibration", ["none", "contextual", "pmi_dc"])
@pytest.mark.parametrize("several", [False, True])
def test_a_prediction_is_what_a_run_decides(
    tmp_path: Path, backends: dict[str, Any], tiny: dict[str, Path], calibration: str, several: bool
) -> None:
    """For every calibration that can be had row by row; several templates are the ensemble over them."""
    templates = [template(tmp_path, FIXED, "fixed"), *([template(tmp_path, PLAIN, "plain")] if several else [])]
    expected = by_run(tmp_path, tiny["bert"], templates, calibration)
    found = list(predictor(backends["bert"], templates, calibration=calibration).predict(examples()))
    assert_equal(expected, found)
    assert [several or number != LOST for number in range(len(TEXTS))] == [one.label is not None for one in found]


def test_a_template_that_lists_its_options_is_asked_with_the_words(
    tmp_path: Path, backends: dict[str, Any], tiny: dict[str, Path]
) -> None:
    """The first word of each label, in the order of the labels."""
    templates = [template(tmp_path, OPTIONS)]
    expected = by_run(tmp_path, tiny["bert"], templates, "contextual")
    assert_equal(expected, list(predictor(backends["bert"], templates, calibration="contextual").predict(examples())))


def test_a_draw_is_that_of_the_row_and_the_seed(tmp_path: Path, backends: dict[str, Any]) -> None:
    """The same row draws the same wherever it stands; another seed draws otherwise."""
    asked = predictor(backends["bert"], [template(tmp_path, DRAWN)])
    rows = examples(["so"] * 8)
    found, turned = list(asked.predict(rows)), list(asked.predict(rows[::-1]))
    assert_equal(found, turned[::-1], 1e-6)
    other = list(predictor(backends["bert"], [template(tmp_path, DRAWN)], seed=1).predict(rows))
    values = [[round(one.probabilities["good"], 5) for one in several] for several in (found, other)]
    assert 1 < len(set(values[0]))
    assert values[0] != values[1]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_windows_do_not_matter(
    tmp_path: Path, backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Rows cut into windows of any size get the same predictions, in their order."""
    templates = [template(tmp_path, PLAIN, "plain"), template(tmp_path, FIXED, "fixed")]
    whole = list(predictor(backends["bert"], templates, calibration="contextual").predict(examples()))
    monkeypatch.setattr(predicting, "WINDOW", window)
    cut = list(predictor(backends["bert"], templates, calibration="contextual").predict(examples()))
    assert_equal(whole, cut, 1e-6)


def test_rows_come_and_go(tmp_path: Path, backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a window is read ahead, so that a stream without an end can be labelled."""
    monkeypatch.setattr(predicting, "WINDOW", 3)
    read = []

    def rows() -> Iterator[Example]:
        for number in range(10**9):
            read.append(number)
            yield Example(f"row-{number}", number, {"text": TEXTS[number % len(TEXTS)]})

    found = predictor(backends["bert"], [template(tmp_path, PLAIN)]).predict(rows())
    assert next(found).label is not None
    assert 3 == len(read)
    for _ in range(3):
        next(found)
    assert 6 == len(read)


def test_a_row_that_cannot_be_scored_says_why(tmp_path: Path, backends: dict[str, Any]) -> None:
    """It has no label, no number and a reason; a template that can score it is enough."""
    fixed, plain = template(tmp_path, FIXED, "fixed"), template(tmp_path, PLAIN, "plain")
    lost = list(predictor(backends["bert"], [fixed]).predict(examples()))[LOST]
    assert (None, {}, None) == (lost.label, dict(lost.probabilities), lost.mass)
    assert lost.reason is not None and "longer than 24 tokens" in lost.reason
    both = list(predictor(backends["bert"], [fixed, plain]).predict(examples()))[LOST]
    alone = list(predictor(backends["bert"], [plain]).predict(examples()))[LOST]
    assert_equal([alone], [both])
    assert [None] * 2 == [one.label for one in predictor(backends["bert"], [fixed]).predict([examples()[LOST]] * 2)]


def test_no_row_is_no_prediction(tmp_path: Path, backends: dict[str, Any]) -> None:
    """And no fault."""
    assert [] == list(predictor(backends["bert"], [template(tmp_path, PLAIN)]).predict([]))


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        ("batch", "calibration 'batch' needs all rows at once: predict takes none, contextual or pmi_dc, and "
                  "`promptlab run --rows` takes every one."),
        ("domain", "calibration 'domain' needs train rows: predict takes none, contextual or pmi_dc"),
        ("support", "calibration 'support' needs train rows: predict takes none, contextual or pmi_dc"),
        ("contextul", "calibration 'contextul' is unknown. Did you mean 'contextual'?"),
    ],
)  # fmt: skip
def test_a_calibration_that_needs_other_rows_is_refused(
    tmp_path: Path, backends: dict[str, Any], calibration: str, sentence: str
) -> None:
    """Before any row is read; the command that takes it is named."""
    with pytest.raises(UsageError) as fault:
        predictor(backends["bert"], [template(tmp_path, PLAIN)], calibration=calibration)
    assert str(fault.value).startswith(sentence)


def test_a_calibration_without_prompts_is_refused(tmp_path: Path, backends: dict[str, Any]) -> None:
    """A template without a domain prompt, and content-free texts that do not fit into the length."""
    bare = template(tmp_path, "{{ text }} It was {{ mask }}.")
    with pytest.raises(UsageError, match=r"own\.jinja: calibration 'pmi_dc' needs a domain_prompt in the head"):
        list(predictor(backends["bert"], [bare], calibration="pmi_dc").predict(examples()))
    short = predictor(backends["bert"], [bare], calibration="contextual", encoder=backends["bert"].encoder(5))
    with pytest.raises(UsageError, match=r"own\.jinja: calibration 'contextual' has no prompt that can be scored: "):
        list(short.predict(examples()))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"bad": "unbelievable", "good": "great"}, "label word 'unbelievable' splits into"),
        ({"bad": "Great", "good": "great"}, "'Great' of label 'bad' and 'great' of label 'good' are the same token"),
    ],
)
def test_words_that_are_no_tokens_are_refused(
    tmp_path: Path, backends: dict[str, Any], words: dict[str, str], sentence: str
) -> None:
    """As a run refuses them, with verbalizer and template."""
    asked = predictor(backends["bert"], [template(tmp_path, PLAIN)], verbalizer=Verbalizer.from_labels(words, name="w"))
    with pytest.raises(LabelWordError, match=re.escape(sentence)) as fault:
        list(asked.predict(examples()))
    assert "verbalizer w" in str(fault.value)


def test_a_word_must_be_one_token_in_all_windows(
    tmp_path: Path, backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the mask touches the row, a later row can make it another token: that is told, not averaged over."""
    monkeypatch.setattr(predicting, "WINDOW", 1)
    asked = predictor(
        backends["roberta"], [template(tmp_path, "{{ text }}{{ mask }}")],
        verbalizer=Verbalizer.from_labels({"bad": "yes", "good": "great"}, name="w"),
    )  # fmt: skip
    found = asked.predict(examples(["It was ", "It was("]))
    assert next(found).label is not None
    with pytest.raises(
        LabelWordError, match=r"label word 'yes' is not the same token in every row: put a blank around"
    ):
        next(found)


def test_a_word_for_one_mask_is_refused_for_two(tmp_path: Path, backends: dict[str, Any]) -> None:
    """As a run refuses it."""
    asked = predictor(backends["bert"], [template(tmp_path, "{{ mask }} {{ text }} {{ mask }}")])
    with pytest.raises(LabelWordError, match="stands for one mask, the template has 2"):
        list(asked.predict(examples()))


def test_equal_texts_have_equal_numbers(tmp_path: Path, backends: dict[str, Any]) -> None:
    """A prompt that stands twice is scored once."""
    found = list(predictor(backends["bert"], [template(tmp_path, PLAIN)]).predict(examples()))
    assert found[0] == found[5]
