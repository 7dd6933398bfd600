"""What every kind of data file shares: strict frozen models, and loading by name, glob, path, text or value.

A fault names file, line and key, and the faults of all files are raised together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from promptlab.errors import FileFault, UsageError
from promptlab.library import Kind, LibraryFile, select_files

S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """What all data files share: frozen values, no unknown keys, no coercion of words into numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def as_tuple(value: Any) -> Any:
    """A list or a single word of a data file as the tuple that a frozen model keeps."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


def load_all(
    kind: Kind,
    selectors: Sequence[Any],
    from_file: Callable[[LibraryFile], S],
    inline: Callable[[Any], list[S] | None],
    include: Sequence[str],
) -> list[S]:
    """Load what every selector means; faults of several files are raised together."""
    loaded: dict[str, Any] = {}
    faults: list[str] = []
    for selector in selectors:
        made: Any = [selector] if isinstance(selector, Spec) else None
        try:
            if made is None:
                made = inline(selector)
            if made is None:
                made = []
                for file in select_files(kind, selector, include):
                    try:
                        made.append(from_file(file))
                    except FileFault as fault:
                        faults.extend(fault.faults)
        except FileFault as fault:
            faults.extend(fault.faults)
            continue
        for item in made:
            known = loaded.setdefault(item.name, item)
            if known.hash != item.hash:
                faults.append(f"two different {kind}s are called '{item.name}': rename {known.path} or {item.path}.")
    if faults:
        raise FileFault(list(dict.fromkeys(faults)))
    return list(loaded.values())


def read_text(path: Path, shown: str) -> str:
    """The text of a data file; a file that is not UTF-8 or cannot be opened is one sentence."""
    try:
        return path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise FileFault(f"{shown}: is not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise FileFault(f"{shown}: cannot be read: {error.strerror}.") from None


def only(found: list[S], kind: str, selector: str) -> S:
    """The one value that a selector means; several or none are refused."""
    if len(found) != 1:
        names = ", ".join(str(getattr(item, "name", item)) for item in found)
        raise UsageError(f"'{selector}' means {len(found)} {kind}s, one was wanted: {names}.")
    return found[0]
