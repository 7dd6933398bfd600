"""`python -m benchmarks.parity --data DIR`: how far batched scores are from the plain forward of one prompt, at most.

For every architecture a tiny random model is built whose tokenizer is learned from the rows themselves, in a temporary
folder, with as many positions as the bundled model, so that most prompts are whole; the bundled model scores the same
English prompts. Nothing of the rows is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.backends.mlm import MaskedBackend
from promptlab.batching import BatchSize
from promptlab.block_scores import KEY_BYTES, BlockScores
from promptlab.rendering import compile_template, render
from promptlab.rows import Limit, load_rows
from promptlab.scoring import score_prompts
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.types import EncodedPrompt, Prompt
from tests.tiny_models import FAMILIES, build

ENGLISH = {"sst2": "{{ text }} It was {{ mask }}.", "agnews": "{{ mask }} news: {{ text }}"}
PAIRS = {"rte": "{{ premise }}?{{ sep }} {{ mask }}, {{ hypothesis }}"}
CHINESE = {
    "chnsenticorp_htl": "{{ text }}很{{ mask }}。",
    "fewclue_eprstmt": "{{ mask }}：{{ text }}",
    "fewclue_tnews": "{{ mask }}：{{ text }}",
}
CHINESE_PAIRS = {"fewclue_ocnli": "{{ premise }}？{{ sep }}{{ mask }}，{{ hypothesis }}"}
TOLERANCE, BUNDLED_TOLERANCE = 1e-5, 1e-4
NUM_TOKENS = 50
NUM_POSITIONS = 512
SPREAD = 0.2  # of the weights; times the root of 32 dimensions it is 1.1, and 0.3 to 2.5 in the bundled model
LEARNED_FROM = 2000  # rows of which a vocabulary is learned


def main() -> None:
    """Measure, print and write the figures; leave with an error where one is too large."""
    import torch

    options = _options()
    torch.set_num_threads(1)
    english = _prompts({**ENGLISH, **PAIRS}, options)
    chinese = _prompts({**CHINESE, **CHINESE_PAIRS}, options)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds or (*FAMILIES, "mini"):
            prompts = chinese if kind == "bert_chinese" else english
            texts = [prompt.text for prompt in prompts[:: max(1, len(prompts) // LEARNED_FROM)]]
            model = kind if kind == "mini" else _built(kind, Path(folder) / kind, texts)
            asked = prompts[:: options.thin] if kind == "mini" else prompts
            figures[kind] = _measure(model, asked, BUNDLED_TOLERANCE if kind == "mini" else TOLERANCE)
            print(f"{kind:14} {json.dumps(figures[kind])}", flush=True)
    stored = {
        "rows_a_task": options.rows,
        "tasks": {"english": [*ENGLISH, *PAIRS], "chinese": [*CHINESE, *CHINESE_PAIRS]},
        "models": figures,
    }
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    wrong = [kind for kind, figure in figures.items() if not figure["largest_difference"] <= figure["tolerance"]]
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: scores differ from the plain forward by more than they may.")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of the tasks' rows")
    parser.add_argument("--rows", type=int, default=5000, help="the most rows of a task")
    parser.add_argument("--thin", type=int, default=1, help="the bundled model takes every n-th prompt")
    parser.add_argument("--kinds", nargs="*", help="architectures; all, and the bundled model, by default")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/parity.json"))
    return parser.parse_args()


def _prompts(templates: dict[str, str], options: Any) -> list[Prompt]:
    """The rows of every task through its template."""
    return [prompt for name, text in templates.items() for prompt in _of_task(name, text, options)]


def _of_task(name: str, text: str, options: Any) -> Iterator[Prompt]:
    rows = load_rows(Task.load(name), "test", data=options.data, limit=Limit(options.rows))
    compiled = compile_template(Template.from_text(text))
    return (render(compiled, row) for row in rows.examples)


def _built(kind: str, folder: Path, texts: list[str]) -> str:
    """The folder of a tiny model of a kind whose vocabulary is learned from the texts."""
    return str(build(kind, folder, sentences=texts, num_positions=NUM_POSITIONS, spread=SPREAD))


def _measure(model: str, asked: Sequence[Prompt], tolerance: float) -> dict[str, Any]:
    """The largest difference over prompts and 50 tokens of the vocabulary, spread evenly.

    Beside it stands how far the plain forward in float32 is from the same in float64: no difference below that says
    more than that numbers are rounded.
    """
    backend = MaskedBackend(model, device="cpu")
    encoded = [one for one in backend.encoder(None).encode(list(asked)) if isinstance(one, EncodedPrompt)]
    tokens = np.unique(np.linspace(0, len(backend.tokenizer) - 1, NUM_TOKENS).astype(int)).tolist()
    block = BlockScores.of(score_prompts(backend, encoded, tokens, batch_size=BatchSize.parse("auto", "cpu")))
    ours = block.take(np.array([one.key.encode() for one in encoded], dtype=f"S{KEY_BYTES}"), tokens)
    plain, exact = _plain(backend, encoded, tokens, "float32"), _plain(backend, encoded, tokens, "float64")
    return {
        "prompts": len(encoded),
        "cut": sum(one.num_truncated > 0 for one in encoded),
        "largest_difference": float(np.abs(ours - plain).max()),
        "plain_from_float64": float(np.abs(plain - exact).max()),
        "tolerance": tolerance,
    }


def _plain(
    backend: MaskedBackend, encoded: Sequence[EncodedPrompt], tokens: list[int], dtype: str
) -> np.ndarray[Any, Any]:
    """One forward a prompt of the model as transformers loads it, the head at every position."""
    import torch
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(backend.folder, dtype=getattr(torch, dtype)).eval()
    has_types = int(getattr(model.config, "type_vocab_size", 0) or 0) >= 2
    rows = []
    with torch.inference_mode():
        for one in encoded:
            inputs = {"input_ids": torch.from_numpy(one.input_ids[None].astype(np.int64))}
            if has_types:
                inputs["token_type_ids"] = torch.from_numpy(one.segment_ids[None].astype(np.int64))
            logits = model(**inputs).logits[0, one.mask_positions[0]]
            rows.append(torch.log_softmax(logits.double(), dim=-1)[tokens].numpy())
    return np.array(rows)


if __name__ == "__main__":
    main()
