"""States of the frozen model, and what methods on them refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from promptlab.errors import ModelError, UsageError
from promptlab.methods.base import LabelledPrompts
from promptlab.methods.features import check_every_label, check_state, decoder_states, last_states
from tests.contract.test_methods import UNSEEN, prompts_of
from tests.tiny_models import FAMILIES

KINDS = [kind for kind in FAMILIES if kind != "bert_chinese"]


@pytest.mark.parametrize("kind", KINDS)
def test_last_states_are_those_of_the_model_alone(backends: dict[str, Any], models: dict[str, Any], kind: str) -> None:
    """First token, mask and mean over the row's text, each prompt by itself through transformers."""
    prompts = prompts_of(backends[kind], UNSEEN)
    found = {state: last_states(backends[kind], prompts, state) for state in ("first", "mask", "mean")}
    for row, prompt in enumerate(prompts):
        ids = torch.from_numpy(prompt.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            states = models[kind].base_model(input_ids=ids)[0][0].numpy()
        assert np.allclose(states[0], found["first"][row], atol=1e-5)
        assert np.allclose(states[prompt.mask_positions[0]], found["mask"][row], atol=1e-5)
        assert np.allclose(states[prompt.roles == 2].mean(axis=0), found["mean"][row], atol=1e-5)


def test_more_prompts_than_a_batch_keep_their_order(backends: dict[str, Any]) -> None:
    """States come in the order of the prompts, however many there are."""
    prompts = prompts_of(backends["bert"], UNSEEN) * 9
    for states in (last_states(backends["bert"], prompts, "mask"), decoder_states(backends["bert"], prompts)):
        assert 36 == len(states)
        assert np.allclose(np.tile(states[:4], (9, 1)), states, atol=1e-5)


def test_prompt_of_two_masks_gives_its_first_and_without_text_all_tokens(backends: dict[str, Any]) -> None:
    """One state a prompt, whatever it is made of."""
    backend = backends["bert"]
    two = prompts_of(backend, ["a film", "a day"], "{{ text }} was {{ mask }} and {{ mask }}")
    kept = backend.score(two, np.zeros(0, dtype=np.int64), keep_states=True).states
    assert np.array_equal(kept[[0, 2]], decoder_states(backend, two))
    with torch.no_grad():
        expected = backend.last_states(two)[[0, 1], [prompt.mask_positions[0] for prompt in two]].numpy()
    assert np.allclose(expected, last_states(backend, two, "mask"), atol=1e-6)
    empty = prompts_of(backend, [""], "{{ text }} It was {{ mask }}")
    with torch.no_grad():
        expected = backend.last_states(empty)[0].mean(dim=0).numpy()
    assert np.allclose(expected, last_states(backend, empty, "mean")[0], atol=1e-6)


def test_unknown_state_and_missing_label_are_refused(backends: dict[str, Any]) -> None:
    """The message names what is known, and the labels that no shot has."""
    with pytest.raises(
        UsageError, match=r"^method 'linear_probe': state 'last' is unknown. Known: first, mask, mean.$"
    ):
        check_state("linear_probe", "last")
    shots = LabelledPrompts(tuple(prompts_of(backends["bert"], UNSEEN[:2])), np.array([1, 1]))
    with pytest.raises(ModelError, match=r"^there is no shot of 'a', 'c': a label without a row cannot be learned.$"):
        check_every_label(shots, ("a", "b", "c"))
