"""What one pretraining run is: recipe, corpora, seed and folder, and whether it may go on from a checkpoint.

The rule guarded here: two runs are never mixed in a folder, and a run goes on only with what it was begun with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from promptlab.errors import PromptlabError, UsageError
from promptlab.pretraining.checkpoints import Progress, Stand, read_standing
from promptlab.pretraining.corpus import Corpus, digest_file

Report = Callable[[str], None]
"""Takes a line of progress."""


class PretrainingStopped(PromptlabError):
    """The user stopped a run; its state is stored."""

    exit_code = 130


class Plan(Protocol):
    """What a run does, apart from its corpora, seed and folder."""

    def identity(self) -> dict[str, Any]:
        """What makes a run of it this run and no other."""


What = TypeVar("What", bound=Plan)


@dataclass(frozen=True)
class Job(Generic[What]):
    """One pretraining run: what it reads, by which recipe, where it writes."""

    recipe: What
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
        """What makes a run this run and no other."""
        corpora = [[corpus.name, corpus.weight, corpus.separator, digest_file(corpus.path)] for corpus in self.corpora]
        return {**self.recipe.identity(), "corpora": corpora, "seed": self.seed}


def find_start(job: Job[What], *, resume: bool) -> Progress | None:
    """Find where a run stands, and refuse to mix two runs."""
    return find_standing(job, Progress, resume=resume)


def find_standing(job: Job[What], kind: type[Stand], *, resume: bool) -> Stand | None:
    """Find where a run stands, of a kind that may say more than `Progress`, and refuse to mix two runs."""
    path = job.checkpoint_path
    if not path.exists():
        if resume:
            raise UsageError(f"--resume: there is no checkpoint {path}; leave the flag out to begin.")
        return None
    if not resume:
        raise UsageError(f"{job.output_path} holds a run already; add --resume to go on, or choose another folder.")
    progress, identity = read_standing(path, kind)
    different = [key for key in {**identity, **job.identity} if identity.get(key) != job.identity.get(key)]
    if different:
        raise UsageError(f"--resume: the run in {job.output_path} was begun with another {' and '.join(different)}.")
    return progress
