"""`python -m benchmarks`: how fast prompts are scored, as ratios to what a user would write otherwise.

Every contender answers the same prompts with the same model on the same threads, in turn, round after round; the figure
of a contender is the median of its rounds, in wall and CPU seconds, and its answers must agree with the plain loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.backends.mlm import MaskedBackend
from promptlab.batching import BatchSize
from promptlab.rendering import compile_template, render
from promptlab.rows import load_rows
from promptlab.scoring import score_prompts
from promptlab.specs.task import Task
from promptlab.specs.template import load_templates
from promptlab.types import EncodedPrompt

WORDS = ("great", "terrible", "good", "bad")
TOLERANCE = 1e-4


def main() -> None:
    """Measure, print a table and write the figures."""
    options = _options()
    backend = MaskedBackend(options.model)
    prompts = _that_fit(backend, _prompts(options.num_rows))
    contenders = _contenders(backend, prompts)
    answers, seconds = {}, {name: [] for name in contenders}
    for number in range(options.rounds + 1):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers[name] = contender()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            if number:  # the first round warms up
                seconds[name].append(spent)
    figures = _figures(answers, seconds, len(prompts))
    stored = {"model": options.model, "prompts": len(prompts), "rounds": options.rounds, "contenders": figures}
    stored |= {"facts": backend.facts()}
    _print(stored)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="a bundled name, a folder or a hub name")
    parser.add_argument("--num-rows", type=int, default=120, help="rows of review_sentiment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/scoring.json"))
    return parser.parse_args()


def _prompts(num_rows: int) -> list[Any]:
    """All instructive sentiment templates over the first rows, template by template."""
    rows = load_rows(Task.load("review_sentiment"), "test").examples[:num_rows]
    templates = [template for template in load_templates(["sentiment/*"]) if "instructive" in template.tags]
    compiled = [compile_template(template) for template in templates]
    single = [template for template in compiled if "sep" not in template.template.text]
    return [render(template, row) for template in single for row in rows]


def _that_fit(backend: MaskedBackend, prompts: list[Any]) -> list[Any]:
    """Prompts that need no truncation: the peers would cut the mask away."""
    encoded = backend.encoder(None).encode(prompts)
    pairs = zip(prompts, encoded, strict=True)
    return [prompt for prompt, e in pairs if isinstance(e, EncodedPrompt) and not e.num_truncated]


def _contenders(backend: MaskedBackend, prompts: list[Any]) -> dict[str, Callable[[], np.ndarray[Any, Any]]]:
    """Functions that give log-probabilities of the words, one row a prompt."""
    import torch
    from transformers import AutoModelForMaskedLM, pipeline

    tokenizer = backend.tokenizer
    mask = tokenizer.mask_token
    texts = ["".join(mask if s.kind == "mask" else s.text for s in prompt.segments) for prompt in prompts]
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in WORDS]
    model = AutoModelForMaskedLM.from_pretrained(backend.folder, dtype=torch.float32).eval()
    limit = backend.encoder(None).max_length
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, device="cpu")

    def ours() -> np.ndarray[Any, Any]:
        encoded = [prompt for prompt in backend.encoder(None).encode(prompts) if isinstance(prompt, EncodedPrompt)]
        parts = score_prompts(backend, encoded, ids, batch_size=BatchSize.parse("auto", "cpu"))
        found = {key: row for part in parts for key, row in zip(part.keys, part.log_probs, strict=True)}
        order = [sorted(set(ids)).index(token) for token in ids]
        return np.array([found[prompt.key] for prompt in encoded])[:, order]

    def loop(batch_size: int) -> np.ndarray[Any, Any]:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                batch = tokenizer(
                    texts[start : start + batch_size], padding=True, truncation=True, max_length=limit,
                    return_tensors="pt",
                )  # fmt: skip
                logits = model(**batch).logits.log_softmax(-1)
                rows.append(logits[batch["input_ids"] == tokenizer.mask_token_id][:, ids])
        return torch.cat(rows).numpy()

    def pipe() -> np.ndarray[Any, Any]:
        words = tokenizer.convert_ids_to_tokens(ids)
        options = {"truncation": True, "max_length": limit}
        found = fill(texts, targets=words, batch_size=32, tokenizer_kwargs=options)
        return np.array(
            [[np.log(next(a["score"] for a in row if a["token"] == token)) for token in ids] for row in found]
        )

    return {
        "promptlab": ours,
        "plain loop, batch 32": lambda: loop(32),
        "plain loop, batch 4": lambda: loop(4),
        "fill-mask pipeline, batch 32": pipe,
    }


def _figures(
    answers: dict[str, Any], seconds: dict[str, list[tuple[float, float]]], num_prompts: int
) -> dict[str, Any]:
    reference = answers["plain loop, batch 4"]
    ours = statistics.median(wall for wall, _ in seconds["promptlab"])
    figures = {}
    for name, spent in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*spent, strict=True))
        difference = float(np.abs(answers[name] - reference).max())
        if difference > TOLERANCE:
            raise SystemExit(f"{name} disagrees with the plain loop by {difference}: the figures would be worthless.")
        figures[name] = {
            "prompts_per_s": round(num_prompts / wall, 1), "wall_s": round(wall, 3), "cpu_s": round(cpu, 3),
            "times_promptlab": round(wall / ours, 2), "max_difference": difference,
        }  # fmt: skip
    return figures


def _print(stored: dict[str, Any]) -> None:
    print(f"{stored['prompts']} prompts, model {stored['model']}, median of {stored['rounds']} rounds")
    print(f"{'contender':30} {'prompts/s':>10} {'wall s':>8} {'cpu s':>8} {'x promptlab':>12}")
    for name, figure in stored["contenders"].items():
        print(
            f"{name:30} {figure['prompts_per_s']:10.1f} {figure['wall_s']:8.3f} {figure['cpu_s']:8.3f} "
            f"{figure['times_promptlab']:12.2f}"
        )


if __name__ == "__main__":
    main()
