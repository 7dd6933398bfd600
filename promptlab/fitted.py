"""Something fitted inside its model, in Python: it labels rows, is saved to a folder and is loaded from one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptlab.api import as_pairs_of, several
from promptlab.artefact_folders import Loaded, load_artefact, save_artefact
from promptlab.artefacts import Artefact

if TYPE_CHECKING:
    import pandas

    from promptlab.predicting import Predictor


@dataclass(frozen=True, slots=True, eq=False)
class FittedMethod:
    """A method with what it was fitted to, inside its model: what `promptlab.fit` and `promptlab.load` give."""

    loaded: Loaded

    @property
    def artefact(self) -> Artefact:
        """Everything that is kept of it."""
        return self.loaded.artefact

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.artefact.method

    @property
    def labels(self) -> tuple[str, ...]:
        """What it predicts."""
        return self.artefact.labels

    @property
    def path(self) -> Path | None:
        """The folder that it was loaded from; None where it was fitted just now."""
        return self.artefact.folder

    def predict(
        self, rows: Any, *, text_column: str | None = None, fields: Any = None, batch_size: str | int = "auto",
        prefix: str = "",
    ) -> pandas.DataFrame:  # fmt: skip
        """Label new rows: the rows with `predicted`, `confidence`, `p_<label>`, `mass` and `reason`.

        Args:
            rows: a path (csv, tsv, jsonl, parquet, txt), a data frame, mappings, or plain texts (the field `text`).
            text_column: the column that the template calls `text`.
            fields: field to column.
            batch_size: `auto` or a number of prompts.
            prefix: put before the names of the new columns.

        Raises:
            PromptlabError: a fault that the user can mend.
        """
        import pandas

        from promptlab.labelling import label_rows_by

        pairs, shown = as_pairs_of(rows)
        predictor = make_predictor(self.loaded, batch_size=batch_size)
        labelled = label_rows_by(pairs, predictor, text_column=text_column, fields=fields, prefix=prefix, shown=shown)
        return pandas.DataFrame(list(labelled))

    def save(self, folder: str | Path, *, peft_prompt: bool = False) -> Path:
        """Write it to a folder, from which `promptlab.load` gives it back.

        Args:
            folder: empty, not there, or one that has the same artefact.
            peft_prompt: whether a soft prompt is written in peft's layout too, below `peft/`. peft puts its tokens
                before the first special token and not behind it, so it does not score the same: a start for training.

        Raises:
            StoreError: the folder holds something else.
            UsageError: `peft_prompt` for what is no soft prompt, or one whose tokens do not all stand first.
        """
        target = Path(folder).expanduser()
        save_artefact(self.artefact, target, self.loaded.backend, peft_prompt=peft_prompt)
        return target

    def __repr__(self) -> str:
        artefact, where = self.artefact, f", from {self.path}" if self.path is not None else ""
        words = f", words '{artefact.words.name}'" if artefact.words is not None else ""
        return "\n".join(
            [
                f"FittedMethod {artefact.title}{where}",
                f"  template '{artefact.template.name}'{words}, inside '{artefact.base.model}'",
                f"  labels {', '.join(artefact.labels)}; {artefact.record['num_parameters']:,} parameters, "
                f"{artefact.record['steps']} steps",
            ]
        )


def fit(
    task: Any,
    method: str,
    *,
    shots: int,
    draw: int = 0,
    template: Any = None,
    verbalizer: Any = None,
    model: Any = None,
    **options: Any,
) -> FittedMethod:
    """Fit one method to one draw of labelled examples; its setting is chosen by these examples alone.

    Args:
        task: a name, a path or a `Task`.
        method: `soft_prompt`, `lora`, `prompt_fine_tune` ...
        shots: labelled train rows a label.
        draw: the number of the draw, from 0.
        template: a name, a path, a `Template` or its text; by default the first instructive one of the task.
        verbalizer: a name, a path, a `Verbalizer` or a mapping; by default the first one of the task.
        model: a bundled name, a folder or a hub name; by default the bundled one.
        options: keys of a run: shots_short, selection, folds, settings, data, include, split, max_length, device,
            dtype, revision, seed, skip_preflight.

    Raises:
        PromptlabError: a fault that the user can mend.
    """
    from promptlab.tuning import plan_tuning, tune

    if "include" in options:
        options["include"] = several(options["include"])
    planned = plan_tuning(
        task=task, method=method, shots=shots, draw=draw, template=template, verbalizer=verbalizer, model=model,
        options=options,
    )  # fmt: skip
    loaded, _ = tune(planned)
    return FittedMethod(loaded)


def load(
    folder: str | Path, *, model: str | Path | None = None, device: str = "auto", dtype: str | None = None
) -> FittedMethod:
    """What was fitted and saved, checked: its model and tokenizer, its tensors, and its scores of five made-up rows.

    Args:
        folder: that of an artefact.
        model: where its model lies on this machine; by default the name that it had.
        device: `auto` or a device in torch's words.
        dtype: of the model; by default the one in which it was fitted.

    Raises:
        StoreError: the folder holds no artefact, or a damaged one.
        ModelError: it is another model, or it does not score as it did.
    """
    named = os.fspath(model) if model is not None else None
    return FittedMethod(load_artefact(Path(folder).expanduser(), model=named, device=device, dtype=dtype))


def make_predictor(loaded: Loaded, *, batch_size: str | int = "auto") -> Predictor:
    """What labels rows with it."""
    from promptlab.predicting import Predictor

    artefact = loaded.artefact
    return Predictor(
        backend=loaded.fitted.backend,
        encoder=loaded.encoder,
        templates=[artefact.compiled],
        verbalizer=artefact.answer_words(),
        fields=artefact.fields,
        batch_size=batch_size,
        seed=artefact.seed,
        is_fitted=True,
        answers=artefact.make_method().answers,
    )
