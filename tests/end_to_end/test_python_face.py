"""`import promptlab as pl`: the verbs of the command line in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import promptlab as pl
from tests.stored import decisions

PUBLIC = [
    "Backend",
    "FittedMethod",
    "Method",
    "PromptlabError",
    "Result",
    "Run",
    "Task",
    "Template",
    "Verbalizer",
    "__version__",
    "compare",
    "fit",
    "load",
    "load_run",
    "predict",
    "register",
    "rescore",
    "run",
]


@pytest.fixture
def asked(moods: Path, tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a small run, with paths as Python has them."""
    monkeypatch.chdir(tmp_path)
    return {
        "tasks": "moods",
        "templates": ["mood/it_*", "{{ text }} All in all, it was {{ mask }}."],
        "verbalizers": [{"bad": "terrible", "good": ["great", "good"]}],
        "calibrations": ["none", "contextual"],
        "models": tiny["bert"],
        "include": moods,
        "data": moods / "data",
        "output_path": tmp_path / "runs",
        "device": "cpu",
    }


def test_the_public_names_are_pinned_sorted_and_there() -> None:
    """A name more or less is a decision, and each can be reached."""
    assert PUBLIC == pl.__all__ == sorted(pl.__all__) == dir(pl)
    assert all(getattr(pl, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="module 'promptlab' has no attribute 'tune'"):
        pl.tune  # noqa: B018 - the access itself is what is tested


def test_a_run_is_a_table_a_report_and_a_folder(asked: dict[str, Any], tmp_path: Path) -> None:
    """Inline templates and mappings work; the run can be looked at, written out and loaded again."""
    run = pl.run(**asked)
    frame = run.to_pandas()
    assert len(run) == len(frame) == len(list(run)) == 4
    assert set(frame["calibration"]) == {"none", "contextual"}
    assert {"mood/it_was"} < set(frame["template"])
    assert set(frame["num_rows"]) == {12}
    assert frame["accuracy"].between(0, 1).all()
    assert isinstance(run.results[0], pl.Result)
    assert run.path == tmp_path / "runs" / run.name
    assert repr(run).startswith(f"Run {run.name!r}, 4 cells, in {run.path}\n")
    assert "contextual" in repr(run)
    assert run._repr_html_().count("<tr") == (1 + 2) + (1 + 4)  # a headline a calibration, and every cell
    assert run.failures == {}
    loaded = pl.load_run(run.path)
    assert loaded.results == run.results
    assert loaded.to_pandas().equals(frame)


def test_a_report_goes_where_it_is_asked_to(asked: dict[str, Any], tmp_path: Path) -> None:
    """One form by its ending; another ending is refused; without a path it lies in the run's folder."""
    run = pl.run(**asked)
    assert run.report(tmp_path / "table.csv").read_text(encoding="utf-8").startswith("run,cell,")
    assert run.report(str(tmp_path / "report.md")).read_text(encoding="utf-8").startswith("#")
    with pytest.raises(pl.PromptlabError, match=r"\.html, \.md, \.csv, found '\.pdf'"):
        run.report("report.pdf")
    page = run.report()
    assert page == run.path / "report.html"
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_python_and_the_command_line_make_the_same_run(asked: dict[str, Any], run: Any) -> None:
    """The same plan has the same name and the same cells, whoever asked for it."""
    flags = ["--templates", asked["templates"][0], "--templates", asked["templates"][1]]
    said = run(*flags, "--verbalizers", "bad=terrible,good=great|good", "-o", asked["output_path"])
    made = pl.run(**asked)
    assert f"runs/{made.name}/results.json" in said.out
    assert made.stored.timings["forwards"] == 0


def test_loaded_values_are_selectors_too(asked: dict[str, Any], moods: Path) -> None:
    """`Task`, `Template` and `Verbalizer` objects stand where names do."""
    made = pl.run(
        **asked
        | {
            "tasks": pl.Task.load("moods", include=[str(moods)]),
            "templates": pl.Template.from_text("{{ text }} It was {{ mask }}.", name="mine"),
            "verbalizers": pl.Verbalizer.from_labels({"bad": "no", "good": "yes"}, name="words"),
            "calibrations": "none",
        }
    )
    assert {(cell.template, cell.verbalizer) for cell in made} == {("mine", "words")}


def test_a_task_without_rows_is_a_warning_and_stands_in_the_run(asked: dict[str, Any], moods: Path) -> None:
    """Python callers get the others, a warning, and the reason in `failures` and in the text of the run."""
    text = (moods / "tasks/moods.yaml").read_text(encoding="utf-8").replace("local: moods", "local: absent")
    (moods / "tasks/absent.yaml").write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match="not scored: task 'absent': no rows found"):
        made = pl.run(**asked | {"tasks": ["moods", "absent"]})
    assert list(made.failures) == ["absent"]
    assert {cell.task for cell in made} == {"moods"}
    assert "not scored: task 'absent'" in repr(made)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"template": "x"}, "argument 'template' is unknown. Did you mean 'templates'?"),
        ({"limit": 0}, "--limit: write a whole number from 1"),
        ({"tasks": 5}, "--tasks: each must be a name, a glob, a path or a text, found 5."),
        ({"data": 5}, "--data: must be a text, found 5."),
        ({"no_text": "yes"}, "--no-text: "),
        ({"verbalizers": {"bad": "no"}}, "labels: needs at least 2, found 1."),
        ({"config": "absent.yaml"}, "--config absent.yaml: there is no such file."),
    ],
)
def test_a_wrong_argument_is_a_sentence(asked: dict[str, Any], wrong: dict[str, Any], sentence: str) -> None:
    """One kind of error to catch, with the sentence of the command line."""
    with pytest.raises(pl.PromptlabError) as fault:
        pl.run(**asked | wrong)
    assert sentence in str(fault.value)


def test_a_config_file_can_stand_under_the_arguments(asked: dict[str, Any]) -> None:
    """Arguments go on top of run.yaml."""
    Path("run.yaml").write_text("split: train\nlimit: 2\n", encoding="utf-8")
    made = pl.run(**asked, config=Path("run.yaml"), limit=4)
    assert {(cell.split, cell.num_rows) for cell in made} == {("train", 4)}


def test_a_named_run_is_changed_by_amend_alone(asked: dict[str, Any]) -> None:
    """Another plan under the name is the sentence of the command line; amended, the run is the new one."""
    first = pl.run(**asked, name="mine")
    with pytest.raises(pl.PromptlabError, match=r"--name mine: .* holds another run: --limit was not given and is 4\."):
        pl.run(**asked, name="mine", limit=4)
    assert pl.load_run(first.path).results == first.results
    amended = pl.run(**asked, name="mine", limit=4, amend=True)
    assert (amended.path, {cell.num_rows for cell in amended}) == (first.path, {4})


def test_states_that_were_kept_score_new_words(asked: dict[str, Any]) -> None:
    """`store_states=True` keeps what a verbalizer of later needs; its numbers are those of a run that had it."""
    words = {"bad": "no", "good": "yes"}
    run = pl.run(**asked, name="kept", store_states=True)
    later = pl.rescore(run, verbalizers=words)
    straight = pl.run(**asked | {"verbalizers": [*asked["verbalizers"], words]}, name="straight")
    assert later.stored.timings["forwards"] == 0
    found, expected = decisions(later.stored), decisions(straight.stored)
    assert set(found) == set(expected)
    for cell, columns in expected.items():
        assert found[cell]["log_probabilities"] == [
            pytest.approx(one, abs=1e-5) for one in columns["log_probabilities"]
        ]


def test_loading_what_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    """`load_run` says what it looked for."""
    with pytest.raises(pl.PromptlabError, match="holds no finished run"):
        pl.load_run(tmp_path)


def test_a_registered_metric_is_measured(asked: dict[str, Any], moods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decorated function adds a metric, which a task may name."""
    from promptlab.metrics import Measured, Outcome
    from promptlab.registry import METRICS
    from promptlab.statistics import Interval

    METRICS.names()
    monkeypatch.setattr(METRICS, "_targets", dict(METRICS._targets))

    @pl.register("metric", "share_of_good")
    def share_of_good(outcome: Outcome, seed: int) -> Measured:
        """Share of rows predicted good."""
        value = float((outcome.predicted == 1).mean())
        return Measured(value, Interval(value, value, "none", 0.95), True)

    path = moods / "tasks/moods.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "metrics: [share_of_good]\n", encoding="utf-8")
    cell = pl.run(**asked).results[0]
    assert cell.metrics["share_of_good"].value == cell.predicted["good"] / cell.num_rows


def test_an_unknown_kind_cannot_be_registered() -> None:
    """The kinds are listed, the nearest is named."""
    with pytest.raises(pl.PromptlabError, match=r"no kind 'metrics'. Did you mean 'metric'\? Known: backend, calibr"):
        pl.register("metrics", "mine")
