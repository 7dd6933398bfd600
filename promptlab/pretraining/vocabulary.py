"""Documents -> a WordPiece vocabulary and its fast tokenizer.

The rule guarded here: every word that must be one piece is one piece, whatever the training found. Ids follow the
alphabet, because the trainer of `tokenizers` numbers pieces in the order of a hash table; ties at the edge of the
vocabulary may still fall either way, so a run keeps its vocabulary as a file.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from promptlab.errors import UsageError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(5)
"""Ids of the special tokens: they always stand first."""

_ALPHABET_SIZE = 160


def train_vocabulary(documents: Iterable[str], *, size: int, whole_words: Iterable[str] = ()) -> Tokenizer:
    """Train an uncased WordPiece vocabulary.

    Args:
        documents: Texts to learn from.
        size: Number of pieces, special tokens included.
        whole_words: Words that become one piece each; they take the places of the rarest learned pieces.
    """
    tokenizer = _assemble(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        limit_alphabet=_ALPHABET_SIZE,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    complete = _with_whole_words(pieces, tuple(dict.fromkeys(whole_words)), size=size)
    vocabulary = {piece: index for index, piece in enumerate(complete)}
    return _assemble(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=60))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file and check that its special tokens stand where the training expects them."""
    tokenizer = Tokenizer.from_file(str(path))
    found = tuple(tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS)))
    if found != SPECIAL_TOKENS:
        raise UsageError(f"{path}: the first tokens are {found}; pretraining needs {SPECIAL_TOKENS}.")
    return tokenizer


def _assemble(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def _with_whole_words(pieces: list[str], whole_words: tuple[str, ...], *, size: int) -> list[str]:
    """Put the missing words in the places of the last pieces longer than a character, which are the rarest."""
    wanted = set(whole_words)
    missing = [word for word in whole_words if word not in set(pieces)]
    surplus = max(0, len(pieces) + len(missing) - size)
    removable = [piece for piece in pieces if len(piece.removeprefix("##")) > 1 and piece not in wanted]
    removable = [piece for piece in removable if piece not in SPECIAL_TOKENS]
    if surplus > len(removable):
        raise UsageError(f"A vocabulary of {size} pieces has no room for {len(whole_words)} whole words.")
    dropped = set(removable[len(removable) - surplus :])
    kept = [piece for piece in pieces if piece not in dropped and piece not in SPECIAL_TOKENS]
    return [*SPECIAL_TOKENS, *sorted(kept + missing)]
