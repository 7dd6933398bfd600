"""`promptlab pretrain`: raw text files in, a masked language model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptlab.errors import UsageError

if TYPE_CHECKING:
    from promptlab.pretraining.corpus import Corpus
    from promptlab.pretraining.processes import Processes


def _on(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, show_default=False, **more)


def pretrain(
    corpus: Annotated[
        list[str],
        typer.Option(
            "--corpus",
            metavar="SOURCE[#COLUMN][=WEIGHT]",
            help="A .txt, .jsonl, .json, .csv or .tsv file, packed as .xz, .gz, .bz2 or .zst or not, a .parquet file, "
            "a folder of them, or hub:NAME[@REVISION][:[CONFIG/]SPLIT]; repeatable; a weight of 0.25 reads a quarter "
            "of it in each pass.",
        ),
    ],
    output_path: Annotated[
        Path, typer.Option("--output-path", "-o", help="Folder of the model; DIR/training keeps the state of the run.")
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="From scratch, by a recipe: vocabulary, shape, stages."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Go on from a masked language model: a bundled name, a folder or a hub name."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of the run in DIR.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Processor threads; 0 leaves it to torch.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Everything random derives from it.")] = 0,
    revision: Annotated[str | None, _on("Branch, tag or commit of a hub name.")] = None,
    general: Annotated[
        list[str] | None,
        _on("Text that is measured and never trained on, to see what is forgotten; repeatable.", metavar="FILE"),
    ] = None,
    line_corpus: Annotated[
        list[str] | None,
        _on("Name of a corpus with one document a line, not between blank lines; repeatable.", metavar="NAME"),
    ] = None,
    masking_rate: Annotated[float | None, _on("Share of the tokens that is hidden; default 0.15.")] = None,
    random_share: Annotated[float | None, _on("Share of the hidden that shows another token; default 0.1.")] = None,
    keep_share: Annotated[float | None, _on("Share of the hidden that shows itself; default 0.1.")] = None,
    whole_word: Annotated[bool, typer.Option("--whole-word", help="Hide all tokens of a word.")] = False,
    row_length: Annotated[int | None, _on("Tokens of a row; default 256.")] = None,
    batch_rows: Annotated[int | None, _on("Rows of a batch; default 32.")] = None,
    batch_tokens: Annotated[int | None, _on("The same as tokens.")] = None,
    accumulate: Annotated[int | None, _on("Batches that move the weights once; default 1.")] = None,
    learning_rate: Annotated[float | None, _on("Peak rate; default 5e-5.")] = None,
    warm_up: Annotated[float | None, _on("Share of the steps in which the rate rises; default 0.06.")] = None,
    schedule: Annotated[str | None, _on("linear, cosine or constant; default linear.")] = None,
    weight_decay: Annotated[float | None, _on("Of matrices; default 0.01.")] = None,
    clip_norm: Annotated[float | None, _on("Longest gradient; default 1.")] = None,
    precision: Annotated[str | None, _on("float32 or bfloat16, of products; default float32.")] = None,
    steps: Annotated[int | None, _on("How long: so many steps.")] = None,
    tokens: Annotated[int | None, _on("How long: so many tokens.")] = None,
    passes: Annotated[float | None, _on("How long: so many passes over the corpora; default 1.")] = None,
    held_out_one_in: Annotated[int | None, _on("One document in so many is held out; default 20.")] = None,
    measure_every: Annotated[int | None, _on("Steps between held-out losses; default a tenth of the run.")] = None,
    patience: Annotated[
        int | None, _on("Stop after so many measurements without a better one, and keep the best weights.")
    ] = None,
    checkpoint_minutes: Annotated[float | None, _on("Minutes between checkpoints; default 5.")] = None,
    store_dtype: Annotated[str | None, _on("float32, or original for the dtype of the checkpoint's file.")] = None,
) -> None:
    """Pretrain a small masked language model on raw text, or go on with one that is pretrained.

    Stop it whenever you like: `--resume` goes on from the last checkpoint as if nothing had happened. With --model,
    `accelerate launch --num_processes N -m promptlab pretrain ...` shares each step among N GPUs.
    """
    given = locals()
    if (config is None) == (model is None):
        found = "neither is" if config is None else "both are"
        raise UsageError(
            f"pretrain takes --config RECIPE, to train from scratch, or --model CHECKPOINT, to go on from one: {found} "
            "given."
        )
    common = ("corpus", "output_path", "config", "resume", "threads", "device", "seed")
    options = {key: value for key, value in given.items() if key not in common and value is not None}
    options = {key: value for key, value in options.items() if value is not False}
    chosen = _prepare(device, threads)

    from promptlab.pretraining.processes import join_processes

    with join_processes(chosen) as processes:
        if config is not None:
            _refuse_several(processes)
            _from_scratch(config, corpus, output_path, seed, chosen, resume=resume, options=options)
        else:
            _go_on(corpus, output_path, seed, processes, resume=resume, options=options)


def _prepare(device: str, threads: int) -> str:
    """Set the threads, and give the device in torch's words."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: unknown; allowed are auto, cpu, cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu.")
    if threads:
        torch.set_num_threads(threads)
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _refuse_several(processes: Processes) -> None:
    """From scratch, one process trains."""
    if processes.number > 1:
        fault = f"--config trains in one process, and {processes.number} were started: start it without the launcher."
        processes.leave(UsageError(fault))


def _from_scratch(
    config: Path, corpus: list[str], output_path: Path, seed: int, device: str, *, resume: bool, options: dict[str, Any]
) -> None:
    from promptlab.pretraining.job import Job
    from promptlab.pretraining.recipe import load_recipe
    from promptlab.pretraining.training import pretrain as run
    from promptlab.specs.run import flag

    if options:
        raise UsageError(f"{flag(next(iter(options)))} belongs to --model: with --config, the recipe says it.")
    recipe = load_recipe(config)
    job = Job(recipe, _corpora(corpus, recipe.line_corpora), output_path, seed, device)
    run(job, resume=resume, report=lambda line: typer.echo(line))


def _go_on(
    corpus: list[str],
    output_path: Path,
    seed: int,
    processes: Processes,
    *,
    resume: bool,
    options: dict[str, Any],
) -> None:
    from promptlab.pretraining.continuing import continue_pretraining
    from promptlab.pretraining.job import Job
    from promptlab.pretraining.options import Continuation, parse_options

    def read() -> tuple[Job[Continuation], tuple[Corpus, ...]]:
        line_names = tuple(options.get("line_corpus", ()))
        asked = {key: value for key, value in options.items() if key not in ("line_corpus", "general")}
        try:
            general = _corpora(options.get("general", []), line_names)
        except UsageError as error:
            raise UsageError(str(error).replace("--corpus", "--general")) from None
        corpora = _corpora(corpus, line_names)
        return Job(parse_options(asked), corpora, output_path, seed, processes.device), general

    job, general = processes.in_turn(read)
    continue_pretraining(job, general=general, resume=resume, report=typer.echo, processes=processes)


def _corpora(arguments: list[str], line_names: tuple[str, ...]) -> tuple[Corpus, ...]:
    from promptlab.pretraining.corpus import parse_corpora

    return parse_corpora(arguments, line_names=line_names)
