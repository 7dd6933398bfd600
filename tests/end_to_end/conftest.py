"""A user at a terminal: `call` types a command in this process, `moods` is a folder of tasks of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Call, Said, write_moods


@pytest.fixture
def moods(tmp_path: Path) -> Path:
    """The user's own folder, which a test may change."""
    return write_moods(tmp_path / "own")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Type a command, from another folder than the checkout."""
    from promptlab.cli import main

    monkeypatch.chdir(tmp_path)

    def type_in(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["promptlab", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code
        printed = capsys.readouterr()
        return Said(int(str(code or 0)), printed.out, printed.err)

    return type_in


@pytest.fixture
def run(call: Call, moods: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`promptlab run` on the user's own task and a tiny model, without the pictures of a report, which take seconds."""

    def no_report(results: object, **formats: object) -> list[Path]:
        return []

    monkeypatch.setattr("promptlab.reporting.report.write_report", no_report)

    def type_in(*arguments: object, tasks: str | None = "moods", model: object = tiny["bert"]) -> Said:
        chosen = ["--tasks", tasks] if tasks else []
        place = [
            "--include",
            moods,
            "--data",
            moods / "data",
            *([] if "--device" in arguments else ["--device", "cpu"]),
        ]
        return call("run", *(["--model", model] if model else []), *chosen, *place, *arguments)

    return type_in
