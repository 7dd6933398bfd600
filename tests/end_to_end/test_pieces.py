"""Templates in the pieces of LM-BFF and PET go all the way: scored, calibrated, reported, and decided again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import promptlab as pl
from promptlab.library import bundled_model_path
from promptlab.types import Prompt
from tests.end_to_end.terminal import SENTENCES, Call
from tests.oracles import FRAMES, MASK, SEP, field, in_pieces, prompt
from tests.stored import decisions

HEAD = '---\npieces: {}\ndomain_prompt: "it was {{{{ mask }}}}."\n---\n'
TEXTS = {
    "lm_bff": "{{ text | drop_last_character }}? {{ mask }}{{ sep }} {{ text }}\n",
    "pet": "it was {{ mask }}.{{ sep }} {{ text }}\n",
}
NEW = {"bad": "bad", "good": "good"}  # words of no verbalizer in the folder


@pytest.fixture
def asked(moods: Path, tmp_path: Path) -> dict[str, Any]:
    """A run with a template in each manner."""
    for pieces, text in TEXTS.items():
        (moods / f"templates/mood/{pieces}.jinja").write_text(HEAD.format(pieces) + text, encoding="utf-8")
    return {
        "tasks": "moods", "templates": [f"mood/{pieces}" for pieces in TEXTS], "verbalizers": "mood/great_terrible",
        "calibrations": ["none", "pmi_dc"], "include": moods, "data": moods / "data", "output_path": tmp_path / "runs",
        "device": "cpu", "store_states": True,
    }  # fmt: skip


def rows(pieces: str) -> list[Prompt]:
    """The prompts of the scored rows, and last that of the calibration, written out."""
    asked = [
        prompt(field(text[:-1]), "? ", MASK, SEP, " ", field(text))
        if pieces == "lm_bff"
        else prompt("it was ", MASK, ".", SEP, " ", field(text))
        for more in ("", " today")
        for text in (one + more for one in SENTENCES)
    ]
    return [Prompt(one.segments, pieces) for one in (*asked, prompt("it was ", MASK, "."))]  # type: ignore[arg-type]  # one of two


def naive(model: Any, tokenizer: Any, kind: str, pieces: str) -> np.ndarray[Any, Any]:
    """Log-probabilities of terrible and great at the mask, (prompt, word), by plain forwards of single prompts."""
    import torch

    has_blank = kind == "roberta"
    words = [tokenizer.encode(" " * has_blank + word, add_special_tokens=False) for word in ("terrible", "great")]
    has_two = getattr(model.config, "type_vocab_size", 0) > 1
    found = []
    for asked in rows(pieces):
        ids, types = in_pieces(tokenizer, asked, FRAMES[kind], has_blank=has_blank)
        inputs = {"input_ids": ids, **({"token_type_ids": types} if has_two else {})}
        with torch.inference_mode():
            logits = model(**{name: torch.tensor([values]) for name, values in inputs.items()}).logits[0]
        at_mask = torch.log_softmax(logits[ids.index(tokenizer.mask_token_id)], dim=-1)
        found.append([float(at_mask[token]) for (token,) in words])
    return np.array(found)


@pytest.mark.parametrize("model", ["mini", "bert", "roberta"])
def test_scores_are_those_of_the_programs_ids(asked: dict[str, Any], tiny: dict[str, Path], model: str) -> None:
    """Label probabilities of every row, with a calibration and without, are those of a plain forward of their ids."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = bundled_model_path() if model == "mini" else tiny[model]
    run = pl.run(**asked, models=folder)
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    found = decisions(run.stored)
    for result in run.results:
        scores = naive(plain, tokenizer, model, result.template.removeprefix("mood/"))
        logits = scores[:-1] - (scores[-1] if result.calibration == "pmi_dc" else 0)
        expected = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        cell = result.template, result.verbalizer, result.calibration
        np.testing.assert_allclose(found[cell]["log_probabilities"], expected, atol=1e-5)
    assert 4 == len(run.results)


def test_new_words_are_looked_up_as_the_words_of_the_run_were(asked: dict[str, Any], tiny: dict[str, Path]) -> None:
    """A stored run of a byte-level model takes later words with their blank, as a run that had them does."""
    run = pl.run(**asked, models=tiny["roberta"], name="kept")
    later = decisions(pl.rescore(run, verbalizers=NEW).stored)
    words = {"verbalizers": ["mood/great_terrible", NEW]}
    straight = decisions(pl.run(**{**asked, **words}, models=tiny["roberta"], name="straight").stored)
    assert set(straight) == set(later)
    for cell, columns in straight.items():
        np.testing.assert_allclose(later[cell]["log_probabilities"], columns["log_probabilities"], atol=1e-5)


def test_a_run_says_how_its_templates_are_cut(asked: dict[str, Any], call: Call, moods: Path) -> None:
    """Manifest, report, `show` and `preview` tell a template in pieces from a whole one."""
    run = pl.run(**{**asked, "templates": ["mood/pet", "mood/it_was"]}, models="mini", limit=2)
    templates = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))["templates"]
    assert {"mood/pet": "pet", "mood/it_was": "whole"} == {name: one["pieces"] for name, one in templates.items()}
    assert "| instructive, pieces: pet |" in run.report(run.path / "report.md").read_text(encoding="utf-8")
    assert "lm_bff" == json.loads(call("show", "mood/lm_bff", "--include", moods, "--output", "json").out)["pieces"]
    asked_of = ["--tasks", "moods", "--templates", "mood/lm_bff", "--include", moods, "--data", moods / "data"]
    said = call("preview", *asked_of, "--rows", 1)
    assert "{?} >[MASK]< [SEP]" in " ".join(said.out.split()), said
