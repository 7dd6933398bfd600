"""What continued pretraining reads of any tokenizer: ids, word starts, rows, hidden words, and its options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from promptlab.errors import ModelError, UsageError
from promptlab.pretraining.corpus import Corpus
from promptlab.pretraining.domain import find_spelling
from promptlab.pretraining.masking import HiddenPlaces, hide_words
from promptlab.pretraining.optimising import build_plain_optimizer, scheduled_factor
from promptlab.pretraining.options import Continuation, parse_options
from promptlab.pretraining.packing import Edges, pack_pass, pack_word_starts
from promptlab.pretraining.recipe import Masking
from promptlab.pretraining.token_store import TokenStore, encode_documents, open_store

MASK_ID, NUM_IDS = 4, 50
CAN_HIDE = torch.arange(NUM_IDS) >= 5
FRAMES = {
    "bert": ("[CLS]", "[SEP]"),
    "roberta": ("<s>", "</s>"),
    "xlm_roberta": ("<s>", "</s>"),
    "albert": ("[CLS]", "[SEP]"),
}


def hidden(rows: Any, starts: Any = None, *, seed: int = 3, **masking: Any) -> HiddenPlaces:
    """Rows with tokens hidden, words whole where starts are given."""
    rule = Masking(**{"rate": 0.15, **masking})
    return hide_words(torch.as_tensor(rows), starts, CAN_HIDE, rule, mask_id=MASK_ID, seed=seed)


@given(st.integers(0, 1000), st.floats(0.01, 0.9), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_words_are_hidden_whole_or_not_at_all(seed: int, rate: float, length: int) -> None:
    """No word is hidden in part, no special token at all, and each row with text hides at least one word."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, NUM_IDS, (3, length), generator=generator)
    starts = torch.rand(rows.shape, generator=generator) < 0.5
    found = hidden(rows, starts, seed=seed, rate=rate)
    is_hidden = torch.zeros_like(starts)
    is_hidden[found.rows, found.positions] = True
    assert torch.equal(rows[found.rows, found.positions], found.targets)
    assert torch.equal(rows[~is_hidden], found.ids[~is_hidden])
    for row, begins, gone in zip(rows.tolist(), starts.tolist(), is_hidden.tolist(), strict=True):
        words: list[set[bool]] = []
        for position, token in enumerate(row):
            if token < 5:
                assert not gone[position]
            elif not position or begins[position] or row[position - 1] < 5:
                words.append({gone[position]})
            else:
                words[-1].add(gone[position])
        assert all(len(word) == 1 for word in words)
        assert bool(words) == any(gone)


def test_the_share_of_hidden_tokens_is_exact_for_tokens_and_right_on_average_for_words() -> None:
    """15 % of the tokens that can be hidden, in each row or over many."""
    rows = torch.randint(5, NUM_IDS, (400, 42))
    rows[:, 0], rows[:, -1] = 2, 3
    assert {6} == set(torch.bincount(hidden(rows).rows).tolist())
    counts = torch.bincount(hidden(rows, rate=0.16).rows)
    assert {6, 7} == set(counts.tolist()) and pytest.approx(float(counts.float().mean()), abs=0.1) == 6.4
    starts = torch.rand(rows.shape) < 0.6
    assert pytest.approx(len(hidden(rows, starts).targets) / (400 * 40), abs=0.005) == 0.15


@pytest.mark.parametrize(("random_share", "keep_share"), [(0.1, 0.1), (0.3, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_what_is_shown_in_place_of_a_hidden_token(random_share: float, keep_share: float) -> None:
    """The asked shares show another token or themselves, the rest the mask; a special token is never a stranger."""
    found = hidden(torch.full((300, 40), 20), rate=0.5, random_share=random_share, keep_share=keep_share)
    shown = found.ids[found.rows, found.positions]
    assert pytest.approx(float((shown == MASK_ID).float().mean()), abs=0.02) == 1 - random_share - keep_share
    assert pytest.approx(float((shown == 20).float().mean()), abs=0.02) == keep_share + random_share / 45
    assert {int(token) for token in shown if token < 5} <= {MASK_ID}


def test_a_part_of_a_batch_has_the_places_of_its_rows() -> None:
    """Parts are the batch, cut by rows."""
    whole = hidden(torch.randint(5, NUM_IDS, (6, 20)))
    parts = [whole.part(first, first + 2) for first in (0, 2, 4)]
    assert torch.equal(whole.ids, torch.cat([part.ids for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert torch.equal(whole.rows, torch.cat([part.rows + first for part, first in zip(parts, (0, 2, 4), strict=True)]))


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_rows_are_framed_as_the_tokenizer_frames_a_text(tokenizers: dict[str, Any], kind: str) -> None:
    """The special tokens of a row are those around a text; text that spells one is text."""
    tokenizer = tokenizers[kind]
    spelling = find_spelling(tokenizer, num_embeddings=len(tokenizer) + 7)
    assert tuple(tokenizer.convert_tokens_to_ids(list(FRAMES[kind]))) == spelling.edges.before + spelling.edges.behind
    assert spelling.edges.between == spelling.edges.behind
    (ids, _), *_ = encode_documents(iter([f"it was {tokenizer.mask_token} good"]), spelling.engine)
    assert spelling.mask_id == tokenizer.mask_token_id and spelling.mask_id not in spelling.without_specials(ids)
    assert not spelling.can_hide[[*tokenizer.all_special_ids, *range(len(tokenizer), len(tokenizer) + 7)]].any()
    assert len(tokenizer) - len(set(tokenizer.all_special_ids)) == int(spelling.can_hide.sum())


def test_a_tokenizer_without_a_mask_is_refused(tokenizers: dict[str, Any]) -> None:
    """A causal model's tokenizer is explained."""
    import copy

    tokenizer = copy.deepcopy(tokenizers["bert"])
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="no mask token, so the checkpoint is no masked language model"):
        find_spelling(tokenizer, num_embeddings=10)
    with pytest.raises(ModelError, match="is not a fast one"):
        find_spelling(object(), num_embeddings=10)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "xlm_roberta", "albert", "deberta_v2"])
def test_words_begin_where_a_reader_sees_them_begin(tokenizers: dict[str, Any], kind: str) -> None:
    """The tokens between two starts decode to one word of the text, whatever the way to tokenise."""
    engine = find_spelling(tokenizers[kind], num_embeddings=2000).engine
    text = "unspeakable newspapers\nreturned  yesterday evening"
    ((ids, starts),) = encode_documents(iter([text]), engine, marks_words=True)
    assert len(ids) > len(text.split())
    words = [engine.decode(part.tolist()).strip() for part in np.split(ids, np.flatnonzero(starts)[1:])]
    assert text.split() == [word.replace("##", "") for word in words if word]


def test_ids_take_four_bytes_only_where_two_are_too_few(tmp_path: Path) -> None:
    """A vocabulary of 65,536 fits into two bytes, one more does not, and no id is lost."""
    from tokenizers import pre_tokenizers

    path = tmp_path / "a.txt"
    path.write_text("w0 w65535\n\nw65536 w3")
    for size, kind in ((65_536, np.uint16), (65_537, np.uint32)):
        tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        store = open_store(
            [Corpus(path)],
            tokenizer,
            cache_path=tmp_path / str(size),
            seed=0,
            held_out_one_in=2,
            report=lambda line: None,
            marks_words=True,
        )
        assert kind == store.ids.dtype
        assert [0, 65_535, 65_536 % size, 3] == store.ids.tolist()
        assert store.word_starts is not None and store.word_starts.all()


def test_word_starts_lie_beside_the_ids_of_a_pass() -> None:
    """The marks of a pass are those of its tokens, and a special token begins a word."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 30, 40)
    ids = generator.integers(10, 90, lengths.sum()).astype(np.uint32)
    flags = np.zeros(40, dtype=np.bool_)
    store = TokenStore(ids, np.cumsum([0, *lengths]), flags.astype(np.uint8), flags, word_starts=ids % 3 == 0)
    edges = Edges((1, 2), (3,), ())
    rows = pack_pass(store, [1.0], length=14, seed=1, pass_index=2, edges=edges)
    starts = pack_word_starts(store, [1.0], length=14, seed=1, pass_index=2, edges=edges)
    assert [[1, 2]] * len(rows) == rows[:, :2].tolist()
    assert ((rows % 3 == 0) | (rows < 10)).tolist() == starts.tolist()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("linear", [0.1, 1.0, 0.5, 0.1]), ("cosine", [0.1, 1.0, 0.5, 0.0245]), ("constant", [0.1, 1.0, 1.0, 1.0])],
)
def test_the_rate_rises_and_follows_its_schedule(schedule: str, expected: list[float]) -> None:
    """A tenth of the steps to the peak, then the course."""
    factors = [scheduled_factor(schedule, warm_up=0.1, step=step, steps=100) for step in (0, 9, 55, 91)]
    assert pytest.approx(expected, abs=1e-3) == factors
    assert scheduled_factor(schedule, warm_up=0.0, step=0, steps=10) == 1.0
    assert scheduled_factor(schedule, warm_up=1.0, step=9, steps=10) == 1.0


def test_matrices_decay_and_the_rest_does_not() -> None:
    """Weight decay is asked of parameters of two dimensions; all move at the asked rate."""
    optimizer = build_plain_optimizer(torch.nn.Linear(3, 2), learning_rate=0.1, weight_decay=0.5)
    found = [(group["params"][0].ndim, group["weight_decay"], group["peak"]) for group in optimizer.param_groups]
    assert [(2, 0.5, 0.1), (1, 0.0, 0.1)] == found


def test_how_long_a_run_is() -> None:
    """Steps are as asked, or as many as the tokens or passes fill, one at least; without a word it is one pass."""
    shape = {"model": "m", "row_length": 16, "batch_rows": 4, "accumulate": 2}
    counted = [{"steps": 3}, {"tokens": 16 * 8 * 5 + 1}, {"passes": 2.5}, {}, {"tokens": 1}]
    assert [3, 5, 25, 10, 1] == [parse_options({**shape, **how}).count_steps(83) for how in counted]
    assert 8 == parse_options(shape).rows_a_step
    assert 31 == parse_options({"model": "m", "row_length": 16, "batch_tokens": 500}).batch_rows
    assert [1, 7, 4] == [
        parse_options({"model": "m", "measure_every": asked}).steps_between_measurements(steps)
        for asked, steps in ((None, 5), (None, 70), (4, 70))
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"masking_rate": 1.5}, "--masking-rate 1.5: it must be less than or equal to 0.9."),
        ({"schedule": "square"}, "--schedule square: it must be 'linear', 'cosine' or 'constant'."),
        ({"row_length": 4}, "--row-length 4: it must be greater than or equal to 8."),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: it must be greater than 0."),
        ({"random_share": 0.7, "keep_share": 0.4}, "--random-share 0.7 and --keep-share 0.4 are more than 1 together."),
        ({"steps": 3, "passes": 1.0}, "--steps and --passes both say how long to train: give one of them."),
        (
            {"batch_rows": 3, "batch_tokens": 9},
            "--batch-rows and --batch-tokens both say how large a batch is: give one of them.",
        ),
        ({"batch_tokens": 9}, "--batch-tokens 9: a batch has one row at least, of 256 tokens."),
    ],
)  # fmt: skip
def test_each_fault_of_an_option_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    """The flag, what was given and what is allowed."""
    with pytest.raises(UsageError) as fault:
        parse_options({"model": "m", **values})
    assert sentence == str(fault.value)


def test_what_may_change_while_a_run_goes_on() -> None:
    """Where the checkpoint lies and how often the state is stored are not what makes a run; its contents are."""
    one = Continuation(model="here", weights_hash="a")
    other = Continuation(model="there", weights_hash="a", checkpoint_minutes=1.0, store_dtype="original")
    assert one.identity() == other.identity()
    assert one.identity() != Continuation(model="here", weights_hash="b").identity()
