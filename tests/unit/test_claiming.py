"""A run's folder belongs to what it was asked for: the difference is named, and what may change is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlab.claiming import FILE, claim, refuse_another
from promptlab.errors import UsageError
from promptlab.files import SCHEMA_VERSION, read_json, write_json
from promptlab.specs.run import RunSpec, make_run_spec
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

ASKED: dict[str, Any] = {"name": "mine", "tasks": "views", "verbalizers": [{"bad": "no", "good": ["yes", "good"]}]}
# Another value of every key of a run that decides what is found.
OTHERS: dict[str, Any] = {
    "models": ["a", "b"],
    "revision": "v1",
    "tasks": ["views", "follows"],
    "templates": ["opinions/*"],
    "verbalizers": ["opinions/good_bad"],
    "calibrations": ["none"],
    "prepare": ["domain"],
    "ensembles": ["*"],
    "metrics": ["brier"],
    "include": ["own"],
    "split": "train",
    "limit": "10",
    "max_length": 64,
    "dtype": "bfloat16",
    "scoring": "replaced_token",
    "seed": 1,
    "shots": [4, 16],
    "artefacts": ["kept"],
}
WITH_SHOTS: dict[str, Any] = {
    "methods": ["soft_prompt"],
    "seeds": 3,
    "shots_short": "all",
    "selection": "mdl",
    "folds": 2,
    "settings": {"steps": "9"},
    "fit_templates": ["opinions/it_was"],
    "fit_verbalizers": ["opinions/good_bad"],
    "no_projection": True,
}
FREE: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 2,
    "no_text": True,
    "data": "elsewhere",
    "store_states": True,
    "skip_preflight": True,
    "output_path": "there",
}
WITH_ROWS: dict[str, Any] = {
    "rows": "rows.csv",
    "train_rows": "train.csv",
    "text_column": "sentence",
    "fields": {"title": "head"},
    "label_column": "label",
    "label_values": {"0": "bad"},
    "labels": ["bad", "good"],
    "family": "sentiment",
}


def asked(**changes: Any) -> RunSpec:
    return make_run_spec({**ASKED, **changes})


def flag_of(key: str) -> str:
    """What a user types for a key."""
    named = {"models": "--model", "ensembles": "--ensemble", "fields": "--field", "settings": "--setting"}
    named |= {"artefacts": "--artefact"}
    return named.get(key, f"--{key.replace('_', '-')}")


def refused(folder: Path, spec: RunSpec) -> str:
    """The sentence of a refusal."""
    with pytest.raises(UsageError) as fault:
        refuse_another(folder, spec)
    return str(fault.value)


def test_every_key_of_a_run_is_thought_of() -> None:
    """A new key is either free or decides what is found; these tests say which."""
    assert set(RunSpec.model_fields) == {"name", "save_fits", *OTHERS, *FREE, *WITH_ROWS, *WITH_SHOTS}


def test_a_run_claims_its_folder_with_what_was_asked_for(tmp_path: Path) -> None:
    """The whole question is stored as plain values."""
    spec = asked(limit=10)
    claim(tmp_path, spec)
    assert {"schema_version": SCHEMA_VERSION, "spec": spec.model_dump(mode="json")} == read_json(tmp_path / FILE)


def test_the_same_question_is_never_refused(tmp_path: Path) -> None:
    """An empty folder, the same run again, and the same values in other types are no other run."""
    refuse_another(tmp_path, asked(limit=10))
    claim(tmp_path, asked(limit=10, templates="opinions/*"))
    refuse_another(tmp_path, asked(limit="10", templates=("opinions/*",), include=()))


@pytest.mark.parametrize("key", WITH_SHOTS)
def test_shots_are_part_of_the_question(tmp_path: Path, key: str) -> None:
    """How many draws there are, how they choose and what is fitted."""
    base = {"shots": [4, 16], "methods": ["zero_shot", "soft_prompt"]}
    claim(tmp_path, asked(**base))
    assert f"{flag_of(key)} was " in refused(tmp_path, asked(**{**base, key: WITH_SHOTS[key]}))


def test_fits_may_be_kept_of_a_run_that_is_there(tmp_path: Path) -> None:
    """To keep what was fitted changes no result."""
    base = {"shots": [4, 16], "methods": ["soft_prompt"]}
    claim(tmp_path, asked(**base))
    refuse_another(tmp_path, asked(**base, save_fits=True))


@pytest.mark.parametrize("key", OTHERS)
def test_another_question_is_refused(tmp_path: Path, key: str) -> None:
    """Each key that decides what is found is named by its flag, with what it was and what it is."""
    claim(tmp_path, asked())
    sentence = refused(tmp_path, asked(**{key: OTHERS[key]}))
    assert sentence.startswith(f"--name mine: {tmp_path} holds another run: {flag_of(key)} was ")
    assert sentence.endswith(". Give another --name, or --amend to change that run.")
    assert 1 == sentence.count(" was ")


@pytest.mark.parametrize("key", FREE)
def test_where_and_how_fast_a_run_is_made_may_change(tmp_path: Path, key: str) -> None:
    """Device, batches and folders change no result beyond the tolerance."""
    claim(tmp_path, asked())
    refuse_another(tmp_path, asked(**{key: FREE[key]}))


@pytest.mark.parametrize("key", [key for key in WITH_ROWS if key != "rows"])
def test_rows_of_ones_own_are_part_of_the_question(tmp_path: Path, key: str) -> None:
    """Another file, column or label is another run."""
    base = {"name": "mine", "rows": "rows.csv", "label_column": "gold"}
    claim(tmp_path, make_run_spec(base))
    assert f"{flag_of(key)} was " in refused(tmp_path, make_run_spec({**base, key: WITH_ROWS[key]}))
    assert "--rows was rows.csv and is more.csv" in refused(tmp_path, make_run_spec({**base, "rows": "more.csv"}))


def test_every_difference_is_named(tmp_path: Path) -> None:
    """The sentence lists them all, what was left out as such, lists with commas, and long values cut."""
    claim(tmp_path, asked(limit=10, templates=["a/b", "c/d"]))
    text = "{{ text }} " + "and so on " * 9 + "{{ mask }}."
    sentence = refused(tmp_path, asked(seed=3, templates=[text]))
    assert sentence == (
        f"--name mine: {tmp_path} holds another run: --templates was a/b, c/d and is {text[:59]}…; "
        "--limit was 10 and is not given; --seed was 0 and is 3. "
        "Give another --name, or --amend to change that run."
    )


def test_a_run_without_a_name_is_never_refused(tmp_path: Path) -> None:
    """Its name is made of its plan, so its folder can hold no other."""
    claim(tmp_path, asked())
    refuse_another(tmp_path, asked(name=None, seed=3))


def test_values_that_were_loaded_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    """Templates and verbalizers as objects are stored whole."""
    template, words = Template.from_text("{{ text }} {{ mask }}", name="mine"), {"bad": "no", "good": "yes"}
    claim(tmp_path, asked(templates=template, verbalizers=Verbalizer.from_labels(words, name="w")))
    refuse_another(tmp_path, asked(templates=template, verbalizers=Verbalizer.from_labels(words, name="w")))
    other = Verbalizer.from_labels({"bad": "no", "good": "fine"}, name="w")
    assert "--verbalizers was " in refused(tmp_path, asked(templates=template, verbalizers=other))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"spec": []}', '{"spec": {}}', '{"spec": {"unknown": 1}}'])
def test_a_folder_that_does_not_say_what_it_holds_is_not_guarded(tmp_path: Path, content: str) -> None:
    """A file that is broken, or of an older promptlab that did not know a key, keeps nobody from running."""
    (tmp_path / FILE).write_text(content, encoding="utf-8")
    refuse_another(tmp_path, asked(seed=3))
    claim(tmp_path, asked(seed=3))
    assert "--seed was 3 and is 0" in refused(tmp_path, asked())


def test_a_key_that_an_older_promptlab_did_not_know_is_no_difference(tmp_path: Path) -> None:
    """Runs made before a flag existed can be continued."""
    claim(tmp_path, asked())
    stored = read_json(tmp_path / FILE)
    write_json(tmp_path / FILE, {"spec": {key: value for key, value in stored["spec"].items() if key != "metrics"}})
    refuse_another(tmp_path, asked(metrics=["brier"]))
