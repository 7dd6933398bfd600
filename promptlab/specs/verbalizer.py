"""`verbalizers/<family>/<name>.yaml` -> `Verbalizer`: label words, their weights and how they are pooled."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from promptlab.documents import parse_yaml, validate
from promptlab.errors import FileFault, UsageError
from promptlab.hashing import content_hash
from promptlab.library import LibraryFile
from promptlab.specs.base import Spec, load_all, only, read_text

Pool = Literal["mean_logprob", "sum_prob", "max"]


class LabelWord(Spec):
    """A word whose probability stands for a label, with its weight in the pool."""

    word: str
    weight: float = 1.0

    @model_validator(mode="after")
    def _is_sound(self) -> LabelWord:
        if not self.word.strip() or self.word != self.word.strip():
            raise ValueError(f"label word {self.word!r} must not be empty or have outer blanks")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"the weight of {self.word!r} must be above 0, found {self.weight}")
        return self


def _as_label_words(value: Any) -> Any:
    """`great`, `[great, superb]` and `{great: 1.0}` all become a tuple of LabelWord."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        weights = {word: float(w) if isinstance(w, int | float) else w for word, w in value.items()}
        return tuple(LabelWord(word=str(word), weight=weight) for word, weight in weights.items())
    if isinstance(value, list | tuple):
        if not all(isinstance(word, str | LabelWord) for word in value):
            odd = next(word for word in value if not isinstance(word, str | LabelWord))
            raise ValueError(f"label words are texts, found {odd!r}: quote it")
        return tuple(word if isinstance(word, LabelWord) else LabelWord(word=word) for word in value)
    raise ValueError(f"write a word, a list of words or words with weights, found {value!r}")


LabelWords = Annotated[tuple[LabelWord, ...], BeforeValidator(_as_label_words), Field(min_length=1)]


class Verbalizer(Spec):
    """A map from label to label words, and how their scores are pooled.

    A word of several tokens is refused: `multi_token` has no other rule yet.
    """

    name: str
    family: str | None
    path: str
    labels: Annotated[dict[str, LabelWords], Field(min_length=2)]
    pool: Pool = "mean_logprob"
    multi_token: Literal["refuse"] = "refuse"
    reference: str | None = None
    notes: str | None = None

    @field_validator("labels")
    @classmethod
    def _words_are_distinct(cls, labels: dict[str, Any]) -> dict[str, Any]:
        owner: dict[str, str] = {}
        for label, words in labels.items():
            for word in words:
                if word.word in owner:
                    other = owner[word.word]
                    both = f"'{label}' twice" if other == label else f"both '{other}' and '{label}'"
                    raise ValueError(f"the word '{word.word}' stands for {both}")
                owner[word.word] = label
        return labels

    @property
    def words(self) -> tuple[str, ...]:
        """Every label word, in the order of the labels."""
        return tuple(word.word for words in self.labels.values() for word in words)

    @property
    def hash(self) -> str:
        """Identifies words, weights and pooling; every spelling of the same rule has the same hash."""
        words = {label: [[w.word, w.weight] for w in words] for label, words in self.labels.items()}
        return content_hash({"labels": words, "pool": self.pool, "multi_token": self.multi_token})

    @classmethod
    def from_labels(
        cls, labels: Mapping[str, Any], *, name: str | None = None, pool: Pool = "mean_logprob"
    ) -> Verbalizer:
        """A verbalizer from `{"positive": "great", "negative": ["bad", "terrible"]}`."""
        shown = f"verbalizer {name or 'inline'}"
        document = parse_yaml("", shown=shown)
        document.data.update(labels=dict(labels), pool=pool)
        made = validate(cls, document, name=name or "inline", family=None, path=shown)
        return made if name else made.model_copy(update={"name": f"inline-{made.hash[:8]}"})

    @classmethod
    def load(cls, name_or_path: str, *, include: Sequence[str] = ()) -> Verbalizer:
        """The verbalizer of that name, file or text (`positive=great|superb,negative=terrible`)."""
        return only(load_verbalizers([name_or_path], include=include), "verbalizer", name_or_path)


def load_verbalizers(selectors: Sequence[Any], *, include: Sequence[str] = ()) -> list[Verbalizer]:
    """Verbalizers by name, glob, path, mapping or inline text, in the order given, each once.

    A text that ends in `@` and a pool, such as `sentiment/*@max`, takes that pool instead of the file's own.
    """
    loaded: dict[str, Verbalizer] = {}
    faults: list[str] = []
    for selector in selectors:
        plain, pool = split_pool(selector)
        try:
            found = _load([plain], include)
        except FileFault as fault:
            faults += fault.faults
            continue
        for one in found if pool is None else (pooled_by(one, pool) for one in found):
            known = loaded.setdefault(one.name, one)
            if known.hash != one.hash:
                faults.append(f"two different verbalizers are called '{one.name}': rename {known.path} or {one.path}.")
    if faults:
        raise FileFault(list(dict.fromkeys(faults)))
    return list(loaded.values())


def split_pool(selector: Any) -> tuple[Any, Pool | None]:
    """A selector without its pool, and the pool; only the name of a pool behind the last `@` is one."""
    if not isinstance(selector, str):
        return selector, None
    plain, sign, pool = selector.rpartition("@")
    if sign and pool in get_args(Pool):
        return plain, pool  # type: ignore[return-value]  # it was just looked up
    return selector, None


def pooled_by(verbalizer: Verbalizer, pool: Pool) -> Verbalizer:
    """The same words under another pool, with the pool in the name; itself where it has that pool already."""
    if verbalizer.pool == pool:
        return verbalizer
    return verbalizer.model_copy(update={"name": f"{verbalizer.name}@{pool}", "pool": pool})


def _load(selectors: Sequence[Any], include: Sequence[str]) -> list[Verbalizer]:
    return load_all("verbalizer", selectors, read_verbalizer, _verbalizer_inline, include)


def read_verbalizer(file: LibraryFile) -> Verbalizer:
    """The verbalizer of a file.

    Raises:
        FileFault: every fault of the file.
    """
    found = _parsed(file, read_text(file.path, file.shown))
    return found.model_copy(update={"labels": dict(found.labels)})  # the one thing in it that could be changed


@functools.lru_cache(maxsize=1024)
def _parsed(file: LibraryFile, text: str) -> Verbalizer:
    """What a file says; a plan asks for all verbalizers several times, and to parse them takes most of its time."""
    document = parse_yaml(text, shown=file.shown)
    return validate(Verbalizer, document, name=file.name, family=file.family, path=file.shown)


def _verbalizer_inline(selector: Any) -> list[Verbalizer] | None:
    if isinstance(selector, Mapping):
        return [Verbalizer.from_labels(selector)]
    if "=" not in selector:
        return None
    labels: dict[str, list[str]] = {}
    for part in selector.split(","):
        label, equals, words = (piece.strip() for piece in part.partition("="))
        if not equals or not label or not words:
            raise UsageError(f"verbalizer {selector!r}: write label=word|word,label=word, found {part!r}.")
        if label in labels:
            raise UsageError(f"verbalizer {selector!r}: label '{label}' stands twice.")
        labels[label] = [word.strip() for word in words.split("|")]
    return [Verbalizer.from_labels(labels)]
