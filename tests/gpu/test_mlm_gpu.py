"""The masked backend on a CUDA device, held to the same naive oracle as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlab.backends.mlm import MaskedBackend
from promptlab.backends.replaced_token import ReplacedTokenBackend
from promptlab.filling import fill_prompt
from promptlab.types import EncodedPrompt, Fill
from tests.oracles import mask_log_probs
from tests.tiny_models import DETECTORS, KINDS
from tests.unit.test_mlm import PROMPTS

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-4  # in log-probability, in float32 with TF32 off
BFLOAT16_TOLERANCE = 0.5


@pytest.fixture(autouse=True)
def cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")


def score(backend: MaskedBackend, num_together: int) -> np.ndarray[Any, Any]:
    """Log-probabilities of every token for all prompts, so many in a batch."""
    encoded = [one for one in backend.encoder(None).encode(list(PROMPTS)) if isinstance(one, EncodedPrompt)]
    token_ids = np.arange(len(backend.tokenizer))
    batches = [encoded[start : start + num_together] for start in range(0, len(encoded), num_together)]
    return np.concatenate([backend.score(batch, token_ids).log_probs for batch in batches])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_together", [1, 4, 6])
def test_scores_equal_the_plain_forward(
    tiny: dict[str, Path], models: dict[str, Any], kind: str, num_together: int
) -> None:
    """On CUDA in float32 every prompt has the log-probabilities of the plain forward on the CPU, to 1e-4."""
    backend = MaskedBackend(str(tiny[kind]), device="cuda")
    expected = np.concatenate([mask_log_probs(models[kind], backend.tokenizer, one) for one in PROMPTS])
    np.testing.assert_allclose(score(backend, num_together), expected, atol=TOLERANCE, rtol=0)
    assert ("masks only", "cuda:0", "cuda") == (backend.facts()["head"], backend.device, backend.scorer.device_class)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32(tiny: dict[str, Path], models: dict[str, Any], kind: str) -> None:
    """In bfloat16 the head still sees masks only and the numbers stay within the stated loose tolerance."""
    backend = MaskedBackend(str(tiny[kind]), device="cuda", dtype="bfloat16")
    expected = np.concatenate([mask_log_probs(models[kind], backend.tokenizer, one) for one in PROMPTS])
    np.testing.assert_allclose(score(backend, 6), expected, atol=BFLOAT16_TOLERANCE)
    assert "masks only" == backend.facts()["head"]


def test_memory_that_runs_out_is_a_memory_error(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that the device cannot hold is a MemoryError, after which a smaller one runs."""
    import torch

    backend = MaskedBackend(str(tiny["bert"]), device="cuda")
    encoded = [one for one in backend.encoder(None).encode(list(PROMPTS)) if isinstance(one, EncodedPrompt)]
    logits = backend.mask_logits

    def too_much(prompts: Any, **options: Any) -> Any:
        if len(prompts) > 1:
            torch.empty(2**50, device="cuda")
        return logits(prompts, **options)

    monkeypatch.setattr(backend, "mask_logits", too_much)
    with pytest.raises(MemoryError, match="out of memory"):
        backend.score(encoded, np.array([5]))
    assert 1 == len(backend.score(encoded[:1], np.array([5])).log_probs)


@pytest.mark.parametrize("kind", KINDS)
def test_fills_equal_those_of_the_cpu(tiny: dict[str, Path], backends: dict[str, Any], kind: str) -> None:
    """Word pieces and masks in a slot have on CUDA the scores that they have on the CPU, to 1e-4."""
    backend = MaskedBackend(str(tiny[kind]), device="cuda")
    encoder = backend.encoder(None)
    encoded = [one for one in encoder.encode(list(PROMPTS)) if isinstance(one, EncodedPrompt)]
    filled = []
    for number, one in enumerate(encoded):
        fill = Fill(((7 + number, None, None),) * len(one.mask_positions))
        filled.append(fill_prompt(one, fill, [(1, 9), (2, 11), (1, 12)], mask_id=encoder.mask_id))
    np.testing.assert_allclose(backend.score_fills(filled), backends[kind].score_fills(filled), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_equal_those_of_the_cpu(detectors: dict[str, Path], kind: str) -> None:
    """Words in their place are as original on CUDA as on the CPU, to 1e-4."""
    there, here = (ReplacedTokenBackend(str(detectors[kind]), device=device) for device in ("cuda", "cpu"))
    encoded = [one for one in here.encoder(None).encode(list(PROMPTS)) if isinstance(one, EncodedPrompt)]
    tokens = np.array([5, 9, 20])
    np.testing.assert_allclose(
        there.word_log_probs(encoded, tokens), here.word_log_probs(encoded, tokens), atol=TOLERANCE, rtol=0
    )
