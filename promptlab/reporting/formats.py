"""Numbers -> the few characters that a table or a sentence shows; at most three digits of what was measured.

Tables and pages show the same characters for the same number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MISSING = "–"
_STEPS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def three_digits(value: float | None) -> str:
    """A metric: three decimals up to 1, three digits in all above."""
    if value is None:
        return MISSING
    size = abs(value)
    decimals = 3 if size <= 1 else 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:.{decimals}f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    if value is None:
        return MISSING
    text = three_digits(abs(value))
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else "−") + text


def span(low: float | None, high: float | None) -> str:
    """From a low to a high value."""
    return MISSING if low is None or high is None else f"{three_digits(low)} to {three_digits(high)}"


def signed_span(low: float | None, high: float | None) -> str:
    """From one difference to another, with their signs."""
    return MISSING if low is None or high is None else f"{signed(low)} to {signed(high)}"


def percent(share: float | None) -> str:
    """A share as a percentage with at most three digits; tiny ones are said to be below 0.001 %."""
    if share is None:
        return MISSING
    value = 100 * share
    if value < 0.001:
        return "<0.001 %" if value else "0 %"
    decimals = 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:.{decimals}f} %"


def round_percent(share: float) -> str:
    """A limit that is a whole percentage."""
    return f"{100 * share:.0f} %"


def count(number: int | None) -> str:
    """A count with commas."""
    return MISSING if number is None else f"{number:,}"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """A count and what is counted."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def size(num_bytes: int | None) -> str:
    """Bytes in the unit that suits them."""
    if num_bytes is None:
        return MISSING
    for unit, step in _STEPS:
        if num_bytes >= step:
            return f"{three_digits(num_bytes / step)} {unit}"
    return f"{num_bytes} bytes"


def listing(names: Iterable[str]) -> str:
    """Names as an English list."""
    found = list(names)
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + " and " + found[-1] if found else "none"


def short_names(names: Iterable[str]) -> Mapping[str, str]:
    """Each name without its family, where that leaves it distinct."""
    distinct = list(dict.fromkeys(names))
    shorts = [name.rpartition("/")[2] for name in distinct]
    return {name: short if shorts.count(short) == 1 else name for name, short in zip(distinct, shorts, strict=True)}


def model_names(models: Iterable[str]) -> Mapping[str, str]:
    """Each model as it is called in tables: the last folder of a path, else its whole name."""
    distinct = list(dict.fromkeys(models))
    shorts = [_last_folder(name) if _is_path(name) else name for name in distinct]
    return {name: short if shorts.count(short) == 1 else name for name, short in zip(distinct, shorts, strict=True)}


def _is_path(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or "\\" in model or model.count("/") > 1


def _last_folder(model: str) -> str:
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model
