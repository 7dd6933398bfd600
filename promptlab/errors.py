"""The faults that a user can cause or mend, as one tree of exceptions.

A message says what was wrong, where, what was found, and what is allowed or the next command to run.
The command line prints the message alone and leaves with `exit_code`; programming errors stay themselves.

```
PromptlabError            exit 1   anything below, caught at the boundary
├── UsageError            exit 2   a flag, a name or a value on the command line
├── FileFault             exit 1   a task, template, verbalizer, recipe or run file
├── DataError             exit 1   rows: a file, a column, a label, an empty split
├── TemplateError         exit 1   a template that cannot be compiled or rendered
├── LabelWordError        exit 1   label words that split, collide or are unknown
├── ModelError            exit 1   a checkpoint that cannot be loaded or must not be scored
├── StoreError            exit 1   a run folder that cannot be written or read
└── CellsFailed           exit 3   some cells were not scored; the others are stored
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PromptlabError(Exception):
    """Base of every fault that promptlab explains to its user."""

    exit_code = 1


class UsageError(PromptlabError):
    """A flag, a name or a value on the command line or in a call."""

    exit_code = 2


class FileFault(PromptlabError):
    """One or more faults of a task, template, verbalizer, recipe or run file, all listed."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class DataError(PromptlabError):
    """Rows that cannot be read: a missing file or column, an unknown label, an empty split."""


class TemplateError(PromptlabError):
    """A template that cannot be compiled or rendered."""


class LabelWordError(PromptlabError):
    """Label words that split, collide, are unknown or change their neighbours."""


class ModelError(PromptlabError):
    """A checkpoint that cannot be loaded or must not be scored."""


class StoreError(PromptlabError):
    """A run folder that cannot be written or read."""


class CellsFailed(PromptlabError):
    """Some cells were not scored; the finished ones are stored."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint " Did you mean 'x'?" for the nearest known name, or nothing."""
    candidates = list(known)
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if not near:
        lowered = {candidate.lower(): candidate for candidate in candidates}
        near = [lowered[hit] for hit in difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)]
    return f" Did you mean '{near[0]}'?" if near else ""
