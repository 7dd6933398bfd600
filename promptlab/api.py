"""`import promptlab as pl`: the verbs of the command line as functions, and a run as an object."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.errors import UsageError, did_you_mean
from promptlab.registry import BACKENDS, CALIBRATIONS, METHODS, METRICS
from promptlab.results import Result, RunResults, read_results

if TYPE_CHECKING:
    import pandas

    from promptlab.comparing import PairedCells, RunComparison


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

    def predictions(self) -> pandas.DataFrame:
        """One row a decision: the cell's names, the row's id and place, gold and predicted label, p(label | row)."""
        from promptlab.reporting.tables import prediction_frame

        return prediction_frame(self.stored)

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
        """The table of a notebook: the headline, and every cell folded below it."""
        from promptlab.reporting.notebook import run_html

        return run_html(self.stored)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared: a pair of cells each, second minus first, as values, as a data frame, as lines of text."""

    found: RunComparison

    @property
    def pairs(self) -> tuple[PairedCells, ...]:
        """One entry a pair of cells and metric."""
        return self.found.pairs

    def __len__(self) -> int:
        return len(self.found.pairs)

    def __iter__(self) -> Iterator[PairedCells]:
        return iter(self.found.pairs)

    def to_pandas(self) -> pandas.DataFrame:
        """One row a pair; `template_first`, `template_second` and so on for every axis."""
        from promptlab.reporting.compared import comparison_frame

        return comparison_frame(self.found)

    def __repr__(self) -> str:
        from promptlab.reporting.compared import comparison_lines

        return "\n".join(comparison_lines(self.found))

    def _repr_html_(self) -> str:
        """The table of a notebook."""
        from promptlab.reporting.notebook import frame_html

        return frame_html(self.found.cautions, self.to_pandas())


def run(
    tasks: Any = None,
    templates: Any = None,
    verbalizers: Any = None,
    *,
    models: Any = None,
    calibrations: str | Sequence[str] | None = None,
    config: str | Path | None = None,
    quiet: bool | None = None,
    amend: bool = False,
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
        quiet: whether to keep progress to itself; by default it is shown in a notebook and nowhere else.
        amend: whether a named run that was asked for otherwise may be changed.
        options: every other key of a run: prepare, ensembles, metrics, data, include, split, limit, max_length, device,
            dtype, scoring, batch_size, seed, output_path, name, no_text, store_states, skip_preflight, revision; for
            methods that are fitted methods, shots, seeds, shots_short, selection, folds, settings, fit_templates,
            fit_verbalizers; and for rows that no task describes rows, text_column, fields, label_column, label_values,
            labels, family, train_rows.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    from promptlab.harness import execute
    from promptlab.progress import find_progress
    from promptlab.specs.run import make_run_spec

    given = {"tasks": tasks, "templates": templates, "verbalizers": verbalizers, "models": models}
    given |= {"calibrations": calibrations, **options}
    spec = make_run_spec({key: value for key, value in given.items() if value is not None}, config=config)
    progress = find_progress(quiet=quiet)
    try:
        done = Run(execute(spec, progress=progress, amend=amend))
    finally:
        progress.finish()
    for reason in done.failures.values():
        warnings.warn(f"not scored: {reason}", stacklevel=2)
    return done


def predict(
    rows: Any,
    template: Any,
    verbalizer: Any,
    *,
    model: str | Path = "mini",
    calibration: str = "none",
    **options: Any,
) -> pandas.DataFrame:
    """Label new rows: the rows with `predicted`, `confidence`, `p_<label>`, `mass` and `reason`.

    Args:
        rows: a path (csv, tsv, jsonl, parquet, txt), a data frame, mappings, or plain texts (the field `text`).
        template: a template or several, whose probabilities are averaged.
        verbalizer: a name, a path, a `Verbalizer` or a mapping from label to word or words.
        model: a bundled name, a folder or a hub name.
        calibration: `none`, `contextual` or `pmi_dc`.
        options: text_column, fields, revision, include, max_length, device, dtype, scoring, batch_size, seed,
            prefix.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    import pandas

    from promptlab.labelling import Labelling, label_rows

    known = [item.name for item in dataclasses.fields(Labelling)]
    for name in options:
        if name not in known:
            raise UsageError(f"argument '{name}' is unknown.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    if "include" in options:
        options["include"] = several(options["include"])
    asked = Labelling(
        several(template), _plain(verbalizer), model=str(_plain(model)), calibration=calibration, **options
    )
    pairs, shown = as_pairs_of(rows)
    return pandas.DataFrame(list(label_rows(pairs, asked, shown=shown)))


def rescore(
    run: Run | str | Path,
    *,
    verbalizers: Any = (),
    calibrations: Any = (),
    metrics: Any = (),
    ensembles: Any = None,
    include: Any = (),
) -> Run:
    """Decide a stored run by more rules; needs no model, unless words are new and its states were stored.

    Raises:
        PromptlabError: a rule that the run cannot be decided by.
    """
    from promptlab.rescoring import rescore as decide

    return Run(
        decide(
            _folder(run),
            verbalizers=several(verbalizers),
            calibrations=several(calibrations),
            metrics=several(metrics),
            ensembles=ensembles,
            include=several(include),
        )
    )


def compare(
    first: Run | str | Path,
    second: Run | str | Path,
    *,
    tasks: Any = (),
    metrics: Any = (),
    seed: int = 0,
    **only: str | tuple[str | None, str | None],
) -> Comparison:
    """Paired differences of two stored runs on the rows that both decided, second minus first.

    Args:
        first: a run or its folder; the same one twice compares its own cells.
        second: another one.
        tasks: names of tasks; all by default.
        metrics: names of metrics; the first of each task by default.
        seed: for resampling.
        only: `model`, `template`, `verbalizer` or `calibration`: one value for both, or a pair.

    Raises:
        PromptlabError: nothing can be paired.
    """
    from promptlab.comparing import AXES, compare_runs

    for name in only:
        if name not in AXES:
            raise UsageError(f"argument '{name}' is unknown.{did_you_mean(name, AXES)} Known: {', '.join(AXES)}.")
    sides = {axis: (value, value) if isinstance(value, str) else value for axis, value in only.items()}
    runs = [read_results(_folder(run)) for run in (first, second)]
    return Comparison(compare_runs(*runs, only=sides, tasks=several(tasks), metrics=several(metrics), seed=seed))


def load_run(path: str | Path) -> Run:
    """The stored run of a folder.

    Raises:
        StoreError: the folder holds no finished run.
    """
    return Run(read_results(Path(path).expanduser()))


def several(value: Any) -> list[Any]:
    """One value or several as a list, paths as texts."""
    return [_plain(one) for one in (value if isinstance(value, list | tuple) else [value])]


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _folder(run: Run | str | Path) -> Path:
    return run.path if isinstance(run, Run) else Path(run).expanduser()


def as_pairs_of(rows: Any) -> tuple[Iterable[tuple[str, Mapping[str, Any]]], str]:
    """(place, raw row) pairs of whatever holds rows, and what it is called in messages."""
    if isinstance(rows, str | Path):
        from promptlab.reading import read_rows

        return read_rows(Path(rows).expanduser()), str(rows)
    found = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    named = ({"text": row} if isinstance(row, str) else row for row in found)
    return ((f"row {number}", row) for number, row in enumerate(named)), "the rows"


def register(kind: str, name: str) -> Any:
    """A decorator that adds a backend, calibration, method or metric under a name.

    Raises:
        UsageError: the kind is unknown.
    """
    registries = {registry.kind: registry for registry in (BACKENDS, CALIBRATIONS, METHODS, METRICS)}
    if kind not in registries:
        known = ", ".join(registries)
        raise UsageError(f"register: there is no kind '{kind}'.{did_you_mean(kind, registries)} Known: {known}.")
    return registries[kind].register(name)
