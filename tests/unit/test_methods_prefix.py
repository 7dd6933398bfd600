"""The prefix: naive attention, positions that stay, windows that see it, and what is left of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError
from promptlab.methods.base import Context, Setting
from promptlab.methods.prefix import KeyValues, Prefix, attach_prefix
from tests.contract.test_methods import UNSEEN, make_context, make_shots, prompts_of, shortened

KINDS = ("bert", "roberta", "xlm_roberta", "distilbert", "albert", "electra", "modernbert")


def fixed(keys: torch.Tensor, values: torch.Tensor) -> KeyValues:
    """A prefix of given keys and values (layer, token, dim)."""
    return KeyValues({}, lambda: torch.stack([keys, values]))


def scores(backend: Any, context: Context) -> np.ndarray:
    """Log-probabilities of the label words for texts of several lengths in one batch."""
    found: np.ndarray = backend.score(prompts_of(backend, UNSEEN), context.label_words.token_ids).log_probs
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_hidden_prefix_changes_nothing(backends: dict[str, Any], kind: str) -> None:
    """Texts have the positions that they have without one; the same prefix, seen, changes the answers."""
    backend, context = backends[kind], make_context(backends[kind])
    expected, nothing = scores(backend, context), torch.zeros(2, 5, 32)
    hidden = attach_prefix(fixed(nothing, nothing), context, is_shown=False)
    found = scores(backend, context)
    hidden.detach()
    seen = attach_prefix(fixed(nothing, nothing), context)
    changed = scores(backend, context)
    seen.detach()
    assert np.allclose(expected, found, atol=2e-6)
    assert np.abs(changed - expected).max() > 1e-3
    assert np.array_equal(expected, scores(backend, context))


def test_attention_is_over_prefix_and_text(backends: dict[str, Any]) -> None:
    """softmax(q [P; k]^T / sqrt(d)) [V; v], head by head and token by token, in the second layer of BERT."""
    bert, context = backends["bert"].model.bert, make_context(backends["bert"])
    made = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(2, 3, 32, generator=made) for _ in range(2))
    ids, given = torch.arange(5, 12)[None], list[Any]()
    of_layer = bert.encoder.layer[1].attention.self
    handle = of_layer.register_forward_hook(lambda module, args, output: given.append((args[0], output[0])))
    attached = attach_prefix(fixed(keys, values), context)
    with torch.no_grad():
        bert(ids)
        attached.detach()
        handle.remove()
        states, found = given[0][0][0], given[0][1][0]
        q, k, v = (getattr(of_layer, part)(states) for part in ("query", "key", "value"))
        for head in range(4):
            own = slice(8 * head, 8 * head + 8)
            k_all, v_all = (torch.cat([one[1, :, own], two[:, own]]) for one, two in ((keys, k), (values, v)))
            for place in range(7):
                weights = torch.softmax(k_all @ q[place, own] / 8**0.5, dim=0)
                assert torch.allclose(weights @ v_all, found[place, own], atol=1e-5)


def test_each_time_albert_runs_its_layer_it_has_other_keys(backends: dict[str, Any]) -> None:
    """Of two prefixes that differ in one layer the first layer's or the second layer's attention differs."""
    albert, context, seen = backends["albert"].model.albert, make_context(backends["albert"]), []
    attention = albert.encoder.albert_layer_groups[0].albert_layers[0].attention
    handle = attention.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    for changed in (None, 0, 1):
        values = torch.zeros(2, 3, 32)
        if changed is not None:
            values[changed] = 1.0
        attached = attach_prefix(fixed(torch.zeros(2, 3, 32), values), context)
        with torch.no_grad():
            albert(torch.arange(5, 12)[None])
        attached.detach()
    handle.remove()
    plain, first, second = seen[:2], seen[2:4], seen[4:]
    assert not torch.equal(plain[0], first[0])
    assert torch.equal(plain[0], second[0])
    assert not torch.equal(plain[1], second[1])


def test_a_sliding_window_sees_the_prefix_from_everywhere(backends: dict[str, Any]) -> None:
    """In a layer whose window is 4 tokens to either side, every token of a long text attends to the prefix."""
    model, context, seen = backends["modernbert"].model, make_context(backends["modernbert"]), []
    sliding = model.config.layer_types.index("sliding_attention")
    handle = model.model.layers[sliding].attn.register_forward_hook(lambda module, args, out: seen.append(out[0][0]))
    ids = torch.arange(10, 50)[None].repeat(2, 1)
    padding = torch.ones_like(ids)
    padding[1, 30:] = 0
    for size in (0.0, 1.0):
        values = torch.zeros(2, 3, 32)
        values[sliding] = size
        attached = attach_prefix(fixed(torch.zeros(2, 3, 32), values), context)
        with torch.no_grad():
            model(ids, attention_mask=padding)
        attached.detach()
    handle.remove()
    assert (seen[0] - seen[1]).abs().amax(dim=-1).min() > 1e-3


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({}, 2 * 2 * 8 * 32),  # keys and values, 2 layers, 8 tokens
        ({"num_tokens": 3}, 2 * 2 * 3 * 32),
        ({"reparametrisation": "mlp"}, 8 * 32 + (32 * 32 + 32) + (128 * 32 + 128)),
    ],
)
def test_keys_and_values_are_all_that_is_kept(backends: dict[str, Any], options: dict[str, Any], moved: int) -> None:
    """The record counts what moved; what is handed back has nothing of the network, and answers the same."""
    backend, context = backends["bert"], make_context(backends["bert"])
    setting = replace(shortened(Prefix()), options=options)
    with Prefix().fit(make_shots(backend), setting, context) as fitted:
        expected = scores(fitted.backend, context)
    number = options.get("num_tokens", 8)
    assert moved == fitted.record.num_parameters
    assert {name: (2, number, 32) for name in ("keys", "values")} == {
        name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()
    }
    with Prefix().load(fitted.tensors, setting, context) as loaded:
        assert np.allclose(expected, scores(loaded.backend, context), atol=1e-6)
        assert 2 * 2 * number * 32 == loaded.record.num_parameters


def test_start_is_small_and_decided_by_the_seed(backends: dict[str, Any]) -> None:
    """Normal with a standard deviation of 0.02, from the context's seed, by a network too."""
    backend, context = backends["bert"], make_context(backends["bert"])
    for options in ({}, {"reparametrisation": "mlp"}):
        still, starts = Setting(learning_rate=0.0, steps=1, options=options), []
        for seed in (0, 0, 1):
            torch.rand(3)
            seeded = Context(backend, context.labels, context.words, seed)
            with Prefix().fit(make_shots(backend), still, seeded) as fitted:
                starts.append(fitted.tensors["values"])
        assert torch.equal(starts[0], starts[1])
        assert not torch.equal(starts[0], starts[2])
        assert 0.008 < starts[0].std() < 0.03


def test_two_models_have_prefixes_of_their_own(backends: dict[str, Any]) -> None:
    """What is attached to one model is not seen by another of its kind, and goes with its own detaching."""
    one, two = (make_context(backends[kind]) for kind in ("bert", "bert_cased"))
    nothing = torch.zeros(2, 5, 32)
    alone, plain = [], scores(backends["bert"], one)
    for context in (one, two):
        attached = attach_prefix(fixed(nothing, nothing + 0.5), context)
        alone.append(scores(context.backend, context))
        attached.detach()
    first, second = (attach_prefix(fixed(nothing, nothing + 0.5), context) for context in (one, two))
    assert np.array_equal(alone[0], scores(backends["bert"], one))
    first.detach()
    assert np.array_equal(plain, scores(backends["bert"], one))
    assert np.array_equal(alone[1], scores(backends["bert_cased"], two))
    second.detach()


def test_a_second_prefix_is_refused(backends: dict[str, Any]) -> None:
    """It would take the place of the first, and detaching would not bring the model's own attention back."""
    context, nothing = make_context(backends["bert"]), torch.zeros(2, 5, 32)
    attached = attach_prefix(fixed(nothing, nothing), context)
    with pytest.raises(ModelError, match="the model has a prefix already: detach it first"):
        attach_prefix(fixed(nothing, nothing), context)
    attached.detach()
    assert "sdpa" == backends["bert"].model.config._attn_implementation


def test_deberta_is_refused(backends: dict[str, Any]) -> None:
    """The sentence says what is missing and what to take."""
    expected = (
        "DebertaV2ForMaskedLM does not follow transformers' attention interface, through which a prefix comes in: "
        "choose lora or adapter."
    )
    assert expected == Prefix().refusal(backends["deberta_v2"])
    with pytest.raises(ModelError, match="does not follow transformers' attention interface"):
        Prefix().fit(make_shots(backends["deberta_v2"]), Setting(), make_context(backends["deberta_v2"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "num_tokens is 0: a prefix has 1 token or more."),
        ({"reparametrisation": "lstm"}, "the reparametrisation 'lstm' is unknown: choose one of none, mlp."),
    ],
)
def test_unknown_options_are_refused(backends: dict[str, Any], options: dict[str, Any], message: str) -> None:
    """The sentence says what there is."""
    with pytest.raises(ModelError) as caught:
        Prefix().fit(make_shots(backends["bert"]), Setting(options=options), make_context(backends["bert"]))
    assert f"prefix: {message}" == str(caught.value)
