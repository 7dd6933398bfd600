"""No file of a run and no line of its output holds the text of a row, with `--no-text` and without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Call

MARK = "zebracorn"


def all_text(folder: Path) -> dict[str, str]:
    """Every file of a run as text; tables with their values and their metadata."""
    from pyarrow import parquet

    texts = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
            texts[name] = f"{table.to_pylist()} {table.schema.metadata}"
        else:
            texts[name] = path.read_text(encoding="utf-8")
    return texts


@pytest.mark.parametrize("flags", [[], ["--no-text"]])
def test_no_file_and_no_line_of_a_run_holds_text_of_a_row(
    call: Call, moods: Path, tiny: dict[str, Path], flags: list[str]
) -> None:
    """Not even where the slot touches the row, and label words are refused because of it."""
    rows = "".join(f'{{"sentence": "so {MARK}{number}", "label": {number % 2}}}\n' for number in range(6))
    (moods / "data/moods/test.jsonl").write_text(rows, encoding="utf-8")
    (moods / "templates/mood/touching.jinja").write_text("{{ text }}{{ mask }}.\n", encoding="utf-8")
    place = ["--include", moods, "--data", moods / "data", "--model", tiny["roberta"], "--name", "marked"]
    said = call("run", "--tasks", "moods", "--verbalizers", "mood/*", *place, *flags)
    assert said.code == 0, said.err
    texts = all_text(Path("results/marked"))
    assert {"results.json", "manifest.json", "report.html", "report.md", "results.csv"} <= set(texts)
    assert any("…___" in text for text in texts.values())
    assert [name for name, text in texts.items() if MARK in text] == []
    assert MARK not in said.out + said.err
    assert json.loads(texts["manifest.json"])["spec"]["no_text"] is bool(flags)


def test_the_search_finds_what_it_looks_for(run: Call) -> None:
    """The name of a template stands in results, tables and manifest: the search reads them all."""
    run("--templates", "mood/it_was", "--name", "sought", "--verbalizers", "mood/yes_no")
    texts = all_text(Path("results/sought"))
    assert {"results.json", "manifest.json"} <= {name for name, text in texts.items() if "mood/it_was" in text}
    assert any(
        name.startswith("blocks/") and name.endswith(".parquet") and "yes" in text for name, text in texts.items()
    )
