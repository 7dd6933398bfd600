"""`promptlab pretrain`: raw text files in, a masked language model folder out."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    config: Annotated[
        Path, typer.Option("--config", help="Recipe: vocabulary, shape, stages (promptlab/pretraining/mini.yaml).")
    ],
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of the run in DIR.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Processor threads; 0 leaves it to torch.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Everything random derives from it.")] = 0,
) -> None:
    """Pretrain a small masked language model on raw text.

    Stop it whenever you like: `--resume` goes on from the last checkpoint as if nothing had happened.
    """
    import torch

    from promptlab.errors import UsageError
    from promptlab.pretraining.corpus import parse_corpora
    from promptlab.pretraining.job import Job
    from promptlab.pretraining.recipe import load_recipe
    from promptlab.pretraining.training import pretrain as run

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: unknown; allowed are auto, cpu, cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu.")
    if threads:
        torch.set_num_threads(threads)
    recipe = load_recipe(config)
    corpora = parse_corpora(corpus, line_names=recipe.line_corpora)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    job = Job(recipe, corpora, output_path, seed, chosen)
    run(job, resume=resume, report=lambda line: typer.echo(line))
