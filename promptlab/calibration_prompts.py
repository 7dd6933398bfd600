"""What calibrations ask beside the rows: content-free texts, bags of train words, a domain prompt, support rows.

Gold labels are never looked at; train rows whose fields stand among the scored rows too are left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptlab.hashing import content_hash
from promptlab.rendering import CompiledTemplate, compile_template
from promptlab.rows import RowSet
from promptlab.seeding import derive_generator, derive_seed
from promptlab.specs.template import Template
from promptlab.types import Example

CONTENT_FREE_TEXTS = ("N/A", "", "none")
NUM_BAGS = 20
NUM_SUPPORT = 200
MAX_TRAIN = 10_000  # rows that bags are drawn from
DOMAIN_PROMPT = "domain_prompt"
ALWAYS = ("content_free", DOMAIN_PROMPT)  # few enough to be asked of every template
FROM_TRAIN = ("domain", "support")
NAMES = (*ALWAYS, *FROM_TRAIN)
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_BLANK_IN_CJK = re.compile(rf"(?<=[{_CJK}]) (?=[{_CJK}])")


@dataclass(frozen=True, eq=False)
class PromptGroup:
    """The texts that a calibration asks with one template; `template` where it is not the block's own."""

    name: str
    examples: tuple[Example, ...]
    template: CompiledTemplate | None = None

    @functools.cached_property
    def hash(self) -> str:
        """Identifies the texts, in order, and the template where it is another one."""
        template = self.template.template if self.template is not None else None
        text = template.text if template is not None else None
        apart = [template.pieces] if template is not None and template.pieces != "whole" else []
        asked = [[example.id, dict(example.fields)] for example in self.examples]
        return content_hash([self.name, text, asked, *apart])


@dataclass(frozen=True, slots=True, eq=False)
class TrainRows:
    """The unlabelled train rows of a task, without those that are scored, in a seeded order; or why there are none."""

    examples: Sequence[Example]
    num_in_scored: int = 0
    fault: str | None = None


def draw_train_rows(train: RowSet, scored: RowSet, *, seed: int) -> TrainRows:
    """Train rows in the order in which a calibration takes them; a row that is scored too is left out and counted."""
    known = {name.rpartition("-")[0] for name in scored.examples.id_texts()}
    kept = [
        (name, place) for place, name in enumerate(train.examples.id_texts()) if name.rpartition("-")[0] not in known
    ]
    order = sorted(kept, key=lambda item: derive_seed(seed, "support", train.task, item[0]))
    examples = [train.examples[place] for _, place in order[:MAX_TRAIN]]
    fault = None if examples else "needs train rows that are not scored too, and there are none."
    return TrainRows(examples, len(train.examples) - len(kept), fault)


def make_group(
    name: str, template: CompiledTemplate | None, fields: Sequence[str], train: TrainRows | None, *, seed: int
) -> PromptGroup | str:
    """The prompts that a calibration needs with a template, or why it cannot have them.

    Args:
        name: `content_free`, `domain`, `domain_prompt` or `support`.
        template: the block's template, which only `domain_prompt` looks at.
        fields: the task's fields.
        train: the task's train rows, None where it has none.
        seed: the user's seed.
    """
    if name == "content_free":
        return content_free(fields)
    if name == DOMAIN_PROMPT:
        assert template is not None
        return domain_prompt(template)
    if train is None:
        return "needs train rows, and the task has none."
    if train.fault is not None:
        return train.fault
    return support(train) if name == "support" else bags(train, fields, seed=seed)


def content_free(fields: Sequence[str]) -> PromptGroup:
    """Every field of the row replaced by the same content-free text (Zhao et al. 2021, section 4)."""
    examples = (Example(f"content-free:{text}", -1, dict.fromkeys(fields, text)) for text in CONTENT_FREE_TEXTS)
    return PromptGroup("content_free", tuple(examples))


def domain_prompt(template: CompiledTemplate) -> PromptGroup | str:
    """The template's own text without a row (Holtzman et al. 2021, section 3)."""
    whole, text = template.template, template.template.domain_prompt
    if text is None:
        return "needs a domain_prompt in the head of the template, and it has none."
    path = f"{template.shown} domain_prompt"
    alone = Template(name=whole.name, family=None, path=path, text=text, pieces=whole.pieces)
    return PromptGroup(DOMAIN_PROMPT, (Example("domain-prompt", -1, {}),), compile_template(alone))


def support(train: TrainRows) -> PromptGroup:
    """The first 200 train rows, or all where there are fewer (KPT, Hu et al. 2022, section 3.2)."""
    taken = train.examples[:NUM_SUPPORT]
    return PromptGroup("support", tuple(Example(one.id, one.index, one.fields) for one in taken))


def bags(train: TrainRows, fields: Sequence[str], *, seed: int) -> PromptGroup:
    """20 random texts of words of the train rows, as long as a row is in the median (Fei et al. 2023, section 4.1).

    A field that holds no text takes the value of a random row. Where a script has no blanks, a character is a word.
    """
    generator = derive_generator(seed, "domain", *sorted(fields))
    columns = {field: [example.fields.get(field, "") for example in train.examples] for field in fields}
    drawn = {field: _draw(values, generator) for field, values in columns.items()}
    examples = (
        Example(f"domain:{number}", -1, {field: drawn[field][number] for field in fields}) for number in range(NUM_BAGS)
    )
    return PromptGroup("domain", tuple(examples))


def _draw(values: Sequence[Any], generator: np.random.Generator) -> list[Any]:
    """20 bags of the words of a field."""
    if not all(isinstance(value, str) for value in values):
        return [values[int(number)] for number in generator.integers(len(values), size=NUM_BAGS)]
    words = [_WORD.findall(value) for value in values]
    pooled = [word for row in words for word in row]
    length = int(np.median([len(row) for row in words]))
    if not pooled:
        return [""] * NUM_BAGS
    numbers = generator.integers(len(pooled), size=(NUM_BAGS, length))
    texts = (" ".join(pooled[int(number)] for number in row) for row in numbers)
    return [_BLANK_IN_CJK.sub("", text) for text in texts]
