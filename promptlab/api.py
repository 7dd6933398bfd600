"""`import promptlab as pl`: the verbs of the command line as functions, and a run as an object."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.errors import UsageError, did_you_mean
from promptlab.registry import BACKENDS, CALIBRATIONS, METRICS
from promptlab.results import Result, RunResults, read_results

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run: its cells as `Result`s, as a data frame, and its report."""

    stored: RunResults

    @property
    def name(self) -> str:
        """The run's name."""
        return self.stored.name

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.stored.folder

    @property
    def results(self) -> tuple[Result, ...]:
        """One result a cell."""
        return self.stored.results

    @property
    def failures(self) -> dict[str, str]:
        """The tasks whose rows could not be read, with the reason."""
        return dict(self.stored.manifest.get("failures", {}))

    def __len__(self) -> int:
        return len(self.stored.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.stored.results)

    def to_pandas(self) -> pandas.DataFrame:
        """One row a cell."""
        from promptlab.reporting.tables import to_frame

        return to_frame(self.stored)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report; a path that ends in .html, .md or .csv gets that form alone.

        Raises:
            UsageError: another ending.
        """
        from promptlab.reporting.report import write_report, write_report_to

        if path is None:
            return write_report(self.stored)[0]
        return write_report_to(self.stored, Path(path).expanduser())

    def __repr__(self) -> str:
        from promptlab.reporting.summary import summary_lines

        head = f"Run {self.name!r}, {len(self)} cells, in {self.path}"
        failed = [f"not scored: {reason}" for reason in self.failures.values()]
        return "\n".join([head, *summary_lines(self.stored), *failed])

    def _repr_html_(self) -> str:
        """The table of a notebook."""
        return str(self.to_pandas().to_html(index=False, max_rows=40, float_format="{:.3f}".format))


def run(
    tasks: Any = None,
    templates: Any = None,
    verbalizers: Any = None,
    *,
    models: Any = None,
    calibrations: str | Sequence[str] | None = None,
    config: str | Path | None = None,
    quiet: bool = True,
    **options: Any,
) -> Run:
    """Score tasks x templates x verbalizers x models, store the run and give it back.

    A task whose rows cannot be read is left out with a warning and stands in `Run.failures`.

    Args:
        tasks: names, globs, paths or `Task`s.
        templates: names, globs, paths, `Template`s or the text itself.
        verbalizers: names, globs, paths, `Verbalizer`s, or mappings from label to word or words.
        models: bundled names, folders or hub names.
        calibrations: names or globs: `none`, `contextual`, `domain`, `pmi_dc`, `support`, `batch`.
        config: a run.yaml, on top of which the arguments go.
        quiet: whether to keep progress to itself.
        options: every other key of a run: data, include, split, limit, max_length, device, dtype, batch_size, seed,
            output_path, name, no_text, revision.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    from promptlab.harness import execute
    from promptlab.progress import ConsoleProgress
    from promptlab.specs.run import make_run_spec

    given = {"tasks": tasks, "templates": templates, "verbalizers": verbalizers, "models": models}
    given |= {"calibrations": calibrations, **options}
    spec = make_run_spec({key: value for key, value in given.items() if value is not None}, config=config)
    progress = ConsoleProgress(quiet=quiet)
    try:
        done = Run(execute(spec, progress=progress))
    finally:
        progress.finish()
    for reason in done.failures.values():
        warnings.warn(f"not scored: {reason}", stacklevel=2)
    return done


def load_run(path: str | Path) -> Run:
    """The stored run of a folder.

    Raises:
        StoreError: the folder holds no finished run.
    """
    return Run(read_results(Path(path).expanduser()))


def register(kind: str, name: str) -> Any:
    """A decorator that adds a backend, metric or calibration under a name.

    Raises:
        UsageError: the kind is unknown.
    """
    registries = {registry.kind: registry for registry in (BACKENDS, CALIBRATIONS, METRICS)}
    if kind not in registries:
        known = ", ".join(registries)
        raise UsageError(f"register: there is no kind '{kind}'.{did_you_mean(kind, registries)} Known: {known}.")
    return registries[kind].register(name)
