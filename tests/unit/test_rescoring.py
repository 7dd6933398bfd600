"""A stored run decided by more rules is the run that would have been, and no model is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.errors import LabelWordError, PromptlabError, StoreError, UsageError
from promptlab.harness import execute
from promptlab.rescoring import rescore
from promptlab.results import RunResults, read_results
from promptlab.specs.run import RunSpec
from promptlab.specs.verbalizer import Verbalizer
from promptlab.store import RunStore
from tests.tiny_library import PAIRS, TEXTS, write_library, write_text
from tests.tiny_models import build

OLD = ("opinions/great_terrible", "pairs/yes_no")
NEW = ("opinions/good_bad", "opinions/several", "pairs/right_wrong", "pairs/several")
TEMPLATES = ("opinions/it_was", "opinions/in_brackets", "pairs/question", "pairs/is_it")
ENSEMBLE = {"both": ("opinions/*",), "pairs": ("question", "is_it")}
METRICS = ("brier", "f1(yes)")


def fill_library(folder: Path) -> Path:
    """The tiny library with three verbalizers a task, train rows that are not scored, and domain prompts."""
    write_library(folder)
    files = {
        "verbalizers/opinions/several.yaml": "labels:\n  negative: [bad, awful]\n  positive: {fine: 2.0, great: 0.5}\n",
        "verbalizers/pairs/right_wrong.yaml": 'labels: {"no": [wrong], "yes": [right]}\n',
        "verbalizers/pairs/several.yaml": 'pool: sum_prob\nlabels: {"no": ["no", false], "yes": ["yes", "true"]}\n',
        "templates/pairs/is_it.jinja": "{{ premise }} {{ mask }} , {{ hypothesis }}\n",
    }
    files["verbalizers/pairs/several.yaml"] = files["verbalizers/pairs/several.yaml"].replace(" false", ' "false"')
    for name, text in files.items():
        write_text(folder / name, text)
    for name in ("opinions/it_was", "pairs/question", "pairs/is_it"):
        path = folder / "templates" / f"{name}.jinja"
        write_text(path, f'---\ndomain_prompt: "It was {{{{ mask }}}} ."\n---\n{path.read_text()}')
    texts = [{"text": f"{text} today", "label": label} for text, label in TEXTS]
    pairs = [{"premise": first, "hypothesis": f"so {second}", "label": label} for first, second, label in PAIRS]
    for task, rows in (("views", texts), ("follows", pairs)):
        write_text(folder / f"tasks/data/{task}/train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_library(tmp_path_factory.mktemp("rescoring") / "library")


Run = Callable[..., RunResults]


@pytest.fixture(scope="module")
def run(library: Path, tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over both tasks; what is asked for may be changed."""

    def made(name: str, **changes: Any) -> RunResults:
        values: dict[str, Any] = {
            "models": str(tiny["bert"]), "tasks": ("views", "follows"), "templates": TEMPLATES, "verbalizers": OLD,
            "calibrations": "none", "include": str(library), "device": "cpu", "name": name,
            "output_path": str(tmp_path_factory.mktemp(name)),
        }  # fmt: skip
        return execute(RunSpec(**{**values, **changes}), command=f"promptlab run --name {name}")

    return made


@pytest.fixture(scope="module")
def stored(run: Run) -> Path:
    """A run with one verbalizer a task and no calibration, whose calibration prompts are prepared."""
    return run("stored", prepare="*").folder


@pytest.fixture(scope="module")
def fresh(run: Run) -> Path:
    """The run that has everything from the start."""
    everything = {"verbalizers": (*OLD, *NEW), "calibrations": "*", "metrics": METRICS, "ensembles": ENSEMBLE}
    return run("fresh", **everything).folder


@pytest.fixture
def own(stored: Path, tmp_path: Path) -> Path:
    """A copy of the stored run."""
    return shutil.copytree(stored, tmp_path / "own")


def text_of(folder: Path) -> str:
    """The stored results, with the run's name taken out."""
    run = read_results(folder).name
    return (folder / "results.json").read_text().replace(f'"run": "{run}"', '"run": ""')


def samples_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def assert_same(fresh: Path, rescored: Path) -> None:
    """Cells, baselines and agreements are the same text, decisions the same bytes, and the plan is the same plan."""
    assert text_of(fresh) == text_of(rescored)
    assert samples_of(fresh) == samples_of(rescored)
    assert read_results(fresh).manifest["plan"] == read_results(rescored).manifest["plan"]


def test_rescored_is_fresh(own: Path, fresh: Path, library: Path) -> None:
    """Two tasks of three verbalizers, six calibrations, metrics and ensembles: byte for byte, and a second time too."""
    names = [str(library)]
    rescore(own, verbalizers=NEW, calibrations=["*"], metrics=METRICS, ensembles=ENSEMBLE, include=names)
    assert_same(fresh, own)
    calibrations = {result.calibration for result in read_results(own).results if result.skipped is None}
    assert {"none", "contextual", "domain", "pmi_dc", "support", "batch"} == calibrations
    before = (own / "results.json").read_bytes()
    rescore(own, calibrations=["none"])
    assert before == (own / "results.json").read_bytes()


def test_steps_add_up(own: Path, fresh: Path, library: Path) -> None:
    """What an earlier step added is kept by the next."""
    rescore(own, calibrations=["*"], command="first")
    rescore(own, verbalizers=NEW, include=[str(library)], command="second")
    last = rescore(own, metrics=METRICS, ensembles=ENSEMBLE, command="third")
    assert_same(fresh, own)
    assert ["first", "second", "third"] == last.manifest["rescored"]
    assert read_results(own).manifest == json.loads(json.dumps(last.manifest))


def test_every_model_is_decided_again(run: Run, library: Path, tiny: dict[str, Path]) -> None:
    """Two models in one run stay two, in their order."""
    both = (str(tiny["roberta"]), str(tiny["bert"]))
    some = {"models": both, "tasks": "views", "templates": "opinions/it_was"}
    found = run("two", verbalizers=OLD[0], **some)
    rescore(found.folder, verbalizers=["opinions/good_bad"], calibrations=["batch"], include=[str(library)])
    fresh = run("two_fresh", verbalizers=(OLD[0], "opinions/good_bad"), calibrations=("none", "batch"), **some)
    assert_same(fresh.folder, found.folder)
    assert list(both) == list(dict.fromkeys(one.model for one in read_results(found.folder).results))


SCRIPT = """
import sys
from promptlab.cli import main
sys.argv = ["promptlab", *sys.argv[1:]]
try:
    main()
except SystemExit as leave:
    assert not leave.code, leave.code
print(sorted({"torch", "transformers", "tokenizers", "datasets"} & set(sys.modules)))
"""


def test_no_model_is_asked(own: Path, fresh: Path, library: Path, tmp_path: Path) -> None:
    """The command ends without torch or transformers in the process, and neither rows nor model are there."""
    moved = tmp_path / "moved"
    shutil.copytree(library / "verbalizers", moved / "verbalizers")
    manifest = json.loads((own / "manifest.json").read_text())
    model = manifest["models"][0]["model"]
    flags = ["--verbalizers", ",".join(NEW), "--calibrations", "*", "--metrics", ",".join(METRICS), "--no-report"]
    flags += ["--ensemble", "both=opinions/*", "--ensemble", "pairs=question|is_it", "--include", str(moved)]
    hidden = Path(model).rename(tmp_path / "model")
    rows = (library / "tasks").rename(tmp_path / "tasks")
    try:
        asked = [sys.executable, "-c", SCRIPT, "rescore", str(own), *flags]
        done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path, check=False)
    finally:
        hidden.rename(model)
        rows.rename(library / "tasks")
    assert (0, "[]") == (done.returncode, done.stdout.splitlines()[-1]), done.stderr
    assert_same(fresh, own)


def log_probabilities(folder: Path) -> dict[tuple[str, str, str], Any]:
    """The stored log p(y | x) of every decided cell."""
    store, found = RunStore(folder), {}
    for result in read_results(folder).results:
        if result.samples:
            values = store.read_samples(result.samples, result.cell)["log_probabilities"].to_pylist()
            found[result.template, result.verbalizer, result.calibration] = np.array(values)
    return found


WORDS = "negative=no|wrong,positive=yes|right"


def test_new_words_come_from_stored_states(run: Run, library: Path) -> None:
    """Words that no verbalizer of the family has are scored from the states of the masks, without a forward pass."""
    some = {"tasks": "views", "templates": TEMPLATES[:2], "verbalizers": OLD[0], "calibrations": ("none", "contextual")}
    kept = run("kept", store_states=True, **some)
    parts = sorted(path.name for path in kept.folder.glob("blocks/*/part-*"))
    rescored = rescore(kept.folder, verbalizers=[WORDS])
    fresh = run("with_words", **{**some, "verbalizers": (OLD[0], WORDS)})
    ours, theirs = log_probabilities(rescored.folder), log_probabilities(fresh.folder)
    assert theirs.keys() == ours.keys()
    assert len(ours) == 12
    for name, values in theirs.items():
        assert values == pytest.approx(ours[name], abs=1e-5), name
    assert [one.cell for one in fresh.results] == [one.cell for one in rescored.results]
    assert len(parts) < len(sorted(kept.folder.glob("blocks/*/part-*")))
    again = rescore(kept.folder, verbalizers=["negative=no,positive=yes"], include=[str(library)])
    assert 0 == again.timings["forwards"]


def test_new_words_without_states_are_refused(own: Path) -> None:
    """The words are named, with the way to have them; nothing of the run is changed."""
    before = text_of(own), samples_of(own)
    with pytest.raises(UsageError) as fault:
        rescore(own, verbalizers=[WORDS])
    assert str(fault.value) == (
        "the words 'no', 'wrong', 'yes', 'right' were not scored in run 'stored', which kept no states to score them "
        "from: run its command again with --amend and all verbalizers."
    )
    assert before == (text_of(own), samples_of(own))


def test_new_words_where_the_mask_touches_rows_are_refused(run: Run) -> None:
    """Which token a word is depends on rows that are not stored."""
    touching = run(
        "touching", tasks="views", templates="({{ text }}){{ mask }}.", verbalizers=OLD[0], store_states=True
    )
    with pytest.raises(UsageError, match=r"the words 'no', .* cannot be added to template inline-\w+, whose mask tou"):
        rescore(touching.folder, verbalizers=[WORDS])


def test_new_words_need_the_model_that_the_run_had(run: Run, tmp_path: Path, tiny: dict[str, Path]) -> None:
    """Other weights under the same name would give words of two models."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "model")
    kept = run(
        "other", tasks="views", templates="opinions/it_was", verbalizers=OLD[0], models=str(folder), store_states=True
    )
    build("bert", folder, seed=1)
    with pytest.raises(UsageError, match=r"model '.*' is not what it was when run 'other' was made: run its command"):
        rescore(kept.folder, verbalizers=[WORDS])


def test_a_bound_template_keeps_its_one_verbalizer(run: Run, library: Path) -> None:
    """A template that lists its options was asked with those words; the others of the task take every verbalizer."""
    bound = run("bound", tasks="views", templates=("opinions/with_options", "opinions/it_was"), verbalizers=OLD[0])
    found = rescore(
        bound.folder, verbalizers=["opinions/good_bad"], calibrations=["contextual"], include=[str(library)]
    )
    rules = [
        (one.template, one.verbalizer, one.calibration) for one in found.results if one.template != "opinions/null"
    ]
    assert rules == [
        ("opinions/with_options", "opinions/great_terrible", "none"),
        ("opinions/with_options", "opinions/great_terrible", "contextual"),
        *(("opinions/it_was", name, calibration) for name in ("opinions/great_terrible", "opinions/good_bad")
          for calibration in ("none", "contextual")),
    ]  # fmt: skip


def test_a_verbalizer_that_splits_is_skipped_where_a_glob_found_it(own: Path, library: Path) -> None:
    """As in a run; asked for by name it is refused, and nothing is changed."""
    found = rescore(own, verbalizers=["opinions/*"], include=[str(library)])
    skipped = {one.verbalizer for one in found.results if one.skipped}
    assert {"opinions/splits"} == skipped
    before = text_of(own)
    with pytest.raises(LabelWordError, match="label word 'badness' splits into"):
        rescore(own, verbalizers=["opinions/splits"], include=[str(library)])
    assert before == text_of(own)


def refused(folder: Path, **rules: Any) -> str:
    """What a rule is refused with; the run stays as it is."""
    before = text_of(folder), samples_of(folder)
    with pytest.raises(PromptlabError) as fault:
        rescore(folder, **rules)
    assert before == (text_of(folder), samples_of(folder))
    return str(fault.value)


def test_a_calibration_whose_prompts_were_not_scored_is_refused(run: Run) -> None:
    """The command that scores them is named; calibrations that ask nothing of the model are free."""
    plain = run("plain", tasks="views", templates="opinions/it_was", verbalizers=OLD[0])
    for name in ("domain", "support"):
        expected = (
            f"calibration '{name}' needs prompts that run 'plain' did not score: run its command again with --amend "
            f"--prepare {name}."
        )
        assert expected == refused(plain.folder, calibrations=[name])
    assert {"none", "batch", "contextual"} == {
        one.calibration for one in rescore(plain.folder, calibrations=["batch", "contextual"]).results
    }


def test_what_the_command_names_can_then_be_rescored(run: Run, library: Path, tmp_path: Path) -> None:
    """The same run amended by --prepare has the prompts."""
    asked = {"tasks": "views", "templates": "opinions/it_was", "verbalizers": OLD[0], "output_path": str(tmp_path)}
    spec = RunSpec(**read_results(run("amended", **asked).folder).manifest["spec"])
    execute(RunSpec(**{**dict(spec), "prepare": ("support",)}), amend=True)
    found = rescore(tmp_path / "amended", calibrations=["support"])
    assert [None] == [
        one.skipped for one in found.results if one.calibration == "support" and "null" not in one.template
    ]


def test_a_calibration_that_no_block_can_use_is_refused_where_it_is_named(run: Run) -> None:
    """The reason is that of the run."""
    plain = run("no_prompts", tasks="views", templates="opinions/in_brackets", verbalizers=OLD[0])
    expected = "calibration 'pmi_dc' needs a domain_prompt in the head of the template, and it has none."
    assert expected == refused(plain.folder, calibrations=["pmi_dc"])
    assert all(one.skipped for one in rescore(plain.folder, calibrations=["pmi*"]).results if one.calibration != "none")


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"calibrations": ["contextul"]}, "calibration 'contextul' is unknown. Did you mean 'contextual'?"),
        ({"metrics": ["acuracy"]}, "--metrics: metric 'acuracy' is unknown. Did you mean 'accuracy'?"),
        ({"metrics": ["f1(maybe)"]}, "--metrics: "),
        ({"verbalizers": ["opinions/good_bda"]}, "verbalizer 'opinions/good_bda' is unknown."),
        (
            {"verbalizers": ["good=good,bad=bad"]},
            "has the labels good, bad, which no task of the run has (follows: no, yes; views: negative, positive).",
        ),
        ({"ensembles": {"x": ["it_wsa"]}}, "--ensemble x: 'it_wsa' is no template of the run. Did you mean 'it_was'?"),
        (
            {"ensembles": {"x": ["opinions/it_was", "opinions/null"]}},
            "--ensemble x: 'opinions/null' is no template of the run.",
        ),
        ({"ensembles": "it_was|"}, "--ensemble: write a glob, or name=selector|selector, found 'it_was|'."),
    ],
)
def test_a_rule_that_cannot_be_is_explained(own: Path, library: Path, rules: dict[str, Any], sentence: str) -> None:
    """Unknown names and labels that do not fit are refused before anything is written."""
    assert sentence in refused(own, **rules, include=[str(library)])


def test_other_words_under_a_name_of_the_run_are_refused(own: Path) -> None:
    """Results under one name would be of two sets of words."""
    other = Verbalizer.from_labels({"negative": "bad", "positive": "great"}, name="opinions/great_terrible")
    assert refused(own, verbalizers=[other]) == (
        "verbalizer 'opinions/great_terrible' has other words, weights or pool than in run 'stored': give it another "
        "name."
    )


def test_a_run_of_an_older_promptlab_is_refused(own: Path) -> None:
    """What its blocks hold was not written down; its own command makes it a run that can be rescored."""
    manifest = json.loads((own / "manifest.json").read_text())
    del manifest["blocks"]
    (own / "manifest.json").write_text(json.dumps(manifest))
    sentence = refused(own, calibrations=["batch"])
    assert f"{own}: was made by an older promptlab. Run its command again, then rescore it." == sentence


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    """As everywhere."""
    with pytest.raises(StoreError, match="holds no finished run"):
        rescore(tmp_path, calibrations=["batch"])


def test_what_was_done_is_noted(own: Path) -> None:
    """The events have the command, the timings one call more, and no forward pass."""
    calls = read_results(own).timings["all_calls"]["calls"]
    found = rescore(own, calibrations=["batch"], command="promptlab rescore own --calibrations batch")
    assert (0, calls + 1) == (found.timings["forwards"], found.timings["all_calls"]["calls"])
    last = json.loads((own / "events.jsonl").read_text().splitlines()[-1])
    assert ("rescored", "promptlab rescore own --calibrations batch") == (last["event"], last["command"])
    assert "batch" in found.manifest["spec"]["calibrations"]
