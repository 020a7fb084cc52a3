"""Near duplicates against exact Jaccard similarity by brute force, and the parts that they are found with."""

import random
from itertools import combinations

import pytest
import torch

from trainformer.data import near
from trainformer.data.near import Signatures, group, loose, mix, similarity

LATIN = "abcdefghijklmnopqrstuvwxyz"


def grams(text: str) -> set[str]:
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def families(rng: random.Random, count: int, letters: str, length: tuple[int, int]) -> list[str]:
    """Texts and copies of them with some letters changed."""
    texts = []
    for _ in range(count):
        base = [rng.choice(letters) for _ in range(rng.randint(*length))]
        texts.append("".join(base))
        for _ in range(rng.randint(0, 4)):
            copy = list(base)
            for _ in range(rng.randint(1, max(1, len(base) // 15))):
                copy[rng.randrange(len(copy))] = rng.choice(letters)
            texts.append("".join(copy))
    rng.shuffle(texts)
    return texts


def grouped(texts: list[str]) -> list[int]:
    signatures = Signatures(1)
    signatures.add([[t] for t in texts])
    return group(torch.tensor([hash(t) for t in texts]), [signatures]).tolist()


@pytest.mark.parametrize(("letters", "length"), [(LATIN, (30, 80)), (LATIN[:13], (200, 600)), ("好坏酒店房间很大小", (30, 120))])
def test_groups_agree_with_exact_jaccard(letters: str, length: tuple[int, int]) -> None:
    texts = families(random.Random(1), 120, letters, length)
    found, sets = grouped(texts), [grams(t) for t in texts]
    missed = wrong = alike = 0
    for i, j in combinations(range(len(texts)), 2):
        exact, together = jaccard(sets[i], sets[j]), found[i] == found[j]
        alike += exact >= 0.86
        missed += exact >= 0.86 and not together
        wrong += exact < 0.6 and together
    assert alike > 20
    assert missed <= 0.02 * alike and wrong == 0


def test_estimated_similarity_is_close_to_exact() -> None:
    texts = families(random.Random(2), 60, "abcdefghij", (150, 400))
    signatures = Signatures(1)
    signatures.add([[t] for t in texts])
    sketches = signatures.sketches(torch.arange(len(texts)))
    sets = [grams(t) for t in texts]
    pairs = [(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) > 0.3]
    one, other = (torch.tensor(side) for side in zip(*pairs, strict=True))
    errors = similarity(sketches[one], sketches[other], 1) - torch.tensor([jaccard(sets[i], sets[j]) for i, j in pairs])
    assert len(pairs) > 50 and errors.mean().abs() < 0.02
    assert errors.std() < 0.06  # the standard deviation of a share of 128 trials is at most 0.044


def test_a_pair_is_near_only_if_both_texts_are() -> None:
    long = "".join(random.Random(3).choices(LATIN, k=300))
    rows = [[long, "yes, of course"], [long, "no, not at all"], [long + "!", "yes, of course"]]
    signatures = Signatures(2)
    signatures.add(rows)
    assert group(torch.arange(3), [signatures]).tolist() == [0, 1, 0]


def test_many_copies_and_chunks_and_short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "CHUNK_CHARS", 500)
    texts = ["", "a", "ab", "abc", "abcd"] + [f"the same long sentence over and over again {c}" for c in LATIN]
    assert grouped(texts) == [0, 1, 2, 3, 4] + [5] * 26


def test_several_sources_count_through() -> None:
    text = "the same long sentence over and over again"
    first, second = Signatures(1), Signatures(1)
    first.add([["something quite different"], [text]])
    second.add([[text + "!"], ["nothing like the others at all"], [text + "?"]])
    assert group(torch.arange(5), [first, second]).tolist() == [0, 1, 1, 3, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good Film!", "goodfilm"),
        ("ＧＯＯＤ film 2", "goodfilm"),
        ("10/10", "10/10"),
        ("  ", "  "),
        ("很 好！", "很好"),
        ("हिन्दी भाषा", "हिन्दीभाषा"),
        ("Straße", "strasse"),
    ],
)
def test_loose_texts(text: str, expected: str) -> None:
    assert loose(text) == expected


def test_mix_is_the_finalizer_of_splitmix64() -> None:
    # z = 1: ((z ^ z>>30) * BF58476D1CE4E5B9; (z ^ z>>27) * 94D049BB133111EB; z ^ z>>31) with Python's integers
    z, mask = 1, 2**64 - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    assert int(mix(torch.tensor(1))) & mask == z
