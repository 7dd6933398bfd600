"""Records -> those that all filters of a listing let through; a value that nothing has is a usage fault.

Whether a template or a verbalizer applies to a task is asked of their records here, by the rule of a run.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptlab.errors import UsageError, did_you_mean
from promptlab.listing import KINDS, Listing, Record

MOST_SHOWN = 12
GLOB = "*?["

_KEYS = {"family": "family", "label": "labels", "language": "language", "tag": "tags", "field": "fields"}
_PLURALS = {"family": "families", "label": "labels", "language": "languages", "tag": "tags", "field": "fields"}
_KINDS_WITH: Mapping[str, tuple[str, ...]] = {
    "family": ("tasks", "templates", "verbalizers"),
    "label": ("tasks", "verbalizers"),
    "language": ("tasks",),
    "tag": ("templates",),
    "field": ("tasks", "templates"),
    "task": ("templates", "verbalizers"),
}
_EACH = ("label", "field")  # a thing has several of these, and every one that is asked for counts
_SEARCHED = ("name", "title", "text", "reference", "what")


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is narrowed by: a thing stays if it fits all of them.

    `having` maps a key to values: every label and field of them must be there, and one family, language or tag.
    `task` is the record of a task that a thing applies to.
    """

    patterns: tuple[str, ...] = ()
    having: Mapping[str, tuple[str, ...]] | None = None
    task: Record | None = None
    search: str | None = None


def kinds_for(asked: Sequence[str], kind: str | None) -> tuple[str, ...]:
    """The kinds that can be narrowed by all the filters asked for.

    Args:
        asked: names of filters such as `family`.
        kind: the one kind that is listed; None for all.

    Raises:
        UsageError: no kind, or not the one that is listed, has what a filter asks about.
    """
    for name in asked:
        if kind is not None and kind not in _KINDS_WITH[name]:
            verb = "apply to a task" if name == "task" else f"have {_PLURALS[name]}"
            raise UsageError(f"--{name}: only {', '.join(_KINDS_WITH[name])} {verb}.")
    fitting = [one for one in KINDS if kind in (None, one) and all(one in _KINDS_WITH[name] for name in asked)]
    if not fitting:
        raise UsageError(f"{', '.join(f'--{name}' for name in asked)}: no kind can be narrowed by all of them.")
    return tuple(fitting)


def narrow(listings: Mapping[str, Listing], filters: Filters) -> dict[str, list[Record]]:
    """The records of each kind that fit.

    Raises:
        UsageError: a pattern or a value that nothing has; the nearest one is named.
    """
    wanted = (filters.having or {}).items()
    for name, values in wanted:
        for value in values:
            _refuse_unknown(name, value, listings)
    found = {}
    for kind, listing in listings.items():
        names = _called(kind, listing.names, filters.patterns)
        found[kind] = [
            record
            for record in listing.records
            if record["name"] in names
            and all(_has(record, name, values) for name, values in wanted)
            and (filters.task is None or applies(record, filters.task))
            and (filters.search is None or _says(record, filters.search))
        ]
    return found


def applies(record: Record, task: Record) -> bool:
    """Whether a template or a verbalizer speaks about a task: its family, and its fields or exactly its labels."""
    if record["family"] not in (None, task["family"]):
        return False
    if "text" in record:
        return set(record["fields"]) <= set(task["fields"])
    return set(record["labels"]) == set(task["labels"])


def some(names: Iterable[str]) -> str:
    """Names for a message, not more than can be read."""
    known = list(names)
    more = f" and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else ""
    return ", ".join(known[:MOST_SHOWN]) + more


def _called(kind: str, names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The names that the patterns mean: globs, whole names, and names without their family."""
    if not patterns:
        return set(names)
    hits = {pattern: {name for name in names if _is_called(name, pattern)} for pattern in patterns}
    for pattern, called in hits.items():
        if not called:
            raise UsageError(_unknown(kind, pattern, names))
    return set().union(*hits.values())


def _is_called(name: str, pattern: str) -> bool:
    if any(character in pattern for character in GLOB):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in (name, name.rpartition("/")[2])


def _unknown(kind: str, pattern: str, names: Sequence[str]) -> str:
    """Why a pattern means nothing; a bare family is told how to ask for it."""
    more = f" `promptlab ls {kind}` lists them."
    if any(character in pattern for character in GLOB):
        return f"no {kind[:-1]} matches '{pattern}'.{more}"
    if any(name.startswith(f"{pattern}/") for name in names):
        return f"{kind[:-1]} '{pattern}' is unknown, but there is a family of that name: write '{pattern}/*'."
    hint = did_you_mean(pattern, [*names, *(name.rpartition("/")[2] for name in names)])
    return f"{kind[:-1]} '{pattern}' is unknown.{hint}{more}"


def _refuse_unknown(name: str, value: str, listings: Mapping[str, Listing]) -> None:
    records = [record for listing in listings.values() for record in listing.records]
    known = sorted({one for record in records for one in _values(record, name)})
    if value not in known:
        hint = did_you_mean(value, known)
        raise UsageError(f"--{name} {value}: no {', '.join(listings)} have it.{hint} Known: {some(known) or 'none'}.")


def _has(record: Record, name: str, values: Sequence[str]) -> bool:
    held = _values(record, name)
    return set(values) <= held if name in _EACH else not held.isdisjoint(values)


def _values(record: Record, name: str) -> set[str]:
    """What a record has under a filter's key, which holds one value, a list or a mapping."""
    held = record[_KEYS[name]]
    return {held} if isinstance(held, str) else set(held or ())


def _says(record: Record, text: str) -> bool:
    """Whether the name, title, text, words or reference of a record hold a text, in any case."""
    said = [record.get(key) for key in _SEARCHED]
    if isinstance(record.get("labels"), Mapping):
        said += [word for words in record["labels"].values() for word in words]
    return any(text.casefold() in str(part).casefold() for part in said if part is not None)
