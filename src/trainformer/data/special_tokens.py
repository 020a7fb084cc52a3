"""Special tokens as the models of the papers want them, and how a text and a pair of texts are wrapped in them."""

from dataclasses import dataclass

SENTINELS = 100
"""T5 marks the gaps of a text with <extra_id_0> and so on, the first the last of the vocabulary."""


@dataclass(frozen=True)
class Style:
    """Special tokens at the beginning and at the end of the vocabulary, their roles, and templates of one text and two.

    `roles` are the names that the transformers library gives them. An empty template adds nothing.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]
    roles: dict[str, str]
    single: str = ""
    pair: str = ""

    @property
    def count(self) -> int:
        return len(self.first) + len(self.last)

    @property
    def typed(self) -> bool:
        """Whether the second text of a pair has a token type of its own."""
        return ":1" in self.pair


STYLES = {
    "bert": Style(
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        (),
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
        "[CLS]:0 $A:0 [SEP]:0",
        "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    ),
    "roberta": Style(
        ("<s>", "<pad>", "</s>", "<unk>"),
        ("<mask>",),
        {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
         "unk_token": "<unk>", "mask_token": "<mask>"},
        "<s> $A </s>",
        "<s> $A </s> </s> $B </s>",
    ),
    "gpt2": Style((), ("<|endoftext|>",), dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")),
    "t5": Style(
        ("<pad>", "</s>", "<unk>"),
        tuple(f"<extra_id_{i}>" for i in reversed(range(SENTINELS))),
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "$A </s>",
        "$A </s> $B </s>",
    ),
    "marian": Style(
        ("</s>", "<unk>"),
        ("<pad>",),
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        "$A </s>",
        "$A $B </s>",
    ),
}  # fmt: skip
"""BERT (Devlin et al. 2019, arXiv:1810.04805), RoBERTa (Liu et al. 2019, arXiv:1907.11692), GPT-2 (Radford et al. 2019), T5
(Raffel et al. 2020, arXiv:1910.10683) and Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344)."""
