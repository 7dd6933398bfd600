"""`PYTHON benchmarks/openprompt_soft_prompt.py JOB`: a job of `benchmarks.soft_prompt_step` by OpenPrompt 1.0.1.

Run by that benchmark in an environment with OpenPrompt, where promptlab is not. The loop is the one of OpenPrompt's
tutorials: its loader, `PromptForClassification` with a frozen model, cross-entropy, AdamW and clipping.
"""

import json
import sys
import time
from pathlib import Path

import torch
from openprompt import PromptDataLoader, PromptForClassification
from openprompt.data_utils import InputExample
from openprompt.plms import load_plm
from openprompt.prompts import ManualVerbalizer, MixedTemplate, SoftTemplate


def main() -> None:
    """Print seconds and losses as one line of JSON."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    model, tokenizer, _, wrapper = load_plm("bert", job["model"])
    template = make_template(job, model, tokenizer)
    classes = [str(place) for place in range(len(job["words"]))]
    verbalizer = ManualVerbalizer(tokenizer, classes=classes, label_words=[[word] for word in job["words"]])
    began = time.perf_counter()
    rows = [InputExample(guid=place, text_a=job["texts"][place], label=job["labels"][place]) for place in job["order"]]
    loader = PromptDataLoader(
        dataset=rows, template=template, tokenizer=tokenizer, tokenizer_wrapper_class=wrapper,
        max_seq_length=job["max_seq_length"], batch_size=job["batch_size"], shuffle=False,
    )  # fmt: skip
    prepare_s = time.perf_counter() - began
    classifier = PromptForClassification(model, template, verbalizer, freeze_plm=True, plm_eval_mode=True)
    moving = [parameter for parameter in template.parameters() if parameter.requires_grad]
    for number, batch in enumerate(loader):
        if number == job["warm_up"]:
            break
        torch.nn.functional.cross_entropy(classifier(batch), batch["label"]).backward()
    wall, cpu = time.perf_counter(), time.process_time()
    losses = fit(classifier, loader, moving, job)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall_s": spent[0], "cpu_s": spent[1], "prepare_s": prepare_s, "losses": losses}))


def make_template(job, model, tokenizer):
    """Soft tokens that start from words, inside the frame or before it."""
    rest = '{"placeholder": "text_a"} it was {"mask"}.'
    if job["template"] == "mixed":
        return MixedTemplate(model, tokenizer, text=f'{{"soft": "{job["soft"]}"}} {rest}')
    ids = tokenizer(job["soft"], add_special_tokens=False)["input_ids"]
    start = torch.nn.Parameter(model.get_input_embeddings().weight[ids].clone().detach())
    return SoftTemplate(model, tokenizer, text=rest, soft_embeds=start)


def fit(classifier, loader, moving, job):
    """The loss of every step."""
    optimizer = torch.optim.AdamW(moving, lr=job["learning_rate"], weight_decay=0.0)
    losses = []
    for batch in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(classifier(batch), batch["label"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == job["steps"]:
            break
    return losses


if __name__ == "__main__":
    main()
