"""Words of several tokens, masks of any number and replaced-token scoring, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.base import make_backend
from promptlab.block_scores import BlockScores
from promptlab.errors import FileFault, LabelWordError, ModelError, UsageError
from promptlab.harness import execute, plan_run
from promptlab.labelling import Labelling, label_rows
from promptlab.previewing import preview_task, try_text
from promptlab.rescoring import rescore
from promptlab.results import Result, RunResults, read_results
from promptlab.scoring import score_fills
from promptlab.specs.run import RunSpec, make_run_spec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer, load_verbalizers
from promptlab.store import RunStore
from promptlab.types import FillScores
from tests.stored import EQUAL, by_row, decisions, files
from tests.tiny_library import TEXTS, write_library
from tests.tiny_models import DETECTORS

LONG = {"negative": ["badness", "terrible"], "positive": ["goodness"]}
RULES = ("independent", "left_to_right", "pet", "first_token")
Run = Callable[..., RunResults]


def long(rule: str, **more: Any) -> Verbalizer:
    return Verbalizer.from_labels(LONG, multi_token=rule, name=f"long-{rule}", **more)  # type: ignore[arg-type]  # a rule


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("several") / "library")


@pytest.fixture(scope="module")
def run(library: Path, tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the tiny views; what is asked for may be changed."""

    def made(**changes: Any) -> RunResults:
        values: dict[str, Any] = {
            "models": str(tiny["bert"]), "tasks": "views", "templates": ("opinions/it_was", "opinions/in_brackets"),
            "verbalizers": tuple(map(long, RULES)), "include": str(library), "device": "cpu", "name": "run",
            "output_path": str(tmp_path_factory.mktemp("runs")), "batch_size": 3,
        }  # fmt: skip
        return execute(RunSpec(**{**values, **changes}))

    return made


@pytest.fixture(scope="module")
def whole(run: Run) -> RunResults:
    """A run with every rule and every calibration that needs no train rows."""
    return run(calibrations=("none", "contextual", "batch"))


def cell(found: RunResults, verbalizer: str, calibration: str = "none", template: str = "opinions/it_was") -> Result:
    (one,) = (
        result for result in found.results
        if (result.verbalizer, result.calibration, result.template) == (verbalizer, calibration, template)
    )  # fmt: skip
    return one


def test_results_say_how_words_of_several_tokens_were_scored(whole: RunResults) -> None:
    """Rule, normalisation and the number of tokens of each word stand in the cell, mass only where there is one."""
    for rule in RULES:
        one = cell(whole, f"long-{rule}")
        assert one.skipped is None
        assert ("mask", rule, "sum") == (one.scoring, one.multi_token, one.normalize)
        assert {"negative": (3, 1), "positive": (3,)} == dict(one.num_tokens)
        assert (one.mass is None) == (rule != "first_token")
    text = (whole.folder / "results.json").read_text()
    assert "NaN" not in text
    assert read_results(whole.folder).results == whole.results


def test_a_preview_and_a_prediction_are_what_the_run_decides(
    whole: RunResults, library: Path, tiny: dict[str, Path]
) -> None:
    """The three ways to ask a model give one number for a word of several tokens."""
    for rule in RULES:
        found = decisions(whole)["opinions/it_was", f"long-{rule}", "contextual"]
        expected = {row: np.exp(values) for row, values in by_row(found, "log_probabilities").items()}
        spec = make_run_spec(
            {
                "models": tiny["bert"], "tasks": "views", "templates": "opinions/it_was", "verbalizers": [long(rule)],
                "include": str(library), "device": "cpu", "limit": "first:3",
            }
        )  # fmt: skip
        for one in preview_task(spec):
            (words,) = one.verbalizers
            np.testing.assert_allclose([*words.probabilities["contextual"].values()], expected[one.row], atol=1e-5)
        asked = Labelling(
            ["opinions/it_was"], long(rule), model=str(tiny["bert"]), include=[str(library)], device="cpu",
            calibration="contextual",
        )  # fmt: skip
        rows = [("here", {"text": text}) for text, _ in TEXTS]
        predicted = list(label_rows(rows, asked, shown="rows"))
        np.testing.assert_allclose(
            [row["p_positive"] for row in predicted], [values[1] for values in expected.values()], atol=1e-5
        )
        assert (rule != "first_token") == (predicted[0]["mass"] is None)


def test_means_over_tokens_decide_and_sums_are_probabilities(run: Run, library: Path, tiny: dict[str, Path]) -> None:
    """The prior is made of means where the scores are; the mass and the words of a preview are of sums either way."""
    labels = {"negative": ["badness", "worldness"], "positive": ["goodness"]}
    summed, meant = (
        Verbalizer.from_labels(labels, multi_token="left_to_right", normalize=how, name=how)  # type: ignore[arg-type]
        for how in ("sum", "mean")
    )
    asked: dict[str, Any] = {"templates": "opinions/it_was", "verbalizers": (summed, meant)}
    found = run(**asked, calibrations="contextual")
    masses = [cell(found, how, "contextual").mass for how in ("sum", "mean")]
    assert masses[0] == masses[1] and masses[0] is not None
    rows = [("here", {"text": text}) for text, _ in TEXTS]
    for verbalizer in (summed, meant):
        expected = by_row(decisions(found)["opinions/it_was", verbalizer.name, "contextual"], "log_probabilities")
        asks = Labelling(
            ["opinions/it_was"], verbalizer, model=str(tiny["bert"]), include=[str(library)], device="cpu",
            calibration="contextual",
        )  # fmt: skip
        predicted = list(label_rows(rows, asks, shown="rows"))
        np.testing.assert_allclose(
            [row["p_positive"] for row in predicted], [np.exp(one[1]) for one in expected.values()], atol=1e-5
        )
        assert masses[0] == pytest.approx(np.mean([row["mass"] for row in predicted]), rel=1e-4)
    spec = make_run_spec(
        {
            "models": tiny["bert"],
            "tasks": "views",
            **asked,
            "include": str(library),
            "device": "cpu",
            "limit": "first:1",
        }
    )
    one, other = next(iter(preview_task(spec))).verbalizers
    assert one.words == other.words and one.probabilities != other.probabilities


def test_the_same_run_again_does_nothing(run: Run, whole: RunResults) -> None:
    """Every fill is found where it was stored; the files stay as they are."""
    before = files(whole.folder, *EQUAL)
    again = run(calibrations=("none", "contextual", "batch"), output_path=str(whole.folder.parent))
    assert 0 == again.timings["forwards"]
    assert before == files(whole.folder, *EQUAL)


def test_a_run_that_was_stopped_ends_with_the_same_numbers(
    run: Run, whole: RunResults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stopped among the fills, the same command goes on and leaves the same results and decisions, byte by byte."""
    count = [0]

    def stopping(*args: Any, **options: Any) -> tuple[BlockScores, Any]:
        on_part = options.pop("on_part")

        def keep(part: list[FillScores]) -> None:
            on_part(part)
            count[0] += 1
            if count[0] == 4:
                raise KeyboardInterrupt

        return score_fills(*args, on_part=keep, **options)

    options: dict[str, Any] = {"calibrations": ("none", "contextual", "batch"), "output_path": str(tmp_path)}
    monkeypatch.setattr("promptlab.harness.score_fills", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(**options)
    monkeypatch.undo()
    again = run(**options)
    assert 0 < again.timings["forwards"] < whole.timings["forwards"]
    assert files(whole.folder, "results.json", "samples/*") == files(again.folder, "results.json", "samples/*")


def test_rescoring_takes_what_is_stored_and_refuses_the_rest(run: Run, whole: RunResults, tmp_path: Path) -> None:
    """A rule whose fills are there is decided like a fresh run; one that needs more says what to do."""
    first = run(
        verbalizers=(long("left_to_right"), long("independent")), calibrations="none", output_path=str(tmp_path)
    )
    for rule in ("independent", "left_to_right"):
        more = Verbalizer.from_labels(LONG, multi_token=rule, normalize="mean", name=f"mean-{rule}")  # type: ignore[arg-type]
        found = rescore(first.folder, verbalizers=[more])
        fresh = run(verbalizers=(more,), calibrations="none", output_path=str(tmp_path / rule))
        assert cell(found, f"mean-{rule}").metrics == cell(fresh, f"mean-{rule}").metrics
        ours, theirs = (decisions(one)["opinions/it_was", f"mean-{rule}", "none"] for one in (found, fresh))
        np.testing.assert_allclose(
            [*by_row(ours, "log_probabilities").values()], [*by_row(theirs, "log_probabilities").values()], atol=1e-5
        )
    before = {key: by_row(one, "log_probabilities") for key, one in decisions(found).items()}
    again = rescore(first.folder, metrics=["brier"])
    assert before == {key: by_row(one, "log_probabilities") for key, one in decisions(again).items()}
    cut = {"negative": "sportsness", "positive": "worldness"}
    whole_words, first_tokens = (Verbalizer.from_labels(cut, multi_token=rule, name=rule) for rule in RULES[2:])
    other = run(verbalizers=(whole_words,), calibrations="none", output_path=str(tmp_path / "cut"))
    with pytest.raises(UsageError, match=r"the first tokens of some words were not scored in run 'run', which kept no"):
        rescore(other.folder, verbalizers=[first_tokens])
    with pytest.raises(UsageError, match=r"verbalizer 'long-pet' asks about words of several tokens that run"):
        rescore(first.folder, verbalizers=[long("pet")])


def test_other_verbalizers_do_not_move_the_numbers(run: Run, whole: RunResults) -> None:
    """Room is left for the words of one verbalizer: a row is cut for it as if it was alone in the run."""
    text = {"templates": "opinions/it_was", "max_length": 12, "calibrations": "none"}
    together = run(verbalizers=(long("left_to_right"), "opinions/good_bad"), **text)
    for asked in (long("left_to_right"), "opinions/good_bad"):
        alone = run(verbalizers=(asked,), **text)
        name = alone.results[0].verbalizer
        assert cell(alone, name).num_truncated == cell(together, name).num_truncated > 0
        ours, theirs = (decisions(one)["opinions/it_was", name, "none"] for one in (together, alone))
        np.testing.assert_allclose(
            [*by_row(ours, "log_probabilities").values()], [*by_row(theirs, "log_probabilities").values()], atol=1e-5
        )
    cut = [cell(together, name).num_truncated for name in ("long-left_to_right", "opinions/good_bad")]
    assert cut[0] > cut[1]


def test_a_template_of_two_masks_takes_words_for_both(run: Run) -> None:
    """Words are lists of words, with mass under one length; words for one mask do not apply, or are refused."""
    words = {"negative": [["no", "bad"]], "positive": [["yes", "good"]]}
    template = "{{ text }} It was {{ mask }}, and {{ mask }}."
    found = run(verbalizers=(words, "opinions/*"), templates=(template,), calibrations="none")
    by_name = {one.verbalizer: one for one in found.results if not one.template.endswith("null")}
    (name,) = (name for name in by_name if name.startswith("inline-"))
    assert by_name[name].skipped is None
    assert by_name[name].mass is not None and 0 < by_name[name].mass < 1
    assert {} == dict(by_name[name].num_tokens)
    assert [name] == list(by_name)
    with pytest.raises(
        LabelWordError, match=r"good_bad.yaml has words for 1 mask, such as 'bad', and no template that was"
    ):
        run(verbalizers=(words, "opinions/good_bad"), templates=(template,), calibrations="none")
    with pytest.raises(
        LabelWordError, match=r"has 2 masks, and no verbalizer that was asked for has words for so many: write"
    ):
        run(verbalizers="opinions/*", templates=(template, "opinions/it_was"), calibrations="none")
    with pytest.raises(
        LabelWordError, match=r"has words for 1 mask, such as '\w+', and no template of run 'run' has so many"
    ):
        rescore(found.folder, verbalizers=[{"negative": "bad", "positive": "good"}])
    with pytest.raises(FileFault, match="the words are for unlike numbers of masks: 'bad' for 1, 'yes \\+ good' for 2"):
        Verbalizer.from_labels({"negative": "bad", "positive": "yes + good"})


def test_masks_in_a_condition_are_counted_row_by_row(run: Run) -> None:
    """Where the template alone does not say how many masks there are, its first prompt does."""
    template = "{{ text }} It was {% if true %}{{ mask }}{% endif %}."
    words = {"negative": [["no", "bad"]], "positive": [["yes", "good"]]}
    found = run(verbalizers="opinions/*", templates=(template,), calibrations="none")
    assert any(one.skipped is None for one in found.results)
    with pytest.raises(
        LabelWordError, match=r"'no \+ bad' stands for 2 masks, the template has 1: write one word a mask"
    ):
        run(verbalizers=(words, "opinions/*"), templates=(template,), calibrations="none")


def test_the_plan_counts_the_filled_prompts(library: Path, tiny: dict[str, Path]) -> None:
    """Before anything is scored it is known how many forwards the words of several tokens add."""
    counts = {}
    for rule in (*RULES, "refuse"):
        spec = RunSpec(
            models=str(tiny["bert"]), tasks="views", templates="opinions/it_was", include=str(library), device="cpu",
            verbalizers=(long(rule) if rule != "refuse" else "opinions/good_bad",), calibrations="none",
        )  # fmt: skip
        counts[rule] = plan_run(spec).describe()["models"][0]["filled_prompts"]
    number = 2 * (len(TEXTS) + 3)  # content-free texts are asked too, and the null template beside the other
    assert {
        "independent": number, "left_to_right": number * (1 + 2 + 2), "pet": number * (1 + 2 + 2), "first_token": 0,
        "refuse": 0,
    } == counts  # fmt: skip


def test_selectors_name_rules() -> None:
    """Behind `@` stand a pool, a rule for several tokens, or how tokens are normalised, in any number."""
    (one,) = load_verbalizers(["positive=very good,negative=bad@pet@normalize=mean@max"])
    assert ("pet", "mean", "max") == (one.multi_token, one.normalize, one.pool)
    assert one.name.startswith("inline-") and one.name.endswith("@pet@normalize=mean@max")
    (two,) = load_verbalizers(["positive=so + good,negative=so + bad"])
    assert ("so + good", "so + bad") == two.words
    same = Verbalizer.from_labels({"positive": [["so", "good"]], "negative": ["so + bad"]})
    assert two.hash == same.hash
    plain = Verbalizer.from_labels({"a": "b", "c": "d"})
    assert plain.hash == Verbalizer.from_labels({"a": "b", "c": "d"}, normalize="sum").hash
    hashes = {Verbalizer.from_labels({"a": "b", "c": "d"}, multi_token=rule).hash for rule in RULES}  # type: ignore[arg-type]
    assert 4 == len(hashes - {plain.hash})


def test_words_that_begin_alike_are_refused_for_their_first_token(run: Run) -> None:
    """Where only first tokens are looked at, two labels may not begin with the same one."""
    words = Verbalizer.from_labels({"negative": "goodness", "positive": "good"}, multi_token="first_token", name="w")
    with pytest.raises(LabelWordError, match="'goodness' of label 'negative' and 'good' of label 'positive' begin"):
        run(verbalizers=(words,))


@pytest.mark.parametrize("rule", RULES)
def test_words_that_no_rule_can_score_are_refused(tiny: dict[str, Path], rule: str) -> None:
    """Where a verbalizer has no word that can be asked about, each of them is named, whatever the rule."""
    unknown = Verbalizer.from_labels({"negative": "☂", "positive": "☃"}, multi_token=rule)  # type: ignore[arg-type]
    template = Template.from_text("{{ text }} It was {{ mask }}.")
    with pytest.raises(LabelWordError, match=r"label word '☂' is unknown .*\n.*label word '☃' is unknown"):
        try_text({"text": "good"}, template, [unknown], make_backend(str(tiny["bert"]), device="cpu"))


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_scores_words_in_their_place(run: Run, detectors: dict[str, Path], library: Path, kind: str) -> None:
    """Cells carry the name of the scoring and have no mass; calibrations, rules and pools are as everywhere."""
    found = run(models=str(detectors[kind]), scoring="replaced_token", verbalizers=("opinions/*", long("pet")))
    scored = [one for one in found.results if one.skipped is None]
    assert {"opinions/great_terrible", "opinions/good_bad", "long-pet"} <= {one.verbalizer for one in scored}
    assert {("replaced_token", None)} == {(one.scoring, one.mass) for one in found.results}
    assert not list((found.folder / "blocks").glob("*/part-*"))
    assert "replaced_token" == found.manifest["models"][0]["scoring"]
    before = files(found.folder, *EQUAL)
    options: dict[str, Any] = {"scoring": "replaced_token", "verbalizers": ("opinions/*", long("pet"))}
    again = run(models=str(detectors[kind]), output_path=str(found.folder.parent), **options)
    assert 0 == again.timings["forwards"]
    assert before == files(found.folder, *EQUAL)
    rescored = rescore(
        found.folder, verbalizers=["opinions/good_bad@max"], calibrations=["batch"], include=[str(library)]
    )
    assert {"replaced_token"} == {one.scoring for one in rescored.results}


def test_a_detector_is_never_chosen_silently(run: Run, detectors: dict[str, Path], tiny: dict[str, Path]) -> None:
    """A discriminator is refused with the option that scores it, and a masked model with that option."""
    with pytest.raises(ModelError, match="--scoring replaced_token"):
        run(models=str(detectors["electra"]), verbalizers="opinions/good_bad")
    with pytest.raises(ModelError, match="leave --scoring out"):
        run(models=str(tiny["electra"]), verbalizers="opinions/good_bad", scoring="replaced_token")
    with pytest.raises(UsageError, match="--scoring: choose one of mask, replaced_token, found 'causal'"):
        make_run_spec({"scoring": "causal"})


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_reads_the_text_as_it_is_written(detectors: dict[str, Path], kind: str) -> None:
    """With a word in its slot a prompt has the ids of the written text, whatever its tokenizer does behind a mask."""
    from promptlab.filling import fill_prompt
    from promptlab.label_words import find_word_ids, slot_contexts
    from promptlab.types import EncodedPrompt, Fill, WordTokens
    from tests.oracles import MASK, field, prompt

    encoder = make_backend(str(detectors[kind]), scoring="replaced_token", device="cpu").encoder(None)
    for before, after in (("the film. It was ", "."), ("It was (", "), no"), ("", ", it was good"), ('"', '"!')):
        asked = prompt(field(before), MASK, after) if before.startswith("the") else prompt(before, MASK, after)
        (encoded,) = encoder.encode([asked])
        assert isinstance(encoded, EncodedPrompt)
        for word in ("great", "goodness", "no"):
            found = find_word_ids(encoder, [word], [slot_contexts(asked)])[word]
            assert isinstance(found, WordTokens), found
            filled = fill_prompt(encoded, Fill(found.slots), [(0, found.pieces[0])], mask_id=encoder.mask_id)
            assert encoder.tokenizer(before + word + after)["input_ids"] == filled.input_ids.tolist()


def test_the_report_marks_what_must_be_known(
    whole: RunResults, run: Run, detectors: dict[str, Path], library: Path
) -> None:
    """Unlike lengths, first tokens and replaced tokens are said in the report, with what was done about lengths."""
    from promptlab.reporting.report import write_report

    text = next(path for path in write_report(whole) if path.suffix == ".md").read_text()
    assert "Label words of unlike lengths are compared in" in text
    assert "long-pet (1 to 3 tokens, summed)" in text
    assert "are judged by their first token alone" in text
    table = (whole.folder / "results.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), next(line for line in table if "long-pet" in line).split(","), strict=False))
    assert ("pet", "sum", "1-3", "mask") == tuple(row[n] for n in ("multi_token", "normalize", "num_tokens", "scoring"))
    judged = run(models=str(detectors["electra"]), scoring="replaced_token", verbalizers="opinions/good_bad")
    text = next(path for path in write_report(judged) if path.suffix == ".md").read_text()
    assert "judged in their place by a replaced-token detector" in text
    with pytest.raises(UsageError, match=r"asks about words in their place that run 'run' did not score with"):
        rescore(judged.folder, verbalizers=["opinions/great_terrible"], include=[str(library)])


def test_stored_fills_can_be_read_by_others(whole: RunResults) -> None:
    """A table of the block says in plain columns what was asked of which prompt, and what came out."""
    from promptlab.files import read_table

    path = next((whole.folder / "blocks").glob("*/fills-*.parquet"))
    table, metadata = read_table(path)
    assert ["prompt_key", "fill", "position", "token_id", "log_prob"] == table.column_names
    assert {"schema_version"} == set(metadata)
    assert json.dumps(table.slice(0, 1).to_pylist())
    assert RunStore(whole.folder).block(path.parent.name).read().answers
