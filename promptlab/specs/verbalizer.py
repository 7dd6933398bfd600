"""`verbalizers/<family>/<name>.yaml` -> `Verbalizer`: label words, their weights and how they become label scores."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from promptlab.documents import parse_yaml, validate
from promptlab.errors import FileFault, UsageError, did_you_mean
from promptlab.hashing import content_hash
from promptlab.library import LibraryFile
from promptlab.specs.base import Spec, load_all, only, read_text

Pool = Literal["mean_logprob", "sum_prob", "max"]
MultiToken = Literal["refuse", "independent", "left_to_right", "pet", "first_token"]
Normalize = Literal["sum", "mean"]
BETWEEN_SLOTS = " + "


def slot_words(word: str) -> tuple[str, ...]:
    """The word of each mask: `very + good` is two words for a template with two masks."""
    return tuple(part.strip() for part in word.split(BETWEEN_SLOTS))


class LabelWord(Spec):
    """A word whose probability stands for a label, with its weight in the pool.

    For a template of k masks the word is k words, with ` + ` between them.
    """

    word: str
    weight: float = 1.0

    @property
    def text(self) -> str:
        """The word as it stands in a list of options."""
        return " ".join(slot_words(self.word))

    @model_validator(mode="after")
    def _is_sound(self) -> LabelWord:
        if self.word != self.word.strip() or not all(slot_words(self.word)):
            raise ValueError(f"label word {self.word!r} must not be empty or have outer blanks")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"the weight of {self.word!r} must be above 0, found {self.weight}")
        return self


def _as_label_words(value: Any) -> Any:
    """`great`, `[great, superb]`, `[[very, good], [so, fine]]` and `{great: 1.0}` all become a tuple of LabelWord."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        weights = {word: float(w) if isinstance(w, int | float) else w for word, w in value.items()}
        return tuple(LabelWord(word=str(word), weight=weight) for word, weight in weights.items())
    if isinstance(value, list | tuple):
        return tuple(_as_label_word(word) for word in value)
    raise ValueError(f"write a word, a list of words or words with weights, found {value!r}")


def _as_label_word(value: Any) -> LabelWord:
    """One word; a list of words is one for each mask of a template."""
    if isinstance(value, LabelWord):
        return value
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"label words are texts, found {value!r}: quote it")
    if not isinstance(value, str) and (len(parts) < 2 or any(BETWEEN_SLOTS in part for part in parts)):
        raise ValueError(f"a list of words inside the list is one word for each of several masks, found {value!r}")
    return LabelWord(word=BETWEEN_SLOTS.join(parts))


LabelWords = Annotated[tuple[LabelWord, ...], BeforeValidator(_as_label_words), Field(min_length=1)]


class Verbalizer(Spec):
    """A map from label to label words, and how their scores are pooled.

    `multi_token` names the rule for words of several tokens, and `normalize` whether the log-probabilities of a word's
    tokens are summed or averaged.
    """

    name: str
    family: str | None
    path: str
    labels: Annotated[dict[str, LabelWords], Field(min_length=2)]
    pool: Pool = "mean_logprob"
    multi_token: MultiToken = "refuse"
    normalize: Normalize = "sum"
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

    @field_validator("labels")
    @classmethod
    def _words_are_for_as_many_masks(cls, labels: dict[str, Any]) -> dict[str, Any]:
        numbers = {len(slot_words(word.word)): word.word for words in labels.values() for word in words}
        if len(numbers) > 1:
            shown = ", ".join(f"'{word}' for {number}" for number, word in sorted(numbers.items()))
            raise ValueError(f"the words are for unlike numbers of masks: {shown}")
        return labels

    @property
    def num_slots(self) -> int:
        """For how many masks the words are."""
        return len(slot_words(self.words[0]))

    @property
    def words(self) -> tuple[str, ...]:
        """Every label word, in the order of the labels."""
        return tuple(word.word for words in self.labels.values() for word in words)

    @property
    def hash(self) -> str:
        """Identifies words, weights, pooling and rule; every spelling of the same decision has the same hash."""
        words = {label: [[w.word, w.weight] for w in words] for label, words in self.labels.items()}
        rule: dict[str, Any] = {"labels": words, "pool": self.pool, "multi_token": self.multi_token}
        return content_hash(rule | ({"normalize": self.normalize} if self.normalize != "sum" else {}))

    @classmethod
    def from_labels(
        cls,
        labels: Mapping[str, Any],
        *,
        name: str | None = None,
        pool: Pool = "mean_logprob",
        multi_token: MultiToken = "refuse",
        normalize: Normalize = "sum",
    ) -> Verbalizer:
        """A verbalizer from `{"positive": "great", "negative": ["bad", "terrible"]}`."""
        shown = f"verbalizer {name or 'inline'}"
        document = parse_yaml("", shown=shown)
        document.data.update(labels=dict(labels), pool=pool, multi_token=multi_token, normalize=normalize)
        made = validate(cls, document, name=name or "inline", family=None, path=shown)
        return made if name else made.model_copy(update={"name": f"inline-{made.hash[:8]}"})

    @classmethod
    def load(cls, name_or_path: str, *, include: Sequence[str] = ()) -> Verbalizer:
        """The verbalizer of that name, file or text (`positive=great|superb,negative=terrible`)."""
        return only(load_verbalizers([name_or_path], include=include), "verbalizer", name_or_path)


def load_verbalizers(selectors: Sequence[Any], *, include: Sequence[str] = ()) -> list[Verbalizer]:
    """Verbalizers by name, glob, path, mapping or inline text, in the order given, each once.

    A text that ends in `@` and a pool, a rule for words of several tokens, or `normalize=mean`, such as
    `sentiment/*@max` or `topic/*@left_to_right@normalize=mean`, takes that instead of the file's own.
    """
    loaded: dict[str, Verbalizer] = {}
    faults: list[str] = []
    for selector in selectors:
        plain, decided = split_decision(selector)
        try:
            found = _load([plain], include)
        except FileFault as fault:
            faults += fault.faults
            continue
        for one in (decided_by(one, decided) for one in found):
            known = loaded.setdefault(one.name, one)
            if known.hash != one.hash:
                faults.append(f"two different verbalizers are called '{one.name}': rename {known.path} or {one.path}.")
    if faults:
        raise FileFault(list(dict.fromkeys(faults)))
    return list(loaded.values())


_DECISIONS: Mapping[str, tuple[str, str]] = {
    **{name: ("pool", name) for name in get_args(Pool)},
    **{name: ("multi_token", name) for name in get_args(MultiToken)},
    **{f"normalize={name}": ("normalize", name) for name in get_args(Normalize)},
}


def split_decision(selector: Any) -> tuple[Any, dict[str, str]]:
    """A selector without what stands behind `@`, and the keys that this sets; another text behind `@` is a name.

    Raises:
        UsageError: two that contradict each other, or a text that is nearly one of them.
    """
    rest, decided = selector, dict[str, str]()
    while isinstance(rest, str):
        plain, sign, last = rest.rpartition("@")
        if not sign:
            break
        if last not in _DECISIONS:
            if hint := did_you_mean(last, _DECISIONS):
                raise UsageError(f"verbalizer {selector!r}: '@{last}' is no pool and no rule.{hint}")
            break
        key, value = _DECISIONS[last]
        if decided.get(key, value) != value:
            raise UsageError(f"verbalizer {selector!r}: '@{last}' and '@{decided[key]}' contradict each other.")
        rest, decided = plain, {key: value, **decided}
    return rest, decided


def decided_by(verbalizer: Verbalizer, decided: Mapping[str, str]) -> Verbalizer:
    """The same words under other rules, which its name then tells; itself where they are its own."""
    names = {pair: name for name, pair in _DECISIONS.items()}
    new = {key: value for key, value in decided.items() if getattr(verbalizer, key) != value}
    if not new:
        return verbalizer
    suffix = "".join(f"@{names[pair]}" for pair in new.items())
    return verbalizer.model_copy(update={"name": f"{verbalizer.name}{suffix}", **new})


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
        labels[label] = [BETWEEN_SLOTS.join(slot_words(word.strip())) for word in words.split("|")]
    return [Verbalizer.from_labels(labels)]
