"""Long texts: what is kept, what is counted, and the same cuts as the tokenizers library makes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from trainformer.core.errors import UserError
from trainformer.data.encode import as_part, encode_texts, require_texts


class Wrapping:
    """BERT's form: [CLS] is -1, [SEP] is -2."""

    def __init__(self):
        self.specials = {1: 2, 2: 3}

    def wrap(self, *texts):
        ids, kinds = [-1], [0]
        for kind, text in enumerate(texts):
            ids += [*text, -2]
            kinds += [kind] * (len(text) + 1)
        return ids, kinds


TOKENS = Wrapping()
TEXT = list(range(1, 21))


def test_short_text_is_whole_under_every_policy():
    for policy in ("truncate", "head_tail", "window"):
        assert encode_texts([[1, 2, 3]], TOKENS, 8, policy) == ([([-1, 1, 2, 3, -2], [0] * 5)], 0)
        assert encode_texts([[]], TOKENS, 8, policy) == ([([-1, -2], [0, 0])], 0)


def test_truncate_keeps_the_head():
    assert encode_texts([TEXT], TOKENS, 8) == ([([-1, 1, 2, 3, 4, 5, 6, -2], [0] * 8)], 14)


def test_head_tail_of_512_is_128_and_382():
    ((ids, _),) = encode_texts([list(range(2000))], TOKENS, 512, "head_tail")[0]
    assert ids[1:-1] == [*range(128), *range(2000 - 382, 2000)]


def test_windows_by_hand():
    # 20 tokens, 8 of room, 2 again in the next: starts 0, 6, 12
    sequences, cut = encode_texts([TEXT], TOKENS, 10, "window", 0.25)
    assert [ids[1:-1] for ids, _ in sequences] == [TEXT[:8], TEXT[6:14], TEXT[12:]]
    assert cut == 0


@given(st.integers(1, 400), st.integers(3, 60), st.floats(0, 0.9))
def test_windows_read_everything_and_overlap_enough(length, limit, overlap):
    sequences, cut = encode_texts([list(range(length))], TOKENS, limit, "window", overlap)
    windows = [ids[1:-1] for ids, _ in sequences]
    room = limit - 2
    assert cut == 0 and all(len(ids) <= limit for ids, _ in sequences)
    assert sorted({i for w in windows for i in w}) == list(range(length))
    assert {len(w) for w in windows} == {min(room, length)}
    for one, other in pairwise(windows):
        assert len(set(one) & set(other)) >= min(overlap * room, room - 1) - 1e-9


@given(st.integers(0, 40), st.integers(0, 40), st.integers(5, 40))
def test_a_pair_is_cut_as_the_library_cuts_longest_first(one, other, limit):
    words = {f"w{i}": i for i in range(80)}
    library = Tokenizer(models.WordLevel(words, unk_token="w0"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.enable_truncation(limit - 3, strategy="longest_first")
    pieces = [list(range(one)), list(range(40, 40 + other))]
    expected = library.encode(*[" ".join(f"w{i}" for i in p) for p in pieces], add_special_tokens=False)
    ((ids, _),), cut = encode_texts(pieces, TOKENS, limit)
    assert [i for i in ids if i >= 0] == expected.ids
    assert cut == one + other - len(expected.ids)


def test_windows_of_a_pair_slide_over_the_longer_text():
    short, long = [101, 102, 103], TEXT
    sequences, cut = encode_texts([short, long], TOKENS, 14, "window", 0.25)
    assert cut == 0
    for ids, kinds in sequences:
        assert ids[:5] == [-1, *short, -2] and len(ids) == 14
        assert kinds == [0] * 5 + [1] * 9
    assert sorted({i for ids, _ in sequences for i in ids if 0 < i < 100}) == long
    other, _ = encode_texts([long, short], TOKENS, 14, "window", 0.25)
    assert [ids[-5:] for ids, _ in other] == [[-2, *short, -2]] * len(other)


def test_windows_of_two_long_texts_count_what_the_shorter_loses():
    one, other = list(range(100, 112)), TEXT
    sequences, cut = encode_texts([one, other], TOKENS, 13, "window", 0.0)
    assert cut == 7  # 5 of the 10 tokens of room are for the 12 of the shorter
    assert [ids[7:12] for ids, _ in sequences] == [TEXT[:5], TEXT[5:10], TEXT[10:15], TEXT[15:]]


def test_head_tail_of_a_pair_leaves_the_text_that_fits():
    ((ids, _),), cut = encode_texts([[101, 102], TEXT], TOKENS, 13, "head_tail")
    assert ids == [-1, 101, 102, -2, 1, 2, *TEXT[-6:], -2] and cut == 12


def test_part():
    part = as_part([([5, 6], [0, 1]), ([7], [1])])
    assert (part.ids.tolist(), part.lengths, part.kinds.tolist()) == ([5, 6, 7], [2, 1], [0, 1, 1])
    assert as_part([([5, 6], [])]).kinds is None


def test_no_room_and_no_text():
    with pytest.raises(UserError, match=r"data\.max_tokens: no room for text in 4 tokens. At least 5."):
        encode_texts([[1], [2]], TOKENS, 4)
    for bad, shown in ((None, "null"), (3, "3"), (["a"], r"\['a'\]")):
        with pytest.raises(UserError, match=f"the text is {shown}, which is not text"):
            require_texts((bad,), 1)
    with pytest.raises(UserError, match="2 texts expected, 1 given"):
        require_texts(("a",), 2)
