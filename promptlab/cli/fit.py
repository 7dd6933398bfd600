"""`promptlab fit`: fit one method to one draw of labelled rows and keep what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from promptlab.cli.console import check_form, print_json, print_lines, relative, split_pairs
from promptlab.cli.options import Include, Revision


def fit(
    task: Annotated[str, typer.Option(metavar="NAME", help="The task, with labelled train rows.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="soft_prompt, lora, prompt_fine_tune ...")],
    shots: Annotated[str, typer.Option(metavar="N", help="Labelled train rows a label.")],
    output_path: Annotated[str, typer.Option("--output-path", "-o", metavar="DIR", help="The artefact's folder.")],
    draw: Annotated[int, typer.Option(metavar="N", min=0, help="The draw of the rows, from 0.")] = 0,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its text or name; default: the first instructive one.")
    ] = None,
    verbalizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or label=word|word,label=word; default: the first one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A folder or a hub name; default: the bundled mini.")
    ] = None,
    revision: Revision = None,
    shots_short: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Where a label has fewer rows: refuse (default), or all it has.")
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="cross_validation (default), mdl or default: how the shots choose."),
    ] = None,
    folds: Annotated[str | None, typer.Option(metavar="N", help="Parts of the shots; default: 4.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="Hyper-parameters, such as steps=50 or rank=4|8; repeatable."),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that local rows lie in.")] = None,
    include: Include = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split whose rows are kept out of the shots; default: test.")
    ] = None,
    max_length: Annotated[
        str | None, typer.Option(metavar="N", help="Most tokens of a prompt; default: up to 512.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 (default), bfloat16 or float16.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="The one seed; default: 0.")] = None,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Fit inside a model without checking it first.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder only.")] = False,
    output: Annotated[str, typer.Option(metavar="FORM", help="text or json, on standard output.")] = "text",
) -> None:
    """Fit a method to labelled rows and keep it."""
    check_form(output)
    options = {
        "shots_short": shots_short,
        "selection": selection,
        "folds": folds,
        "settings": split_pairs(setting),
        "data": data,
        "include": include or None,
        "split": split,
        "max_length": max_length,
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "seed": seed,
        "skip_preflight": skip_preflight or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    asked = {"task": task, "method": method, "shots": shots, "draw": draw}
    asked |= {"template": template, "verbalizer": verbalizer, "model": model, "options": given}
    _fit(asked, Path(output_path).expanduser(), quiet=quiet, output=output)


def _fit(asked: Mapping[str, Any], folder: Path, *, quiet: bool, output: str) -> None:
    from promptlab.artefact_folders import read_artefact, save_artefact
    from promptlab.progress import ConsoleProgress
    from promptlab.tuning import is_there, plan_tuning, tune

    planned = plan_tuning(**asked)
    progress = ConsoleProgress(quiet=quiet)
    if is_there(planned, folder):
        progress.say(f"{relative(folder)} has this fit already: nothing is fitted.")
        _print(read_artefact(folder), None, folder, quiet=quiet, output=output)
        return
    loaded, seconds = tune(planned, progress=progress)
    save_artefact(loaded.artefact, folder, loaded.backend)
    _print(loaded.artefact, seconds, folder, quiet=quiet, output=output)


def _print(artefact: Any, seconds: Any, folder: Path, *, quiet: bool, output: str) -> None:
    """What was chosen, what it took and where it lies."""
    from promptlab.tuning import describe_choice

    chosen = describe_choice(artefact)
    if output == "json":
        took = {} if seconds is None else {"search_s": seconds.search, "fit_s": seconds.fit}
        print_json({"artefact": str(folder), "hash": artefact.hash, **chosen, **took})
    elif quiet:
        print_lines([relative(folder)])
    else:
        print_lines([*_lines(artefact, chosen), *_seconds(seconds), f"artefact    {relative(folder)}"])


def _lines(artefact: Any, chosen: Mapping[str, Any]) -> list[str]:
    words = artefact.words.name if artefact.words is not None else "none, it looks at no words"
    searched = "not searched"
    if chosen["held_out_accuracy"] is not None:
        accuracy = f"accuracy {chosen['held_out_accuracy']:.3f} on held-out shots"
        searched = f"of {chosen['num_settings']} by {chosen['rule']}, {accuracy}"
    losses = ""
    if chosen["first_loss"] is not None:
        losses = f", loss {chosen['first_loss']:.3f} to {chosen['last_loss']:.3f}"
    return [
        artefact.title,
        f"template    {artefact.template.name}",
        f"words       {words}",
        f"setting     {chosen['setting']}",
        f"            {searched}",
        f"parameters  {chosen['parameters']:,}",
        f"steps       {chosen['steps']:,}{losses}",
    ]


def _seconds(seconds: Any) -> list[str]:
    if seconds is None:
        return []
    return [f"seconds     {seconds.search:.1f} to choose the setting, {seconds.fit:.1f} for the fit"]
