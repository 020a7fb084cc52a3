"""Perplexity by its formula, BLEU and chrF as sacrebleu's own functions give them."""

import math

import pytest
import torch

from trainformer.core.batch import Encoded, Part, pack
from trainformer.metrics.tokens import TokenScores
from trainformer.metrics.written import tokenizer, written_scores

sacrebleu = pytest.importorskip("sacrebleu")


def test_perplexity_of_a_token_and_of_a_byte() -> None:
    """Two rows of 2 and 1 tokens that stand for 5 bytes; the true tokens have the shares 0.5, 0.25 and 0.5."""
    shares = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]
    rows = [Encoded((Part(torch.zeros(n), [n]),), torch.tensor(t), i, units=n, bytes=b)
            for i, (n, t, b) in enumerate([(2, [0, 1], 3), (1, [2], 2)])]  # fmt: skip
    metric, split = TokenScores(), TokenScores()
    metric.add(torch.tensor(shares).log(), pack(rows))
    split.add(torch.tensor(shares[:2]).log(), pack(rows[:1]))
    split.add(torch.tensor(shares[2:]).log(), pack(rows[1:]))
    found = metric.value()
    assert found == pytest.approx(split.value())
    total = -math.log(0.5 * 0.25 * 0.5)
    assert found["loss"] == pytest.approx(total / 3) and found["perplexity"] == pytest.approx(16 ** (1 / 3))
    assert found["bits_per_byte"] == pytest.approx(4 / 5) and found["perplexity_per_byte"] == pytest.approx(2 ** (4 / 5))
    assert found["token_accuracy"] == pytest.approx(2 / 3) and (found["examples"], found["tokens"]) == (2, 3)


def test_bleu_and_chrf_are_sacrebleus() -> None:
    written = ["the cat sat on the mat .", "he reads a new book", "good"]
    wanted = ["the cat sat on a mat .", "he reads the new book", "good"]
    found = written_scores(written, wanted)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, [wanted]).score)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert "tok:13a" in str(found["bleu_signature"]) and f"version:{sacrebleu.__version__}" in str(found["bleu_signature"])
    assert "nc:6" in str(found["chrf_signature"])


def test_chinese_is_taken_apart_by_characters() -> None:
    wanted = ["保存文件。", "关闭 File"]
    assert tokenizer(wanted) == "zh" and tokenizer(["save the file 文"]) == "13a"
    found = written_scores(["保存文件。", "关闭 File"], wanted)
    assert found["bleu"] == pytest.approx(100) and "tok:zh" in str(found["bleu_signature"])
