"""`promptlab doctor` checks a model, and `promptlab run` does the cheap part of it before it scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptlab import harness
from tests.broken_models import edited, framed, set_up, without_head
from tests.end_to_end.terminal import Call, Said

FAST = ("--templates", "mood/it_was", "--verbalizers", "mood/great_terrible", "--name", "looked")
REFUSED = "(frame: a special token stands twice around one text: [CLS] [CLS] … [SEP]): `promptlab doctor --model"


@pytest.fixture
def doubled(tiny: dict[str, Path], tmp_path: Path) -> Path:
    """A BERT whose texts begin with two [CLS]."""
    return framed(tiny["bert"], tmp_path / "doubled", single="[CLS] [CLS] $A [SEP]")


def facts_of(name: str = "looked") -> dict[str, Any]:
    """What effectively ran, from the manifest of a run with one model."""
    (model,) = json.loads((Path("results") / name / "manifest.json").read_text(encoding="utf-8"))["models"]
    ran: dict[str, Any] = model["ran"]
    return ran


def rows_of(said: Said) -> dict[str, str]:
    """Name to status, from the printed table of checks."""
    table = said.out.partition("\ncheck ")[2].splitlines()[1:]
    cells = [line.split("  ") for line in table if not line.startswith(" ")]
    return {row[0]: next(cell.strip() for cell in row[1:] if cell) for row in cells}


@pytest.mark.parametrize("model", ["mini", "bert", "modernbert"])
def test_a_sound_model_passes_and_fits_eighty_columns(call: Call, tiny: dict[str, Path], model: str) -> None:
    """What runs comes first, then one row a check; only a path may be longer than a line."""
    said = call("doctor", "--model", model if model == "mini" else tiny[model])
    assert (said.code, said.err) == (0, "")
    assert [line for line in said.out.splitlines() if len(line) > 80 and "/" not in line] == []
    assert "model attention" in said.out.partition("\ncheck ")[0]
    rows = rows_of(said)
    assert list(rows)[:3] == ["head", "tokenizer", "mask"]
    assert len(rows) == 15
    assert set(rows.values()) - {"n/a"} == {"pass"}


def test_the_checks_are_json_too(call: Call, tiny: dict[str, Path]) -> None:
    """`--output json` has the facts and every check with its four parts."""
    said = call("doctor", "--model", tiny["roberta"], "--output", "json")
    found = json.loads(said.out)
    assert found["model architecture"] == "RobertaForMaskedLM"
    assert [set(one) for one in found["checks"]] == [{"name", "status", "found", "remedy"}] * 15
    assert {one["status"] for one in found["checks"]} == {"pass", "not applicable"}


@pytest.mark.parametrize("kind", ["electra", "deberta_v3"])
def test_a_detector_is_checked_as_one(call: Call, detectors: dict[str, Path], kind: str) -> None:
    """`--scoring replaced_token` passes a detector, which fails as a masked model with the option named."""
    said = call("doctor", "--model", detectors[kind], "--scoring", "replaced_token")
    assert (said.code, said.err) == (0, "")
    assert {"pass", "n/a"} == set(rows_of(said).values())
    said = call("doctor", "--model", detectors[kind])
    assert (said.code, rows_of(said)["head"]) == (1, "fail")
    assert "--scoring replaced_token" in " ".join(said.out.split())


def test_an_unknown_scoring_is_refused(call: Call) -> None:
    """The message lists what there is."""
    said = call("doctor", "--scoring", "causal")
    assert (said.code, said.err) == (2, "error: --scoring causal: choose one of mask, replaced_token.\n")


def test_a_model_that_fails_a_check_leaves_with_one(call: Call, doubled: Path) -> None:
    """The table has what was found and the remedy, and the last sentence names what failed."""
    said = call("doctor", "--model", doubled)
    assert said.code == 1
    assert said.err == f"error: model '{doubled}' fails 1 of 15 checks: frame.\n"
    assert rows_of(said)["frame"] == "fail"
    assert "-> Leave it to the post-processor alone" in said.out
    assert json.loads(call("doctor", "--model", doubled, "--output", "json").out)["checks"][3]["status"] == "fail"


def test_a_warning_is_no_failure(call: Call, tiny: dict[str, Path], tmp_path: Path) -> None:
    """A warned model leaves with 0, and the remedy is printed."""
    said = call("doctor", "--model", set_up(tiny["bert"], tmp_path / "short", model_max_length=32))
    assert (said.code, said.err) == (0, "")
    assert rows_of(said)["position limit"] == "warn"
    assert "-> --max-length 32 keeps to what the tokenizer says." in said.out


def test_a_model_without_its_head_is_checked_as_far_as_it_goes(
    call: Call, tiny: dict[str, Path], tmp_path: Path
) -> None:
    """The machine, the refusal in its own words and the checks of the tokenizer are all printed."""
    folder = without_head(tiny["bert"], tmp_path / "headless")
    said = call("doctor", "--model", folder)
    assert said.code == 1
    assert said.err == f"error: model '{folder}' fails 1 of 15 checks: head.\n"
    assert "torch" in said.out
    assert "has no trained weights for 6 tensors" in " ".join(said.out.split())
    rows = rows_of(said)
    assert (rows["head"], rows["frame"], rows["batch"]) == ("fail", "pass", "n/a")


def test_a_run_stops_before_it_scores_a_model_that_fails(run: Call, doubled: Path) -> None:
    """One sentence that names the doctor; nothing was scored."""
    said = run(*FAST, model=doubled)
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"error: model '{doubled}' fails the preflight {REFUSED} {doubled}")
    assert said.err.count("error:") == 1
    assert list(Path("results/looked").glob("blocks/*/part-*")) == []
    assert not Path("results/looked/results.json").exists()


def test_a_run_that_skips_the_preflight_scores_all_the_same(run: Call, doubled: Path) -> None:
    """The same run goes on with --skip-preflight, which makes no other plan, and the manifest says so."""
    assert run(*FAST, model=doubled).code == 1
    assert run(*FAST, "--skip-preflight", model=doubled).code == 0
    assert facts_of()["preflight"] == "skipped"
    assert run(*FAST, model=doubled).code == 0
    assert facts_of()["preflight"] == "skipped"


def test_the_preflight_can_be_skipped_by_a_run_file(run: Call, doubled: Path, tmp_path: Path) -> None:
    """The key of run.yaml is the flag."""
    (tmp_path / "run.yaml").write_text("skip_preflight: true\n", encoding="utf-8")
    assert run(*FAST, "--config", "run.yaml", model=doubled).code == 0
    assert facts_of()["preflight"] == "skipped"


def test_a_run_looks_once_and_only_where_something_is_missing(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks and two calibrations need one preflight; a stored run needs none, and says what was done then."""
    preflight, calls = harness.preflight, []
    monkeypatch.setattr(harness, "preflight", lambda backend: calls.append(1) or preflight(backend))
    chosen = ("--templates", "mood/*", "--verbalizers", "mood/*", "--name", "looked")
    assert run(*chosen).code == 0
    assert len(calls) == 1
    assert facts_of()["preflight"] == "passed"
    before = Path("results/looked/manifest.json").read_bytes()
    timings = json.loads(Path("results/looked/timings.json").read_text(encoding="utf-8"))
    assert [name for name in timings["seconds"] if name.startswith("preflight ")] != []
    assert run(*chosen).code == 0
    assert len(calls) == 1
    assert facts_of()["preflight"] == "passed"
    assert Path("results/looked/manifest.json").read_bytes() == before


def test_a_run_without_a_row_that_fits_needs_no_preflight(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be scored there is nothing to look at first."""
    monkeypatch.setattr(harness, "preflight", lambda backend: pytest.fail("it looked"))
    text = "{{ text }} All in all, and when everything is said and done, it was {{ mask }}."
    said = run("--templates", text, "--verbalizers", "bad=terrible,good=great", "--max-length", 8, "--name", "looked")
    assert said.code == 0
    assert facts_of()["preflight"] == "not needed"


def test_what_the_preflight_warns_about_is_said(run: Call, tiny: dict[str, Path], tmp_path: Path) -> None:
    """A frame that may be missing stops no run, and is told before it scores."""
    folder = framed(tiny["bert"], tmp_path / "bare", single=None)
    said = run(*FAST, model=folder)
    assert said.code == 0
    told = f"{folder}, frame: no [CLS] and no [SEP] around a text, though the tokenizer has both."
    assert told in " ".join(said.err.split())
    assert facts_of()["preflight"] == "passed"


def test_a_long_word_is_broken_to_fit(call: Call, tiny: dict[str, Path], tmp_path: Path) -> None:
    """What an error calls a class is no path, and may not leave the terminal."""
    folder = edited(tiny["bert"], tmp_path / "causal", "config.json", lambda config: config.update(model_type="llama"))
    said = call("doctor", "--model", folder)
    assert said.code == 1
    assert "which has no masked language model: use a checkpoint of BERT" in " ".join(said.out.split())
    assert [line for line in said.out.splitlines() if len(line) > 80 and "/" not in line] == []
