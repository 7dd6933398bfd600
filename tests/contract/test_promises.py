"""The promises of the product that need a model, held from the row to the stored decision."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.batching import BatchSize
from promptlab.blocks import BlockStore
from promptlab.files import read_table
from promptlab.grids import applies
from promptlab.harness import execute
from promptlab.label_words import find_word_ids, slot_contexts
from promptlab.rendering import compile_template, render
from promptlab.rows import Limit, load_rows
from promptlab.scoring import score_block
from promptlab.specs.run import BUNDLED_TASKS, RunSpec
from promptlab.specs.task import Task
from promptlab.specs.template import load_templates
from promptlab.specs.verbalizer import load_verbalizers
from promptlab.types import EncodedPrompt, Example, Prompt, Segment
from tests.oracles import encoder_of, mask_log_probs, prompt, single_id, tokenized, word_id
from tests.stored import block_scores, decisions
from tests.tiny_library import TEXTS, write_library, write_text
from tests.tiny_models import KINDS

TOLERANCE = 1e-5
EACH_VOCABULARY = ("bert", "bert_cased", "roberta", "roberta_trimmed", "albert", "deberta_v2")
HOSTILE = (
    "[MASK]", "<mask>", "It was <mask>.", "</s></s>", "[SEP] [MASK] [SEP]", "[CLS]", "<|promptlab:mask", "{{ mask }}",
    "{% raw %}", "", "   ", "\n", "\x00", "\u200b", "great " * 200,
)  # fmt: skip


def shipped_prompts(task: Task, *, limit: int) -> list[Prompt]:
    """Rows of a bundled task through every shipped template that applies."""
    rows = load_rows(task, "test", limit=Limit(limit))
    templates = [compile_template(template) for template in load_templates([f"{task.family}/*"])]
    options = [["yes", "no", "maybe"][: len(task.labels)]] * len(rows.examples)
    return [
        render(template, example, options=words)
        for template in templates
        if applies(template, task)
        for example, words in zip(rows.examples, options, strict=True)
    ]


@pytest.mark.parametrize("kind", EACH_VOCABULARY)
@pytest.mark.parametrize("name", BUNDLED_TASKS)
def test_every_shipped_template_is_tokenised_as_its_text(tokenizers: dict[str, Any], kind: str, name: str) -> None:
    """Bundled rows through shipped templates have the tokenizer's own ids, with every tokenizer."""
    encoder = encoder_of(tokenizers[kind], 2048, uses_segment_ids=kind.startswith("bert"))
    prompts = shipped_prompts(Task.load(name), limit=3)
    for asked, encoded in zip(prompts, encoder.encode(prompts), strict=True):
        assert isinstance(encoded, EncodedPrompt)
        assert tokenized(tokenizers[kind], asked)[0] == encoded.input_ids.tolist()


@pytest.mark.parametrize("kind", EACH_VOCABULARY)
@pytest.mark.parametrize("name", BUNDLED_TASKS)
def test_every_shipped_word_is_the_token_in_its_place(tokenizers: dict[str, Any], kind: str, name: str) -> None:
    """Words of the shipped verbalizers have, in shipped templates, the ids that the whole prompt shows."""
    encoder, task = encoder_of(tokenizers[kind], 2048), Task.load(name)
    words = {word for verbalizer in load_verbalizers([f"{task.family}/*"]) for word in verbalizer.words}
    for asked in shipped_prompts(task, limit=1):
        for word, found in find_word_ids(encoder, words, [slot_contexts(asked)]).items():
            assert word_id(tokenizers[kind], asked, word) == single_id(found)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_hostile_rows_never_make_a_mask(
    kind: str, tiny: dict[str, Path], backends: dict[str, Any], tmp_path: Path
) -> None:
    """Rows that spell masks, frames or templates, or are empty or long, have one mask and one frame each."""
    library = write_library(tmp_path / "library")
    rows = [{"text": text, "label": "positive"} for text in HOSTILE]
    write_text(library / "tasks" / "data" / "views" / "test.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    spec = RunSpec(
        models=(str(tiny[kind]),), tasks=("views",), templates=("opinions/it_was",), include=(str(library),),
        verbalizers=("opinions/good_bad",), device="cpu", output_path=str(tmp_path / "results"),
    )  # fmt: skip
    run = execute(spec)
    assert {(len(HOSTILE), 0)} == {(result.num_rows, result.num_unscored) for result in run.results}
    tokenizer = backends[kind].tokenizer
    template = compile_template(load_templates(["opinions/it_was"], include=[str(library)])[0])
    examples = [Example(str(number), number, {"text": text}) for number, text in enumerate(HOSTILE)]
    for encoded in backends[kind].encoder(None).encode([render(template, example) for example in examples]):
        ids = encoded.input_ids.tolist()
        assert 1 == ids.count(tokenizer.mask_token_id)
        assert (1, 1) == (ids.count(tokenizer.cls_token_id), ids.count(tokenizer.sep_token_id))
        assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (ids[0], ids[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_same_numbers_in_any_company(
    backends: dict[str, Any], models: dict[str, Any], kind: str
) -> None:
    """Stored scores equal the naive oracle for prompts in any order and any batch size, to 1e-5."""
    backend = backends[kind]
    templates = [compile_template(template) for template in load_templates(["sentiment/*"])]
    examples = [Example(str(number), number, {"text": text}) for number, (text, _) in enumerate(TEXTS)]
    asked = [render(template, example) for template in templates for example in examples]
    encoded = [one for one in backend.encoder(None).encode(asked) if isinstance(one, EncodedPrompt)]
    whole = {
        one.key: mask_log_probs(models[kind], backend.tokenizer, text)[0]
        for one, text in zip(encoded, asked, strict=True)
        if one.num_truncated == 0
    }
    assert len(whole) > 20
    token_ids = np.array([7, 8, 20, 40])
    for size in (1, 5, len(encoded)):
        random.Random(size).shuffle(encoded)
        for start in range(0, len(encoded), size):
            found = backend.score(encoded[start : start + size], token_ids)
            for key, log_probs in zip(found.keys, found.log_probs, strict=True):
                if key in whole:
                    np.testing.assert_allclose(log_probs, whole[key][token_ids], atol=TOLERANCE, rtol=0)


def test_rows_in_another_order_or_twice_are_the_same_bytes(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Rows in another order, or each of them twice, have the same scores, to the last bit."""
    library = write_library(tmp_path / "library")
    spec = RunSpec(
        models=(str(tiny["modernbert"]),), tasks=("views",), templates=("opinions/*",), include=(str(library),),
        verbalizers=("opinions/good_bad",), device="cpu", output_path=str(tmp_path / "one"), calibrations=("none",),
    )  # fmt: skip
    one = decisions(execute(spec))
    path = library / "tasks" / "data" / "views" / "test.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    write_text(path, "".join([*reversed(lines), *lines]))
    other = decisions(execute(RunSpec(**{**dict(spec), "output_path": str(tmp_path / "other")})))
    for cell, found in one.items():
        assert found["row_id"] == other[cell]["row_id"][: len(lines)][::-1]
        for column in ("log_probabilities", "predicted", "log_mass"):
            first, again = other[cell][column][: len(lines)], other[cell][column][len(lines) :]
            assert found[column] == first[::-1]
            assert found[column] == again or cell[0] == "opinions/drawn"  # a second copy draws for itself


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_block_killed_at_any_batch_ends_with_the_same_numbers(
    backends: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """However often and wherever a block is interrupted, it is finished with the numbers of a straight pass."""
    backend, size = backends[kind], BatchSize(None, 3)
    asked = shipped_prompts(Task.load("news_topic"), limit=2)
    encoded = [one for one in backend.encoder(None).encode(asked) if isinstance(one, EncodedPrompt)]
    straight, killed = BlockStore(tmp_path / "straight"), BlockStore(tmp_path / "killed")
    num_forwards = score_block(backend, straight, encoded, [7, 9], batch_size=size).num_forwards
    score, countdown, calls = type(backend).score, [2], []

    def stop(self: Any, prompts: Sequence[EncodedPrompt], token_ids: Any, **options: Any) -> Any:
        countdown[0] -= 1
        if countdown[0] < 0:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return score(self, prompts, token_ids, **options)

    monkeypatch.setattr(type(backend), "score", stop)
    for attempt in range(num_forwards + 1):
        countdown[0] = 1 + attempt % 2
        try:
            score_block(backend, killed, encoded, [7, 9], batch_size=size)
            break
        except KeyboardInterrupt:
            continue
    assert num_forwards == len(calls)
    assert block_scores(straight) == block_scores(killed)


def test_a_prompt_key_is_what_the_model_sees(backends: dict[str, Any]) -> None:
    """Two templates that render the same tokens with the same roles share a key, and so a forward."""
    encoder = backends["bert"].encoder(None)
    one = prompt(Segment("field", "great", is_shortenable=True), " it was ", Segment("mask"))
    other = prompt(dataclasses.replace(one.segments[0], keep="tail", order=3), " it ", "was  ", Segment("mask"))
    keys = [encoded.key for encoded in encoder.encode([one, other])]
    assert keys[0] == keys[1]


def nan_free(value: Any) -> bool:
    """Whether no number in a column, lists of numbers too, is NaN."""
    return all(one is None or isinstance(one, str) or not np.isnan(one).any() for one in value)


def test_no_stored_file_holds_nan_or_text_of_rows(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Rows that do not fit are null in what a run stores; no file, with its reasons and metadata, holds a text."""
    library = write_library(tmp_path / "library")
    for split, first in (("test", 1), ("train", 2)):
        rows = [{"text": "great " * (9 * number + first) + "zqz", "label": "positive"} for number in range(1, 9)]
        write_text(library / "tasks" / "data" / "views" / f"{split}.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    spec = RunSpec(
        models=(str(tiny["bert"]),), tasks=("views",), include=(str(library),), verbalizers=("opinions/*",),
        templates=("{{ text | fixed }} It was {{ mask }}.", "{{ text }}{{ mask }}!", "opinions/in_brackets"),
        calibrations=("*",), prepare=("*",), store_states=True, device="cpu", output_path=str(tmp_path / "results"),
    )  # fmt: skip
    run = execute(spec)
    assert any(0 < result.num_unscored < len(rows) for result in run.scored())
    assert any(result.skipped for result in run.results)
    stored = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {".json", ".jsonl", ".parquet"} == {path.suffix for path in stored}
    for path in stored:
        if path.suffix != ".parquet":
            text = path.read_text()
            for document in text.splitlines() if path.suffix == ".jsonl" else [text]:
                json.loads(document, parse_constant=pytest.fail)
            assert "zqz" not in text
            continue
        table, metadata = read_table(path)
        assert "zqz" not in f"{path} {table.to_pydict()} {metadata}"
        assert all(nan_free(table[name].to_pylist()) for name in table.column_names)
