"""Stored names -> what tables and charts call templates and verbalizers: short names, and the words of inline ones.

The name of an inline text is made of its hash, by which nobody tells two of them apart, so its own words stand there.
The stored name stays in the CSV and in the tables of texts at the end of the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptlab.reporting.formats import short_names

TABLE_WIDTH, CHART_WIDTH = 36, 19
TERMINAL_WIDTHS = range(TABLE_WIDTH, 15, -1)
INLINE = "inline-"
BLANK = "___"
_HASH_CHARACTERS, _FEW_CHARACTERS = 4, 8
_EXPRESSION = re.compile(r"\{\{-?\s*(\w+).*?\}\}", re.DOTALL)
_STATEMENT = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def shown_names(names: Iterable[str], texts: Mapping[str, str], width: int) -> Mapping[str, str]:
    """Each name without its family, and inline ones as their text in at most `width` characters; all are distinct.

    Rules that tell verbalizers of the same words apart are written out, whatever the width.
    """
    distinct = list(dict.fromkeys(names))
    inline = {name: shorten(texts[name], width) for name in distinct if name in texts}
    plain = short_names(name for name in distinct if name not in inline)
    taken = [*plain.values(), *inline.values()]
    alike = [name for name, text in inline.items() if taken.count(text) > 1]
    words = {texts[name] for name in alike}
    tails = {name: _rule(name) if len(words) == 1 and "@" in name else _hash(name) + _rule(name) for name in alike}
    told = inline | {name: _with_tail(texts[name], tail, width) for name, tail in tails.items()}
    return {name: told[name] if name in told else plain[name] for name in distinct}


def template_texts(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """The text of every inline template, a field as `{text}` and the mask as a blank."""
    return {name: _cloze(item["text"]) for name, item in (manifest.get("templates") or {}).items() if _is_inline(name)}


def verbalizer_texts(manifest: Mapping[str, Any], labels: Sequence[str]) -> Mapping[str, str]:
    """The words of every inline verbalizer that has exactly these labels, in their order."""
    found = {}
    for name, item in (manifest.get("verbalizers") or {}).items():
        if _is_inline(name) and set(item["labels"]) == set(labels):
            found[name] = "/".join("|".join(item["labels"][label]) for label in labels)
    return found


def shorten(text: str, width: int) -> str:
    """A text in at most `width` characters; what is left of a cloze is what stands around its blank."""
    if len(text) <= width:
        return text
    start = text.find(BLANK)
    if start + len(BLANK) < width:
        return text[: width - 1] + "…"
    if len(text) - start < width:
        return "…" + _from_word(text, len(text) - width + 1, width)
    window = width - 2
    return "…" + _from_word(text[: start + (window + len(BLANK)) // 2], start - (window - len(BLANK)) // 2, width) + "…"


def _from_word(text: str, start: int, width: int) -> str:
    """The text from there on, without the rest of a word that was cut where that rest is short."""
    left = text[start:].lstrip()
    rest, blank, following = left.partition(" ")
    is_cut = not text[start - 1].isspace() and not text[start].isspace()
    return following if is_cut and blank and len(rest) <= width // 4 else left


def _rule(name: str) -> str:
    """The rules that stand behind a name, `@max`, or nothing."""
    return name[name.index("@") :] if "@" in name else ""


def _hash(name: str) -> str:
    return name.removesuffix(_rule(name))[-_HASH_CHARACTERS:]


def _with_tail(text: str, tail: str, width: int) -> str:
    return f"{shorten(text, max(width - len(tail) - 1, _FEW_CHARACTERS))} {tail}"


def _is_inline(name: str) -> bool:
    return name.startswith(INLINE)


def _cloze(text: str) -> str:
    shown = _EXPRESSION.sub(lambda match: BLANK if match[1] == "mask" else f"{{{match[1]}}}", text)
    return " ".join(_STATEMENT.sub(" ", shown).split())
