"""Tiny masked language models with random weights and real tokenizers, built from configs.

Each is a folder as `save_pretrained` writes it: BERT with WordPiece, RoBERTa and ModernBERT with byte-level BPE.
Two tokenizers come without a model: byte-level BPE with RoBERTa's own post-processor, and Unigram with Metaspace, whose
vocabulary holds its special tokens as pieces that text can turn into.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = ("bert", "bert_cased", "roberta", "modernbert")
TOKENIZER_KINDS = (*KINDS, "roberta_trimmed", "unigram")

# Sentences written for these tests; the vocabularies are learned from them.
SENTENCES = [
    "it was great . it was terrible . it was good , it was bad !",
    "a great film , a terrible play and a good book about the world",
    "the world of sports and business ; science , technology and politics",
    "yes , no , maybe . the answer is yes ? the answer is no ! maybe so .",
    "This is great news: the team won (again) and the market rose 3 % .",
    '"Great!" she said, "it was not bad." Nothing was terrible; everything was fine.',
    "In summary, all in all, it was an awful day, but the food tasted wonderful.",
    "Right or wrong, true or false: subjective opinion against objective fact.",
    "Great Terrible Good Bad Yes No Maybe World Sports Business Tech Right Wrong",
    "great terrible good bad yes no maybe world sports business tech right wrong",
]


def build(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny checkpoint of the kind into the folder."""
    import torch

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(kind)
    model = _model(kind, tokenizer)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def build_tokenizer(kind: str) -> Any:
    """The tokenizer of the kind."""
    if kind == "unigram":
        return _unigram()
    return _wordpiece(lowercase=kind == "bert") if kind.startswith("bert") else _byte_bpe(kind)


def _wordpiece(*, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    engine.train_from_iterator(SENTENCES * 5, trainer)
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def _byte_bpe(kind: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    engine.train_from_iterator([*SENTENCES, *(sentence[1:] for sentence in SENTENCES)] * 5, trainer)
    engine.add_special_tokens([mask])
    pair = "<s> $A </s> </s> $B </s>" if kind == "roberta" else "<s> $A </s> $B </s>"
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    if kind == "roberta_trimmed":
        engine.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        bos_token="<s>", eos_token="</s>", mask_token=mask, model_max_length=64,
    )  # fmt: skip


def _unigram() -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import UnigramTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
    engine = Tokenizer(models.Unigram())
    engine.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    engine.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    engine.train_from_iterator([*SENTENCES, "</s> <s> / < >"] * 5, trainer)
    engine.add_special_tokens([mask])
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        bos_token="<s>", eos_token="</s>", mask_token=mask, model_max_length=64,
    )  # fmt: skip


def _model(kind: str, tokenizer: Any) -> Any:
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        ModernBertConfig,
        ModernBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "initializer_range": 0.3,
    }  # fmt: skip
    if kind.startswith("bert"):
        model = BertForMaskedLM(BertConfig(**shape, max_position_embeddings=64, pad_token_id=0))
    elif kind == "roberta":
        model = RobertaForMaskedLM(
            RobertaConfig(**shape, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)
        )
    else:
        model = ModernBertForMaskedLM(
            ModernBertConfig(
                **shape,
                max_position_embeddings=64,
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=2,
                cls_token_id=0,
                sep_token_id=2,
                local_attention=8,
                global_attn_every_n_layers=2,
            )
        )
    return model.eval()
