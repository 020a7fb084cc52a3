"""Trains a tokenizer from texts: WordPiece, BPE, byte-level BPE or Unigram, in English, Chinese and what is written alike.

Chinese has no spaces, so a run of Han characters is one word of its own, apart from the letters around it: BPE and Unigram
find the words inside of it, WordPiece reads it character by character as BERT does. Full-width punctuation stays as it is
(NFC, not NFKC), since what generates Chinese must be able to write it. Equal texts and settings give equal bytes.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trainformer.core.errors import MissingExtra, UserError, nearest
from trainformer.data.special_tokens import STYLES, Style

Kind = Literal["wordpiece", "bpe", "byte_bpe", "unigram"]
USUAL: dict[str, str] = {"wordpiece": "bert", "bpe": "marian", "byte_bpe": "gpt2", "unigram": "t5"}
"""Whose special tokens a kind gets where none are named."""
HAN = r" ?[\p{Han}\p{Hiragana}\p{Katakana}]+"
"""A run of characters that are written without spaces, with the space before it."""
COVERAGE = 0.9995
"""Share of what is written that the alphabet must hold, where all of it would take up half of the vocabulary."""
BYTES = 256
LONGEST_PIECE = 16
"""Characters of the longest piece of BPE and Unigram: a sentence without spaces shall not become one."""
LONGEST_TEXT = 2**30
"""Bytes from which SentencePiece would leave a text out; a row has fewer."""


@dataclass(frozen=True)
class Wanted:
    """What is to be trained. `size` counts special tokens too; `like` names whose they are (None: the kind's usual)."""

    kind: str
    size: int
    like: str | None = None
    lowercase: bool = False

    @property
    def style(self) -> Style:
        """Raises UserError for unknown words, and where the special tokens do not fit the kind."""
        if self.kind not in get_args(Kind):
            raise UserError(f"no kind '{self.kind}' of tokenizer.", where="--kind", fix=nearest(self.kind, get_args(Kind)))
        like = self.like or USUAL[self.kind]
        if like not in STYLES:
            raise UserError(f"no special tokens like '{like}'.", where="--like", fix=nearest(like, STYLES))
        if like == "gpt2" and self.kind != "byte_bpe":
            raise UserError("gpt2 has no token for what is unknown.", where="--like", fix="Use --kind byte_bpe, or --like t5.")
        return STYLES[like]


def train(texts: Callable[[], Iterable[str]], wanted: Wanted) -> tuple[Any, list[str]]:
    """A `tokenizers.Tokenizer` from the texts, which are read twice, and what to say about it.

    Raises UserError where there is nothing to learn from, or where the size does not hold the characters of the texts.
    """
    style = wanted.style
    backend = _untrained(wanted, style)
    kept, rare, said = _alphabet(texts, backend, wanted)
    _refuse_small(wanted, style.count + (BYTES if wanted.kind == "byte_bpe" else len(kept)))
    blanks = dict.fromkeys(map(ord, rare), " ")

    def known() -> Iterator[str]:
        return (text.translate(blanks) for text in texts())

    if wanted.kind == "unigram":
        backend.model = _unigram(known(), backend, wanted, style)
        backend.add_special_tokens(list(style.first))
    else:
        inner = _continued(known(), backend) if wanted.kind == "wordpiece" else []
        backend.train_from_iterator(known(), _trainer(wanted, style, inner))
        backend = _plain(backend, wanted, style) if inner else backend
    backend.add_special_tokens(list(style.last))
    size = backend.get_vocab_size()
    _refuse_small(wanted, size)
    if size < wanted.size:
        said.append(f"size: {size:,}; the texts do not have {wanted.size:,} pieces that are worth one")
    _wrap(backend, style)
    return backend, said


def _untrained(wanted: Wanted, style: Style) -> Any:
    """Normaliser, pre-tokeniser, empty model and decoder of a kind."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    unknown = style.roles["unk_token"]
    lower = [normalizers.Lowercase()] if wanted.lowercase else []
    if wanted.kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token=unknown))
        backend.normalizer = normalizers.BertNormalizer(lowercase=wanted.lowercase)
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        return backend
    runs = pre_tokenizers.Split(Regex(HAN), "isolated")
    if wanted.kind == "byte_bpe":
        backend = Tokenizer(models.BPE())
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
        backend.pre_tokenizer = pre_tokenizers.Sequence([runs, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        backend.decoder = decoders.ByteLevel()
        return backend
    backend = Tokenizer(models.BPE(unk_token=unknown, fuse_unk=True) if wanted.kind == "bpe" else models.Unigram())
    one_space = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), one_space, normalizers.Strip(), *lower])
    words = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.pre_tokenizer = pre_tokenizers.Sequence([runs, pre_tokenizers.Punctuation(), words])
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return backend


def _continued(texts: Iterable[str], backend: Any) -> list[str]:
    """The characters that stand inside of a word, as WordPiece writes them. Their ids must not be left to the trainer, which
    gives them in the order of a table of words that is another in each process."""
    found: set[str] = set()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            found.update(word[1:])
    return [f"##{character}" for character in sorted(found)]


def _plain(trained: Any, wanted: Wanted, style: Style) -> Any:
    """The same vocabulary, in which only the special tokens are special."""
    backend = _untrained(wanted, style)
    backend.model = type(backend.model)(vocab=trained.get_vocab(), unk_token=style.roles["unk_token"])
    backend.add_special_tokens(list(style.first))
    return backend


def _unigram(texts: Iterable[str], backend: Any, wanted: Wanted, style: Style) -> Any:
    """The likeliest pieces of the words, by SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226): the trainer of
    `tokenizers` reads words in the order of a table that is another in each process, and its results differ."""
    try:
        from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    except ImportError as error:
        raise MissingExtra("sentencepiece", "tokenizers") from error
    words = (backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)) for text in texts)
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=filter(None, ("".join(word for word, _ in each) for each in words)), model_writer=written,
        model_type="unigram", vocab_size=wanted.size - style.count + 1, hard_vocab_limit=False, character_coverage=1.0,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, num_threads=1,
        max_sentencepiece_length=LONGEST_PIECE, max_sentence_length=LONGEST_TEXT, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
        minloglevel=2,
    )  # fmt: skip
    found = SentencePieceProcessor(model_proto=written.getvalue())
    pieces = [(found.id_to_piece(i), found.get_score(i)) for i in range(1, found.get_piece_size())]
    special = [(token, 0.0) for token in style.first]
    return type(backend.model)([*special, *pieces], unk_id=style.first.index(style.roles["unk_token"]))


def _trainer(wanted: Wanted, style: Style, inner: list[str]) -> Any:
    from tokenizers import pre_tokenizers, trainers

    special = [*style.first, *inner]
    shared: Any = {"vocab_size": wanted.size - len(style.last), "special_tokens": special, "show_progress": False}
    if wanted.kind == "wordpiece":
        return trainers.WordPieceTrainer(min_frequency=2, **shared)
    if wanted.kind == "byte_bpe":
        return trainers.BpeTrainer(min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **shared)
    return trainers.BpeTrainer(min_frequency=2, max_token_length=LONGEST_PIECE, **shared)


def _alphabet(texts: Callable[[], Iterable[str]], backend: Any, wanted: Wanted) -> tuple[list[str], list[str], list[str]]:
    """Characters that are kept, those that are too rare, and what to say. Raises UserError if there are none."""
    seen: Counter[str] = Counter()
    for text in texts():
        seen.update(backend.normalizer.normalize_str(text))
    letters = sorted((c for c in seen if not c.isspace()), key=lambda c: (-seen[c], c))
    if not letters:
        raise UserError("there is no text in it to train a tokenizer on.", where="--data", fix="Name a column of texts: --text.")
    if wanted.kind == "byte_bpe" or 2 * len(letters) <= wanted.size:
        return letters, [], []
    total, held, place = sum(seen[c] for c in letters), 0, 0
    while held < COVERAGE * total:
        held, place = held + seen[letters[place]], place + 1
    rare = letters[place:]
    words = f"left out: {len(rare):,} of {len(letters):,} characters, {1 - held / total:.3%} of what is written; they are unknown"
    return letters[:place], rare, [words] if rare else []


def _refuse_small(wanted: Wanted, least: int) -> None:
    if wanted.size < least:
        what = f"{wanted.size:,} is too small: characters and special tokens alone are {least:,}."
        raise UserError(what, where="--size", fix=f"At least {least:,}; usual are 8,000 to 50,000. Or --kind byte_bpe.")


def _wrap(backend: Any, style: Style) -> None:
    """Adds the template that puts special tokens around texts."""
    if not style.single:
        return
    from tokenizers import processors

    used = {word.partition(":")[0] for word in style.pair.split()} - {"$A", "$B"}
    ids = [(token, backend.token_to_id(token)) for token in sorted(used)]
    backend.post_processor = processors.TemplateProcessing(single=style.single, pair=style.pair, special_tokens=ids)
