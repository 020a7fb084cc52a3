"""prefix, prompt and adapter beside their formulas; ia3 beside its own; what they refuse."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from trainformer.core.batch import Batch, cut
from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model
from trainformer.data.tokens import quiet
from trainformer.engine.optim import rules
from trainformer.methods import ia3
from trainformer.methods.adapter import Adapter
from trainformer.methods.ia3 import Ia3
from trainformer.methods.lora import Lora
from trainformer.methods.prefix import Prefix
from trainformer.methods.prompt import Prompt
from trainformer.models.encoder import Encoder
from trainformer.nn.bottleneck import Fusion


def trained(model: Model) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad and name.startswith("body.")}


def disturb(model: Model) -> None:
    """As training would."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))


@torch.no_grad()
def alone(model: Model, batch: Batch) -> Tensor:
    """Each example by itself."""
    return torch.cat([model(each) for each in cut(batch, len(batch))])


@pytest.mark.parametrize(
    ("method", "times"), [(Adapter(width=2), 3.0), (Adapter(width=2, fuse=2), 1.0), (Prefix(length=2), 40.0)]
)
def test_what_is_added_has_its_rate_and_the_head_the_usual_one(bert: Model, method: Method, times: float) -> None:
    method.extend(bert)
    found = {name: rule.rate for name, rule in rules(bert, [method, Lora()]).items()}
    assert {rate for name, rate in found.items() if name.startswith("body.")} == {times}
    assert {rate for name, rate in found.items() if name.startswith("head.")} == {
        1 / max(type(method).rate_factor, Lora.rate_factor)
    }


# Prefix


def test_a_prefix_is_attention_over_more_keys(bert: Model, texts: Batch) -> None:
    layer: Any = bert.body.blocks()[1].attention.self
    seen: dict[str, Tensor] = {}
    layer.register_forward_hook(lambda m, i, o: seen.update(states=i[0] if i else None, out=o[0]))
    Prefix(length=4).extend(bert)
    disturb(bert)
    with torch.no_grad():
        bert(texts)
        states = seen["states"][0, :3]  # the first example of three tokens; a head has width 8
        keys, values = bert.body.added.prefix[0].keys, bert.body.added.prefix[0].values
        for head in range(2):
            own = slice(8 * head, 8 * head + 8)
            q, k, v = (getattr(layer, n)(states)[:, own] for n in ("query", "key", "value"))
            weights = (q @ torch.cat([keys[head], k]).T / 8**0.5).softmax(1)
            assert torch.allclose(seen["out"][0, :3, own], weights @ torch.cat([values[head], v]), atol=1e-6)


def test_a_prefix_has_two_vectors_a_layer_for_each_place(bert: Model) -> None:
    Prefix(length=5).extend(bert)
    assert sum(trained(bert).values()) == 3 * 2 * 5 * 16
    assert all(name.startswith("body.added.prefix.") for name in trained(bert))


def test_a_prefix_needs_attention_that_takes_it(padded: Model) -> None:
    with pytest.raises(UserError, match=r"no attention that takes learned keys.*only packed"):
        Prefix().extend(padded)


def test_a_prefix_longer_than_the_model_reads_is_refused(bert: Model) -> None:
    with pytest.raises(UserError, match=r"prefix\.length: 41 is more than the model reads tokens: 40"):
        Prefix(length=41).extend(bert)


# Prompt


@pytest.mark.parametrize("kind", ["bert", "padded"])
def test_a_prompt_is_vectors_in_front_of_the_words(kind: str, texts: Batch, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(kind)
    encoder: Any = model.body.encoder
    Prompt(length=4).extend(model)
    with torch.no_grad():
        states = model.body(texts)[0]
        prompt, table = model.body.added.prompt.vectors, encoder.embeddings.word_embeddings.weight
        ids = texts.parts[0].ids[:3]
        words = torch.cat([table[ids[:1]], prompt, table[ids[1:]]])[None]
        handles = (encoder.embeddings.word_embeddings._forward_hooks, model.body._forward_hooks)
        for hooks in handles:
            hooks.clear()
        encoder.embeddings.word_embeddings._forward_pre_hooks.clear()
        encoder.set_attn_implementation("sdpa")
        library = encoder(inputs_embeds=words).last_hidden_state[0]
    assert states.shape == (13, 16), "the prompt's own states are dropped"
    assert torch.allclose(states[:3], library[[0, 5, 6]], atol=1e-6)


def test_a_prompt_starts_at_tokens_and_takes_their_places(bert: Model) -> None:
    table = bert.body.embed().weight
    method = Prompt(length=4)
    method.extend(bert)
    assert trained(bert) == {"body.added.prompt.vectors": 4 * 16}
    assert all(any(torch.equal(v, row) for row in table) for v in bert.body.added.prompt.vectors)
    assert method.takes() == 4


def test_a_prompt_that_leaves_no_room_is_refused(bert: Model) -> None:
    with pytest.raises(UserError, match=r"prompt\.length: 40 leaves no room for a text: the model reads 40"):
        Prompt(length=40).extend(bert)


# Adapters


def test_a_bottleneck_is_its_formula_and_starts_as_the_identity(bert: Model, texts: Batch) -> None:
    before = bert(texts)
    dense: Any = bert.body.blocks()[1].output.dense
    seen: dict[str, Tensor] = {}
    dense.register_forward_hook(lambda m, i, o: seen.update(plain=o))
    Adapter(width=4).extend(bert)
    assert torch.equal(bert(texts), before)
    disturb(bert)
    dense.register_forward_hook(lambda m, i, o: seen.update(changed=o))
    bert(texts)
    b = bert.body.added.adapter[1]
    inner = nn.functional.gelu(seen["plain"] @ b.down.weight.T + b.down.bias)
    assert torch.allclose(seen["changed"], seen["plain"] + inner @ b.up.weight.T + b.up.bias, atol=1e-6)


@pytest.mark.parametrize(("style", "each"), [("houlsby", 2), ("pfeiffer", 1)])
def test_where_bottlenecks_stand(bert: Model, style: Any, each: int) -> None:
    Adapter(width=4, style=style).extend(bert)
    assert sum(trained(bert).values()) == 3 * each * (2 * 16 * 4 + 4 + 16)


@pytest.mark.parametrize("first", ["lora", "adapter"])
def test_a_bottleneck_reads_what_lora_changed_folded_or_not(bert: Model, texts: Batch, first: str) -> None:
    pytest.importorskip("peft")
    methods: dict[str, Method] = {"lora": Lora(rank=2), "adapter": Adapter(width=4)}
    order = [first, *(n for n in methods if n != first)]
    for name in order:
        methods[name].extend(bert)
    assert sum("lora_A" in name for name in trained(bert)) == 18 and sum("added" in name for name in trained(bert)) == 24
    disturb(bert)
    before = alone(bert.eval(), texts)
    for name in order:
        methods[name].fold(bert)
    assert torch.allclose(alone(bert, texts), before, atol=1e-5)
    assert not any("base_layer" in name for name, _ in bert.named_parameters())


def test_adapters_refuse_what_has_no_sublayers_and_a_wide_bottleneck(bert: Model, stack: Model) -> None:
    with pytest.raises(UserError, match="no layers of attention and feed-forward"):
        Adapter().extend(stack)
    with pytest.raises(UserError, match=r"adapter\.width: a bottleneck of 17 is wider than the model: 16"):
        Adapter(width=17).extend(bert)


@pytest.mark.parametrize("method", [Prefix(length=4), Prompt(length=4), Adapter(width=4)], ids=lambda m: type(m).__name__)
def test_what_a_text_is_packed_with_changes_nothing(bert: Model, texts: Batch, method: Method) -> None:
    method.extend(bert)
    disturb(bert)
    assert torch.allclose(bert(texts), alone(bert, texts), atol=1e-5)


def test_fusion_is_attention_over_bottlenecks_and_their_mean_at_first() -> None:
    torch.manual_seed(0)
    fusion = Fusion(4, 2, 3)
    for bottleneck in fusion.each:
        nn.init.normal_(bottleneck.up.weight)
    x = torch.randn(5, 4)
    said = torch.stack([b(x) for b in fusion.each])  # 3 5 4
    assert torch.allclose(fusion(x), said.mean(0), atol=1e-6)
    nn.init.normal_(fusion.query)
    nn.init.normal_(fusion.value)
    for t in range(5):
        scores = torch.stack([(fusion.query @ x[t]) @ (fusion.key @ said[i, t]) for i in range(3)]).softmax(0)
        assert torch.allclose(fusion(x)[t], sum(scores[i] * (fusion.value @ said[i, t]) for i in range(3)), atol=1e-5)


# IA3

FAMILIES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "bart": {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 1},
    "t5": {"d_model": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2, "d_ff": 32},
} | {name: dict[str, int]() for name in ("mpnet", "deberta-v2", "modernbert")}  # fmt: skip
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def family(kind: str) -> Model:
    """A random encoder of two layers, padded inside."""
    config = transformers.AutoConfig.for_model(kind, vocab_size=65, pad_token_id=0, **(FAMILIES[kind] or SMALL))
    with quiet():
        encoder = transformers.AutoModel.from_config(config)
    return Model(Encoder(encoder.get_encoder() if config.is_encoder_decoder else encoder, packed=False), nn.Linear(16, 3))


def test_ia3_scales_keys_values_and_the_inside_of_the_feed_forward(bert: Model, texts: Batch) -> None:
    pytest.importorskip("peft")
    before, plain = bert(texts), {n: p.clone() for n, p in bert.named_parameters()}
    method = Ia3()
    method.extend(bert)
    assert sum(trained(bert).values()) == 3 * (16 + 16 + 32)
    assert torch.equal(bert(texts), before)
    disturb(bert)
    layer: Any = bert.body.blocks()[1]
    key, inside = (m.ia3_l["default"].detach().flatten() for m in (layer.attention.self.key, layer.output.dense))
    scaled = alone(bert, texts)
    method.fold(bert)
    name = "body.encoder.encoder.layer.0."
    folded = dict(bert.named_parameters())
    assert list(folded) == list(plain)
    assert torch.allclose(folded[f"{name}attention.self.key.weight"], plain[f"{name}attention.self.key.weight"] * key[:, None])
    assert torch.allclose(folded[f"{name}attention.self.key.bias"], plain[f"{name}attention.self.key.bias"] * key)
    assert torch.allclose(folded[f"{name}output.dense.weight"], plain[f"{name}output.dense.weight"] * inside)
    assert torch.allclose(alone(bert, texts), scaled, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_ia3_finds_keys_and_values_in_the_families(kind: str) -> None:
    """Two vectors of the width a layer, one where they are made together with the queries, and one inside the feed-forward."""
    pytest.importorskip("peft")
    model = family(kind)
    Ia3().extend(model)
    scaled = [m for m in model.modules() if hasattr(m, "ia3_l")]
    assert len(scaled) == 2 * (2 if kind == "modernbert" else 3)
    assert sum(trained(model).values()) == 2 * ((48 if kind == "modernbert" else 16 + 16) + 32)


def test_ia3_refuses_layers_without_known_names(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setattr(ia3, "SCALED", ("kv",))
    with pytest.raises(UserError, match=r"ia3\.targets: no layer .* tells keys and values\. Name .* has: dense, key"):
        Ia3().extend(bert)


def test_ia3_answers_an_unknown_target_with_the_names(bert: Model) -> None:
    pytest.importorskip("peft")
    with pytest.raises(UserError, match=r"ia3\.targets.*'vaule'.*Did you mean 'value'\?"):
        Ia3(targets=["vaule"]).extend(bert)
