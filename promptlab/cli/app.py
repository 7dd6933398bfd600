"""The typer application: its commands, and the boundary at which a fault becomes one sentence and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from promptlab._version import __version__
from promptlab.cli.convert import convert
from promptlab.cli.doctor import doctor
from promptlab.cli.ls import ls
from promptlab.cli.pretrain import pretrain
from promptlab.cli.preview import preview
from promptlab.cli.report import report
from promptlab.cli.run import run
from promptlab.errors import PromptlabError

INTERRUPTED = 130
USAGE = 2

app = typer.Typer(
    name="promptlab",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
    help="Score, compare and tune prompts for masked language models.",
    epilog="Start with: promptlab run   (three small tasks on the bundled model, with a report)",
)
for command in (run, preview, ls, report, doctor, pretrain, convert):
    app.command()(command)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Options of promptlab itself."""
    if version:
        typer.echo(f"promptlab {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a fault that the user can mend is printed as one sentence, without a traceback."""
    try:
        app(standalone_mode=False)
    except PromptlabError as error:
        _leave(f"error: {error}", error.exit_code)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except typer.Abort:
        _leave("stopped.", INTERRUPTED)
    except KeyboardInterrupt:
        _leave("interrupted: what was scored is stored. The same command continues.", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _leave(f"error: {error.format_message().rstrip('.')}. `promptlab --help` lists commands and flags.", USAGE)


def _leave(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)
