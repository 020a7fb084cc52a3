"""Writing texts: beams against all texts that there are, draws against their shares, stops to the character, the cache."""

import itertools
import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from trainformer.core.batch import Encoded, Packed, Part, pack
from trainformer.core.errors import UserError
from trainformer.models.design import Design
from trainformer.models.initialisation import initialise
from trainformer.models.transformer import Transformer
from trainformer.models.vocabulary import VocabularyHead
from trainformer.nn.beam_search import beam_search, divisor
from trainformer.nn.decoding import Decoding, drawn, ruled, shares
from trainformer.nn.generate import Prompts, Voice, generate, stream

END, LIMIT = 1, 64


def voice(vocabulary: int, form: str = "encoder-decoder", seed: int = 0) -> Voice:
    """A random model whose tokens differ in likelihood."""
    torch.manual_seed(seed)
    body = Transformer(Design(vocabulary=vocabulary, width=8, heads=2, layers=1, feed_forward=16, form=form, output="bias"))
    initialise(body)
    head = VocabularyHead(body.eval())
    for parameter in [*body.parameters(), *head.parameters()]:
        parameter.data += 0.5 * torch.randn_like(parameter)
    return Voice(body, head.scores, END, LIMIT, lambda before, ids: "".join("abcdefghijklmnopqrstuvwxyz"[i] for i in ids))


def sources(*lengths: int) -> Packed:
    draw = torch.Generator().manual_seed(5)
    items = [Encoded((Part(torch.randint(2, 4, (n,), generator=draw), [n]),), torch.zeros(1), i) for i, n in enumerate(lengths)]
    return pack(items).parts[0]


def likelihoods(speaker: Voice, source: Packed | None, row: int, ids: list[int]) -> Tensor:
    """The log-likelihood "L V" of each next token of a text, by one pass over the whole of it."""
    text = Part(torch.tensor(ids), [len(ids)])
    parts = (text,)
    if source is not None:
        own = source.ids.split(source.lengths)[row]
        parts = (Part(own, [len(own)]), text)  # type: ignore[assignment]
    body: Any = speaker.body
    with torch.no_grad():
        return speaker.scores(body(pack([Encoded(parts, torch.zeros(1), 0)]))[-1]).log_softmax(-1)


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(power: float) -> None:
    """Every text of at most four tokens of a vocabulary of four, by brute force."""
    speaker, source, longest = voice(4), sources(3, 1, 2), 4
    how = Decoding(beam=256, beam_end="exact", max_new_tokens=longest, length_penalty=power)
    found = beam_search(speaker, Prompts([[0]] * 3, source), how)
    for row, kept in enumerate(found):
        every: list[tuple[float, list[int]]] = []
        for length in range(1, longest + 1):
            for text in itertools.product([0, 2, 3], repeat=length - 1):
                for last in [END] if length < longest else [0, END, 2, 3]:
                    whole = [*text, last]
                    known = likelihoods(speaker, source, row, [0, *text])
                    total = sum(float(known[i, token]) for i, token in enumerate(whole))
                    every.append((total / divisor(length, power), [t for t in whole if t != END]))
        every.sort(key=lambda pair: -pair[0])
        assert kept[0][1].ids == every[0][1]
        assert [score for score, _ in kept] == pytest.approx([score for score, _ in every[: len(kept)]], abs=1e-4)


@pytest.mark.parametrize("end", ["soon", "exact"])
@pytest.mark.parametrize("beam", [2, 3, 5])
def test_a_search_ends_only_when_nothing_open_can_be_better(beam: int, end: Literal["soon", "exact"]) -> None:
    """The same search without a cache; what is exact finds as much as one that is never cut short."""
    speaker, source = voice(12, seed=3), sources(3, 1, 2)
    how = Decoding(beam=beam, max_new_tokens=20, beam_end=end)
    for row, wanted in itertools.product(range(3), {1, beam}):
        alone = Packed(source.ids.split(source.lengths)[row], [source.lengths[row]], torch.tensor([0]))
        short = beam_search(speaker, Prompts([[0]], alone), how, wanted=wanted)[0]
        texts = [([], 0.0)]
        best: list[tuple[float, list[int]]] = []
        for length in range(1, 21):
            found = []
            for ids, total in texts:
                known = likelihoods(speaker, alone, 0, [0, *ids])[-1]
                found += [(ids, token, total + float(known[token])) for token in range(12)]
            found.sort(key=lambda f: -f[2])
            texts = []
            for ids, token, total in found[: 2 * beam]:
                if len(texts) == beam:
                    break
                if token == END or length == 20:
                    best.append((total / divisor(length, 0.6), ids + [token] * (token != END)))
                else:
                    texts.append(([*ids, token], total))
            best = sorted(best, key=lambda pair: -pair[0])[:beam]
            soon = end == "soon" and len(best) >= wanted and length < 20
            if soon and texts[0][1] / divisor(length + 1, 0.6) <= best[wanted - 1][0]:
                break
        assert [t.ids for _, t in short[:wanted]] == [ids for _, ids in best[:wanted]]


def test_a_search_that_ends_soon_takes_fewer_steps() -> None:
    """And one of which the best text alone is wanted fewer again."""
    steps: dict[tuple[str, int], int] = {}
    for end, wanted in itertools.product(("soon", "exact"), (1, 3)):
        speaker, calls = voice(12, seed=3), []
        counting = replace(speaker, scores=lambda states, one=speaker, seen=calls: (seen.append(1), one.scores(states))[1])
        beam_search(counting, Prompts([[0]], sources(3)), Decoding(beam=3, max_new_tokens=60, beam_end=end), wanted=wanted)
        steps[end, wanted] = len(calls)
    assert steps["soon", 1] < steps["soon", 3] < steps["exact", 3] <= 60
    assert steps["soon", 1] <= steps["exact", 1] < steps["exact", 3]


def test_groups_find_what_each_finds_alone() -> None:
    """The last texts of a group wait for those of others: of all kinds of search, with what it needs of the texts so far."""
    speaker, lengths = voice(300, seed=3), [[3, 1, 2, 5, 4], [2], [7, 6], [1, 1, 1]]
    groups = [Prompts([[0]] * len(each), sources(*each)) for each in lengths]
    for settings in ({}, {"min_new_tokens": 6, "no_repeat": 2}, {"coverage_penalty": 0.3, "beam_end": "exact"}):
        how = Decoding(**{"beam": 3, "max_new_tokens": 12, **settings})
        found = beam_search(speaker, groups[0], how, groups[1:])
        alone = [each for group in groups for each in beam_search(speaker, group, how)]
        assert [[text.ids for _, text in kept] for kept in found] == [[text.ids for _, text in kept] for kept in alone]
        scores = [[score for score, _ in kept] for kept in found]
        assert [pytest.approx([score for score, _ in kept], abs=1e-4) for kept in alone] == scores


def test_a_beam_of_one_is_greedy() -> None:
    speaker, source = voice(12), sources(4, 2)
    prompts = Prompts([[0], [0]], source)
    greedy = generate(speaker, prompts, Decoding(max_new_tokens=15))
    search = beam_search(speaker, prompts, Decoding(max_new_tokens=15, beam=1))
    for one, kept in zip(greedy, search, strict=True):
        if one.ended:
            assert kept[0][1].ids == one.ids or kept[0][0] >= one.score / divisor(len(one.ids) + 1, 0.6) - 1e-5


def test_a_batch_writes_what_each_writes_alone() -> None:
    """Prompts of unequal lengths, some ending early: the texts, and their likelihoods, are those without a cache."""
    speaker = voice(12, "decoder")
    rows = [[0, 2, 3, 4], [0], [0, 5, 5, 7, 8, 2, 3], [0, 9]]
    how = Decoding(max_new_tokens=10)
    for prompt, text in zip(rows, generate(speaker, Prompts(rows), how), strict=True):
        ids, score = list(prompt), 0.0
        for _ in range(10):
            known = likelihoods(speaker, None, 0, ids)[-1]
            token = int(known.argmax())
            score += float(known[token])
            if token == END:
                break
            ids.append(token)
        assert text.ids == ids[len(prompt) :] and text.score == pytest.approx(score, abs=1e-4)


def test_coverage_is_that_of_the_last_layer() -> None:
    """b * sum of log(min(attention in all, 1)), by the weights that the formula gives without a cache."""
    speaker, source = voice(8), sources(5)
    plain, covered = (
        beam_search(speaker, Prompts([[0]], source), Decoding(beam=1, max_new_tokens=6, length_penalty=0, coverage_penalty=b))[0][
            0
        ]
        for b in (0.0, 0.5)
    )
    assert plain[1].ids == covered[1].ids
    body: Any = speaker.body
    layer = body.decoder.layers[0]
    ids = [0, *plain[1].ids][:6]
    with torch.no_grad():
        memory = body._alone(body.encoder, source)
        places = torch.arange(len(ids))
        x = body._embedded(torch.tensor(ids), places)
        from trainformer.models.transformer import Sight
        from trainformer.nn.layout import Layout

        x = layer._add(x, layer.attention_norm, lambda s: layer.attention(s, Sight(Layout.of([len(ids)]))))
        q, (k, _) = layer.cross._in_heads(layer.cross.query(x)), layer.cross.told(memory)
        weights = (q @ k.transpose(1, 2) / 2).softmax(-1).mean(0)  # heads of width 4
    expected = 0.5 * float(weights.sum(0).clamp(max=1).log().sum())
    assert covered[0] - plain[0] == pytest.approx(expected, abs=1e-4)


def test_draws_follow_the_seed_and_the_text_alone() -> None:
    speaker = voice(12, "decoder")
    how = Decoding(max_new_tokens=12, temperature=1.0, decoding_seed=3)
    rows = [[0, 2], [0, 3, 4], [0]]
    together = [t.ids for t in generate(speaker, Prompts(rows), how)]
    assert together == [t.ids for t in generate(speaker, Prompts(rows), how)]
    assert together == [generate(speaker, Prompts([row], None, [n]), how)[0].ids for n, row in enumerate(rows)]
    others = [t.ids for t in generate(speaker, Prompts(rows), how.model_copy(update={"decoding_seed": 4}))]
    assert together != others
    assert len({tuple(generate(speaker, Prompts([[0]], None, [n]), how)[0].ids) for n in range(20)}) > 10


def test_shares_that_may_be_drawn() -> None:
    """Shares 0.5, 0.25, 0.15, 0.1, by hand."""
    scores = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    hot = Decoding(temperature=1.0)

    def of(**settings: Any) -> list[float]:
        return shares(scores, hot.model_copy(update=settings))[0].tolist()

    assert of() == pytest.approx([0.5, 0.25, 0.15, 0.1])
    assert of(top_k=2) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert of(top_p=0.75) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert of(top_p=0.76) == pytest.approx([0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0])
    assert of(min_p=0.3) == pytest.approx([0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0])
    squares = [p**2 for p in (0.5, 0.25, 0.15, 0.1)]
    assert of(temperature=0.5) == pytest.approx([s / sum(squares) for s in squares])


def test_a_draw_falls_on_each_token_as_often_as_its_share() -> None:
    share = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0]).expand(1000, -1)
    counts = torch.bincount(drawn(share, (torch.arange(1000) + 0.5) / 1000), minlength=5)
    assert counts.tolist() == [500, 0, 300, 200, 0]
    assert drawn(share[:2], torch.tensor([0.0, 1.0])).tolist() == [0, 3]


def test_what_is_there_already_counts_less() -> None:
    scores = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    how = Decoding(repetition_penalty=2.0)
    assert ruled(scores, lambda: [[0, 1]], [2], END, how)[0].tolist() == [1.0, -4.0, 1.0, 0.5]
    twice = ruled(scores, lambda: [[2, 3, 0, 2, 3]], [5], END, Decoding(no_repeat=3))
    assert twice[0].tolist() == [-math.inf, -2.0, 1.0, 0.5]  # 2 3 0 was there
    early = ruled(scores, lambda: [[2]], [1], END, Decoding(min_new_tokens=2))
    assert early[0].tolist() == [2.0, -math.inf, 1.0, 0.5]


def test_stops_are_exact() -> None:
    """The text ends before the word, in a batch, alone, and in a stream, whatever tokens the word lies in."""
    speaker = voice(12, "decoder")
    free = generate(speaker, Prompts([[0, 2], [0]]), Decoding(max_new_tokens=12, temperature=1.0))
    texts = [speaker.text([], t.ids) for t in free]
    word = texts[0][4:6]
    how = Decoding(max_new_tokens=12, temperature=1.0, stop=[word])
    for whole, text in zip(texts, generate(speaker, Prompts([[0, 2], [0]]), how), strict=True):
        place = whole.find(word)
        assert text.cut == (whole[:place] if place >= 0 else None)
        if place >= 0:
            assert text.ended and speaker.text([], text.ids) == whole[: place + len(word)]  # nothing is written beyond it
    tokens = [token for number, token, _ in stream(speaker, Prompts([[0, 2]]), how) if number == 0]
    assert speaker.text([], tokens) == texts[0][: texts[0].find(word) + 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"min_new_tokens": 5, "max_new_tokens": 4}, "at least 5 and at most 4 tokens cannot be written"),
     ({"beam": 4, "temperature": 1.0}, "a beam takes the likeliest texts"), ({"top_p": 0.9}, "top_p narrows what is drawn from"),
     ({"stop": ["", "x"]}, "an empty word")],
)  # fmt: skip
def test_limits_that_cannot_be_kept_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Decoding(**settings).check_decoding()


def test_the_models_own_limit_ends_a_text() -> None:
    speaker = voice(12, "decoder")
    short = Voice(speaker.body, speaker.scores, -5, 6)
    assert [len(t.ids) for t in generate(short, Prompts([[0, 2], [0, 2, 3, 4]]), Decoding(max_new_tokens=50))] == [4, 2]
    kept = beam_search(short, Prompts([[0, 2]]), Decoding(max_new_tokens=50, beam=2))[0]
    assert [len(t.ids) for _, t in kept] == [4, 4]
