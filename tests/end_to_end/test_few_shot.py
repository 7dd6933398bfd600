"""`promptlab run --shots`: methods that are fitted, the hard prompt that is chosen, all stored and decided again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.rescoring import rescore
from promptlab.results import read_results
from promptlab.store import RunStore
from tests.end_to_end.terminal import Call, assert_fault
from tests.stored import by_row, decisions

FIT = ("--methods", "zero_shot,soft_prompt,prompt_fine_tune", "--shots", "1,3", "--seeds", 2, "--folds", 2)
QUICK = ("--setting", "steps=3", "--setting", "learning_rate=0.01|0.1", "--name", "few")
ROWS = [("the room was cold", 0), ("a fine song", 1), ("they lost", 0), ("he won", 1), ("no fun", 0), ("so happy", 1)]


@pytest.fixture
def moods(moods: Path) -> Path:
    """Train rows that are not test rows, three of each label, and one that is."""
    rows = [*ROWS, ("a fine day", 1)]
    text = "".join(json.dumps({"sentence": sentence, "label": label}) + "\n" for sentence, label in rows)
    (moods / "data" / "moods" / "train.jsonl").write_text(text, encoding="utf-8")
    return moods


def stored(tmp_path: Path, name: str = "few") -> dict[str, Any]:
    """What a run left."""
    found: dict[str, Any] = json.loads((tmp_path / "results" / name / "results.json").read_text())
    return found


def test_every_method_number_and_draw_is_a_result(run: Call, tmp_path: Path) -> None:
    """Two numbers, two draws, two fitted methods, and the hard prompt that the same shots choose."""
    said = run(*FIT, *QUICK)
    assert 0 == said.code, said.err
    few = stored(tmp_path)["few_shot"]
    keys = {(one["method"], one["num_shots"], one["draw"]) for one in few}
    methods = ("zero_shot", "soft_prompt", "soft_prompt_projected", "prompt_fine_tune")
    assert {(m, k, d) for m in methods for k in (1, 3) for d in (0, 1)} == keys
    assert 16 == len(few)
    for one in few:
        assert 12 == one["num_rows"]
        assert 0 <= one["metrics"]["accuracy"]["value"] <= 1
        fit = one["fit"]
        if one["method"] == "zero_shot":
            assert one["num_candidates"] > 1
            assert fit["shots_accuracy"] >= 0.5
        elif one["method"] == "soft_prompt_projected":
            assert 0 < len(fit["words"])
        else:
            assert ("cross_validation" if one["num_shots"] == 3 else "default") == fit["rule"]
            assert 3 == fit["steps"]
            assert fit["num_parameters"] > 0
    manifest = json.loads((tmp_path / "results" / "few" / "manifest.json").read_text())
    assert {"rows": 6, "in_scored": 1, "unlabelled": 0} == manifest["tasks"]["moods"]["pool"]


def test_the_chosen_prompt_is_the_one_that_is_best_on_the_shots(run: Call, tmp_path: Path) -> None:
    """A naive choice from a run over the shots themselves takes the same cell, and its decisions are the cell's own."""
    run(*FIT, *QUICK)
    manifest = json.loads((tmp_path / "results" / "few" / "manifest.json").read_text())
    run("--split", "train", "--name", "on_shots", "--calibrations", "none,contextual")
    of_train = decisions(tmp_path / "results" / "on_shots")
    few = read_results(tmp_path / "results" / "few")
    names = {one.cell: (one.template, one.verbalizer, one.calibration) for one in few.results}
    for one in (one for one in few.few_shot if one.method == "zero_shot"):
        (drawn,) = (
            draw
            for draw in manifest["tasks"]["moods"]["shots"]
            if (draw["num_shots"], draw["draw"]) == (one.num_shots, one.draw)
        )
        ranked = []
        for name, columns in of_train.items():
            if name[0].endswith("null"):
                continue
            rows = by_row(columns, "log_probabilities")
            log_p, gold = np.array([rows[row] for row in drawn["rows"]]), np.array(drawn["gold"])
            ranked.append((-(log_p.argmax(1) == gold).mean(), -log_p[np.arange(len(gold)), gold].mean(), name))
        assert min(ranked)[2] == names[one.members[0]]
        store = RunStore(few.folder)
        mine = store.read_samples(one.samples, one.cell).to_pydict()["log_probabilities"]
        assert decisions(few)[names[one.members[0]]]["log_probabilities"] == mine


def test_the_same_command_again_fits_nothing(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is found, and the results are the same bytes."""
    run(*FIT, *QUICK)
    before = (tmp_path / "results" / "few" / "results.json").read_bytes()

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fitted again")

    monkeypatch.setattr("promptlab.harness.fit_block", never)
    assert 0 == run(*FIT, *QUICK).code
    assert before == (tmp_path / "results" / "few" / "results.json").read_bytes()


def test_a_run_that_was_stopped_ends_with_the_same_results(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fit it was stopped at: the others are not fitted again, and the numbers are the same."""
    run(*FIT, *QUICK)
    whole = stored(tmp_path)["few_shot"]
    import promptlab.harness as harness

    fit, calls = harness.fit_block, list[object]()

    def stopping(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(harness, "fit_block", stopping)
    again = [*QUICK[:-1], "again"]
    assert 130 == run(*FIT, *again).code
    assert 0 == run(*FIT, *again).code
    assert 3 + 8 - 3 + 1 == len(calls)
    assert whole == stored(tmp_path, "again")["few_shot"]


def test_rescoring_keeps_what_was_fitted_and_chooses_anew(run: Call, tmp_path: Path) -> None:
    """More calibrations are more candidates; a fresh run with all of them gives the same results."""
    run(*FIT, *QUICK, "--calibrations", "none", "--prepare", "contextual")
    rescore(tmp_path / "results" / "few", calibrations=["contextual"])
    run(*FIT, *QUICK[:-1], "fresh", "--calibrations", "none,contextual")
    mine, fresh = stored(tmp_path), stored(tmp_path, "fresh")
    assert fresh["few_shot"] == mine["few_shot"]
    assert fresh["cells"] == mine["cells"]


def test_a_small_model_is_fitted_by_one_thread(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch was told, which holds again afterwards."""
    import torch

    from promptlab.methods.soft_prompt import SoftPrompt

    seen, fit = list[int](), SoftPrompt.fit

    def watching(self: Any, *arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return fit(self, *arguments)

    monkeypatch.setattr(SoftPrompt, "fit", watching)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert 0 == run("--methods", "soft_prompt", "--shots", 1, "--seeds", 1, *QUICK).code
        assert 3 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert {1} == set(seen)


def test_soft_tokens_without_words_need_a_fit(run: Call, tmp_path: Path) -> None:
    """Unfitted they are refused with the remedy; fitted they are scored."""
    soft = "{{ soft(3) }} {{ text }} {{ mask }}."
    assert_fault(
        run("--templates", soft), 1, "soft(3) starts from random vectors and needs a fit", "--methods soft_prompt"
    )
    said = run("--methods", "soft_prompt", "--shots", 2, "--seeds", 1, "--fit-templates", soft, *QUICK)
    assert 0 == said.code, said.err
    assert ["soft_prompt", "soft_prompt_projected"] == [one["method"] for one in stored(tmp_path)["few_shot"]]


def test_a_plan_counts_the_fits_and_what_they_take(run: Call) -> None:
    """Two settings on two halves and a last fit, for three shots a label; a last fit alone for one; two draws of each.

    Three steps on batches of 8: all 6 shots each, 4 or 2 where some are held out, and both shots where there are two.
    """
    said = run(*FIT, *QUICK, "--dry-run")
    assert 0 == said.code, said.err
    of_draw = (2 * (3 * 2 + 3 * 4) + 3 * 6) + 3 * 2
    assert "24 fits, those of searches counted, take at most 240 example passes" in said.out
    assert 240 == 2 * 2 * of_draw


def test_methods_take_the_words_that_are_named_and_all_shots_there_are(run: Call, tmp_path: Path) -> None:
    """`--fit-verbalizers` is one fit each; `--shots-short all` takes what a rare label has and says so."""
    both = "mood/great_terrible,mood/yes_no"
    few = ("--methods", "soft_prompt", "--shots", 9, "--shots-short", "all", "--seeds", 1, "--selection", "mdl")
    said = run(*few, "--fit-verbalizers", both, "--no-projection", *QUICK)
    assert 0 == said.code, said.err
    found = stored(tmp_path)["few_shot"]
    assert both.split(",") == sorted(one["verbalizer"] for one in found)
    assert {"mdl"} == {one["fit"]["rule"] for one in found}
    assert [{"bad": 3, "good": 3}] * 2 == [one["fit"]["short"] for one in found]


def test_every_fit_can_be_kept_and_scored_again(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--save-fits` keeps an artefact a fitted block, also of a run that is stored already; `--artefact` scores it."""
    run(*FIT, *QUICK)
    whole = stored(tmp_path)["few_shot"]
    assert not (tmp_path / "results" / "few" / "fits").exists()
    assert 0 == run(*FIT, *QUICK, "--save-fits").code
    folders = sorted((tmp_path / "results" / "few" / "fits").iterdir())
    fitted = [one for one in whole if one["method"] not in ("zero_shot", "soft_prompt_projected")]
    names = [f"moods-{one['method']}-{one['num_shots']}-{one['draw']}-{one['block'][:16]}" for one in fitted]
    assert sorted(names) == [folder.name for folder in folders]
    assert whole == stored(tmp_path)["few_shot"]

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fitted again")

    with monkeypatch.context() as patch:
        patch.setattr("promptlab.harness.fit_block", never)
        assert 0 == run(*FIT, *QUICK, "--save-fits").code
    given = [part for folder in folders for part in ("--artefact", folder)]
    assert 0 == run(*given, "--name", "again", tasks=None, model=None).code
    again = stored(tmp_path, "again")["few_shot"]
    assert len(folders) == len({one["block"] for one in again})
    key = lambda one: (one["method"], one["num_shots"], one["draw"])  # noqa: E731 - it is used twice, here alone
    assert [one["metrics"] for one in sorted(fitted, key=key)] == [one["metrics"] for one in sorted(again, key=key)]


def test_soft_tokens_that_did_not_move_project_to_their_own_prompt(run: Call, tmp_path: Path) -> None:
    """With a learning rate of 0 the nearest words are the template's own: decisions are those of the hard prompt."""
    one = ("--templates", "mood/it_was", "--verbalizers", "mood/great_terrible", "--calibrations", "none")
    still = ("--setting", "steps=1", "--setting", "learning_rate=0", "--name", "few")
    methods = ("--methods", "zero_shot,soft_prompt", "--shots", "1", "--seeds", 1)
    said = run(*one, *methods, *still)
    assert 0 == said.code, said.err
    few = read_results(tmp_path / "results" / "few")
    store, (hard,) = RunStore(few.folder), (one for one in few.results if one.template == "mood/it_was")
    expected = store.read_samples(hard.samples, hard.cell).to_pydict()["log_probabilities"]
    for one_result in few.few_shot:
        found = store.read_samples(one_result.samples, one_result.cell).to_pydict()["log_probabilities"]
        np.testing.assert_allclose(expected, found, atol=1e-5)
    assert {"zero_shot", "soft_prompt", "soft_prompt_projected"} == {one.method for one in few.few_shot}


def test_seconds_and_memory_of_a_fit_are_timings(run: Call, tmp_path: Path) -> None:
    """They stand by block apart from the results, and a run that fits nothing again keeps them."""
    few = ("--methods", "soft_prompt", "--shots", 2, "--seeds", 1, *QUICK)
    run(*few)
    (fitted, _) = stored(tmp_path)["few_shot"]
    path = tmp_path / "results" / "few" / "timings.json"
    before = json.loads(path.read_text())["fits"]
    assert [fitted["block"]] == list(before)
    (cost,) = before.values()
    assert {"search_s", "fit_s", "peak_memory_bytes", "memory"} == set(cost)
    assert cost["fit_s"] > 0
    assert not {"search_s", "fit_s", "peak_memory_bytes"} & set(fitted["fit"])
    assert 0 == run(*few).code
    assert before == json.loads(path.read_text())["fits"]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("--methods", "soft_prompt"), 2, ["--methods soft_prompt needs labelled examples", "--shots 16"]),
        (("--methods", "soft_promt", "--shots", 2), 2, ["--methods soft_promt: unknown. Did you mean 'soft_prompt'?"]),
        (("--no-projection",), 2, ["--no-projection says something about --shots, which is missing"]),
        (("--seeds", 2), 2, ["--seeds says something about --shots, which is missing"]),
        (("--shots", "0"), 2, ["--shots: write whole numbers from 1, such as 4,16,64, found '0'"]),
        (("--shots", 9), 1, ["9 shots a label were asked for", "--shots-short all"]),
        (("--shots", 2, "--selection", "best"), 2, ["--selection: choose one of cross_validation, mdl, default"]),
        (("--shots", 2, "--methods", "soft_prompt", "--setting", "stepz=3"), 2, ["'stepz' is no setting"]),
        (("--shots", 2, "--methods", "soft_prompt", "--scoring", "replaced_token"), 2, ["leave --scoring out"]),
    ],
)
def test_faults_are_explained(run: Call, arguments: tuple[object, ...], code: int, parts: list[str]) -> None:
    """One sentence with what is wrong, what is allowed and what to do."""
    assert_fault(run(*arguments), code, *parts)
