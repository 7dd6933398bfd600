"""The notebooks of the documentation: run their cells and keep what they give, and make pages of them.

Run as `python -m docs.notebook`, which needs nothing beyond promptlab: the cells of each notebook run in a process of
their own in an empty folder, and what they print and show is written into the notebook. `docs.generate` makes pages.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"
_FORMS = ("text/html", "image/png", "text/plain")  # the best one that an output has goes on the page


def main() -> None:
    """Run every notebook, or one cell after the other as the process that does."""
    if sys.argv[1:] == ["cells"]:
        sources = json.load(sys.stdin)
        kept = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            answers = list(_run_cells(sources))
        json.dump(answers, kept)
        return
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(as_text(run_notebook(notebook)), encoding="utf-8")
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name)


def run_notebook(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of a run of all of its cells, from the first to the last."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with tempfile.TemporaryDirectory() as folder:
        answers = iter(_ask(sources, Path(folder)))
    counted = iter(range(1, len(sources) + 1))
    cells = [
        {**cell, "execution_count": next(counted), "outputs": next(answers)} if cell["cell_type"] == "code" else cell
        for cell in notebook["cells"]
    ]
    for cell in cells:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "execute_result":
                output["execution_count"] = cell["execution_count"]
    return {**notebook, "cells": cells}


def as_text(notebook: Mapping[str, Any]) -> str:
    """A notebook as it is stored."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def to_markdown(notebook: Mapping[str, Any]) -> str:
    """A page of a notebook: its texts, its code, and what each cell gave."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).rstrip()
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def _shown(output: Mapping[str, Any]) -> str:
    """An output as Markdown."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = {form: "".join(value) for form, value in output["data"].items()}
    form = next(form for form in _FORMS if form in data)
    if form == "text/html":
        return f"```{{raw}} html\n{data[form].rstrip()}\n```"
    if form == "image/png":
        image = f'<img alt="what the cell above draws" src="data:image/png;base64,{data[form].strip()}">'
        return f"```{{raw}} html\n{image}\n```"
    return f"```text\n{data[form].rstrip()}\n```"


def _ask(sources: Sequence[str], folder: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, from a process of its own in that folder."""
    root = str(Path(__file__).parents[1])
    found = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [sys.executable, "-m", "docs.notebook", "cells"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found},
        input=json.dumps(list(sources)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return answers


def _run_cells(sources: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Outputs of one cell after the other; they share their names, and a fault of one ends all."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(sources, start=1):
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), names)
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names) if last else None
        text = printed.getvalue()
        outputs: list[dict[str, Any]] = []
        if text:
            outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(text)})
        if value is not None:
            data = {form: _lines(shown) for form, shown in _forms(value).items()}
            outputs.append({"output_type": "execute_result", "data": data, "metadata": {}})
        yield outputs


def _forms(value: Any) -> dict[str, str]:
    """A value in every form that it can show itself in, as a notebook asks for them."""
    if hasattr(value, "_repr_mimebundle_"):
        found = value._repr_mimebundle_(None, None)
        data, _ = found if isinstance(found, tuple) else (found, {})
        if data:
            return {form: _as_text(shown) for form, shown in data.items() if form in _FORMS}
    html = value._repr_html_() if hasattr(value, "_repr_html_") else None
    return {**({"text/html": html} if html else {}), "text/plain": repr(value)}


def _as_text(shown: Any) -> str:
    return base64.b64encode(shown).decode("ascii") if isinstance(shown, bytes) else str(shown)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    main()
