"""The typer application: its commands, and the boundary at which a fault becomes one sentence and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from promptlab._version import __version__
from promptlab.cli.compare import compare
from promptlab.cli.convert import convert
from promptlab.cli.doctor import doctor
from promptlab.cli.fit import fit
from promptlab.cli.ls import ls
from promptlab.cli.predict import predict
from promptlab.cli.pretrain import pretrain
from promptlab.cli.preview import preview
from promptlab.cli.report import report
from promptlab.cli.rescore import rescore
from promptlab.cli.run import run
from promptlab.cli.schema import schema
from promptlab.cli.show import show
from promptlab.cli.try_text import try_text
from promptlab.errors import PromptlabError, UsageError

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
    help="Score and compare prompts for masked language models.",
    epilog="Start with: promptlab run   (three small tasks on the bundled model, with a report)",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "fit": fit,
    "try": try_text,
    "preview": preview,
    "predict": predict,
    "rescore": rescore,
    "compare": compare,
    "report": report,
    "ls": ls,
    "show": show,
    "schema": schema,
    "doctor": doctor,
    "pretrain": pretrain,
    "convert": convert,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Options of promptlab itself."""
    if version:
        typer.echo(f"promptlab {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a fault that the user can mend is printed as one sentence, without a traceback."""
    try:
        _call(sys.argv[1:])
        sys.stdout.flush()
    except PromptlabError as error:
        _leave(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as stop:
        _leave(f"interrupted: {stop}" if stop.args else "interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # Who read the output has left, as in `promptlab ls templates | head`: the last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _call(arguments: list[str]) -> None:
    """Parse and run one command.

    It is invoked by hand, because the parser's own `main` turns an interrupt into an ordinary return.

    Raises:
        UsageError: what the parser refuses.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(f"{argument!r} is not UTF-8 text.")
    command = _parser()
    try:
        with command.make_context("promptlab", list(arguments)) as context:
            _refuse_contradictions(context, arguments)
            command.invoke(context)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if not arguments:
            _leave(error.format_message(), USAGE)
        raise UsageError(_sentence(error, arguments)) from None


@functools.cache
def _parser() -> Any:
    """The parser of every command; to make it takes as long as many a command itself."""
    return get_command(app)


def _refuse_contradictions(context: Any, arguments: list[str]) -> None:
    """Refuse an option that takes one value and is given two; the parser would keep the last in silence."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    verb = context.command.commands.get(name)
    if verb is None:
        return
    options = [one for one in verb.params if one.param_type_name == "option" and not (one.multiple or one.is_flag)]
    of_verb = verb.context_class(verb, info_name=name, parent=context)
    try:
        for option in options:
            option.multiple = True
        given, _, _ = verb.make_parser(of_verb).parse_args(arguments[arguments.index(name) + 1 :])
    finally:
        for option in options:
            option.multiple = False
    for option in options:
        values = list(dict.fromkeys(given.get(option.name, [])))
        if len(values) > 1:
            raise UsageError(f"{option.opts[0]} takes one value and is given {' and '.join(map(repr, values))}.")


def _sentence(fault: Any, arguments: list[str]) -> str:
    """What the parser refuses, and the command that lists what there is."""
    where = " ".join(["promptlab", *(name for name in COMMANDS if name == arguments[0])])
    message = fault.format_message().rstrip(".")
    return f"{message}{'' if message.endswith('?') else '.'} `{where} --help` lists what there is."


def _leave(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)
