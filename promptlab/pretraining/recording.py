"""A run that goes on from a checkpoint -> what it leaves: model folder, log, record and card.

The rule guarded here: the folder is an ordinary one of transformers whose tokenizer files are those of the base, byte
for byte; each file is written beside and renamed, and the log holds each step once, however often the run was resumed.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from promptlab._version import __version__
from promptlab.adaptations import DOMAIN, GENERAL, RECORD
from promptlab.backends.base import Scorer
from promptlab.backends.checkpoints import TOKENIZER_FILES, Checkpoint, find_checkpoint
from promptlab.files import write_bytes, write_json
from promptlab.pretraining.corpus import digest_file
from promptlab.pretraining.job import Job
from promptlab.pretraining.options import Continuation
from promptlab.pretraining.standing import Measured, Standing

_DTYPES = {"F16": "float16", "BF16": "bfloat16"}


class RunLog:
    """`training/log.jsonl`: one line a step and one a measurement, up to the step that a run goes on from."""

    def __init__(self, folder: Path, *, step: int | None) -> None:
        self._path = folder / "training" / "log.jsonl"
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True) if self._path.exists() else []
        kept = [line for line in lines if step is not None and _step_of(line) <= step]
        write_bytes(self._path, "".join(kept).encode("utf-8"))

    def append(self, **entry: Any) -> None:
        """Add a line."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _step_of(line: str) -> float:
    """The step of a line; a line that was cut short is of no step that counts."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def export_continued(model: Any, base: Checkpoint, folder: Path, *, store_dtype: str) -> None:
    """Write config, weights and tokenizer files; all are whole, and the weights come last.

    Args:
        model: The trained model.
        base: What it began as; its tokenizer files are copied.
        folder: Where the files go.
        store_dtype: `float32`, or `original` for the dtype of the base's file.
    """
    partial = folder / "training" / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    dtype = getattr(torch, _DTYPES.get(_stored_dtype(base), "float32") if store_dtype == "original" else "float32")
    converted: dict[int, torch.Tensor] = {}  # tensors that share their memory stay one
    state = {
        name: converted.setdefault(
            tensor.data_ptr(), tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
        )
        for name, tensor in model.state_dict().items()
    }
    model.save_pretrained(partial, state_dict=state)
    for name in TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, partial / name)
    for path in sorted(partial.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        path.chmod(0o644)
        path.replace(folder / path.name)
    partial.rmdir()


def _stored_dtype(base: Checkpoint) -> str:
    """The dtype of the first tensor of floats in the file of a checkpoint, in the words of safetensors."""
    for path in sorted(base.folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            kinds = [file.get_slice(name).get_dtype() for name in file.keys()]  # noqa: SIM118  # not a mapping
        found = next((kind for kind in kinds if kind.startswith(("F", "BF"))), None)
        if found:
            return str(found)
    return "F32"


def make_record(
    job: Job[Continuation],
    base: Scorer,
    standing: Standing,
    kept: Measured,
    *,
    num_measured_tokens: int,
    runs_on: Mapping[str, Any],
) -> dict[str, Any]:
    """What a finished run is of, what it did and what came of it; the written model is told by its hashes.

    Args:
        job: The run; its model lies in its folder.
        base: What it began as.
        standing: Where it ended.
        kept: The measurement of the weights that were written.
        num_measured_tokens: Hidden tokens of the held-out text.
        runs_on: What ran it.
    """
    first, written = standing.measurements[0], find_checkpoint(str(job.output_path))
    name = Path(base.model).name if Path(base.model).is_dir() else base.model
    measured = {DOMAIN: {"before": first.held_out, "after": kept.held_out}}
    if first.general is not None and kept.general is not None:
        measured[GENERAL] = {"before": first.general, "after": kept.general}
    return {
        "base": {**asdict(base), "model": name, "name": name},
        "result": {"weights_hash": written.weights_hash, "tokenizer_hash": written.tokenizer_hash},
        "corpora": [
            {"name": corpus.name, "weight": corpus.weight, "sha256": digest_file(corpus.path)} for corpus in job.corpora
        ],
        "options": job.recipe.model_dump(mode="json") | {"model": name},
        "seed": job.seed,
        "steps": standing.step,
        "kept_step": kept.step,
        "tokens": standing.tokens,
        "seconds": standing.seconds,
        "measured": measured,
        "num_measured_tokens": num_measured_tokens,
        "runs_on": dict(runs_on),
        "versions": {
            "promptlab": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `training/adaptation.json` and the model card beside the weights."""
    write_json(folder / RECORD, dict(record))
    write_bytes(folder / "README.md", _card(record).encode("utf-8"))


def _card(record: Mapping[str, Any]) -> str:
    base, options = record["base"], record["options"]
    corpora = "\n".join(f"- `{corpus['name']}`, weight {corpus['weight']:g}" for corpus in record["corpora"])
    measured = "\n".join(
        f"| {name} | {_perplexity(one['before'])} | {_perplexity(one['after'])} |"
        for name, one in record["measured"].items()
    )
    masking = "whole words" if options["whole_word"] else "tokens"
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
---

# {base["name"]}, adapted

Masked-language-model pretraining of `{base["name"]}` ({base["architecture"]}) went on with `promptlab pretrain`.

Text read, {record["tokens"]:,} tokens in {record["steps"]:,} steps:

{corpora}

| masked perplexity | before | after |
|---|---|---|
{measured}

15 % of the tokens are hidden in it.
The held-out rows are of documents that were not trained on; they may have been in the pretraining of the base.
The weights are those of step {record["kept_step"]:,}.

Hidden in training: {options["masking_rate"]:.0%} of the tokens, {masking}.
Peak rate {options["learning_rate"]:g}, {options["schedule"]}.
Rows of {options["row_length"]} tokens; seed {record["seed"]}.
`training/adaptation.json` has every option and hash, `training/log.jsonl` the loss of each step.
The terms of the base and of the texts apply.
"""


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700.0)):,.2f}"
