"""How `promptlab` starts: fast, without heavy libraries, with help that fits a terminal, silent on a closed pipe."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Call

COMMANDS = (
    "run", "fit", "try", "preview", "predict", "rescore", "compare", "report", "ls", "show", "schema", "doctor",
    "pretrain", "convert",
)  # fmt: skip
HEAVY = ("torch", "transformers")


def test_help_answers_within_three_tenths_of_a_second() -> None:
    """The best of a few starts counts, because the machine may be busy with something else."""
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "promptlab", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
        if min(seconds) < 0.3:
            break
    assert min(seconds) < 0.3


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["ls"],
        ["ls", "templates"],
        ["ls", "tasks", "--output", "json"],
        ["ls", "verbalizers", "--task", "sst2"],
        ["show", "sst2"],
        ["show", "mini"],
        ["schema", "run"],
    ],
)
def test_what_needs_no_model_loads_neither_torch_nor_transformers(arguments: list[str]) -> None:
    """`import promptlab`, help and listings work without the heavy libraries."""
    code = (
        "import sys, promptlab, promptlab.cli\n"
        f"sys.argv = ['promptlab', *{arguments!r}]\n"
        "try:\n    promptlab.cli.main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_report_is_written_again_without_torch(run: Call, tmp_path: Path) -> None:
    """`promptlab report RUN` finds the run by its name under results/, writes three files and needs no model."""
    assert run("--templates", "mood/it_was", "--name", "done").code == 0
    code = (
        "import sys, promptlab.cli\n"
        "sys.argv = ['promptlab', 'report', 'done']\n"
        "promptlab.cli.main()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    paths = [f"results/done/{name}" for name in ("report.html", "report.md", "results.csv")]
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.stdout.splitlines()[-3:] == paths
    assert all((tmp_path / path).is_file() for path in paths)
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ["rescore", "done", "--calibrations", "batch", "--verbalizers", "mood/*", "--metrics", "brier"],
        ["rescore", "done", "--ensemble", "*"],
        ["compare", "done", "done", "--calibration", "none", "--calibration", "contextual"],
    ],
)
def test_a_stored_run_is_decided_and_compared_without_torch(run: Call, moods: Path, arguments: list[str]) -> None:
    """What is read off a stored run needs no heavy library, whatever is decided anew."""
    assert run("--templates", "mood/*", "--verbalizers", "mood/*", "--name", "done").code == 0
    own = ["--include", str(moods)] if "--verbalizers" in arguments else []
    code = (
        "import sys, promptlab.cli, promptlab.reporting.report\n"
        "promptlab.reporting.report.write_report = lambda results, **options: []\n"
        f"sys.argv = ['promptlab', *{[*arguments, *own]!r}]\n"
        "try:\n    promptlab.cli.main()\nexcept SystemExit as leave: assert not leave.code, leave.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_every_command_is_tried_here() -> None:
    """A command that is new has its help read below."""
    from promptlab.cli.app import COMMANDS as known

    assert tuple(known) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_eighty_columns(call: Call, command: str) -> None:
    """Every help text can be read on a terminal of 80 columns."""
    said = call(*command.split(), "--help")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80


def test_the_bare_name_shows_the_help_and_is_a_usage_fault(call: Call) -> None:
    """Nothing was asked for: the commands are listed, the exit code is 2."""
    said = call()
    assert said.code == 2
    assert all(f"  {command}" in said.err for command in COMMANDS)


def test_the_version_is_that_of_the_package(call: Call) -> None:
    """`--version` prints it and leaves."""
    import promptlab

    assert call("--version") == (0, f"promptlab {promptlab.__version__}\n", "")


def test_a_reader_who_leaves_early_is_no_fault() -> None:
    """`promptlab ls templates | head -1` prints one line and no complaint."""
    command = f"{sys.executable} -m promptlab ls templates --output json | head -1"
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.parametrize(
    "kind", ["", "tasks", "templates", "verbalizers", "models", "metrics", "calibrations", "methods"]
)
def test_listings_fit_eighty_columns(call: Call, kind: str) -> None:
    """A listing is a table with a header and no line over 80 characters."""
    said = call("ls", *kind.split())
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    assert len(said.out.splitlines()) > 1


def test_a_listing_of_one_family_counts_that_family_alone(call: Call) -> None:
    """`ls --family` counts, `ls KIND --family` lists; the names start with the family."""
    counts = call("ls", "--family", "nli").out.split()
    names = [line.split()[0] for line in call("ls", "templates", "--family", "nli").out.splitlines()[1:]]
    assert all(name.startswith("nli/") for name in names)
    assert str(len(names)) == counts[counts.index("templates") + 1]


def test_doctor_says_what_runs_and_fits_eighty_columns(call: Call, tiny: dict[str, Path]) -> None:
    """Versions, devices and the model's facts; only a path may be longer than a line."""
    said = call("doctor", "--model", tiny["roberta"])
    assert said.code == 0
    assert [line for line in said.out.splitlines() if len(line) > 80 and "/" not in line] == []
    for fact in ("torch", "model attention", "model max length", "RobertaForMaskedLM", "float32"):
        assert fact in said.out


def test_doctor_prints_the_machine_and_then_the_fault_of_the_model(call: Call) -> None:
    """A model that is not there keeps its own sentence and exit code; the versions are printed all the same."""
    said = call("doctor", "--model", "/nowhere/at-all")
    assert said.code == 2
    assert "torch" in said.out
    assert said.err == (
        "error: model '/nowhere/at-all': there is no such folder. `promptlab ls models` lists what is at hand.\n"
    )
