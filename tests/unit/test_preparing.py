"""Preparing blocks: words before any forward, rows stored window by window, and the prompts that must be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab import preparing
from promptlab.backends.mlm import MaskedBackend
from promptlab.blocks import BlockStore
from promptlab.encoding import Encoder
from promptlab.errors import DataError, TemplateError
from promptlab.files import read_table
from promptlab.harness import Silence, execute, plan_run
from promptlab.planning import PlannedBlock
from promptlab.preparing import (
    EncodedBlock,
    count_lacking,
    count_missing,
    encode_block,
    find_sources,
    has_prompts,
    missing_windows,
    prepare_block,
)
from promptlab.specs.run import RunSpec
from promptlab.store import RunStore
from promptlab.types import EncodedPrompt, MaskScores
from tests.oracles import MASK, field, prompt, single_id
from tests.stored import decisions, files
from tests.tiny_library import write_library, write_text

WORDS = ("great", "terrible", "good", "bad", "yes", "no", "maybe", "world", "sports", "business", "tech")
# 13 texts: the last window of four has repeats of the first and one that is too long where it must not be cut.
MANY = [f"it was {WORDS[number]} and {WORDS[number * 3 % 7]}" for number in range(10)]
MANY += [MANY[0], MANY[3], " ".join(["great"] * 30)]
SELECTED = ("opinions/it_was", "opinions/with_options", "{{ text | fixed }} So {{ mask }}.")


class Record(Silence):
    """Remembers how many prompts were announced and how many scored."""

    def __init__(self) -> None:
        self.num_announced = self.num_scored = 0

    def start(self, name: str, num_prompts: int) -> None:
        """Count them."""
        self.num_announced += num_prompts

    def advance(self, num_prompts: int) -> None:
        """Count them."""
        self.num_scored += num_prompts


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The tiny library, whose task of opinions has the texts of this file as its test rows."""
    library = write_library(tmp_path / "library")
    write_rows(library, MANY)
    return library


@pytest.fixture
def many(library: Path, tiny: dict[str, Path], tmp_path: Path) -> RunSpec:
    """A run over 13 rows with repeats and a row that does not fit, by three templates and three calibrations."""
    return RunSpec(
        models=(str(tiny["bert"]),), tasks=("views",), templates=SELECTED, verbalizers=("opinions/g*",),
        calibrations=("none", "contextual", "support"), max_length=24, include=(str(library),), device="cpu",
        output_path=str(tmp_path / "results"), name="run",
    )  # fmt: skip


def write_rows(library: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": ("positive", "negative")[number % 2]} for number, text in enumerate(texts)]
    write_text(library / "tasks" / "data" / "views" / "test.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def having(spec: RunSpec, **changes: Any) -> RunSpec:
    return RunSpec(**{**dict(spec), **changes})


def in_windows(monkeypatch: pytest.MonkeyPatch, *, window: int = 4, kept: int = 0) -> None:
    """Let so few rows be planned together, and so few encodings be kept."""
    monkeypatch.setattr(preparing, "WINDOW", window)
    monkeypatch.setattr(preparing, "MAX_KEPT", kept)


def planned(spec: RunSpec, template: str, **changes: Any) -> tuple[PlannedBlock, Encoder]:
    """The block of one template, and the encoder of its model."""
    (model,) = plan_run(having(spec, templates=template, verbalizers="opinions/good_bad", **changes)).models
    return model.blocks[0], model.encoder


def encoded(block: PlannedBlock, store: BlockStore, encoder: Encoder) -> EncodedBlock:
    """A block after both steps."""
    return encode_block(prepare_block(block, store, encoder, seed=0), store, encoder, seed=0)


def windows_of(block: EncodedBlock, store: BlockStore, encoder: Encoder) -> list[list[str]]:
    """The keys of the prompts of each window that must be scored."""
    found = missing_windows(block, store, store.read(), encoder, seed=0)
    return [[one.key for one in window] for window in found]


def keys_of(encoder: Encoder, texts: list[str], *, after: str = " It was ") -> list[str]:
    """The prompt keys of texts, empty for one that cannot be scored."""
    asked = encoder.encode([prompt(field(text), after, MASK, ".") for text in texts])
    return [one.key if isinstance(one, EncodedPrompt) else "" for one in asked]


def scored(store: BlockStore, keys: list[str], token_ids: list[int]) -> None:
    """Store made-up scores of prompts."""
    number = len(keys)
    store.append(
        [
            MaskScores(
                keys=tuple(keys),
                fills=np.zeros(number, dtype=np.int32),
                masks=np.zeros(number, dtype=np.int32),
                log_normalizers=np.zeros(number, dtype=np.float32),
                token_ids=np.array(token_ids),
                log_probs=np.zeros((number, len(token_ids)), dtype=np.float32),
                top_ids=np.zeros((number, 1), dtype=np.int64),
                top_log_probs=np.zeros((number, 1), dtype=np.float32),
            )
        ]
    )


def in_another_folder(spec: RunSpec, tmp_path: Path, name: str, **changes: Any) -> RunSpec:
    return having(spec, output_path=str(tmp_path / name), **changes)


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "block")


def test_the_rows_come_first_and_then_what_calibrations_ask(many: RunSpec) -> None:
    """Segments are the rows of the split and one group of prompts a calibration, each with a file of its own."""
    block, _ = planned(many, "opinions/it_was")
    sources = find_sources(block)
    assert ["rows", "content_free", "support"] == list(sources)
    assert [13, 3, 6] == [len(source.examples) for source in sources.values()]
    assert all(source.template is block.template for source in sources.values())
    assert sources["rows"].stored.startswith("rows-views-test-")
    assert sources["support"].stored.startswith("calibration-views-support-")


def test_a_domain_prompt_has_its_own_template(many: RunSpec, library: Path) -> None:
    """What is asked without a row is another text than the block's."""
    text = '---\ndomain_prompt: "So it was {{ mask }}."\n---\n{{ text }} It was {{ mask }}.\n'
    write_text(library / "templates" / "opinions" / "with_domain.jinja", text)
    source = find_sources(planned(many, "opinions/with_domain")[0])["domain_prompt"]
    assert ("So it was {{ mask }}.", 1) == (source.template.template.text, len(source.examples))


def test_preparing_finds_words_and_stores_nothing(
    many: RunSpec, store: BlockStore, backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens of all words of the family are known before a row is encoded or the folder is made."""
    monkeypatch.setattr(Encoder, "encode", None)
    block, encoder = planned(many, "opinions/it_was")
    prepared = prepare_block(block, store, encoder, seed=0)
    ids = {
        word: backends["bert"].tokenizer.convert_tokens_to_ids(word) for word in ("good", "bad", "great", "terrible")
    }
    for name in ("rows", "content_free", "support"):
        known = {word: token for word, one in prepared.words[name].items() if word in ids and (token := single_id(one))}
        assert ids == known
        assert "splits into 3 tokens (bad ##n ##ess)" in str(prepared.words[name]["badness"])
    assert sorted(ids.values()) == prepared.token_ids
    assert (22, 22) == (prepared.num_prompts, count_missing(prepared, store))
    assert not store.folder.exists()


@pytest.mark.parametrize(("window", "kept"), [(8192, 16384), (4, 0), (5, 14), (1, 3)])
def test_rows_are_stored_as_they_stand_in_the_task(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch, window: int, kept: int
) -> None:
    """Each row has its id, place, prompt, cut and gold label, or the reason why it has no prompt, in any windows."""
    in_windows(monkeypatch, window=window, kept=kept)
    block, encoder = planned(many, "{{ text | fixed }} It was {{ mask }}.")
    made = encoded(block, store, encoder)
    rows = store.read_rows(made.prepared.names["rows"]).rows
    asked = encoder.encode([prompt(field(text, fixed=True), " It was ", MASK, ".") for text in MANY])
    expected = [one.key.encode() if isinstance(one, EncodedPrompt) else b"" for one in asked]
    assert expected == rows.keys.tolist()
    assert b"" == expected[-1]
    assert {12: "the text that must not be cut is longer than 24 tokens"} == rows.reasons
    assert list(range(13)) == rows.row_index.tolist()
    assert [1, 0] * 6 + [1] == rows.gold.tolist()
    assert [one.id for one in block.rows.examples] == [str(row_id) for row_id in rows.row_ids]
    assert [0] * 13 == rows.num_truncated.tolist()
    content_free = store.read_rows(made.prepared.names["content_free"]).rows
    assert ([-1] * 3, [-1] * 3) == (content_free.gold.tolist(), content_free.row_index.tolist())


def test_cut_rows_are_counted(many: RunSpec, store: BlockStore) -> None:
    """How many tokens of a row were cut stands beside its prompt."""
    block, encoder = planned(many, "opinions/it_was")
    rows = store.read_rows(encoded(block, store, encoder).prepared.names["rows"]).rows
    assert [0] * 12 + [30 + 4 + 2 - 24] == rows.num_truncated.tolist()


def test_the_surroundings_of_the_slot_are_stored_where_no_row_stands_in_them(many: RunSpec, store: BlockStore) -> None:
    """For words that come later: a literal slot has its surroundings beside the rows, one that touches text has not."""
    block, encoder = planned(many, "opinions/in_brackets")
    stored = store.read_rows(encoded(block, store, encoder).prepared.names["rows"]).metadata
    assert [[[" (", ")", "' (___)'"]]] == stored["contexts"]
    touching, _ = planned(many, "{{ text }}{{ mask }}!")
    other = BlockStore(store.folder / "touching")
    stored = other.read_rows(encoded(touching, other, encoder).prepared.names["rows"]).metadata
    assert "contexts" not in stored
    assert not any(text in json.dumps(stored) for text in MANY)


def test_too_many_surroundings_are_not_stored(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that draws its words has several surroundings; over a limit they are left out."""
    monkeypatch.setattr(preparing, "MAX_CONTEXTS", 1)
    block, encoder = planned(many, "{{ text }} {{ ['<', '[', '('] | choice }}{{ mask }}.")
    made = encoded(block, store, encoder)
    assert len(made.prepared.contexts["rows"]) > 1
    assert "contexts" not in store.read_rows(made.prepared.names["rows"]).metadata


def test_what_is_stored_is_neither_rendered_nor_encoded_again(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every score is there, the second run reads the rows of a block and nothing else."""
    block, encoder = planned(many, "opinions/it_was")
    first = encoded(block, store, encoder)
    scored(store, sorted(set(keys_of(encoder, [*MANY, "N/A", "", "none"]))), first.prepared.token_ids)
    scored(store, [key for window in windows_of(first, store, encoder) for key in window], first.prepared.token_ids)
    for name in ("render", "find_word_ids"):
        monkeypatch.setattr(preparing, name, None)
    monkeypatch.setattr(Encoder, "encode", None)
    again = prepare_block(block, store, encoder, seed=0)
    assert (first.prepared.words, {}) == (again.words, again.contexts)
    assert 0 == count_missing(again, store) == count_lacking(again, store)
    second = encode_block(again, store, encoder, seed=0)
    assert (0, {}, []) == (second.num_missing, second.kept, windows_of(second, store, encoder))


def test_a_segment_that_is_stored_is_left_as_it_is(many: RunSpec, store: BlockStore) -> None:
    """A further calibration adds its prompts; the rows stay, byte for byte."""
    block, encoder = planned(many, "opinions/it_was", calibrations=("none",))
    encoded(block, store, encoder)
    before = files(store.folder)
    more, _ = planned(many, "opinions/it_was", calibrations=("none", "support"))
    assert block.block_id == more.block_id
    prepared = prepare_block(more, store, encoder, seed=0)
    assert ["support"] == list(prepared.contexts)
    encode_block(prepared, store, encoder, seed=0)
    after = files(store.folder)
    assert before.items() <= after.items()
    assert 1 == len(after) - len(before)


def test_a_word_that_nobody_knew_is_looked_up_in_every_segment(many: RunSpec, store: BlockStore) -> None:
    """New words are added to the rows that are there, and the prompts then lack their tokens."""
    block, encoder = planned(many, "opinions/it_was")
    scored(store, keys_of(encoder, MANY), encoded(block, store, encoder).prepared.token_ids)
    spec = having(many, templates="opinions/it_was", verbalizers=[{"negative": "no", "positive": "yes"}])
    more = plan_run(spec).models[0].blocks[0]
    prepared = prepare_block(more, store, encoder, seed=0)
    assert ["rows", "content_free", "support"] == list(prepared.contexts)
    found = encode_block(prepared, store, encoder, seed=0)
    assert {"yes", "no", "good"} <= set(store.read_rows(prepared.names["rows"]).words)
    assert len(set(keys_of(encoder, MANY))) <= found.num_missing == count_lacking(prepared, store)


def test_a_prompt_stands_in_the_first_window_that_has_it(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are those of the rows, then of each calibration; repeats stand once, in the order of the rows."""
    in_windows(monkeypatch)
    block, encoder = planned(many, "opinions/it_was", calibrations=("none",))
    made = encoded(block, store, encoder)
    keys = keys_of(encoder, MANY)
    assert len(set(keys)) == 11
    windows = windows_of(made, store, encoder)
    assert [keys[:4], keys[4:8], keys[8:10], keys[12:], keys_of(encoder, ["N/A", "", "none"])] == windows
    assert 14 == made.num_missing


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_window_is_given_whole_where_one_prompt_is_missing(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Batches are planned from all prompts of a window; a window with nothing missing is not even encoded."""
    in_windows(monkeypatch, kept=kept)
    block, encoder = planned(many, "opinions/it_was", calibrations=("none",))
    made, keys = encoded(block, store, encoder), keys_of(encoder, MANY)
    assert ({"rows", "content_free"} if kept else set()) == set(made.kept)
    scored(store, [*keys[:4], keys[5], *keys_of(encoder, ["N/A", "", "none"])], made.prepared.token_ids)
    num_encoded: list[int] = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, asked, **more: num_encoded.append(len(asked)) or encode(self, asked, **more)
    )
    assert [keys[4:8], keys[8:10], keys[12:]] == windows_of(made, store, encoder)
    assert ([] if kept else [4, 4, 1]) == num_encoded


def test_encodings_are_kept_while_they_are_few(
    many: RunSpec, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments are held as long as all that are held stay within the number; the prompts are the same."""
    block, encoder = planned(many, "opinions/it_was")
    expected: list[list[str]] = []
    every = ["rows", "content_free", "support"]
    for number, names in ((0, []), (15, every[:1]), (9, every[1:]), (22, every)):
        monkeypatch.setattr(preparing, "MAX_KEPT", number)
        own = BlockStore(store.folder / str(number))
        made = encoded(block, own, encoder)
        assert names == list(made.kept)
        windows = windows_of(made, own, encoder)
        expected = expected or windows
        assert expected == windows


def test_a_token_that_one_prompt_lacks_makes_it_missing(many: RunSpec, store: BlockStore) -> None:
    """Scored for some words only, a prompt is scored again for all."""
    block, encoder = planned(many, "opinions/it_was", calibrations=("none",))
    made, keys = encoded(block, store, encoder), keys_of(encoder, MANY)
    tokens = made.prepared.token_ids
    scored(store, sorted(set(keys)), tokens[:-1])
    assert 14 == count_lacking(made.prepared, store)
    scored(store, sorted(set(keys))[:6], tokens[-1:])
    assert 8 == count_lacking(made.prepared, store)


def test_rows_that_cannot_be_scored_are_not_missing(many: RunSpec, store: BlockStore) -> None:
    """Where no prompt fits there is nothing to score, and the block says so."""
    block, encoder = planned(many, "{{ text }} " + "it was a good day and " * 5 + "{{ mask }}.")
    made = encoded(block, store, encoder)
    assert (0, 0, []) == (made.num_missing, count_lacking(made.prepared, store), windows_of(made, store, encoder))
    assert not has_prompts(made.prepared, store)
    fitting, _ = planned(many, "opinions/it_was")
    other = BlockStore(store.folder / "fitting")
    assert has_prompts(encoded(fitting, other, encoder).prepared, other)


@pytest.mark.parametrize("window", [1, 4, 8192])
def test_a_row_that_cannot_be_rendered_is_named(
    many: RunSpec, library: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Template and row are named for two masks and for a text that spells the placeholder, in any window."""
    in_windows(monkeypatch, window=window)
    write_rows(library, [*MANY[:6], "so <|promptlab:mask|> it is"])
    block, encoder = planned(many, "opinions/it_was")
    row = block.rows.examples[6].id
    with pytest.raises(DataError) as fault:
        prepare_block(block, store, encoder, seed=0)
    assert str(fault.value).startswith(f"{block.template.shown}, row {row}: a text contains '<|promptlab:mask|>'")
    block, _ = planned(many, "{{ text }} {% if text == '" + MANY[5] + "' %}{{ mask }}{% endif %} {{ mask }}.")
    with pytest.raises(TemplateError, match=f"row {block.rows.examples[5].id}: has 2 masks and the first row 1"):
        prepare_block(block, store, encoder, seed=0)
    assert not store.folder.exists()


def test_a_block_is_described_when_its_rows_are_stored(many: RunSpec, store: BlockStore) -> None:
    """What its id was made of lies beside its rows."""
    block, encoder = planned(many, "opinions/it_was")
    encoded(block, store, encoder)
    described = json.loads((store.folder / "block.json").read_text())
    assert block.identity == {name: value for name, value in described.items() if name != "schema_version"}


@pytest.mark.parametrize(("window", "kept"), [(4, 0), (5, 14)])
def test_windows_change_no_byte_of_what_is_found(
    many: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, kept: int
) -> None:
    """In windows of a few rows, encoded again or kept, results and samples are those of one window, byte for byte."""
    whole = execute(in_another_folder(many, tmp_path, "whole", batch_size=1))
    in_windows(monkeypatch, window=window, kept=kept)
    small = execute(in_another_folder(many, tmp_path, "small", batch_size=1))
    assert whole.timings["forwards"] == small.timings["forwards"]
    assert len({result.num_unscored for result in small.results}) > 1
    patterns = ("results.json", "samples/*", "blocks/*/rows-*", "blocks/*/calibration-*")
    assert files(whole.folder, *patterns) == files(small.folder, *patterns)


def test_windows_with_large_batches_give_the_same_numbers(
    many: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of a window are others than batches of all rows: the same decisions, log-probabilities to 1e-5."""
    whole = execute(in_another_folder(many, tmp_path, "whole"))
    in_windows(monkeypatch)
    small = execute(in_another_folder(many, tmp_path, "small"))
    assert whole.timings["prompts"] == small.timings["prompts"]
    assert whole.timings["forwards"] < small.timings["forwards"]
    expected, found = decisions(whole), decisions(small)
    assert list(expected) == list(found)
    for cell in expected:
        for column in ("row_id", "gold", "predicted", "reason", "num_truncated"):
            assert expected[cell][column] == found[cell][column]
        for one, other in zip(expected[cell]["log_probabilities"], found[cell]["log_probabilities"], strict=True):
            assert (one is None) == (other is None)
            np.testing.assert_allclose(other or [], one or [], atol=1e-5)


def test_a_prompt_in_several_windows_is_scored_once(many: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats of a row in a later window, or among the prompts of a calibration, cost nothing."""
    in_windows(monkeypatch)
    record = Record()
    run = execute(having(many, templates="opinions/it_was"), progress=record)
    seen: list[str] = []
    for block in {result.block for result in run.results}:
        for path in (run.folder / "blocks" / block).glob("part-*"):
            seen += [f"{block} {key}" for key in read_table(path)[0]["prompt_key"].to_pylist()]
    assert len(seen) == len(set(seen)) == run.timings["prompts"]
    assert record.num_announced == record.num_scored
    assert record.num_announced > run.timings["prompts"]


@pytest.mark.parametrize("stop_after", [0, 11])
def test_a_run_in_windows_that_was_stopped_ends_with_the_same_bytes(
    many: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Batches of every window are planned from all of its prompts, so what is left is scored as it would have been."""
    in_windows(monkeypatch)
    many = having(many, skip_preflight=True)
    straight = execute(in_another_folder(many, tmp_path, "straight", batch_size=2))
    score, calls = MaskedBackend.score, []

    def stop(self: MaskedBackend, prompts: Any, token_ids: Any, **options: Any) -> Any:
        calls.append(len(prompts))
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return score(self, prompts, token_ids, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedBackend, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(having(many, batch_size=2))
    resumed = execute(having(many, batch_size=2))
    assert straight.timings["forwards"] == stop_after + resumed.timings["forwards"]
    assert files(straight.folder, "results.json", "samples/*") == files(resumed.folder, "results.json", "samples/*")


def test_progress_adds_up_to_what_was_announced(many: RunSpec) -> None:
    """Repeats and rows that do not fit are announced before anything is encoded, and are told when it is."""
    for changes in ({"limit": 4}, {}, {"verbalizers": [{"negative": "no", "positive": "yes"}]}):
        record = Record()
        execute(having(many, **changes), progress=record, amend=True)
        assert 0 < record.num_announced == record.num_scored
    again = Record()
    execute(many, progress=again, amend=True)
    assert 0 == again.num_announced == again.num_scored


def test_every_segment_of_a_block_has_its_file(many: RunSpec) -> None:
    """Rows and the prompts of calibrations lie apart, each with the tokens of all words of the family."""
    run = execute(many)
    store = RunStore(run.folder)
    for entry in run.manifest["blocks"]:
        assert {"rows", "content_free", "support"} == set(entry["segments"])
        for name, stored in entry["segments"].items():
            found = store.block(entry["block"]).read_rows(stored)
            assert {"rows": 13, "content_free": 3, "support": 6}[name] == len(found.rows)
            known = {"good", "bad"} if entry["bound"] == "opinions/good_bad" else {"great", "terrible"}
            assert known <= set(found.words)
            assert entry["bound"] is not None or {"good", "bad", "great", "terrible"} <= set(found.words)
