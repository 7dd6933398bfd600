"""Registries: names to things, loaded when asked for, open to other packages."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from promptlab import registry
from promptlab.errors import UsageError
from promptlab.registry import BACKENDS, CALIBRATIONS, METHODS, METRICS, Registry


def test_things_are_registered_by_decorator_and_by_value() -> None:
    """A decorated function and a given value are found by their names."""
    things: Registry[object] = Registry("thing")

    @things.register("made")
    def made() -> None:
        """Nothing."""

    things.register("given", "a value without colon is a module, so give objects")
    things.register("number", 7)
    assert made is things.get("made")
    assert things.get("number") == 7
    assert things.names() == ["given", "made", "number"]


def test_a_target_is_imported_when_asked_for() -> None:
    """A text "module:object" is the object, and costs nothing before it is used."""
    things: Registry[object] = Registry("thing")
    things.register("hash", "promptlab.hashing:text_hash")
    things.register("missing", "promptlab.no_such_module:thing")
    from promptlab.hashing import text_hash

    assert text_hash is things.get("hash")


def test_a_name_is_taken_once() -> None:
    """A second thing of the same name is a programming error."""
    things: Registry[object] = Registry("thing")
    things.register("a", 1)
    with pytest.raises(ValueError, match="thing 'a' is registered already"):
        things.register("a", 2)


def test_an_unknown_name_is_explained() -> None:
    """The message names the nearest thing and all of them."""
    with pytest.raises(UsageError) as fault:
        CALIBRATIONS.get("contextuel")
    known = "batch, contextual, domain, none, pmi_dc, support"
    assert str(fault.value) == (f"calibration 'contextuel' is unknown. Did you mean 'contextual'? Known: {known}.")


def test_own_things_are_found_without_an_import() -> None:
    """Asking for names imports the module that registers them."""
    code = (
        "from promptlab.registry import BACKENDS, CALIBRATIONS, METHODS, METRICS\n"
        "print(*(','.join(of.names()) for of in (BACKENDS, CALIBRATIONS, METRICS, METHODS)))\n"
        "import sys; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, heavy = said.splitlines()
    backends, calibrations, metrics, methods = (set(of.split(",")) for of in names.split(" "))
    assert {"mlm"} <= backends
    assert {"batch", "contextual", "domain", "none", "pmi_dc", "support"} <= calibrations
    assert {"accuracy", "macro_f1", "nll", "brier", "ece", "matthews"} <= metrics
    assert {"soft_prompt", "prefix", "lora", "prompt_fine_tune", "linear_probe"} <= methods
    assert "False" == heavy


def test_every_registered_thing_can_be_had() -> None:
    """Each name of each registry gives its thing, backends too."""
    for registered in (BACKENDS, CALIBRATIONS, METHODS, METRICS):
        assert all(registered.get(name) is not None for name in registered.names())


def test_other_packages_add_names_but_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point adds a thing; one with a known name does not replace ours."""
    points = [
        EntryPoint("theirs", "promptlab.hashing:text_hash", "promptlab.things"),
        EntryPoint("ours", "promptlab.hashing:text_hash", "promptlab.things"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "promptlab.things" else [])
    things: Registry[object] = Registry("thing")
    things.register("ours", 1)
    assert things.names() == ["ours", "theirs"]
    assert things.get("ours") == 1
