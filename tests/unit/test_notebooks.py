"""The notebooks of the documentation are sound, have been run, and use what promptlab has."""

from __future__ import annotations

import ast
import base64
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import promptlab
from docs import generate, notebook

NOTEBOOKS = sorted(notebook.FOLDER.glob("*.ipynb"))
MOST_BYTES = 300_000
ROOT_PATHS = re.compile(r"[\s\"'(=](/(?:home|root|tmp|var|usr|opt|mnt|private|work|Users)/|[A-Za-z]:\\\\)")


def load(path: Path) -> dict[str, Any]:
    """A notebook as plain values."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in load(path)["cells"] if cell["cell_type"] == "code"]


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in code_cells(path)]


def named(tree: ast.AST) -> Iterator[tuple[Any, str, set[str]]]:
    """What of promptlab a piece of code names: the owner, the name, and the keywords that it is called with."""
    called = {
        id(node.func): {word.arg for word in node.keywords if word.arg}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pl":
            yield promptlab, node.attr, called.get(id(node), set())
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "promptlab":
            yield from ((importlib.import_module(str(node.module)), alias.name, set()) for alias in node.names)


def test_there_is_a_notebook() -> None:
    """The other tests have something to look at."""
    assert ["quickstart.ipynb"] == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_one_of_format_4(path: Path) -> None:
    """Every key that the format asks for is there, ids are distinct, and the file is what the module would write."""
    stored = load(path)
    assert (4, 5) == (stored["nbformat"], stored["nbformat_minor"])
    assert {"cells", "metadata", "nbformat", "nbformat_minor"} == set(stored)
    assert "python" == stored["metadata"]["language_info"]["name"]
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in ids)
    for cell in stored["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        wanted |= {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell["cell_type"] in ("code", "markdown") and wanted == set(cell)
    assert notebook.as_text(stored) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_cell_has_been_run_in_order(path: Path) -> None:
    """Counts go from 1 up, every cell gives something, and what it gives is text, a table or a picture."""
    cells = code_cells(path)
    assert list(range(1, len(cells) + 1)) == [cell["execution_count"] for cell in cells]
    for cell in cells:
        assert cell["outputs"], "".join(cell["source"])
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "execute_result")
            if output["output_type"] == "execute_result":
                assert cell["execution_count"] == output["execution_count"]
                assert {"text/plain", "image/png"} & set(output["data"])
            if "image/png" in output.get("data", {}):
                picture = base64.b64decode("".join(output["data"]["image/png"]), validate=True)
                assert b"\x89PNG" == picture[:4]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_place_of_a_machine_and_is_small(path: Path) -> None:
    """No output holds an absolute path or a failure, and a picture does not fill the repository."""
    text = path.read_text(encoding="utf-8")
    assert None is ROOT_PATHS.search(text)
    assert "Traceback" not in text
    assert len(text.encode()) <= MOST_BYTES


def test_an_absolute_path_would_be_found() -> None:
    """The pattern of the test above knows the places of several systems."""
    assert all(ROOT_PATHS.search(text) for text in ('"/home/me/x"', " /root/x", "in /tmp/x", '"C:\\\\\\\\x"'))
    assert None is ROOT_PATHS.search("results/quickstart/report.html, p / q, 1/2, sentiment/it_was")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_name_of_promptlab_in_a_notebook_exists(path: Path) -> None:
    """What a cell takes from promptlab is public, and a keyword is one that the function knows."""
    found = [item for source in sources(path) for item in named(ast.parse(source))]
    assert found
    for owner, name, keywords in found:
        assert hasattr(owner, name), name
        assert owner is not promptlab or name in promptlab.__all__, name
        if owner is promptlab and inspect.isfunction(getattr(promptlab, name)):
            assert keywords <= known_keywords(name), name


def known_keywords(name: str) -> set[str]:
    """The arguments of a public function, with those that its `**options` or `**only` take."""
    from promptlab.comparing import AXES
    from promptlab.specs.run import RunSpec

    more = {"run": set(RunSpec.model_fields), "compare": set(AXES)}
    return set(inspect.signature(getattr(promptlab, name)).parameters) | more.get(name, set())


def test_a_page_of_a_notebook_has_its_code_and_what_it_gave(tmp_path: Path) -> None:
    """Texts stay as they are, code is fenced, and each output is shown in its best form."""
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "A line."]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["x"], "text/html": ["<b>x</b>"]}},
                {"output_type": "execute_result", "data": {"text/plain": ["y"]}},
                {"output_type": "execute_result", "data": {"image/png": ["QUJD\n"]}},
            ],
        },
    ]
    (tmp_path / "small.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert [tmp_path / "small.md"] == generate.write_notebooks(tmp_path)
    expected = [
        "# Title\nA line.",
        "```python\nprint(1)\n```",
        "```text\n1\n```",
        "```{raw} html\n<b>x</b>\n```",
        "```text\ny\n```",
        '```{raw} html\n<img alt="what the cell above draws" src="data:image/png;base64,QUJD">\n```',
    ]
    assert "\n\n".join(expected) + "\n" == (tmp_path / "small.md").read_text(encoding="utf-8")


def test_running_a_notebook_keeps_its_cells_and_fills_in_what_they_give() -> None:
    """Cells share their names; what is printed comes first, and the value of a last expression behind it."""
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["text"]},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": ["x = 2\n", "print('hi')"], "outputs": []},
        {"cell_type": "code", "id": "c", "metadata": {}, "source": ["x + 1"], "outputs": []},
    ]
    done = notebook.run_notebook({"nbformat": 4, "cells": cells})
    printed, shown = done["cells"][1], done["cells"][2]
    assert cells[0] == done["cells"][0]
    assert [{"output_type": "stream", "name": "stdout", "text": ["hi\n"]}] == printed["outputs"]
    assert (1, 2) == (printed["execution_count"], shown["execution_count"])
    result = {"output_type": "execute_result", "execution_count": 2, "metadata": {}, "data": {"text/plain": ["3"]}}
    assert [result] == shown["outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_again_and_gives_the_same_texts(path: Path) -> None:
    """A run from the first cell to the last ends without a fault, with the printed texts that are stored."""
    stored = load(path)
    again = notebook.run_notebook(stored)
    assert texts(stored) == texts(again)


def texts(stored: dict[str, Any]) -> list[str]:
    """What cells print, and values that have no better form than text."""
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", ())]
    printed = ["".join(output["text"]) for output in outputs if output["output_type"] == "stream"]
    return printed + ["".join(output["data"].get("text/plain", "")) for output in outputs if "data" in output]
