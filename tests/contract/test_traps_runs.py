"""Traps 17, 18 and 22 to 25: calibration, labels, caches, other people's templates, and what is concluded."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.calibration import calibrate, find_calibration
from promptlab.calibration_prompts import CONTENT_FREE_TEXTS, content_free
from promptlab.errors import PromptlabError
from promptlab.harness import execute
from promptlab.metrics import Outcome, compare, measure
from promptlab.rendering import compile_template, render
from promptlab.results import RunResults
from promptlab.specs.run import RunSpec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer
from promptlab.statistics.intervals import wilson
from promptlab.store import RunStore
from promptlab.types import EncodedPrompt, Example, Role
from promptlab.verbalizing import pool_labels
from tests.oracles import MASK, field, mask_log_probs, prompt
from tests.tiny_library import TEXTS, write_library, write_text
from tests.tiny_models import FAMILIES


@pytest.fixture
def spec(tiny: dict[str, Path], tmp_path: Path) -> RunSpec:
    """A run of two templates over the opinions of the tiny library."""
    library = write_library(tmp_path / "library")
    write_text(library / "templates" / "opinions" / "it_is.jinja", "{{ text }}! It is {{ mask }}!\n")
    return RunSpec(
        models=(str(tiny["roberta"]),), tasks=("views",), templates=("opinions/it_was", "opinions/it_is"),
        verbalizers=("opinions/great_terrible",), include=(str(library),), device="cpu", calibrations=("none",),
        output_path=str(tmp_path / "results"), name="run",
    )  # fmt: skip


def having(spec: RunSpec, **changes: Any) -> RunSpec:
    return RunSpec(**{**dict(spec), **changes})


def decided(run: RunResults, template: str = "opinions/it_was") -> dict[str, list[Any]]:
    """The stored decisions of the cell of a template."""
    (result,) = (one for one in run.results if one.template == template)
    found: dict[str, list[Any]] = RunStore(run.folder).read_samples(result.samples, result.cell).to_pydict()
    return found


def test_trap_17_calibrations_are_different_estimators() -> None:
    """Contextual calibration divides by a mean of probabilities; a mean of logarithms is another number."""
    verbalizer = Verbalizer.from_labels({"a": "x", "b": "y"})
    pool = functools.partial(pool_labels, verbalizer=verbalizer, labels=("a", "b"))
    row, texts = np.log([[0.3, 0.1]]), np.log([[0.2, 0.02], [0.1, 0.3], [0.05, 0.05]])
    shares = [[0.2 / 0.22, 0.02 / 0.22], [0.25, 0.75], [0.5, 0.5]]
    prior = [sum(share[label] for share in shares) / 3 for label in (0, 1)]
    divided = [0.75 / prior[0], 0.25 / prior[1]]
    oracle = [value / sum(divided) for value in divided]
    log_prior = texts.mean(axis=0)
    naive = np.exp(row - log_prior) / np.exp(row - log_prior).sum()
    ours = np.exp(calibrate(find_calibration("contextual"), row, texts, pool))
    assert np.abs(naive - oracle).max() > 1e-2
    np.testing.assert_allclose(ours[0], oracle, atol=1e-12)


@pytest.mark.parametrize("kind", FAMILIES)
def test_trap_17_a_content_free_text_is_no_second_mask(backends: dict[str, Any], kind: str) -> None:
    """The mask token as a content-free text puts a second mask into the prompt; ours go through the same template."""
    tokenizer, encoder = backends[kind].tokenizer, backends[kind].encoder(None)
    naive = tokenizer(f"{tokenizer.mask_token} It was {tokenizer.mask_token}.")["input_ids"]
    assert 2 == naive.count(tokenizer.mask_token_id)
    compiled = compile_template(Template.from_text("{{ text }} It was {{ mask }}."))
    examples = content_free(["text"]).examples
    assert list(CONTENT_FREE_TEXTS) == [example.fields["text"] for example in examples]
    for encoded in encoder.encode([render(compiled, example) for example in examples]):
        assert isinstance(encoded, EncodedPrompt)
        assert 1 == encoded.input_ids.tolist().count(tokenizer.mask_token_id)


def test_trap_18_scores_do_not_know_the_labels(spec: RunSpec, tmp_path: Path) -> None:
    """A scorer that picks its combination by the gold label answers otherwise without it; ours gives the same bytes."""
    first = decided(execute(spec))
    scores = np.array(first["log_probabilities"])
    gold = [["negative", "positive"].index(label) for _, label in TEXTS]
    naive = [scores[place, gold[row]] for place, row in enumerate(first["row_index"])]
    assert naive != scores.max(axis=1).tolist()
    rows = tmp_path / "rows.jsonl"
    write_text(rows, "".join(json.dumps({"text": text}) + "\n" for text, _ in TEXTS))
    rest = {key: value for key, value in dict(spec).items() if key not in ("tasks", "name", "split")}
    own = {"rows": str(rows), "labels": ("negative", "positive"), "family": "opinions", "text_column": "text"}
    without = execute(RunSpec(**{**rest, **own, "name": "without"}))
    flipped = tmp_path / "library" / "tasks" / "data" / "views" / "test.jsonl"
    other = {"negative": "positive", "positive": "negative"}
    write_text(flipped, "".join(json.dumps({"text": text, "label": other[label]}) + "\n" for text, label in TEXTS))
    for run in (without, execute(having(spec, name="flipped"))):
        found = decided(run)
        assert first["log_probabilities"] == found["log_probabilities"]
        assert first["predicted"] == found["predicted"]


@pytest.mark.parametrize("name", ["label", "gold", "example.label"])
def test_trap_18_a_template_cannot_read_the_label(name: str) -> None:
    """A renderer that gives templates the whole row shows them the answer; ours gives them the fields alone."""
    row = Example("0", 0, {"text": "good"}, label="positive")
    naive = f"{row.fields['text']} {row.label} [MASK]"
    oracle = f"{row.fields['text']} [MASK]"
    assert naive != oracle
    assert oracle == render(compile_template(Template.from_text("{{ text }} {{ mask }}")), row).text
    with pytest.raises(PromptlabError, match=r"label|gold|example"):
        render(compile_template(Template.from_text(f"{{{{ text }}}} {{{{ {name} }}}} {{{{ mask }}}}")), row)


@pytest.fixture
def naive_answers(backends: dict[str, Any], models: dict[str, Any]) -> Any:
    """Label log-probabilities of texts with a template, one plain forward a text."""
    tokenizer = backends["roberta"].tokenizer
    ids = tokenizer.convert_tokens_to_ids(["\u0120terrible", "\u0120great"])

    def answer(texts: list[str], left: str, right: str) -> np.ndarray[Any, Any]:
        asked = [prompt(field(text), left, MASK, right) for text in texts]
        rows = np.stack([mask_log_probs(models["roberta"], tokenizer, one)[0, ids] for one in asked])
        return rows - np.logaddexp(rows[:, :1], rows[:, 1:])

    return answer


def by_row(found: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
    """Label log-probabilities in the order of the file."""
    return np.array(found["log_probabilities"])[np.argsort(found["row_index"])]


def test_trap_22_every_template_is_asked(spec: RunSpec, naive_answers: Any) -> None:
    """A loop variable left over gives every row the last template; each cell has the scores of its own."""
    run, texts = execute(spec), [text for text, _ in TEXTS]
    for name, around in {"opinions/it_was": (" It was ", "."), "opinions/it_is": ("! It is ", "!")}.items():
        naive, oracle = naive_answers(texts, "! It is ", "!"), naive_answers(texts, *around)
        assert (name == "opinions/it_was") == bool(np.abs(naive - oracle).max() > 1e-3)
        np.testing.assert_allclose(by_row(decided(run, name)), oracle, atol=1e-5)


def test_trap_22_what_is_stored_is_found_by_its_content(spec: RunSpec, tmp_path: Path, naive_answers: Any) -> None:
    """A cache named by tokenizer class and length answers changed rows with old scores; ours scores what changed."""
    cache: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    path = tmp_path / "library" / "tasks" / "data" / "views" / "test.jsonl"
    for texts in ([text for text, _ in TEXTS], [text.replace("great", "bad") for text, _ in TEXTS]):
        pairs = zip(texts, TEXTS, strict=True)
        write_text(path, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, (_, label) in pairs))
        oracle = naive_answers(texts, " It was ", ".")
        naive = cache.setdefault(("RobertaTokenizer", 64), oracle)
        ours = by_row(decided(execute(spec, amend=bool(cache))))
        np.testing.assert_allclose(ours, oracle, atol=1e-5)
    assert np.abs(naive - oracle).max() > 1e-3


def test_trap_23_rendering_drops_nothing(backends: dict[str, Any]) -> None:
    """Expressions cut to 2,048 characters and blank rows left out change a task; ours keep both, and count cuts."""
    compiled = compile_template(Template.from_text("{{ text | shorten(keep='tail') }} It was {{ mask }}."))
    text = "no " * 1000 + "good"
    oracle = f"{text} It was [MASK]."
    naive = oracle.replace(text, text[:2048])
    ours = render(compiled, Example("0", 0, {"text": text}))
    assert naive != oracle
    assert oracle == ours.text
    blank = render(compiled, Example("1", 1, {"text": ""}))
    cut, whole = backends["bert"].encoder(None).encode([ours, blank])
    words = backends["bert"].tokenizer.convert_ids_to_tokens(cut.input_ids[cut.roles == Role.FIELD])
    assert ("good", 0) == (words[-1], whole.num_truncated)
    assert 1001 == len(words) + cut.num_truncated


@pytest.mark.parametrize(
    "code", ["().__class__.__base__.__subclasses__()", "text.__class__", "open(text)", "text.upper()"]
)
def test_trap_24_templates_do_not_execute(code: str) -> None:
    """What `eval` would run is refused by the template, with its place."""
    naive = eval(code, {"text": __file__})
    assert naive is not None
    with pytest.raises(PromptlabError, match=r"template bad.*1"):
        compile_template(Template.from_text(f"{{{{ {code} }}}} {{{{ mask }}}}", name="bad"))
    getattr(naive, "close", lambda: None)()


def outcome(gold: list[int], predicted: list[int]) -> Outcome:
    return Outcome(np.array(gold), np.array(predicted), np.full((len(gold), 2), 0.5), ("no", "yes"))


def test_trap_25_a_constant_answer_has_no_good_figure(spec: RunSpec) -> None:
    """F1 of the positive class flatters a constant answer; macro F1 does not, and baselines stand beside every task."""
    gold = [1] * 68 + [0] * 32
    constant = outcome(gold, [1] * 100)
    naive = measure("f1(yes)", constant, seed=0).value
    oracle = (2 * 68 / (2 * 68 + 32) + 0.0) / 2
    assert naive > 0.8
    assert oracle == pytest.approx(measure("macro_f1", constant, seed=0).value, abs=1e-12)
    names = {baseline.name for baseline in execute(spec).baselines}
    assert any("majority" in name for name in names), names


def test_trap_25_the_spread_of_splits_is_no_interval() -> None:
    """Deviations over splits say nothing of the rows; accuracies have Wilson's interval, differences are paired."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200).tolist()
    one = [answer if rng.random() < 0.8 else 1 - answer for answer in gold]
    other = [answer if number % 10 else gold[number] for number, answer in enumerate(one)]
    accuracy = sum(np.equal(gold, one))
    splits = [float(np.equal(gold, one)[start : start + 40].mean()) for start in range(0, 200, 40)]
    naive = (np.mean(splits) - np.std(splits), np.mean(splits) + np.std(splits))
    oracle = wilson(int(accuracy), 200)
    ours = measure("accuracy", outcome(gold, one), seed=0).interval
    assert abs(naive[0] - oracle.low) > 1e-3
    assert (oracle.low, oracle.high) == (ours.low, ours.high)
    paired = compare("accuracy", outcome(gold, other), outcome(gold, one), seed=0).interval
    rates = [float(np.equal(gold, answers).mean()) for answers in (one, other)]
    unpaired = 2 * 1.96 * math.sqrt(sum(rate * (1 - rate) / 200 for rate in rates))
    assert paired.high - paired.low < unpaired / 2
