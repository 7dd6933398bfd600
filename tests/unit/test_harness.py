"""The harness: what is missing is scored, what is stored is read, and two equal runs are equal files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.errors import DataError, LabelWordError, TemplateError, UsageError
from promptlab.files import read_table
from promptlab.harness import Silence, execute, plan_run
from promptlab.results import read_results
from promptlab.specs.run import RunSpec
from promptlab.types import EncodedPrompt
from tests.oracles import MASK, field, mask_log_probs, prompt
from tests.stored import EQUAL, decisions, files
from tests.tiny_library import TEXTS, write_library, write_text


class Record(Silence):
    """Remembers what was said, how many prompts were announced and how many scored."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.num_announced = self.num_scored = 0

    def say(self, sentence: str) -> None:
        """Keep it."""
        self.said.append(sentence)

    def start(self, name: str, num_prompts: int) -> None:
        """Count them."""
        self.num_announced += num_prompts

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


def test_a_run_stores_every_cell(spec: RunSpec) -> None:
    """Templates by verbalizers by calibrations and the null baseline are decided, stored, and read back the same."""
    run = execute(spec)
    assert 3 * 2 * 2 == len(run.results) == len(decisions(run))
    assert {"opinions/it_was", "opinions/in_brackets", "opinions/null"} == {result.template for result in run.results}
    assert run.results == read_results(run.folder).results
    assert run.timings["forwards"] > 0
    counted = json.loads((run.folder / "results.json").read_text())["cells"]
    assert [{"none", "contextual"}] == list({frozenset(cell["calibration"] for cell in counted)} - {frozenset()})


def test_decisions_equal_the_naive_oracle(spec: RunSpec, models: dict[str, Any], backends: dict[str, Any]) -> None:
    """p(y | x) of every row is the softmax of the two words' log-probabilities in the plain forward, to 1e-5."""
    found = decisions(execute(spec))["opinions/it_was", "opinions/great_terrible", "none"]
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
    before = files(first.folder, *EQUAL, "manifest.json")
    monkeypatch.setattr("promptlab.backends.mlm.load_model", None)
    record = Record()
    second = execute(spec, progress=record)
    assert 0 == second.timings["forwards"]
    assert [f"{spec.models[0]}: every score is stored already, no forward pass is needed."] == record.said
    assert before == files(second.folder, *EQUAL, "manifest.json")


def test_two_runs_in_different_folders_are_equal(spec: RunSpec, tmp_path: Path) -> None:
    """Results, samples and blocks of a run elsewhere are the same bytes."""
    here, there = execute(spec), execute(having(spec, output_path=str(tmp_path / "elsewhere")))
    assert files(here.folder, *EQUAL) == files(there.folder, *EQUAL)


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
    in_files = {
        cell for path in (after.folder / "samples").iterdir() for cell in read_table(path)[0]["cell"].to_pylist()
    }
    assert set(new) == in_files
    assert {result.samples for result in after.results} == {path.stem for path in (after.folder / "samples").iterdir()}


def test_more_rows_reuse_the_block(spec: RunSpec, tmp_path: Path) -> None:
    """A run with a limit, then without, ends with the numbers of a run over everything, to 1e-5."""
    execute(having(spec, limit=2))
    grown = decisions(execute(spec, amend=True))
    straight = decisions(execute(having(spec, output_path=str(tmp_path / "straight"))))
    assert list(straight) == list(grown)
    for cell in straight:
        assert straight[cell]["row_id"] == grown[cell]["row_id"]
        np.testing.assert_allclose(
            grown[cell]["log_probabilities"], straight[cell]["log_probabilities"], atol=1e-5
        )  # fmt: skip


def test_the_same_run_with_another_verbalizer_adds_cells(spec: RunSpec, library: Path) -> None:
    """Words that the family knows are scored already; a word of one's own adds a forward and changes no number."""
    first = decisions(execute(having(spec, verbalizers="opinions/good_bad")))
    same = execute(spec, amend=True)
    assert 0 == same.timings["forwards"]
    words = {"negative": "wrong", "positive": "right"}
    own = execute(having(spec, verbalizers=["opinions/good_bad", words]), amend=True)
    assert own.timings["forwards"] > 0
    for cell, found in decisions(own).items():
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


def test_rows_with_unlike_numbers_of_masks_are_refused(spec: RunSpec) -> None:
    """Words are as many as masks, so every row needs as many masks as the first; the message names template and row."""
    several = "{{ text }} It was {{ mask }}{% if text | length > 30 %} and {{ mask }}{% endif %}."
    sentence = r"row \w+-0: has \d masks and the first row \d: keep one number of \{\{ mask \}\} for every row\."
    with pytest.raises(TemplateError, match=sentence):
        execute(having(spec, templates=several, limit=None))


def test_a_word_for_one_mask_is_refused_for_two(spec: RunSpec) -> None:
    """A template of two masks needs two words a label, and the message shows how they are written."""
    sentence = "stands for one mask, the template has 2: write one word a mask, such as 'very \\+ good' for two"
    with pytest.raises(LabelWordError, match=sentence):
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
    samples = decisions(run)[inline.template, "opinions/good_bad", "none"]
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
    skipped = [result for result in results if result.calibration == "contextual"]
    reason = "calibration 'contextual' has no prompt that can be scored: the text that must not be cut is longer than"
    assert all(f"{reason} 12 tokens" in str(result.skipped) for result in skipped)
    assert {("", None)} == {(result.samples, result.mass) for result in skipped}
    assert run.results == read_results(run.folder).results


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_an_interrupted_run_ends_with_the_same_results(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Stopped after any number of batches and started again, a run scores what was left and writes the same bytes."""
    small = having(spec, batch_size=2, skip_preflight=True)
    straight = execute(having(small, output_path=str(tmp_path / "straight")))
    score, calls = MaskedBackend.score, []

    def stop(self: MaskedBackend, prompts: Any, token_ids: Any, **options: Any) -> Any:
        calls.append(len(prompts))
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return score(self, prompts, token_ids, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedBackend, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(small)
    resumed = execute(small)
    assert straight.timings["forwards"] == stop_after + resumed.timings["forwards"]
    assert files(straight.folder, "results.json", "samples/*") == files(resumed.folder, "results.json", "samples/*")


def test_gold_labels_change_no_score(spec: RunSpec, library: Path, tmp_path: Path) -> None:
    """Rows stripped of their labels have the same scores and predictions, and no metrics."""
    labelled = decisions(execute(spec))
    path = library / "tasks" / "views.yaml"
    write_text(path, path.read_text().replace("    label: {column: label}\n", ""))
    bare = execute(having(spec, output_path=str(tmp_path / "bare")))
    assert [] == bare.scored()
    for cell, found in decisions(bare).items():
        assert [None] * len(TEXTS) == found.pop("gold")
        named = ("cell", "gold")  # the id of a cell is of its rows with their labels
        assert [{name: values for name, values in of.items() if name not in named} for of in (labelled[cell],)] == [
            {name: values for name, values in found.items() if name not in named}
        ]


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


def test_new_words_are_scored_from_states(spec: RunSpec, tmp_path: Path) -> None:
    """Where a run kept its states, a further verbalizer costs no forward and has the numbers of one that was there."""
    words: list[Any] = ["opinions/good_bad", {"negative": "wrong", "positive": "right"}]
    straight = decisions(execute(having(spec, verbalizers=words, output_path=str(tmp_path / "straight"))))
    first = execute(having(spec, store_states=True, verbalizers="opinions/good_bad"))
    parts = files(first.folder, "blocks/*/part-*")
    assert all("state" in read_table(first.folder / name)[0].column_names for name in parts)
    record = Record()
    second = execute(having(spec, store_states=True, verbalizers=words), progress=record, amend=True)
    assert 0 == second.timings["forwards"]
    assert record.num_announced == record.num_scored
    assert parts.items() <= files(second.folder, "blocks/*/part-*").items()
    found = decisions(second)
    assert list(straight) == list(found)
    for cell in found:
        np.testing.assert_allclose(found[cell]["log_probabilities"], straight[cell]["log_probabilities"], atol=1e-5)


def test_a_named_run_is_changed_only_where_that_is_asked_for(spec: RunSpec) -> None:
    """Another plan under the name is refused and leaves the folder as it was; amended, the folder is the new run's."""
    first = execute(spec)
    before = files(first.folder)
    with pytest.raises(
        UsageError, match=r"--name run: .*/run holds another run: --limit was not given and is 2; --seed"
    ):
        execute(having(spec, limit=2, seed=5))
    assert before == files(first.folder)
    execute(having(spec, limit=2), amend=True)
    assert 2 == read_results(first.folder).results[0].num_rows
    with pytest.raises(UsageError, match=r"--limit was 2 and is not given"):
        execute(spec)


@pytest.mark.parametrize("amend", [True, False])
def test_a_run_that_is_refused_claims_no_name(spec: RunSpec, amend: bool) -> None:
    """A word that cannot be scored is mended and the run goes on under its name; a finished run keeps its own."""
    wrong = having(spec, verbalizers=["opinions/splits"])
    if amend:
        execute(spec)
    with pytest.raises(LabelWordError):
        execute(wrong, amend=amend)
    execute(spec)


def test_events_tell_what_happened(spec: RunSpec) -> None:
    """Each call notes its command, each block its prompts, and the end its forwards; a second call scores no block."""
    for number in range(2):
        run = execute(spec, command=f"call {number}")
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    blocks = len({result.block for result in run.results})
    assert ["started", *["scored"] * blocks, "finished", "started", "finished"] == [one["event"] for one in events]
    assert ["call 0", "call 1"] == [one["command"] for one in events if one["event"] == "started"]
    scored = [one["prompts"] for one in events if one["event"] == "scored"]
    assert sum(scored) == run.timings["all_calls"]["prompts"]
