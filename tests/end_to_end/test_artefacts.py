"""`promptlab fit`, and what it leaves: rows are labelled with it, runs scored, and Python has the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import promptlab as pl
from promptlab.artefact_folders import HEAD, TENSORS, read_artefact
from promptlab.store import RunStore
from tests.end_to_end.terminal import Call, Said, assert_fault
from tests.fitting_rows import write_train_rows

QUICK = ("--setting", "steps=3", "--setting", "learning_rate=0.01|0.1", "--folds", 2, "--device", "cpu")


@pytest.fixture
def moods(moods: Path) -> Path:
    """The task with shots."""
    write_train_rows(moods)
    return moods


@pytest.fixture
def fit(call: Call, moods: Path, tiny: dict[str, Path]) -> Call:
    """`promptlab fit` of soft tokens to three rows a label, on the user's own task and a tiny model."""

    def type_in(*arguments: object, method: str = "soft_prompt", shots: int = 3, model: object = tiny["bert"]) -> Said:
        place = ["--include", moods, "--data", moods / "data", "--model", model]
        return call("fit", "--task", "moods", "--method", method, "--shots", shots, *place, *QUICK, *arguments)

    return type_in


def stored(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    """The few-shot results of a run."""
    found: list[dict[str, Any]] = json.loads((tmp_path / "results" / name / "results.json").read_text())["few_shot"]
    return found


def decided(tmp_path: Path, name: str) -> dict[str, list[float]]:
    """Log p(label) of the first few-shot result of a run, by row."""
    (result, *_) = stored(tmp_path, name)
    table = RunStore(tmp_path / "results" / name).read_samples(result["samples"], result["cell"]).to_pydict()
    return dict(zip(table["row_id"], table["log_probabilities"], strict=True))


@pytest.mark.parametrize("method", ["soft_prompt", "head_fine_tune"])
def test_an_artefact_has_the_numbers_of_the_run_that_would_fit_it(
    fit: Call, run: Call, tmp_path: Path, method: str
) -> None:
    """Fitted alone or by a run, scored at once or from its folder: every log-probability is the same."""
    said = fit("--draw", 1, "-o", "kept", method=method)
    assert 0 == said.code, said.err
    lines = dict(line.split("  ", 1) for line in said.out.splitlines()[1:] if not line.startswith(" "))
    assert f"{method}, 3 shots a label of task 'moods', draw 1" == said.out.splitlines()[0]
    assert {"template", "words", "setting", "parameters", "steps", "seconds", "artefact"} == set(lines)
    assert "kept" == lines["artefact"].strip()
    assert lines["setting"].strip().startswith("learning rate 0.")
    assert "by cross_validation, accuracy " in said.out
    whole = run("--methods", method, "--shots", 3, "--seeds", 2, *QUICK[:-2], "--name", "fitted")
    assert 0 == whole.code, whole.err
    (mine,) = (one for one in stored(tmp_path, "fitted") if (one["draw"], one["method"]) == (1, method))
    loaded = run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    assert 0 == loaded.code, loaded.err
    (theirs,) = stored(tmp_path, "loaded")
    same = ("method", "num_shots", "draw", "template", "verbalizer", "metrics", "predicted", "num_rows")
    assert [mine[name] for name in same] == [theirs[name] for name in same]
    assert {**mine["fit"], "artefact": read_artefact(tmp_path / "kept").hash} == theirs["fit"]
    store = RunStore(tmp_path / "results" / "fitted")
    samples = store.read_samples(mine["samples"], mine["cell"]).to_pydict()
    expected = dict(zip(samples["row_id"], samples["log_probabilities"], strict=True))
    assert expected == decided(tmp_path, "loaded")


def test_predict_labels_rows_as_a_run_decides_them(
    fit: Call, run: Call, call: Call, tmp_path: Path, moods: Path
) -> None:
    """The probabilities are those of the run's decisions, to rounding, and the columns those of every prediction."""
    fit("-o", "kept")
    run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    by_row = list(decided(tmp_path, "loaded").values())
    rows = moods / "data/moods/test.jsonl"
    said = call("predict", rows, "--artefact", "kept", "--text-column", "sentence", "--device", "cpu")
    assert 0 == said.code, said.err
    labelled = [json.loads(line) for line in said.out.splitlines()]
    assert ["sentence", "label", "predicted", "confidence", "p_bad", "p_good", "mass", "reason"] == list(labelled[0])
    assert len(by_row) == len(labelled) == 12
    for log_p, row in zip(by_row, labelled, strict=True):
        assert pytest.approx(sorted([row["p_bad"], row["p_good"]]), abs=1e-5) == sorted(pd.Series(log_p).map(_exp))
        assert 0 < row["mass"] < 1


def _exp(value: float) -> float:
    return float(2.718281828459045**value)


def test_the_same_command_again_fits_nothing(fit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds its artefact; another fit does not take its folder."""
    first = fit("-o", "kept")
    before = {name: (tmp_path / "kept" / name).read_bytes() for name in (HEAD, TENSORS)}

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fitted again")

    monkeypatch.setattr("promptlab.tuning.fit_block", never)
    again = fit("-o", "kept")
    assert (0, "kept has this fit already: nothing is fitted.") == (again.code, again.err.strip())
    lines = [line for line in first.out.splitlines() if not line.startswith("seconds")]
    assert lines == again.out.splitlines()
    assert before == {name: (tmp_path / "kept" / name).read_bytes() for name in (HEAD, TENSORS)}
    assert_fault(fit("--draw", 1, "-o", "kept"), 1, "kept: holds another artefact (soft_prompt, 3 shots", "draw 0)")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    assert_fault(fit("-o", "mine"), 1, "mine: holds 'thesis.tex', which is no part of an artefact")


def test_a_fit_is_printed_as_json_or_as_its_folder(fit: Call, tmp_path: Path) -> None:
    """For scripts."""
    said = json.loads(fit("-o", "kept", "--output", "json").out)
    assert ("kept", read_artefact(tmp_path / "kept").hash, 3) == (said["artefact"], said["hash"], said["steps"])
    assert said["parameters"] > 0
    assert "kept\n" == fit("-o", "kept", "--quiet").out


def test_a_run_with_an_artefact_is_resumed_without_loading_it(
    fit: Call, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is stored, so neither its tensors nor its model are read; where it lies does not matter."""
    fit("-o", "kept")
    run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    before = (tmp_path / "results" / "loaded" / "results.json").read_bytes()
    (tmp_path / "kept" / TENSORS).unlink()
    said = run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    assert 0 == said.code, said.err
    assert "every score is stored already" in said.err
    assert before == (tmp_path / "results" / "loaded" / "results.json").read_bytes()
    assert_fault(
        run("--artefact", "kept", "--name", "anew", tasks=None, model=None),
        1,
        f"kept/{TENSORS}: cannot be read: No such",
    )


def test_the_model_may_lie_elsewhere(fit: Call, run: Call, tmp_path: Path, tiny: dict[str, Path]) -> None:
    """`--model` names it, and is known by its weights and tokenizer, not by its name."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny["bert"], copy)
    fit("-o", "kept", model=copy)
    shutil.rmtree(copy)
    assert_fault(run("--artefact", "kept", tasks=None, model=None), 2, "there is no such folder")
    said = run("--artefact", "kept", "--name", "moved", tasks=None)
    assert 0 == said.code, said.err
    assert [str(tiny["bert"])] == [one["model"] for one in stored(tmp_path, "moved")]
    refusal = run("--artefact", "kept", tasks=None, model=tiny["roberta"])
    assert_fault(refusal, 1, f"the weights of model '{tiny['roberta']}' have the hash", f"inside '{copy}' with")
    several = run("--artefact", "kept", tasks=None, model=f"{tiny['roberta']},{tiny['modernbert']}")
    assert_fault(several, 1, "none of the models", "has its weights and tokenizer: name that model.")


def test_an_artefact_stands_beside_the_hard_prompt_of_its_shots(fit: Call, run: Call, tmp_path: Path) -> None:
    """With `--shots` the hard prompt is chosen by the same rows, and the two are told apart by the draw."""
    fit("-o", "kept", shots=1)
    both = ("--methods", "zero_shot", "--shots", 1, "--seeds", 1, "--calibrations", "none")
    said = run("--artefact", "kept", *both, "--name", "both", model=None)
    assert 0 == said.code, said.err
    assert {("soft_prompt", 1, 0), ("zero_shot", 1, 0)} == {
        (one["method"], one["num_shots"], one["draw"]) for one in stored(tmp_path, "both")
    }
    other = run("--artefact", "kept", *both, "--seed", 5, "--name", "other", model=None)
    assert 0 == other.code, other.err
    (mine,) = (one for one in stored(tmp_path, "other") if one["method"] == "soft_prompt")
    assert mine["draw"] is None


def test_rows_of_a_file_are_scored(fit: Call, run: Call, tmp_path: Path, moods: Path) -> None:
    """Labels and family of a file without a task are the artefact's."""
    fit("-o", "kept")
    rows = moods / "data/moods/test.jsonl"
    own = ("--rows", rows, "--text-column", "sentence", "--label-column", "label", "--label-values", "0=bad,1=good")
    said = run("--artefact", "kept", *own, "--name", "own", tasks=None, model=None)
    assert 0 == said.code, said.err
    run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    assert stored(tmp_path, "loaded")[0]["metrics"] == stored(tmp_path, "own")[0]["metrics"]


def test_rows_that_it_was_fitted_to_are_told(fit: Call, run: Call) -> None:
    """A score on the shots is no score."""
    fit("-o", "kept")
    said = run("--artefact", "kept", "--split", "train", "--name", "seen", tasks=None, model=None)
    assert 0 == said.code, said.err
    told = " ".join(said.err.split())
    assert "artefact kept was fitted to 6 of the 7 scored rows of task 'moods'" in told


def test_faults_of_fit_are_explained(fit: Call, call: Call, tmp_path: Path) -> None:
    """One sentence each, before anything is fitted."""
    assert_fault(fit("-o", "x", method="zero_shot"), 2, "--method zero_shot: has nothing to fit")
    assert_fault(fit("-o", "x", method="lorra"), 2, "lorra: unknown. Did you mean 'lora'?")
    assert_fault(fit("-o", "x", shots=9), 1, "9 shots a label were asked for")
    assert_fault(fit("-o", "x", "--template", "mood/*"), 2, "--template: one is fitted at a time, and it means mood/a")
    assert_fault(fit("-o", "x", "--verbalizer", "mood/*"), 2, "--verbalizer: one is fitted at a time, and it means")
    assert_fault(fit("-o", "x", "--split", "train"), 2, "leave --split out")
    assert_fault(fit(), 2, "Missing option '--output-path'")
    assert not (tmp_path / "x").exists()


def test_faults_of_its_use_are_explained(fit: Call, run: Call, call: Call, tmp_path: Path, moods: Path) -> None:
    """An artefact has its own template, words, model and length, and two of one name are no two draws."""
    fit("-o", "kept")
    fit("-o", "twin", "--setting", "warm_up=0")
    rows = str(moods / "data/moods/test.jsonl")
    beside = call("predict", rows, "--artefact", "kept", "--template", "{{ text }} {{ mask }}", "--model", "mini")
    assert_fault(beside, 2, "--artefact kept: has its own template, words, model and length: leave --template, --model")
    assert_fault(call("predict", rows), 2, "Missing option '--template', or name an --artefact in the place of both.")
    assert_fault(call("predict", rows, "--artefact", "none"), 1, "none: there is no such folder. `promptlab fit` makes")
    assert_fault(
        call("predict", rows, "--artefact", "kept", "--device", "cpu"), 1, "field 'text' is unknown", "--text-column"
    )
    lengths = run("--artefact", "kept", "--max-length", 9, tasks=None, model=None)
    assert_fault(lengths, 2, "--max-length 9: artefact kept was fitted with prompts of", "leave --max-length out.")
    twins = run("--artefact", "kept", "--artefact", "twin", tasks=None, model=None)
    assert_fault(twins, 2, "artefact twin and artefact kept are both soft_prompt with 3 shots", "in a run each.")
    fresh = ("--methods", "soft_prompt", "--shots", 3, "--seeds", 1)
    assert_fault(run("--artefact", "kept", *fresh, model=None), 2, "artefact kept and a fit of this run are both")
    assert_fault(
        run("--artefact", "kept", tasks="review_sentiment", model=None),
        2,
        "artefact kept: was fitted to the labels bad, good, and task 'review_sentiment' has negative, positive",
    )
    assert_fault(run("--artefact", "kept", "--scoring", "replaced_token"), 2, "leave --scoring out")
    assert_fault(run("--save-fits"), 2, "--save-fits keeps what methods fit: name one with --methods and --shots")


def test_a_report_shows_it(fit: Call, run: Call, tmp_path: Path) -> None:
    """The lines after a run and its pages name the method; rescoring keeps it."""
    fit("-o", "kept")
    said = run("--artefact", "kept", "--name", "loaded", tasks=None, model=None)
    assert "soft_prompt" in said.out
    before = stored(tmp_path, "loaded")
    pl.rescore(tmp_path / "results" / "loaded", metrics="brier")
    (after,) = stored(tmp_path, "loaded")
    assert (before[0]["cell"], before[0]["fit"]) == (after["cell"], after["fit"])
    assert "brier" in after["metrics"]
    page = pl.load_run(tmp_path / "results" / "loaded").report(tmp_path / "page.md")
    assert "soft\\_prompt" in page.read_text(encoding="utf-8")


def test_python_fits_predicts_saves_and_loads(
    fit: Call, call: Call, tmp_path: Path, moods: Path, tiny: dict[str, Path]
) -> None:
    """The same object comes out of `fit` and of `load`, with the numbers of the command line."""
    fit("-o", "kept")
    fitted = pl.fit(
        "moods",
        "soft_prompt",
        shots=3,
        model=tiny["bert"],
        data=moods / "data",
        include=moods,
        settings={"steps": "3", "learning_rate": "0.01|0.1"},
        folds=2,
        device="cpu",
    )
    assert isinstance(fitted, pl.FittedMethod)
    assert fitted.artefact.hash == read_artefact(tmp_path / "kept").hash
    assert ("soft_prompt", ("bad", "good"), None) == (fitted.method, fitted.labels, fitted.path)
    assert tmp_path / "mine" == fitted.save(tmp_path / "mine")
    again = pl.load(tmp_path / "mine", device="cpu")
    frame = again.predict(["a fine day", "we lost"])
    pd.testing.assert_frame_equal(frame, fitted.predict(pd.DataFrame({"text": ["a fine day", "we lost"]})))
    (tmp_path / "rows.txt").write_text("a fine day\nwe lost\n", encoding="utf-8")
    said = call("predict", "rows.txt", "--artefact", "kept", "--output", "jsonl", "--device", "cpu")
    assert frame["p_good"].tolist() == [json.loads(line)["p_good"] for line in said.out.splitlines()]
    assert repr(again).splitlines() == [
        f"FittedMethod soft_prompt, 3 shots a label of task 'moods', draw 0, from {tmp_path / 'mine'}",
        f"  template 'mood/all_in_all', words 'mood/great_terrible', inside '{tiny['bert']}'",
        f"  labels bad, good; {again.artefact.record['num_parameters']:,} parameters, 3 steps",
    ]
    with pytest.raises(pl.PromptlabError, match=r"argument 'fold' is unknown\. Did you mean 'folds'\?"):
        pl.fit("moods", "lora", shots=3, fold=2)


def test_a_classifier_predicts_without_template_words_or_mass(fit: Call, tmp_path: Path) -> None:
    """A method that answers with labels has no mass at a mask."""
    fit("-o", "kept", method="head_fine_tune")
    found = pl.load(tmp_path / "kept", device="cpu")
    assert "template 'fields', inside" in repr(found)
    frame = found.predict([{"text": "a fine day", "n": 3}], prefix="x_")
    assert ["text", "n", "x_predicted", "x_confidence", "x_p_bad", "x_p_good", "x_mass", "x_reason"] == list(frame)
    assert frame["x_mass"].isna().all()
    assert pytest.approx(1) == float(frame["x_p_bad"].iloc[0] + frame["x_p_good"].iloc[0])
