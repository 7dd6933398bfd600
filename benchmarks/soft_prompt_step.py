"""`python -m benchmarks.soft_prompt_step --openprompt PYTHON`: the cost of a step of soft_prompt and of OpenPrompt.

OpenPrompt 1.0.1 needs an old transformers, so it runs in an environment of its own, whose Python is named:

    python3 -m venv /tmp/openprompt
    /tmp/openprompt/bin/pip install torch==2.13.0 transformers==4.36.2 scikit-learn yacs dill tensorboardX nltk \
        rouge==1.0.0 datasets sentencepiece
    /tmp/openprompt/bin/pip install --no-deps openprompt==1.0.1

Both fit the same twenty soft tokens to the same rows in the same batches, on a model of BERT's architecture with random
weights, on one thread, each round in a process of its own, in turn. The model is frozen, without dropout, and its
optimiser is AdamW at one rate. Where OpenPrompt's template computes the same function, `MixedTemplate`, the losses of
all steps must agree; its `SoftTemplate` puts the tokens before the frame and has losses of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from promptlab.rows import load_rows
from promptlab.seeding import derive_generator
from promptlab.specs.task import Task

PEER = Path(__file__).with_name("openprompt_soft_prompt.py")
SHAPE = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
VOCABULARY, NUM_SOFT, WARM_UP = 30_522, 20, 2
MEDIAN_WORDS, SPREAD, MOST_WORDS = 36, 0.72, 200  # of a row: a lognormal, as long as reviews and news items are
LABEL_WORDS = ("bad", "good")
OURS, TOLERANCE = "promptlab", 1e-5


def main() -> None:
    """Measure, print a table and write the figures."""
    options = _options()
    if options.worker:
        print(json.dumps(_fit(json.loads(options.worker.read_text(encoding="utf-8")))))
        return
    with tempfile.TemporaryDirectory() as folder:
        job = _make_job(Path(folder), options)
        rounds = [_round(job, Path(folder), options) for _ in range(options.rounds)]
    stored = {key: job[key] for key in ("steps", "batch_size", "num_tokens", "longest")}
    stored |= {"model": {**SHAPE, "vocab_size": VOCABULARY}, "rounds": options.rounds}
    stored["contenders"] = {name: _figures(name, rounds) for name in rounds[0]}
    _print(stored)
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soft_prompt_step", description=__doc__.splitlines()[0])
    parser.add_argument("--openprompt", help="the Python of an environment with OpenPrompt")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/soft_prompt_step.json"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.openprompt and not options.worker:
        parser.error("name the Python of an environment with OpenPrompt by --openprompt; this file says how to make it")
    return options


def _make_job(folder: Path, options: Any) -> dict[str, Any]:
    """What every contender does: a model, rows with labels, and which rows each step has."""
    words = _known_words()
    _write_model(folder / "model", words)
    generator = np.random.default_rng(0)
    number = (options.steps + 1) // 2 * options.batch_size  # two passes, each of whole batches
    lengths = np.exp(generator.normal(np.log(MEDIAN_WORDS), SPREAD, number)).astype(int).clip(1, MOST_WORDS)
    texts = [" ".join(generator.choice(words, length)) for length in lengths]
    seed = 0
    passes = [derive_generator(seed, "order", place).permutation(number).tolist() for place in range(2)]
    longest = int(lengths.max()) + NUM_SOFT + 6  # the frame, "it was", the mask and the full stop
    return {
        "model": str(folder / "model"),
        "soft": " ".join(words[:NUM_SOFT]),
        "words": list(LABEL_WORDS),
        "texts": texts,
        "labels": [place % 2 for place in range(number)],
        "order": [place for one in passes for place in one],
        "steps": options.steps,
        "batch_size": options.batch_size,
        "warm_up": WARM_UP,
        "learning_rate": 0.01,
        "seed": seed,
        "longest": longest,
        "num_tokens": float(np.mean(lengths) + NUM_SOFT + 6),
    }


def _known_words() -> list[str]:
    """Words of the bundled reviews, in lower case, each of which is one token of the vocabulary."""
    examples = load_rows(Task.load("review_sentiment"), "train").examples
    found = {word for example in examples for word in str(example.fields["text"]).lower().split() if word.isalpha()}
    return sorted(found - set(LABEL_WORDS) - {"it", "was"})


def _write_model(folder: Path, words: list[str]) -> None:
    """A masked model with random weights and a vocabulary of whole words, in files that both sides read."""
    import torch
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import BertConfig, BertForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SHAPE
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "it", "was", *LABEL_WORDS, *words]
    known += [f"[filler{number}]" for number in range(VOCABULARY - len(known))]
    (folder / "vocab.txt").write_text("\n".join(known) + "\n", encoding="utf-8")
    BertWordPieceTokenizer(str(folder / "vocab.txt")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _round(job: dict[str, Any], folder: Path, options: Any) -> dict[str, dict[str, Any]]:
    """One process a contender, one after another."""
    peers = {
        "OpenPrompt MixedTemplate, padded to the longest row": {"template": "mixed", "max_seq_length": job["longest"]},
        "OpenPrompt MixedTemplate, padded to 256": {"template": "mixed", "max_seq_length": 256},
        "OpenPrompt SoftTemplate, padded to the longest row": {
            "template": "soft", "max_seq_length": job["longest"] - NUM_SOFT,
        },
    }  # fmt: skip
    ours = [sys.executable, "-m", "benchmarks.soft_prompt_step", "--worker"]
    found = {OURS: _ask(ours, job, folder)}
    return found | {name: _ask([options.openprompt, str(PEER)], job | more, folder) for name, more in peers.items()}


def _ask(command: list[str], job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a process says about a job in its last line."""
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _fit(job: dict[str, Any]) -> dict[str, Any]:
    """The job by `soft_prompt`: seconds of a fit of all steps, and the loss of each."""
    from dataclasses import replace

    import torch

    from promptlab.backends.mlm import MaskedBackend
    from promptlab.label_words import find_word_ids, slot_contexts
    from promptlab.methods.base import Context, LabelledPrompts, Setting, Words
    from promptlab.methods.soft_prompt import SoftPrompt
    from promptlab.rendering import compile_template, render
    from promptlab.specs.template import Template
    from promptlab.specs.verbalizer import Verbalizer
    from promptlab.types import Example

    torch.set_num_threads(1)
    backend = MaskedBackend(job["model"])
    template = compile_template(
        Template.from_text(f'{{{{ soft("{job["soft"]}") }}}} {{{{ text }}}} it was {{{{ mask }}}}.')
    )
    labels = tuple(job["words"])
    verbalizer = Verbalizer.from_labels({word: word for word in labels})
    encoder = backend.encoder(None)
    began = time.perf_counter()
    prompts = [render(template, Example(str(place), place, {"text": text})) for place, text in enumerate(job["texts"])]
    shots = LabelledPrompts(tuple(encoder.encode(prompts)), np.array(job["labels"]))  # type: ignore[arg-type]
    prepare_s = time.perf_counter() - began
    words = Words.of(verbalizer, labels, find_word_ids(encoder, verbalizer.words, [slot_contexts(prompts[0])]))  # type: ignore[arg-type]
    context = Context(backend, labels, words, job["seed"])
    setting = Setting(
        learning_rate=job["learning_rate"], steps=job["warm_up"], batch_size=job["batch_size"], schedule="constant",
        warm_up=0.0, options={"start": "words", "reparametrisation": "none"},
    )  # fmt: skip
    SoftPrompt().fit(shots, setting, context).detach()
    wall, cpu = time.perf_counter(), time.process_time()
    with SoftPrompt().fit(shots, replace(setting, steps=job["steps"]), context) as fitted:
        spent = time.perf_counter() - wall, time.process_time() - cpu
        losses = [loss for loss, _, _ in fitted.record.facts["log"]]
    return {"wall_s": spent[0], "cpu_s": spent[1], "prepare_s": prepare_s, "losses": losses}


def _figures(name: str, rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Seconds a step, the ratio to ours round by round, and how far the losses are from ours."""
    mine = [one[name] for one in rounds]
    steps = len(mine[0]["losses"])
    ratios = {
        kind: [one[name][f"{kind}_s"] / one[OURS][f"{kind}_s"] for one in rounds] for kind in ("cpu", "wall")
    }  # fmt: skip
    difference = max(
        abs(theirs - ours)
        for one in rounds
        for theirs, ours in zip(one[name]["losses"], one[OURS]["losses"], strict=True)
    )
    if "SoftTemplate" not in name and difference > TOLERANCE:
        raise SystemExit(f"{name}: a loss is {difference} from ours: the figures would be worthless.")
    return {
        "cpu_s_a_step": round(statistics.median(one["cpu_s"] for one in mine) / steps, 4),
        "wall_s_a_step": round(statistics.median(one["wall_s"] for one in mine) / steps, 4),
        "times_promptlab_cpu": [round(ratio, 2) for ratio in ratios["cpu"]],
        "times_promptlab_wall": [round(ratio, 2) for ratio in ratios["wall"]],
        "prepare_s": round(statistics.median(one["prepare_s"] for one in mine), 3),
        "max_difference_of_losses": difference,
        "first_and_last_loss": [mine[0]["losses"][0], mine[0]["losses"][-1]],
    }


def _print(stored: dict[str, Any]) -> None:
    print(f"{stored['steps']} steps of {stored['batch_size']} rows, {stored['num_tokens']:.0f} tokens in the mean")
    print(f"{'contender':54} {'cpu s a step':>12} {'x promptlab':>12} {'lowest-highest':>16}")
    for name, figure in stored["contenders"].items():
        ratios = figure["times_promptlab_cpu"]
        print(
            f"{name:54} {figure['cpu_s_a_step']:12.3f} {statistics.median(ratios):12.2f} "
            f"{f'{min(ratios)}-{max(ratios)}':>16}"
        )


if __name__ == "__main__":
    main()
