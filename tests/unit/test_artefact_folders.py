"""An artefact is written whole, read back as it was, and refused wherever it would score otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptlab.artefact_folders import HEAD, PEFT, TENSORS, Loaded, load_artefact, read_artefact, save_artefact
from promptlab.errors import ModelError, StoreError, UsageError
from promptlab.files import write_json
from promptlab.keeping import is_kept
from promptlab.methods.peft_folders import CONFIG, read_peft
from promptlab.registry import METHODS
from promptlab.tuning import tune
from tests.contract.test_methods import UNSEEN, prompts_of
from tests.fitting_rows import planned_fit, write_own

SOFT_FIRST = "{{ soft(3) }} {{ text }} {{ mask }}."


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with shots."""
    return write_own(tmp_path_factory.mktemp("moods"))


@pytest.fixture(scope="module")
def fitted(moods: Path, tiny: dict[str, Path]) -> Loaded:
    """A probe, which is quick to make."""
    loaded, _ = tune(planned_fit(moods, tiny["bert"], "linear_probe"))
    return loaded


@pytest.fixture
def folder(fitted: Loaded, tmp_path: Path) -> Path:
    """Its artefact, which a test may damage."""
    save_artefact(fitted.artefact, tmp_path / "kept", fitted.backend)
    return tmp_path / "kept"


def answers(loaded: Loaded) -> np.ndarray:
    """What it says about rows that it has not seen."""
    artefact = loaded.artefact
    prompts = prompts_of(loaded.backend, UNSEEN, "{{ text }} {{ mask }}" if artefact.template.name == "fields" else
                         artefact.template.text.replace("{{ soft(3) }}", ""))  # fmt: skip
    is_mask = artefact.make_method().answers == "mask"
    wanted = np.array(artefact.word_ids) if is_mask else np.arange(len(artefact.labels))
    return loaded.fitted.backend.score(prompts, wanted).log_probs


def amend(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change artefact.json by hand."""
    stored = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    change(stored)
    write_json(folder / HEAD, stored)


def refused(kind: type[Exception], folder: Path, **options: Any) -> str:
    """Why loading is refused, in one sentence."""
    with pytest.raises(kind) as caught:
        load_artefact(folder, device="cpu", **options)
    assert str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_scores_as_before_from_its_folder(
    moods: Path, tiny: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """In a model that is loaded anew: the same numbers, the same hash, and the same bytes where it is saved again."""
    loaded, seconds = tune(planned_fit(moods, tiny["bert"], name))
    expected = answers(loaded)
    save_artefact(loaded.artefact, tmp_path / "kept", loaded.backend)
    again = load_artefact(tmp_path / "kept", device="cpu")
    assert np.array_equal(expected, answers(again))
    assert loaded.artefact.hash == again.artefact.hash
    assert (name, ("bad", "good"), 2, 0) == (
        again.artefact.method,
        again.artefact.labels,
        again.artefact.num_shots,
        again.artefact.draw,
    )
    assert 5 == sum(one.expected is not None for one in again.artefact.canaries)
    save_artefact(again.artefact, tmp_path / "copy", again.backend)
    for file in (HEAD, TENSORS):
        assert (tmp_path / "kept" / file).read_bytes() == (tmp_path / "copy" / file).read_bytes()
    assert seconds.fit > 0


def test_a_folder_keeps_a_block_when_all_of_it_is_there(
    fitted: Loaded, folder: Path, moods: Path, tiny: dict[str, Path]
) -> None:
    """A missing or damaged file is one that must be fitted for once more; the same save mends it."""
    block = planned_fit(moods, tiny["bert"], "linear_probe").block
    other = planned_fit(moods, tiny["bert"], "linear_probe", draw=1).block
    assert (True, False, False) == (is_kept(block, folder), is_kept(other, folder), is_kept(block, folder.parent))
    (folder / TENSORS).write_bytes(b"half")
    assert not is_kept(block, folder)
    save_artefact(fitted.artefact, folder, fitted.backend)
    assert is_kept(block, folder)
    (folder / HEAD).write_text("{", encoding="utf-8")
    assert not is_kept(block, folder)


def test_nothing_of_the_rows_is_in_its_head(folder: Path) -> None:
    """Shots are named by their ids; the canaries are sentences of our own."""
    text = (folder / HEAD).read_text(encoding="utf-8")
    assert 4 == len(json.loads(text)["shots"]["rows"])
    assert not any(words in text for words in ("room was cold", "fine song", "they lost", "he won"))


def test_the_same_artefact_may_be_saved_twice_and_another_not(
    fitted: Loaded, folder: Path, moods: Path, tiny: dict[str, Path]
) -> None:
    """A second save changes nothing, and nobody's files are written over."""
    before = (folder / HEAD).read_bytes()
    (folder / TENSORS).unlink()
    save_artefact(fitted.artefact, folder, fitted.backend)
    assert (before, True) == ((folder / HEAD).read_bytes(), (folder / TENSORS).is_file())
    other, _ = tune(planned_fit(moods, tiny["bert"], "linear_probe", draw=1))
    with pytest.raises(StoreError, match=r"holds another artefact \(linear_probe, 2 shots a label of task 'moods', dr"):
        save_artefact(other.artefact, folder, other.backend)
    (folder / HEAD).unlink()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds 'notes.txt', which is no part of an artefact: give an empty folder"):
        save_artefact(fitted.artefact, folder, fitted.backend)
    with pytest.raises(StoreError, match=r"notes.txt: is a file, and an artefact is a folder"):
        save_artefact(fitted.artefact, folder / "notes.txt", fitted.backend)


def test_another_model_or_tokenizer_is_refused(folder: Path, tiny: dict[str, Path], tmp_path: Path) -> None:
    """By its files, before any weight is loaded; a copy of the same model is the same model."""
    text = refused(ModelError, folder, model=str(tiny["roberta"]))
    assert f"the weights of model '{tiny['roberta']}' have the hash " in text
    assert f"and it was fitted inside '{tiny['bert']}' with " in text
    copy = tmp_path / "copy"
    shutil.copytree(tiny["bert"], copy)
    assert load_artefact(folder, device="cpu", model=str(copy)).artefact.folder == folder
    with (copy / "tokenizer_config.json").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert f"the tokenizer of model '{copy}' has the hash " in refused(ModelError, folder, model=str(copy))
    text = refused(UsageError, folder, model=str(tmp_path / "nowhere"))
    assert "there is no such folder" in text
    assert text.endswith("Say by `model` where its model lies here.")


def test_changed_and_missing_files_are_refused(folder: Path, tmp_path: Path) -> None:
    """A damaged tensor is found by its hash, whatever it would score."""
    content = bytearray((folder / TENSORS).read_bytes())
    content[-1] ^= 1
    (folder / TENSORS).write_bytes(bytes(content))
    assert f"{folder / TENSORS}: is not the file that was saved with artefact.json" in refused(StoreError, folder)
    (folder / TENSORS).unlink()
    assert f"{folder / TENSORS}: cannot be read: No such file" in refused(StoreError, folder)
    (folder / HEAD).unlink()
    assert refused(StoreError, folder).endswith(
        "has no artefact.json, so it is no artefact. `promptlab fit` makes one."
    )
    assert "nowhere: there is no such folder" in refused(StoreError, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(schema_version=2), "was written by a newer promptlab (schema 2): upgrade promptlab."),
        (lambda head: head.update(max_length=9), "its text was changed after it was saved"),
        (lambda head: head["template"].update(text="{{ text }} {{ mask }}!"), "its template was changed after"),
        (lambda head: head.pop("labels"), "is not what promptlab writes: delete the folder and fit anew."),
        (lambda head: head.pop("schema_version"), "is not what promptlab writes: delete the folder and fit anew."),
        (lambda head: head["method"]["setting"].update(speed=3), "is not what promptlab writes"),
    ],
)
def test_a_head_that_was_changed_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    """What was fitted and what is said of it belong together."""
    amend(folder, change)
    text = refused(StoreError, folder)
    assert text.startswith(f"{folder / HEAD}: ")
    assert message in text


def test_an_unknown_method_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came from a package that is not installed here."""
    monkeypatch.setattr("promptlab.artefact_folders.METHODS.names", lambda: ["lora"])
    assert "method 'linear_probe' is unknown here. Known: lora." in refused(StoreError, folder)


def test_scores_of_the_canaries_must_be_the_ones_that_were_saved(folder: Path) -> None:
    """A difference within rounding passes, a larger one is named, and the model is left as it was."""

    def shift(by: float) -> Callable[[dict[str, Any]], None]:
        def change(head: dict[str, Any]) -> None:
            head["canaries"][1]["log_probabilities"]["good"] += by

        return change

    amend(folder, shift(5e-4))
    load_artefact(folder, device="cpu")
    amend(folder, shift(0.1))
    text = refused(ModelError, folder)
    assert f"artefact {folder}: does not score as it did when it was saved: log p(good) of canary row 2 was " in text
    assert "a difference of 0.1 where 0.001 is allowed" in text
    assert load_artefact(folder, device="cpu", dtype="bfloat16").backend.scorer.dtype == "bfloat16"


def test_lora_and_ia3_lie_in_peft_s_layout_too(moods: Path, tiny: dict[str, Path], tmp_path: Path) -> None:
    """What `read_peft` finds there are the tensors of the artefact."""
    for name in ("lora", "ia3"):
        loaded, _ = tune(planned_fit(moods, tiny["bert"], name))
        save_artefact(loaded.artefact, tmp_path / name, loaded.backend)
        found = read_peft(tmp_path / name / PEFT, loaded.backend)
        assert name == found.method
        assert loaded.artefact.fitted is not None
        assert set(found.tensors) == set(loaded.artefact.fitted)
        assert all(torch.equal(found.tensors[one], tensor) for one, tensor in loaded.artefact.fitted.items())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Token type ids are not supported")
def test_a_soft_prompt_goes_into_peft_s_layout_on_demand_alone(
    moods: Path, tiny: dict[str, Path], tmp_path: Path
) -> None:
    """The vectors are read by peft, and put them before [CLS]: the logits of the text are others than the fit's."""
    from peft import PeftModel
    from transformers import AutoModelForMaskedLM

    loaded, _ = tune(planned_fit(moods, tiny["bert"], "soft_prompt", template=SOFT_FIRST))
    save_artefact(loaded.artefact, tmp_path / "plain", loaded.backend)
    assert not (tmp_path / "plain" / PEFT).exists()
    save_artefact(loaded.artefact, tmp_path / "both", loaded.backend, peft_prompt=True)
    config = json.loads((tmp_path / "both" / PEFT / CONFIG).read_text(encoding="utf-8"))
    assert ("PROMPT_TUNING", 3) == (config["peft_type"], config["num_virtual_tokens"])
    base = AutoModelForMaskedLM.from_pretrained(tiny["bert"]).eval()
    ids = torch.tensor([[loaded.backend.tokenizer.cls_token_id, 7, 8, 9, loaded.backend.tokenizer.sep_token_id]])
    vectors = loaded.artefact.fitted["vectors"]  # type: ignore[index]  # it was fitted just now
    with torch.no_grad():
        words = base.get_input_embeddings()(ids)
        behind = torch.cat([words[:, :1], vectors[None], words[:, 1:]], dim=1)
        ours = base(inputs_embeds=behind).logits
        before = base(inputs_embeds=torch.cat([vectors[None], words], dim=1)).logits
        theirs = PeftModel.from_pretrained(base, str(tmp_path / "both" / PEFT)).eval()(input_ids=ids).logits
    assert torch.allclose(before, theirs, atol=1e-5)
    assert (ours[:, 4:] - theirs[:, 4:]).abs().max() > 1e-4


def test_only_a_soft_prompt_that_stands_first_has_peft_s_layout(
    moods: Path, tiny: dict[str, Path], tmp_path: Path, fitted: Loaded
) -> None:
    """It is refused before anything is written."""
    with pytest.raises(UsageError, match="method 'linear_probe' has no prompt embeddings"):
        save_artefact(fitted.artefact, tmp_path / "probe", fitted.backend, peft_prompt=True)
    loaded, _ = tune(planned_fit(moods, tiny["bert"], "soft_prompt"))
    with pytest.raises(UsageError, match="its tokens do not all stand first in the template"):
        save_artefact(loaded.artefact, tmp_path / "soft", loaded.backend, peft_prompt=True)
    assert not (tmp_path / "probe").exists()
    assert not (tmp_path / "soft").exists()


def test_reading_does_not_read_the_tensors(folder: Path) -> None:
    """A run looks at many artefacts before it loads one."""
    (folder / TENSORS).unlink()
    assert "linear_probe, 2 shots a label of task 'moods', draw 0" == read_artefact(folder).title
