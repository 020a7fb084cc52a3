"""Our Transformer against torch's, layer by layer and whole, with the same weights and packed texts of unequal lengths."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.models.design import Design
from trainformer.models.initialisation import initialise
from trainformer.models.presets import PRESETS
from trainformer.models.transformer import Layer, Transformer
from trainformer.models.vocabulary import VocabularyHead

LENGTHS, OTHERS, VOCABULARY = [5, 1, 9, 9, 3], [4, 7, 2, 9, 1], 40
FORMS = ("encoder", "decoder", "encoder-decoder")
KINDS = {
    "paper": Design(width=16, heads=2, layers=2, feed_forward=24, vocabulary=VOCABULARY, dropout=0, embedding_dropout=0),
    "t5": PRESETS["t5-tiny"].model_copy(
        update={"width": 16, "heads": 2, "feed_forward": 24, "vocabulary": VOCABULARY, "dropout": 0.0, "embedding_dropout": 0.0}
    ),
    "modern": PRESETS["modern-tiny"].model_copy(
        update={"width": 16, "heads": 4, "kv_heads": 2, "feed_forward": 24, "vocabulary": VOCABULARY, "dropout": 0.0,
                "embedding_dropout": 0.0}
    ),
    "learned": PRESETS["gpt2-tiny"].model_copy(
        update={"width": 16, "heads": 2, "feed_forward": 24, "vocabulary": VOCABULARY, "dropout": 0.0, "embedding_dropout": 0.0}
    ),
    "local": PRESETS["modern-tiny"].model_copy(
        update={"width": 16, "heads": 2, "feed_forward": 24, "vocabulary": VOCABULARY, "window": 3, "dropout": 0.0,
                "embedding_dropout": 0.0}
    ),
}  # fmt: skip


def body(kind: str, form: str = "encoder", **changes: object) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(KINDS[kind].model_copy(update={"form": form, **changes}).checked())
    initialise(made)
    for parameter in made.parameters():  # nothing at 0 or 1, where a slip would not show
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return made


def batch(*sides: list[int]) -> Batch:
    draw = torch.Generator().manual_seed(1)
    rows = []
    for row, lengths in enumerate(zip(*sides, strict=True)):
        parts = tuple(Part(torch.randint(VOCABULARY, (n,), generator=draw), [n]) for n in lengths)
        rows.append(Encoded(parts, torch.zeros(1), row))
    return pack(rows)


def padded(flat: Tensor, lengths: list[int]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(flat.split(lengths)), batch_first=True)


def packed(states: Tensor, lengths: list[int]) -> Tensor:
    return torch.cat([row[:n] for row, n in zip(states, lengths, strict=True)])


def hidden(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


def matched(layer: Layer, peer: nn.Module) -> Iterator[tuple[list[nn.Parameter], nn.Parameter]]:
    """Our parameters, and the one of torch's layer that they are end to end."""
    theirs = dict(peer.named_parameters())
    cross = layer.cross is not None
    for ours, name, norm in [("attention", "self_attn", "norm1"), ("cross", "multihead_attn", "norm2")][: 1 + cross]:
        block = getattr(layer, ours)
        for kind in ("weight", "bias"):
            yield [getattr(getattr(block, n), kind) for n in ("query", "key", "value")], theirs[f"{name}.in_proj_{kind}"]
            yield [getattr(block.output, kind)], theirs[f"{name}.out_proj.{kind}"]
            yield [getattr(getattr(layer, f"{ours}_norm"), kind)], theirs[f"{norm}.{kind}"]
    for kind in ("weight", "bias"):
        yield [getattr(layer.feed_forward.up, kind)], theirs[f"linear1.{kind}"]
        yield [getattr(layer.feed_forward.down, kind)], theirs[f"linear2.{kind}"]
        yield [getattr(layer.feed_forward_norm, kind)], theirs[f"norm{2 + cross}.{kind}"]


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_torch_computes_the_same(place: str, activation: str) -> None:
    """nn.TransformerEncoder and nn.TransformerDecoder, padded: states to 1e-5, every gradient to 1e-4."""
    ours = body("paper", "encoder-decoder", norm_place=place, activation=activation)
    how = {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": place == "pre"}
    encoder = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 24, **how) for _ in range(2))
    decoder = nn.ModuleList(nn.TransformerDecoderLayer(16, 2, 24, **how) for _ in range(2))
    assert ours.encoder is not None and ours.decoder is not None
    layers = [*zip(ours.encoder.layers, encoder, strict=True), *zip(ours.decoder.layers, decoder, strict=True)]
    pairs = [pair for layer, peer in layers for pair in matched(layer, peer)]
    for mine, theirs in pairs:
        theirs.data.copy_(torch.cat([p.data for p in mine]))
    given = batch(OTHERS, LENGTHS)
    found = ours(given)
    x, y = (padded(ours._embedded(p.ids, torch.cat([torch.arange(n) for n in p.lengths])), p.lengths) for p in given.parts)
    source, target = hidden(OTHERS), hidden(LENGTHS)
    for peer in encoder:
        x = peer(x, src_key_padding_mask=source)
    x = ours.encoder.norm(x)
    later = torch.triu(torch.ones(max(LENGTHS), max(LENGTHS), dtype=torch.bool), 1)
    for peer in decoder:
        y = peer(y, x, tgt_mask=later, memory_key_padding_mask=source, tgt_key_padding_mask=target)
    y = ours.decoder.norm(y)
    weights = [torch.randn(len(t), 16) for t in found]
    for mine, theirs, lengths in zip(found, (x, y), (OTHERS, LENGTHS), strict=True):
        torch.testing.assert_close(mine, packed(theirs, lengths), atol=1e-5, rtol=0)
    sum((t * w).sum() for t, w in zip(found, weights, strict=True)).backward()
    mine_table = ours.table.weight.grad.clone()
    ours.table.weight.grad = None
    sum((packed(t, n) * w).sum() for t, n, w in zip((x, y), (OTHERS, LENGTHS), weights, strict=True)).backward()
    torch.testing.assert_close(mine_table, ours.table.weight.grad, atol=1e-4, rtol=1e-4)
    for mine, theirs in pairs:
        torch.testing.assert_close(torch.cat([p.grad for p in mine]), theirs.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_texts_do_not_see_each_other(kind: str, form: str) -> None:
    """A text among others has the states that it has alone; what comes later changes nothing before it in a decoder."""
    model = body(kind, form).eval()
    sides = (OTHERS, LENGTHS) if form == "encoder-decoder" else (LENGTHS,)
    together = batch(*sides)
    whole = model(together)
    for place, example in enumerate(together.examples):
        alone = model(pack([example]))
        for states, one, lengths in zip(whole, alone, sides, strict=True):
            torch.testing.assert_close(states.split(lengths)[place], one, atol=1e-5, rtol=1e-4)
    if form != "encoder":
        changed = batch(*sides)
        starts = changed.parts[-1].starts
        changed.parts[-1].ids[[end - 1 for end in starts[1:]]] = 0
        kept = torch.ones(starts[-1], dtype=torch.bool)
        kept[[end - 1 for end in starts[1:]]] = False
        torch.testing.assert_close(model(changed)[-1][kept], whole[-1][kept], atol=1e-5, rtol=1e-4)


def test_what_fills_up_a_batch_may_be_longer_than_the_model_reads() -> None:
    """600 texts of 8 tokens are filled up by 64, more than there are learned places."""
    model = body("learned", positions_max=8).eval()
    together = batch([8] * 600)
    with torch.no_grad():
        torch.testing.assert_close(model(together)[0][-8:], model(pack(together.examples[-1:]))[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_nothing(kind: str, form: str) -> None:
    """Token by token, after a prompt of unequal lengths, the states are those of the whole text at once."""
    model = body(kind, form).eval()
    sides = (OTHERS, LENGTHS) if form == "encoder-decoder" else (LENGTHS,)
    given = batch(*sides)
    whole = model(given)[-1].split(LENGTHS)
    rows = [part.tolist() for part in given.parts[-1].ids.split(LENGTHS)]
    with torch.no_grad():
        cache = model.begin(len(rows), given.parts[0] if form == "encoder-decoder" else None)
        firsts = [max(1, n - 3) for n in LENGTHS]
        block = torch.tensor([row[:n] + [0] * (max(firsts) - n) for row, n in zip(rows, firsts, strict=True)])
        states = model.step(block, cache, torch.tensor(firsts))
        for place, n in enumerate(firsts):
            torch.testing.assert_close(states[place, :n], whole[place][:n], atol=1e-5, rtol=1e-4)
        alive = list(range(len(rows)))
        while True:
            going = [i for i, n in enumerate(alive) if int(cache.lengths[i]) < LENGTHS[n]]
            if not going:
                break
            if len(going) < len(alive):
                cache.select(torch.tensor(going), torch.tensor(going))
                alive = [alive[i] for i in going]
            at = cache.lengths.tolist()
            states = model.step(torch.tensor([[rows[n][p]] for n, p in zip(alive, at, strict=True)]), cache)
            for i, (n, p) in enumerate(zip(alive, at, strict=True)):
                torch.testing.assert_close(states[i, 0], whole[n][p], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    """Of each weight matrix, along a random direction, in float64."""
    model = body(kind, "encoder-decoder").double().eval()
    given = batch([3, 2], [2, 4])
    head = VocabularyHead(model).double()
    weight = torch.randn(6, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value() -> Tensor:
        return (head(model(given), given) * weight).sum()

    named = dict(model.named_parameters())
    grads = torch.autograd.grad(value(), list(named.values()))
    step = 1e-6
    with torch.no_grad():
        for (name, parameter), grad in zip(named.items(), grads, strict=True):
            way = torch.randn_like(parameter)
            parameter += step * way
            up = value()
            parameter -= 2 * step * way
            down = value()
            parameter += step * way
            slope, known = float(up - down) / (2 * step), float((grad * way).sum())
            assert slope == pytest.approx(known, rel=1e-4, abs=1e-5), name


PAPERS = {
    # name: vocabulary of the paper's model, form, parameters
    "bert-base": (30522, "encoder", 109_514_298),
    "bert-large": (30522, "encoder", 335_174_458),
    "gpt2": (50257, "decoder", 124_439_808),
    "t5-small": (32128, "encoder-decoder", 60_506_624),
    "transformer-base": (37000, "encoder-decoder", 63_119_496),
    "transformer-big": (37000, "encoder-decoder", 214_282_376),
}
"""BertForMaskedLM without a pooler, GPT2LMHeadModel and T5ForConditionalGeneration as the library counts them; the first
Transformers by the formula, to which a bias of the output is added (the paper says 65 and 213 million)."""


@pytest.mark.parametrize("name", PAPERS)
def test_presets_have_the_sizes_of_the_papers(name: str) -> None:
    vocabulary, form, expected = PAPERS[name]
    with torch.device("meta"):
        made = Transformer(PRESETS[name].model_copy(update={"vocabulary": vocabulary, "form": form}))
        head = VocabularyHead(made)
    assert sum(p.numel() for p in [*made.parameters(), *head.parameters()]) == expected


@pytest.mark.parametrize("name", ["xavier", "truncated_normal", "depth_scaled", "fan_in", "mup"])
def test_initial_weights(name: str) -> None:
    """The deviations that the papers name, biases 0, norms 1."""
    torch.manual_seed(0)
    design = Design(width=64, heads=4, layers=8, feed_forward=256, vocabulary=500, initialisation=name, scaled_embedding=False)
    made = Transformer(design)
    initialise(made)
    assert made.encoder is not None
    layer = made.encoder.layers[3]
    assert isinstance(layer, Layer)
    up, down = layer.feed_forward.up.weight.detach(), layer.feed_forward.down.weight.detach()
    expected = {
        "xavier": ((2 / 320) ** 0.5, (2 / 320) ** 0.5),
        "truncated_normal": (0.0176, 0.0176),  # 0.02 * 0.88, the deviation of a normal that is cut at two of its own
        "depth_scaled": (0.02, 0.02 / 4),  # sixteen additions
        "fan_in": (64**-0.5, 256**-0.5),
        "mup": (64**-0.5, 256**-0.5),
    }[name]
    assert (float(up.std()), float(down.std())) == pytest.approx(expected, rel=0.03)
    assert not layer.feed_forward.up.bias.any() and bool((layer.attention_norm.weight == 1).all())
    made.rate = 1e-3
    shares = set(made.rates().values())
    assert shares == ({2.0} if name == "mup" else set())  # 128 / 64
