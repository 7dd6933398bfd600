"""What one pretraining run is: recipe, corpora, seed and folder, and whether it may go on from a checkpoint.

The rule guarded here: two runs are never mixed in a folder, and a run goes on only with what it was begun with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptlab.errors import PromptlabError, UsageError
from promptlab.pretraining.checkpoints import Progress, read_progress
from promptlab.pretraining.corpus import Corpus, digest_file
from promptlab.pretraining.recipe import Recipe

Report = Callable[[str], None]
"""Takes a line of progress."""


class PretrainingStopped(PromptlabError):
    """The user stopped a run; its state is stored."""

    exit_code = 130


@dataclass(frozen=True)
class Job:
    """One pretraining run: what it reads, by which recipe, where it writes."""

    recipe: Recipe
    corpora: tuple[Corpus, ...]
    output_path: Path
    seed: int
    device: str = "cpu"

    @property
    def checkpoint_path(self) -> Path:
        """The file of the state."""
        return self.output_path / "training" / "checkpoint.safetensors"

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each corpus."""
        return tuple(corpus.weight for corpus in self.corpora)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes a run this run and no other; the length of a stage may change while it runs."""
        recipe = self.recipe.model_dump(mode="json")
        for stage in recipe["stages"]:
            del stage["tokens"]
        corpora = [[corpus.name, corpus.weight, corpus.separator, digest_file(corpus.path)] for corpus in self.corpora]
        return {"recipe": recipe, "corpora": corpora, "seed": self.seed}


def find_start(job: Job, *, resume: bool) -> Progress | None:
    """Find where a run stands, and refuse to mix two runs."""
    path = job.checkpoint_path
    if not path.exists():
        if resume:
            raise UsageError(f"--resume: there is no checkpoint {path}; leave the flag out to begin.")
        return None
    if not resume:
        raise UsageError(f"{job.output_path} holds a run already; add --resume to go on, or choose another folder.")
    progress, identity = read_progress(path)
    different = [key for key, value in job.identity.items() if identity.get(key) != value]
    if different:
        raise UsageError(f"--resume: the run in {job.output_path} was begun with another {' and '.join(different)}.")
    return progress
