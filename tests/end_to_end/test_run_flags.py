"""Every flag of `promptlab run` does what its help says, and a config file says the same as flags."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.blocks import BlockStore
from promptlab.files import read_table
from promptlab.store import RunStore
from tests.end_to_end.terminal import SENTENCES, Call, Said

FAST = ("--templates", "mood/it_was", "--verbalizers", "mood/great_terrible", "--calibrations", "none")


def folder_of(said: Said) -> Path:
    """The run's folder, from the paths that are printed at the end."""
    assert said.code == 0, said.err
    return Path(said.out.splitlines()[-1]).parent


def manifest_of(said: Said) -> dict[str, Any]:
    return json.loads((folder_of(said) / "manifest.json").read_text(encoding="utf-8"))


def cells_of(said: Said) -> list[dict[str, Any]]:
    return json.loads((folder_of(said) / "results.json").read_text(encoding="utf-8"))["cells"]


def samples_of(said: Said) -> list[dict[str, Any]]:
    """The rows of the first cell's samples."""
    cell = cells_of(said)[0]
    return RunStore(folder_of(said)).read_samples(cell["samples"], cell["cell"]).to_pylist()


def timings_of(said: Said) -> dict[str, Any]:
    return json.loads((folder_of(said) / "timings.json").read_text(encoding="utf-8"))


def names(said: Said, key: str) -> set[str]:
    return {cell[key] for cell in cells_of(said)}


def test_every_flag_is_tried_here(call: Call) -> None:
    """A flag that `promptlab run --help` lists and no test here or of few-shot runs types is one that nobody tried."""
    listed = set(re.findall(r"(?<=  )--[a-z-]+", call("run", "--help").out)) - {"--help"}
    assert {"--model", "--store-states", "--amend"} < listed
    files = (Path(__file__), Path(__file__).with_name("test_few_shot.py"))
    typed = "".join(file.read_text(encoding="utf-8") for file in files).replace("_", "-")
    assert [] == sorted(flag for flag in listed if f'"{flag}' not in typed)


@pytest.mark.parametrize("comma", [True, False])
def test_lists_are_written_with_commas_or_by_repetition(run: Call, comma: bool) -> None:
    """`--templates a,b` and `--templates a --templates b` are the same run."""
    wanted = ["mood/it_was", "mood/all_in_all"]
    given = ["--templates", ",".join(wanted)] if comma else [f"--templates={name}" for name in wanted]
    said = run(*given, "--verbalizers", "mood/yes_no", "--calibrations", "contextual")
    assert names(said, "template") == set(wanted)
    assert names(said, "calibration") == {"contextual"}
    assert names(said, "verbalizer") == {"mood/yes_no"}


def test_globs_stems_and_paths_name_the_same_things(run: Call, moods: Path) -> None:
    """A glob takes what matches and applies, a path takes one file, a last name is enough where it is the only one."""
    assert names(run("--verbalizers", "mood/*", "--templates", "mood/it_*"), "verbalizer") == {
        "mood/great_terrible",
        "mood/yes_no",
    }
    (moods / "verbalizers/mood/yes_no.yaml").rename(moods / "verbalizers/mood/no_yes.yaml")
    by_path = run("--templates", moods / "templates/mood/it_was.jinja", "--verbalizers", "no_yes")
    assert (names(by_path, "template"), names(by_path, "verbalizer")) == ({"mood/it_was"}, {"mood/no_yes"})


def test_a_template_and_a_verbalizer_can_be_typed_in(run: Call) -> None:
    """Commas of an inline template stay in its text; label words are separated by bars."""
    said = run("--templates", "{{ text }} So, yes, it was {{ mask }}.", "--verbalizers", "bad=no|bad,good=yes|good")
    manifest = manifest_of(said)
    texts = [template["text"] for template in manifest["templates"].values()]
    words = [verbalizer["labels"] for verbalizer in manifest["verbalizers"].values()]
    assert "{{ text }} So, yes, it was {{ mask }}." in texts
    assert words == [{"bad": ["no", "bad"], "good": ["yes", "good"]}]


def test_underscores_and_dashes_are_alike(run: Call, tmp_path: Path) -> None:
    """`--max_length`, `--batch_size`, `--output_path`, `--no_text` and `--dry_run` are the flags with dashes."""
    said = run(*FAST, "--max_length", 16, "--batch_size", 2, "--output_path", tmp_path / "there", "--no_text")
    spec = manifest_of(said)["spec"]
    assert (spec["max_length"], spec["batch_size"], spec["no_text"]) == (16, 2, True)
    assert folder_of(said).parent == Path("there")
    assert run(*FAST, "--dry_run").out.splitlines()[0].endswith("nothing is scored")


def test_several_models_stand_in_one_run(run: Call, tiny: dict[str, Path]) -> None:
    """Each model has its cells and its facts; a model given twice is scored once."""
    said = run(*FAST, "--model", tiny["roberta"], "--model", f"{tiny['bert']},{tiny['roberta']}", model=None)
    assert names(said, "model") == {str(tiny["roberta"]), str(tiny["bert"])}
    assert [facts["architecture"] for facts in manifest_of(said)["models"]] == ["RobertaForMaskedLM", "BertForMaskedLM"]


def test_a_revision_is_asked_of_the_hub(run: Call, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--revision` goes with a hub name and is kept in the manifest."""
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
        return str(tiny["bert"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    said = run(*FAST, "--revision", "v1", model="someone/tiny")
    assert set(asked) == {("someone/tiny", "v1")}
    assert [facts["revision"] for facts in manifest_of(said)["models"]] == ["v1"]


def test_split_names_the_rows_that_are_scored(run: Call) -> None:
    """`--split train` scores the six rows of train."""
    assert {(cell["split"], cell["num_rows"]) for cell in cells_of(run(*FAST, "--split", "train"))} == {("train", 6)}


def test_a_limit_is_stratified_and_a_prefix_of_a_larger_one(run: Call) -> None:
    """`--limit 4` has two rows a label, all of them among those of `--limit 8`; the seed decides which."""
    four, eight = (samples_of(run(*FAST, "--limit", limit)) for limit in (4, 8))
    assert sorted(row["gold"] for row in four) == ["bad", "bad", "good", "good"]
    assert [row["row_id"] for row in four] == [row["row_id"] for row in eight][:4]
    others = samples_of(run(*FAST, "--limit", 4, "--seed", 1))
    assert {row["row_id"] for row in others} != {row["row_id"] for row in four}


def test_a_limit_can_be_the_first_rows(run: Call) -> None:
    """`--limit first:3` takes the head of the file."""
    assert [row["row_index"] for row in samples_of(run(*FAST, "--limit", "first:3"))] == [0, 1, 2]


def test_max_length_shortens_rows_and_keeps_the_mask(run: Call) -> None:
    """With 8 tokens the template alone just fits, and every row is scored with its text cut."""
    said = run(*FAST, "--max-length", 8)
    assert manifest_of(said)["max_length"] == {manifest_of(said)["models"][0]["model"]: 8}
    assert {(cell["num_truncated"] > 0, cell["num_unscored"]) for cell in cells_of(said)} == {(True, 0)}


def test_device_and_dtype_are_what_ran(
    call: Call, moods: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--device cpu --dtype bfloat16` is in the manifest as asked for and as it ran."""
    monkeypatch.setattr("promptlab.reporting.report.write_report", lambda results: [])
    place = ["--model", tiny["bert"], "--tasks", "moods", "--include", moods, "--data", moods / "data"]
    model = manifest_of(call("run", *place, *FAST, "--device", "cpu", "--dtype", "bfloat16"))["models"][0]
    assert (model["dtype"], model["ran"]["dtype"], model["ran"]["device"]) == ("bfloat16", "bfloat16", "cpu")


def test_scoring_names_how_the_model_is_asked(
    call: Call, moods: Path, detectors: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--scoring replaced_token` judges words in their place; a discriminator is refused without it, by its name."""
    monkeypatch.setattr("promptlab.reporting.report.write_report", lambda results: [])
    place = ["--model", detectors["electra"], "--tasks", "moods", "--include", moods, "--data", moods / "data"]
    refused = call("run", *place, *FAST)
    assert (refused.code, "--scoring replaced_token" in refused.err) == (1, True)
    said = call("run", *place, *FAST, "--scoring", "replaced_token")
    assert {("replaced_token", None)} == {(cell["scoring"], cell["mass"]) for cell in cells_of(said)}
    assert "words in their place ask about 30 filled prompts at most" in said.err
    planned = call("run", *place, *FAST, "--scoring", "replaced_token", "--dry-run").out
    assert "at most 30 prompts with words in their slots" in " ".join(planned.split())
    assert (2, "error: --scoring: choose one of mask, replaced_token, found 'causal'.\n") == (
        (odd := call("run", *place, *FAST, "--scoring", "causal")).code, odd.err
    )  # fmt: skip


@pytest.mark.parametrize(("size", "forwards"), [("auto", 2), (1, 15), (4, 4), (12, 2)])
def test_batch_size_is_a_token_budget_or_a_number_of_prompts(run: Call, size: object, forwards: int) -> None:
    """Twelve rows, and apart from them three content-free texts: a batch each within the budget, or of one or four."""
    assert timings_of(run(*FAST, "--batch-size", size))["forwards"] == forwards


def test_output_path_and_name_say_where_the_run_lies(run: Call, tmp_path: Path) -> None:
    """`-o DIR --name NAME` writes DIR/NAME; without a name it is made of the model and the plan."""
    assert folder_of(run(*FAST, "-o", "somewhere", "--name", "first.try")) == Path("somewhere/first.try")
    assert (tmp_path / "somewhere/first.try/samples").is_dir()
    first, again, other = run(*FAST), run(*FAST), run(*FAST, "--limit", 4)
    assert folder_of(first) == folder_of(again) != folder_of(other)
    assert folder_of(first).parent == Path("results")


def test_a_dry_run_writes_nothing_and_loads_no_weights(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan names the run, its tasks, templates and verbalizers; no folder is made, no model built."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("promptlab.backends.mlm.load_model", refuse)
    before = sorted(tmp_path.rglob("*"))
    said = run("--dry-run", "--verbalizers", "mood/*")
    assert said.code == 0
    assert sorted(tmp_path.rglob("*")) == before
    for words in ("moods: 12 rows", "template mood/it_was", "verbalizer mood/yes_no", "2 blocks, 8 cells"):
        assert words in said.out
    assert max(len(line) for line in said.out.splitlines() if "/tmp" not in line) <= 80


def test_the_dry_run_names_the_run_that_follows(run: Call) -> None:
    """The name in the plan is the folder of the run."""
    planned = run(*FAST, "--dry-run").out.splitlines()[0]
    assert planned == f"run {folder_of(run(*FAST)).name}, nothing is scored"


def test_quiet_prints_the_paths_only(run: Call) -> None:
    """`--quiet` says nothing on standard error and only paths on standard output."""
    said = run(*FAST, "--quiet")
    assert said.err == ""
    assert [Path(line).name for line in said.out.splitlines()] == ["results.json"]


def test_a_run_says_what_it_does_within_eighty_columns(run: Call) -> None:
    """A line for the model, a table, the paths."""
    said = run(*FAST)
    lines = [line for line in (said.out + said.err).splitlines() if not line.startswith(("scoring", "results/"))]
    assert "scoring 15 prompts" in said.err
    assert max(map(len, lines)) <= 80
    assert "great_terrible" in said.out


def test_a_config_file_says_the_same_as_flags_and_flags_go_on_top(
    run: Call, moods: Path, tiny: dict[str, Path]
) -> None:
    """Every key of run.yaml is read; a flag replaces its key."""
    stored = {
        "models": [str(tiny["bert"])],
        "tasks": ["moods"],
        "templates": ["mood/it_was"],
        "verbalizers": [{"bad": "no", "good": ["yes", "good"]}],
        "calibrations": "none",
        "data": str(moods / "data"),
        "include": [str(moods)],
        "split": "train",
        "limit": "first:5",
        "max_length": 20,
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 3,
        "seed": 5,
        "output_path": "configured",
        "name": "by_config",
        "no_text": True,
    }
    Path("run.yaml").write_text(json.dumps(stored), encoding="utf-8")
    said = run("--config", "run.yaml", tasks=None, model=None)
    spec = manifest_of(said)["spec"]
    assert {key: spec[key] for key in stored} == stored | {"calibrations": ["none"]}
    assert folder_of(said) == Path("configured/by_config")
    over = run("--config", "run.yaml", "--limit", 4, "--name", "on_top", "--calibrations", "contextual", model=None)
    assert folder_of(over) == Path("configured/on_top")
    assert {(cell["num_rows"], cell["calibration"]) for cell in cells_of(over)} == {(4, "contextual")}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_rows_can_be_csv_or_parquet(run: Call, moods: Path, kind: str) -> None:
    """The same rows give the same results from either form as from jsonl."""
    import pandas

    rows = moods / "data/moods/test.jsonl"
    wanted = cells_of(run(*FAST))
    frame = pandas.read_json(rows, lines=True)
    rows.unlink()
    if kind == "csv":
        frame.to_csv(rows.with_suffix(".csv"), index=False)
    else:
        frame.to_parquet(rows.with_suffix(".parquet"))
    assert cells_of(run(*FAST)) == wanted
    assert len(frame) == 2 * len(SENTENCES)


def test_own_folders_and_data_can_come_from_the_environment(
    call: Call, moods: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTLAB_PATH and PROMPTLAB_DATA stand for --include and --data."""
    monkeypatch.setenv("PROMPTLAB_PATH", str(moods))
    monkeypatch.setenv("PROMPTLAB_DATA", str(moods / "data"))
    assert "moods" in call("ls", "tasks").out
    said = call("run", "--tasks", "moods", *FAST, "--model", tiny["bert"], "--dry-run")
    assert "moods: 12 rows" in said.out


def test_store_states_keeps_what_later_words_need(run: Call, tiny: dict[str, Path]) -> None:
    """Every part has the states at masks; with the decoder's rows they give the stored log-probabilities to 1e-5."""
    said = run(*FAST, "--store-states", "--batch-size", 2)
    parts = sorted(folder_of(said).glob("blocks/*/part-*.parquet"))
    assert manifest_of(said)["spec"]["store_states"]
    backend = MaskedBackend(str(tiny["bert"]), device="cpu")
    num_rows = 0
    for path in parts:
        table, metadata = read_table(path)
        weight, bias = backend.decoder_rows(np.array(metadata["token_ids"]))
        states, normalizers = np.stack(table["state"].to_pylist()), table["log_normalizer"].to_numpy()
        expected = states @ weight.T + bias - normalizers[:, None]
        np.testing.assert_allclose(np.stack(table["log_probs"].to_pylist()), expected, atol=1e-5)
        num_rows += len(table)
    assert num_rows == timings_of(said)["prompts"]
    for folder in {path.parent for path in parts}:
        kept = BlockStore(folder).read_states()
        assert kept is not None
        assert len(kept.keys) == 15
    plain = folder_of(run(*FAST, "--name", "plain"))
    assert all("state" not in read_table(path)[0].column_names for path in plain.glob("blocks/*/part-*.parquet"))


def test_states_are_kept_in_float32_only(run: Call) -> None:
    """States in another dtype would not give the stored numbers, so both together are refused."""
    said = run(*FAST, "--store-states", "--dtype", "bfloat16")
    assert (said.code, said.err) == (2, "error: --store-states keeps float32 states: leave --dtype out.\n")


def test_states_of_a_head_that_has_none_are_refused(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 and one sentence with the model; without the flag the same run is made."""
    monkeypatch.setattr(MaskedBackend, "_probe", lambda self, model: False)
    said = run(*FAST, "--store-states", "--quiet", "--name", "states")
    assert said.code == 1
    assert re.fullmatch(
        r"error: model '.*': the head of BertForMaskedLM is no plain product with the states at masks, so "
        r"--store-states cannot keep them\.\n",
        said.err,
    )
    assert run(*FAST, "--name", "states").code == 0


def test_an_amended_run_keeps_its_name(run: Call) -> None:
    """Another plan under a name is refused; `--amend` lets it have the folder."""
    assert run(*FAST, "--name", "mine").code == 0
    assert run(*FAST, "--name", "mine", "--limit", 4).code == 2
    said = run(*FAST, "--name", "mine", "--limit", 4, "--amend")
    assert ({4}, "mine") == ({cell["num_rows"] for cell in cells_of(said)}, folder_of(said).name)


def test_prompts_of_calibrations_can_be_prepared(run: Call, moods: Path) -> None:
    """`--prepare` scores what a calibration asks, in blocks of the run, and decides no cell by it."""
    rows = "".join(f'{{"sentence": "{text} again", "label": 0}}\n' for text in SENTENCES)
    (moods / "data/moods/train.jsonl").write_text(rows, encoding="utf-8")
    said = run(*FAST, "--prepare", "support,domain")
    assert names(said, "calibration") == {"none"}
    assert all({"support", "domain"} <= set(block["segments"]) for block in manifest_of(said)["blocks"])
    assert timings_of(said)["prompts"] > timings_of(run(*FAST))["prompts"]
    after = run(*FAST[:-1], "none,support,domain", "--name", folder_of(said).name, "--amend")
    assert timings_of(after)["forwards"] == 0
    assert names(after, "calibration") == {"none", "support", "domain"}


def test_an_ensemble_is_a_cell_over_templates(run: Call) -> None:
    """`--ensemble name=template|template` names its members, a glob takes every instructive template."""
    words = [*FAST[2:], "--templates", "mood/*"]
    assert names(run(*words, "--ensemble", "both=mood/it_was|all_in_all"), "template") > {"ensemble:both"}
    (found,) = [cell for cell in cells_of(run(*words, "--ensemble", "*")) if cell["members"]]
    assert (found["template"], len(found["members"])) == ("ensemble:*", 2)


def test_further_metrics_are_measured(run: Call) -> None:
    """`--metrics` adds to those of the task."""
    (cell,) = cells_of(run(*FAST, "--metrics", "brier,f1(good)"))
    assert {"accuracy", "brier", "f1(good)"} < set(cell["metrics"])


def test_rows_that_no_task_describes(run: Call, tmp_path: Path) -> None:
    """`--rows FILE` with its columns, labels and family is a task of its own; train rows serve calibrations."""
    lines = [f"{text}\t{number % 2}" for number, text in enumerate(SENTENCES)]
    (tmp_path / "own.tsv").write_text("\n".join(["what it says\tgold", *lines]) + "\n", encoding="utf-8")
    trained = "".join(f"{text} again\t0\n" for text in SENTENCES)
    (tmp_path / "train.tsv").write_text(f"what it says\tgold\n{trained}", encoding="utf-8")
    place = ["--rows", "own.tsv", "--text-column", "what it says"]
    gold = ["--label-column", "gold", "--label-values", "0=bad,1=good", "--labels", "bad,good", "--family", "mood"]
    more = ["--train-rows", "train.tsv", "--calibrations", "none,domain"]
    said = run(*FAST[:4], *place, *gold, *more, tasks=None)
    assert {(cell["num_rows"], cell["calibration"]) for cell in cells_of(said)} == {(6, "none"), (6, "domain")}
    assert [row["gold"] for row in samples_of(said)] == ["bad", "good"] * 3
    by_field = run(*FAST, "--rows", "own.tsv", "--field", "text=what it says", tasks=None)
    assert {len(cell["metrics"]) for cell in cells_of(by_field)} == {0}


def test_a_run_can_be_printed_as_json(run: Call) -> None:
    """`--output json` prints the cells and where they lie, and nothing else on standard output."""
    said = run(*FAST, "--output", "json")
    printed = json.loads(said.out)
    folder = Path(printed["path"])
    assert printed["cells"] == json.loads((folder / "results.json").read_text(encoding="utf-8"))["cells"]
    planned = json.loads(run(*FAST, "--output", "json", "--dry-run").out)
    assert planned["run"] == printed["run"]


def test_the_bundled_tasks_run_without_any_flag_of_data(run: Call) -> None:
    """A shipped task brings its rows along."""
    said = run("--templates", "sentiment/it_was", "--limit", 4, tasks="review_sentiment")
    assert names(said, "task") == {"review_sentiment"}


def test_preview_shows_prompts_tokens_and_words(call: Call, moods: Path, tiny: dict[str, Path]) -> None:
    """One block of lines a template and row: the text, the tokens with the mask, the words, the best fills."""
    place = ["--include", moods, "--data", moods / "data"]
    said = call("preview", "--tasks", "moods", "--templates", "mood/it_was", "-n", 2, "--model", tiny["bert"], *place)
    assert said.code == 0
    assert said.out.count("== moods / mood/it_was / row") == 2
    for words in ("It was [MASK].", ">[MASK]<", "{was}", "fills: ", "p(bad) 0.", "mass on the label words "):
        assert words in said.out
    assert re.search(r"mood/great_terrible: bad: terrible 0\.\d{4}; good: great 0\.\d{4}\n", said.out)
    assert "with calibration contextual" in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_a_run_can_do_without_its_preflight(run: Call) -> None:
    """`--skip-preflight` is written down, and the decisions are those of a run that looked first."""
    looked, skipped = run(*FAST, "--name", "looked"), run(*FAST, "--name", "skipped", "--skip-preflight")
    assert cells_of(looked) == cells_of(skipped)
    facts = [json.loads((folder_of(said) / "manifest.json").read_text(encoding="utf-8")) for said in (looked, skipped)]
    assert ["passed", "skipped"] == [manifest["models"][0]["ran"]["preflight"] for manifest in facts]
