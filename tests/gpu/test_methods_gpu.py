"""Methods on a CUDA device: they start from the numbers of the CPU, and what they fit comes back there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.fit_auditing import preflight_method
from promptlab.registry import METHODS
from tests.contract.test_methods import METHODS_OF_ALL, asked, given, make_context, make_shots, shortened

pytestmark = pytest.mark.gpu
TOLERANCE = 2e-3  # in log-probability after a few steps, in float32 with TF32 off
KINDS = ("bert", "modernbert")


@pytest.fixture(autouse=True)
def cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")


@pytest.fixture(params=KINDS)
def pair(request: Any, tiny: dict[str, Path], backends: dict[str, Any]) -> tuple[Any, Any]:
    """The same model on the CPU and on the device."""
    return backends[request.param], MaskedBackend(str(tiny[request.param]), device="cuda")


@pytest.mark.parametrize("name", METHODS_OF_ALL)
def test_a_fit_on_the_device_is_that_of_the_cpu(pair: tuple[Any, Any], name: str) -> None:
    """Losses and answers are near those of the CPU, and the tensors answer there as they did on the device."""
    method, (cpu, cuda) = METHODS.get(name)(), pair
    if method.refusal(cuda) is not None:
        pytest.skip(str(method.refusal(cuda)))
    setting, answers, losses = shortened(method, steps=3), list[Any](), list[Any]()
    tensors: dict[str, Any] = {}
    for backend in (cpu, cuda):
        context, shots = make_context(backend), make_shots(backend)
        preflight_method(method, shots, setting, given(method, context))
        with method.fit(shots, setting, given(method, context)) as fitted:
            answers.append(fitted.backend.score(shots.prompts, asked(method, context)).log_probs)
            losses.append(fitted.record.losses)
            tensors = {key: tensor.clone() for key, tensor in fitted.tensors.items()}
    assert all(tensor.device.type == "cpu" for tensor in tensors.values())
    np.testing.assert_allclose(losses[0], losses[1], atol=TOLERANCE)
    np.testing.assert_allclose(answers[0], answers[1], atol=10 * TOLERANCE)
    context = make_context(cpu)
    with method.load(tensors, setting, given(method, context)) as loaded:
        back = loaded.backend.score(make_shots(cpu).prompts, asked(method, context)).log_probs
    np.testing.assert_allclose(answers[1], back, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["soft_prompt", "lora", "prompt_fine_tune"])
def test_bfloat16_products_lower_the_loss(pair: tuple[Any, Any], name: str) -> None:
    """With `precision` bfloat16 the loss falls as it does in float32."""
    method, backend = METHODS.get(name)(), pair[1]
    setting = replace(shortened(method, steps=20), precision="bfloat16")
    with method.fit(make_shots(backend), setting, make_context(backend)) as fitted:
        assert fitted.record.losses[-1] < fitted.record.losses[0]
