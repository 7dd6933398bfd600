"""The harness: what is missing is scored, what is stored is read, and two equal runs are equal files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import DataError, LabelWordError, TemplateError, UsageError
from promptlab.harness import Silence, execute, plan_run
from promptlab.results import RunResults, read_results
from promptlab.specs.run import RunSpec
from promptlab.store import read_table
from promptlab.types import EncodedPrompt
from tests.oracles import MASK, field, mask_log_probs, prompt
from tests.tiny_library import TEXTS, write_library, write_text


class Record(Silence):
    """Remembers what was said and how many prompts were scored."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.num_scored = 0

    def say(self, sentence: str) -> None:
        """Keep it."""
        self.said.append(sentence)

    def advance(self, num_prompts: int) -> None:
        """Count them."""
        self.num_scored += num_prompts


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


@pytest.fixture
def spec(library: Path, tiny: dict[str, Path], tmp_path: Path) -> RunSpec:
    """A run of two templates over the opinions of the tiny library."""
    return RunSpec(
        models=(str(tiny["bert"]),), tasks=("views",), templates=("opinions/it_was", "opinions/in_brackets"),
        verbalizers=("opinions/great_terrible", "opinions/good_bad"), include=(str(library),), device="cpu",
        output_path=str(tmp_path / "results"), name="run",
    )  # fmt: skip


def having(spec: RunSpec, **changes: Any) -> RunSpec:
    return RunSpec(**{**dict(spec), **changes})


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The content of the files of a run, by name."""
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def samples_of(run: RunResults) -> dict[tuple[str, str, str], dict[str, list[Any]]]:
    """The stored decisions, by template, verbalizer and calibration."""
    return {
        (result.template, result.verbalizer, result.calibration): read_table(
            run.folder / "samples" / f"{result.cell}.parquet"
        )[0].to_pydict()
        for result in run.results
        if result.skipped is None
    }


def test_a_run_stores_every_cell(spec: RunSpec) -> None:
    """Templates by verbalizers by calibrations and the null baseline are decided, stored, and read back the same."""
    run = execute(spec)
    assert 3 * 2 * 2 == len(run.results) == len(samples_of(run))
    assert {"opinions/it_was", "opinions/in_brackets", "opinions/null"} == {result.template for result in run.results}
    assert run.results == read_results(run.folder).results
    assert run.timings["forwards"] > 0
    counted = json.loads((run.folder / "results.json").read_text())["cells"]
    assert [{"none", "contextual"}] == list({frozenset(cell["calibration"] for cell in counted)} - {frozenset()})


def test_decisions_equal_the_naive_oracle(spec: RunSpec, models: dict[str, Any], backends: dict[str, Any]) -> None:
    """p(y | x) of every row is the softmax of the two words' log-probabilities in the plain forward, to 1e-5."""
    found = samples_of(execute(spec))["opinions/it_was", "opinions/great_terrible", "none"]
    tokenizer = backends["bert"].tokenizer
    ids = tokenizer.convert_tokens_to_ids(["terrible", "great"])
    for number, (text, label) in enumerate(TEXTS):
        (log_probs,) = mask_log_probs(models["bert"], tokenizer, prompt(field(text), " It was ", MASK, "."))[:, ids]
        row = found["row_index"].index(number)
        expected = log_probs - np.logaddexp(*log_probs)
        np.testing.assert_allclose(found["log_probabilities"][row], expected, atol=1e-5)
        assert ["negative", "positive"][int(np.argmax(log_probs))] == found["predicted"][row]
        assert label == found["gold"][row]
        np.testing.assert_allclose(found["log_mass"][row], np.logaddexp(*log_probs), atol=1e-5)


def test_a_second_run_does_no_forward_and_writes_the_same_bytes(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is read back, the weights are not even loaded, and results and samples are equal byte by byte."""
    first = execute(spec)
    before = files(first.folder, "results.json", "samples/*", "blocks/*/*", "manifest.json")
    monkeypatch.setattr("promptlab.backends.mlm.load_model", None)
    record = Record()
    second = execute(spec, progress=record)
    assert 0 == second.timings["forwards"]
    assert [f"{spec.models[0]}: every score is stored already, no forward pass is needed."] == record.said
    assert before == files(second.folder, "results.json", "samples/*", "blocks/*/*", "manifest.json")


def test_two_runs_in_different_folders_are_equal(spec: RunSpec, tmp_path: Path) -> None:
    """Results, samples and blocks of a run elsewhere are the same bytes."""
    patterns = ("results.json", "samples/*", "blocks/*/*")
    here, there = execute(spec), execute(having(spec, output_path=str(tmp_path / "elsewhere")))
    assert files(here.folder, *patterns) == files(there.folder, *patterns)


def test_a_changed_template_rescores_its_blocks_alone(spec: RunSpec, library: Path) -> None:
    """Other templates are read back; cells of the old text are gone from results and samples."""
    before = execute(spec)
    write_text(library / "templates" / "opinions" / "it_was.jinja", "{{ text }} It was so {{ mask }}.\n")
    record = Record()
    after = execute(spec, progress=record)
    assert len(TEXTS) + 3 == record.num_scored == after.timings["prompts"]
    old, new = ({result.cell: result for result in run.results} for run in (before, after))
    kept = {cell for cell in old if cell in new}
    assert {"opinions/in_brackets", "opinions/null"} == {old[cell].template for cell in kept}
    assert all(old[cell] == new[cell] for cell in kept)
    assert set(new) == {path.stem for path in (after.folder / "samples").iterdir()}


def test_more_rows_reuse_the_block(spec: RunSpec, tmp_path: Path) -> None:
    """A run with a limit, then without, ends with the numbers of a run over everything, to 1e-5."""
    execute(having(spec, limit=2))
    grown = samples_of(execute(spec))
    straight = samples_of(execute(having(spec, output_path=str(tmp_path / "straight"))))
    assert list(straight) == list(grown)
    for cell in straight:
        assert straight[cell]["row_id"] == grown[cell]["row_id"]
        np.testing.assert_allclose(
            grown[cell]["log_probabilities"], straight[cell]["log_probabilities"], atol=1e-5
        )  # fmt: skip


def test_the_same_run_with_another_verbalizer_adds_cells(spec: RunSpec, library: Path) -> None:
    """Words that the family knows are scored already; a word of one's own adds a forward and changes no number."""
    first = samples_of(execute(having(spec, verbalizers="opinions/good_bad")))
    same = execute(spec)
    assert 0 == same.timings["forwards"]
    own = execute(having(spec, verbalizers=["opinions/good_bad", {"negative": "wrong", "positive": "right"}]))
    assert own.timings["forwards"] > 0
    for cell, found in samples_of(own).items():
        if cell in first:
            np.testing.assert_allclose(found["log_probabilities"], first[cell]["log_probabilities"], atol=1e-5)


def test_options_are_those_of_the_bound_verbalizer(spec: RunSpec, backends: dict[str, Any]) -> None:
    """Each verbalizer's cells come from a block whose prompts list that verbalizer's words, in label order."""
    bound = having(spec, templates="opinions/with_options", calibrations="none")
    run = execute(bound)
    cells = [result for result in run.results if result.template == "opinions/with_options"]
    assert 2 == len({result.block for result in cells})
    encoder = backends["bert"].encoder(None)
    for result, options in zip(cells, ("terrible or great", "bad or good"), strict=True):
        asked = [prompt(field(text), f" {options}? ", MASK, ".") for text, _ in TEXTS]
        keys = {encoded.key for encoded in encoder.encode(asked) if isinstance(encoded, EncodedPrompt)}
        stored = {path.name: read_table(path)[0] for path in (run.folder / "blocks" / result.block).glob("part-*")}
        assert keys <= {key for table in stored.values() for key in table["prompt_key"].to_pylist()}


def test_an_explicit_verbalizer_that_splits_is_refused_before_any_forward(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verbalizer asked for by name, by its whole name or its stem, is refused with its split; nothing is loaded."""
    monkeypatch.setattr("promptlab.backends.mlm.load_model", None)
    for selector in ("opinions/splits", "splits"):
        with pytest.raises(LabelWordError) as caught:
            execute(having(spec, verbalizers=[selector, "opinions/good_bad"]))
        assert "splits.yaml with " in str(caught.value)
        assert "label word 'badness' splits into 3 tokens (bad ##n ##ess)" in str(caught.value)


def test_a_globbed_verbalizer_that_splits_is_skipped_with_its_reason(spec: RunSpec) -> None:
    """What only a glob asked for is left out in the open, and the rest is decided."""
    run = execute(having(spec, verbalizers="opinions/*"))
    skipped = [result for result in run.results if result.skipped]
    assert {"opinions/splits"} == {result.verbalizer for result in skipped}
    assert all("label word 'badness' splits into 3 tokens" in str(result.skipped) for result in skipped)
    assert all(not result.metrics and len(TEXTS) == result.num_rows for result in skipped)
    assert {"opinions/good_bad", "opinions/great_terrible"} == {result.verbalizer for result in run.scored()}


def test_words_that_collide_are_refused(spec: RunSpec) -> None:
    """'Good' and 'good' are one token of an uncased model."""
    with pytest.raises(LabelWordError, match="'Good' of label 'negative' and 'good' of label 'positive' are the same"):
        execute(having(spec, verbalizers=[{"negative": "Good", "positive": "good"}]))


def test_two_masks_are_refused(spec: RunSpec) -> None:
    """One mask is scored; the message names template and row."""
    with pytest.raises(TemplateError, match=r"row \w+-0: has 2 masks, one is scored: keep one \{\{ mask \}\}\."):
        execute(having(spec, templates="{{ text }} It was {{ mask }} and {{ mask }}."))


def test_text_that_cannot_be_encoded_is_refused_with_its_place(spec: RunSpec) -> None:
    """The message names the template and the row, not the reserved text alone."""
    with pytest.raises(
        DataError, match=r"template inline-\w+, row \w+-0: a text contains '<\|promptlab:mask\|>', which"
    ):
        execute(having(spec, templates="{{ text }} <|promptlab:mask|> It was {{ mask }}."))


def test_rows_that_do_not_fit_are_counted(spec: RunSpec) -> None:
    """A row whose protected text is too long is an own class in the counts, never dropped; cut rows are counted too."""
    fixed = "{{ text | fixed }} It was {{ mask }}."
    run = execute(having(spec, templates=[fixed, "opinions/it_was"], max_length=10, calibrations="none"))
    by_template = {result.template: result for result in run.results if result.verbalizer == "opinions/good_bad"}
    long = sum(len(text.split()) > 10 - 2 - 4 for text, _ in TEXTS)
    (inline,) = (result for name, result in by_template.items() if name.startswith("inline"))
    assert (len(TEXTS), long, long) == (inline.num_rows, inline.num_unscored, inline.predicted["none"])
    assert (0, long) == (by_template["opinions/it_was"].num_unscored, by_template["opinions/it_was"].num_truncated)
    samples = samples_of(run)[inline.template, "opinions/good_bad", "none"]
    reasons = [reason for reason in samples["reason"] if reason]
    assert ["the text that must not be cut is longer than 10 tokens"] * long == reasons
    assert [None] * long == [p for p, r in zip(samples["log_probabilities"], samples["reason"], strict=True) if r]


def test_nothing_that_fits_is_still_a_result(spec: RunSpec) -> None:
    """Where no prompt of a block fits, every row counts as unscored, null stands for NaN, and no prior is invented."""
    long = "{{ text }} " + "it was a good day and " * 4 + "{{ mask }}."
    run = execute(having(spec, templates=[long], max_length=12))
    results = [result for result in run.results if result.template.startswith("inline")]
    plain = [result for result in results if result.calibration == "none"]
    assert {(len(TEXTS), None)} == {(result.num_unscored, result.mass) for result in plain}
    reason = "the content-free texts of 'contextual' have no scores: the text that must not be cut is longer than"
    assert all(f"{reason} 12 tokens" in str(result.skipped) for result in results if result.calibration == "contextual")
    assert run.results == read_results(run.folder).results


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_an_interrupted_run_ends_with_the_same_results(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Stopped after any number of batches and started again, a run scores what was left and writes the same bytes."""
    small = having(spec, batch_size=2)
    straight = execute(having(small, output_path=str(tmp_path / "straight")))
    score, calls = MaskedBackend.score, []

    def stop(self: MaskedBackend, prompts: Any, token_ids: Any) -> Any:
        calls.append(len(prompts))
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return score(self, prompts, token_ids)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedBackend, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(small)
    resumed = execute(small)
    assert straight.timings["forwards"] == stop_after + resumed.timings["forwards"]
    assert files(straight.folder, "results.json", "samples/*") == files(resumed.folder, "results.json", "samples/*")


def test_gold_labels_change_no_score(spec: RunSpec, library: Path, tmp_path: Path) -> None:
    """Rows stripped of their labels have the same scores and predictions, and no metrics."""
    labelled = samples_of(execute(spec))
    path = library / "tasks" / "views.yaml"
    write_text(path, path.read_text().replace("    label: {column: label}\n", ""))
    bare = execute(having(spec, output_path=str(tmp_path / "bare")))
    assert [] == bare.scored()
    for cell, found in samples_of(bare).items():
        assert [None] * len(TEXTS) == found.pop("gold")
        assert {name: values for name, values in labelled[cell].items() if name != "gold"} == found


def test_models_are_scored_one_after_the_other(spec: RunSpec, tiny: dict[str, Path]) -> None:
    """Two models have blocks and cells of their own in one run."""
    both = having(spec, models=[str(tiny["bert"]), str(tiny["bert_cased"])], templates="opinions/it_was")
    run = execute(both)
    assert [str(tiny["bert"]), str(tiny["bert_cased"])] == list(dict.fromkeys(result.model for result in run.results))
    assert 2 * 2 == len({result.block for result in run.results})
    assert ["masks only"] * 2 == [model["ran"]["head"] for model in run.manifest["models"]]


def test_a_run_is_named_by_its_models_and_plan(spec: RunSpec, tiny: dict[str, Path]) -> None:
    """The same plan has the same name, another plan another one."""
    unnamed = having(spec, name=None)
    name = plan_run(unnamed).name
    assert name == plan_run(unnamed).name
    assert name.startswith(f"{tiny['bert'].name}-")
    assert name != plan_run(having(unnamed, limit=2)).name


def test_a_limit_of_the_model_is_checked_before_anything_is_stored(spec: RunSpec, tmp_path: Path) -> None:
    """A --max-length over the model's limit leaves no folder behind."""
    with pytest.raises(UsageError, match=r"--max-length 65: model .* reads at most 64 tokens"):
        execute(having(spec, max_length=65))
    assert not (tmp_path / "results").exists()
