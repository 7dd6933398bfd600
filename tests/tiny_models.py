"""Tiny masked language models with random weights and real tokenizers, built from configs.

Each is a folder as `save_pretrained` writes it. `KINDS` is one of each way to tokenise, for what concerns any model;
`FAMILIES` is every architecture, for what must hold on each of them. The tokenizers of the families beyond `KINDS` are
those of transformers, with a vocabulary learned here. Two tokenizers come without a model: byte-level BPE with
RoBERTa's own post-processor, and Unigram with Metaspace, whose vocabulary holds its special tokens as pieces that text
can turn into.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("bert", "bert_cased", "roberta", "modernbert")
FAMILIES = (*KINDS, "xlm_roberta", "distilbert", "albert", "electra", "deberta_v2", "bert_chinese")
TOKENIZER_KINDS = (*KINDS, "roberta_trimmed", "unigram", "xlm_roberta", "albert", "deberta_v2", "bert_chinese")

DETECTORS = ("electra", "deberta_v3")  # judge words in their place, and predict none

BYTE_LEVEL = ("roberta", "modernbert")  # " great" and "great" are different tokens
METASPACE = ("xlm_roberta", "albert", "deberta_v2")  # SentencePiece: a word begins with a mark for its blank
TWO_SEGMENTS = ("bert", "bert_cased", "bert_chinese", "albert", "electra")  # the config has two segment types
ABSOLUTE = (*TWO_SEGMENTS, "distilbert")  # positions count from the first token, padding or not

RELATIVE: dict[str, Any] = {  # how DeBERTa-v2 counts positions
    "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
}  # fmt: skip

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
# So few sentences make no pieces of whole words; a published vocabulary has the common ones.
WHOLE_WORDS = ("great", "terrible", "good", "bad", "yes", "no", "Yes", "No", "maybe", "world", "was", "It", "it")
CHINESE = [
    "这部电影很好看。那本书很差，我不喜欢！",
    "酒店的房间很大，服务也不错；早饭一般。",
    "这是一条体育新闻：球队赢了（又一次）。",
    "股票和财经，科技与国际，房产、教育、娱乐。",
    "你觉得怎么样？我说“是”，他说“不是”。",
]


def build(
    kind: str, folder: Path, *, seed: int = 0, sentences: Sequence[str] | None = None,
    num_positions: int = 64, spread: float = 0.3,
) -> Path:  # fmt: skip
    """Write a tiny checkpoint of the kind into the folder.

    It reads prompts of up to `num_positions` tokens, and `spread` is the standard deviation of its weights.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(kind, sentences)
    model = _model(kind, tokenizer, num_positions, spread)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def build_discriminator(folder: Path) -> Path:
    """Write an ELECTRA discriminator, which has no head for words."""
    return build_detector("electra", folder)


def build_detector(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny replaced-token detector of the kind into the folder."""
    import torch
    from transformers import ElectraConfig, ElectraForPreTraining

    torch.manual_seed(seed)
    if kind == "deberta_v3":
        return _deberta_v3(folder)
    tokenizer = build_tokenizer("electra")
    tokenizer.save_pretrained(folder)
    model = ElectraForPreTraining(ElectraConfig(**_shape(tokenizer), embedding_size=16))
    model.discriminator_predictions.dense_prediction.bias.data.fill_(0.5)
    model.save_pretrained(folder)
    return folder


def _deberta_v3(folder: Path) -> Path:
    """The tensors of a published DeBERTa-v3: body, detector head with its misspelt name, and a leftover head of words.

    Transformers has no class that would save them so.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import DebertaV2Config, DebertaV2Model

    tokenizer = build_tokenizer("deberta_v2")
    tokenizer.save_pretrained(folder)
    more = {"share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0, "layer_norm_eps": 1e-7}
    config = DebertaV2Config(**_shape(tokenizer), **RELATIVE, **more)
    config.save_pretrained(folder)
    body = {f"deberta.{name}": tensor for name, tensor in DebertaV2Model(config).state_dict().items()}
    wide, one, words = (32,), (1,), (len(tokenizer),)
    shapes = {
        "mask_predictions.dense.weight": (32, 32), "mask_predictions.dense.bias": wide,
        "mask_predictions.LayerNorm.weight": wide, "mask_predictions.LayerNorm.bias": wide,
        "mask_predictions.classifer.weight": (1, 32), "mask_predictions.classifer.bias": one,
        "lm_predictions.lm_head.dense.weight": (32, 32), "lm_predictions.lm_head.dense.bias": wide,
        "lm_predictions.lm_head.LayerNorm.weight": wide, "lm_predictions.lm_head.LayerNorm.bias": wide,
        "lm_predictions.lm_head.bias": words,
    }  # fmt: skip
    heads = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    save_file({**body, **heads}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_tokenizer(kind: str, sentences: Sequence[str] | None = None) -> Any:
    """The tokenizer of the kind, with a vocabulary of the sentences; those of this module by default."""
    learned = sentences or (CHINESE * 5 if kind == "bert_chinese" else SENTENCES * 5)
    if kind in ("bert", "bert_cased"):
        return _wordpiece(learned, lowercase=kind == "bert")
    if kind in ("roberta", "modernbert", "roberta_trimmed"):
        return _byte_bpe(kind, learned)
    if kind == "unigram":
        return _unigram(learned)
    if kind in METASPACE:
        return _metaspace(kind, learned, () if sentences else WHOLE_WORDS)
    return _wordpiece_of_family(kind, learned)


def _wordpiece(sentences: Sequence[str], *, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    engine.train_from_iterator(sentences, trainer)
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def _byte_bpe(kind: str, sentences: Sequence[str]) -> Any:
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
    engine.train_from_iterator([*sentences, *(sentence[1:] for sentence in sentences)], trainer)
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


def _unigram(sentences: Sequence[str]) -> Any:
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
    engine.train_from_iterator([*sentences, *["</s> <s> / < >"] * 5], trainer)
    engine.add_special_tokens([mask])
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        bos_token="<s>", eos_token="</s>", mask_token=mask, model_max_length=64,
    )  # fmt: skip


def _wordpiece_of_family(kind: str, sentences: Sequence[str]) -> Any:
    """WordPiece of DistilBERT and ELECTRA; of characters for Chinese."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import BertTokenizer, DistilBertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    plain = BertTokenizer().backend_tokenizer
    if kind == "bert_chinese":
        words = (word for text in sentences for word, _ in plain.pre_tokenizer.pre_tokenize_str(_normal(plain, text)))
        plain_letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?()[]\"'/-"
        letters = sorted({character for word in words for character in word} | set(plain_letters))
        pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
    else:
        engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        engine.normalizer, engine.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
        engine.train_from_iterator(sentences, trainer)
        vocabulary = engine.get_vocab()
    return (DistilBertTokenizer if kind == "distilbert" else BertTokenizer)(vocab=vocabulary, model_max_length=64)


def _normal(engine: Any, text: str) -> str:
    return str(engine.normalizer.normalize_str(text))


def _metaspace(kind: str, sentences: Sequence[str], words: Sequence[str]) -> Any:
    """Unigram as XLM-R, ALBERT and DeBERTa-v2 have it: with their own normalizer, blanks and frame."""
    import json

    from tokenizers import AddedToken, Tokenizer, models
    from tokenizers.trainers import UnigramTrainer
    from transformers import AlbertTokenizer, DebertaV2Tokenizer, XLMRobertaTokenizer

    made = {"xlm_roberta": XLMRobertaTokenizer, "albert": AlbertTokenizer, "deberta_v2": DebertaV2Tokenizer}[kind]
    special = {
        "xlm_roberta": ["<s>", "<pad>", "</s>", "<unk>"], "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        "deberta_v2": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
    }[kind]  # fmt: skip
    plain = made().backend_tokenizer
    engine = Tokenizer(models.Unigram())
    if plain.normalizer is not None:
        engine.normalizer = plain.normalizer
    engine.pre_tokenizer = plain.pre_tokenizer
    unknown = next(token for token in special if "unk" in token.lower())
    trainer = UnigramTrainer(vocab_size=300, special_tokens=special, unk_token=unknown, show_progress=False)
    engine.train_from_iterator(sentences, trainer)
    pieces = [tuple(piece) for piece in json.loads(engine.to_str())["model"]["vocab"]]
    text = "[MASK]" if kind != "xlm_roberta" else "<mask>"
    known = {piece for piece, _ in pieces}
    whole = (form for word in words for form in (f"\u2581{word}", word))
    pieces += [(form, -4.0) for form in whole if form not in known]
    pieces += [] if text in special else [(text, 0.0)]
    # The published tokenizers of ALBERT and XLM-R take the blank before a mask, DeBERTa's does not.
    mask = AddedToken(text, lstrip=kind != "deberta_v2", special=True, normalized=False)
    return made(vocab=pieces, mask_token=mask, model_max_length=64)


def _shape(tokenizer: Any, num_positions: int = 64, spread: float = 0.3) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "initializer_range": spread, "max_position_embeddings": num_positions,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def _model(kind: str, tokenizer: Any, num_positions: int, spread: float) -> Any:
    import transformers as t

    shape = _shape(tokenizer, num_positions, spread)
    behind_padding = {**shape, "max_position_embeddings": num_positions + 2, "type_vocab_size": 1}
    frame = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    made = {
        "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**behind_padding)),
        "xlm_roberta": lambda: t.XLMRobertaForMaskedLM(t.XLMRobertaConfig(**behind_padding)),
        "modernbert": lambda: t.ModernBertForMaskedLM(
            t.ModernBertConfig(**shape, **frame, local_attention=8, global_attn_every_n_layers=2)
        ),
        "distilbert": lambda: t.DistilBertForMaskedLM(
            t.DistilBertConfig(
                vocab_size=len(tokenizer),
                dim=32,
                n_layers=2,
                n_heads=4,
                hidden_dim=64,
                initializer_range=spread,
                max_position_embeddings=num_positions,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        "albert": lambda: t.AlbertForMaskedLM(t.AlbertConfig(**shape, embedding_size=16)),
        "electra": lambda: t.ElectraForMaskedLM(t.ElectraConfig(**shape, embedding_size=16)),
        "deberta_v2": lambda: t.DebertaV2ForMaskedLM(t.DebertaV2Config(**shape, **RELATIVE)),
    }
    return made.get(kind, lambda: t.BertForMaskedLM(t.BertConfig(**shape)))().eval()
