"""Frozen layers that are run once: the same losses as without, far fewer passes, and never where something moved."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Facts, Method, Model
from trainformer.methods.fgm import Fgm
from trainformer.methods.freeze import Freeze
from trainformer.models.encoder import Encoder
from trainformer.models.heads import First, SequenceHead
from trainformer.nn.packed_attention import packed_attention

EPOCHS = 4


def rows() -> list[Encoded]:
    draw = torch.Generator().manual_seed(2)
    sizes = [2, 7, 3, 5, 4, 9, 6, 3]
    return [
        Encoded((Part(torch.randint(1, 20, (n,), generator=draw), [n]),), torch.tensor([i % 3]), i) for i, n in enumerate(sizes)
    ]


def run(folder: Path, cache: bool, more: list[Any] | None = None, poison: bool = False) -> tuple[list[float], int, Model]:
    """Losses of the steps, how often the lowest layer really ran, and the model."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                                     intermediate_size=32, max_position_embeddings=40, initializer_range=0.2)  # fmt: skip
    transformers.AttentionInterface.register("packed", packed_attention)
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    encoder.set_attn_implementation("packed")
    head = SequenceHead({"first": First(), "classifier": nn.Linear(16, 3)}, "mean", "mean")
    model = Model(Encoder(encoder, packed=True), head)
    items, count = rows(), [0]
    methods = [Freeze(layers=2, cache=cache), *(more or [])]
    task: Any = None
    facts = Facts(task, 8, 0, 2, folder, lambda: [pack(items[:5]), pack(items[5:])])
    for method in methods:
        method.extend(model)
    model.body.blocks()[1].attention.self.query.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))

    def grad(batches: list[Batch]) -> Tensor:
        loss = nn.functional.cross_entropy(model(batches[0]), batches[0].target)
        loss.backward()
        return loss.detach()

    wrapped: Any = grad
    for method in methods:
        method.prepare(model, facts)
        wrapped = method.wrap_grad(wrapped, model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for step in range(2 * EPOCHS):
        model.train()
        torch.manual_seed(step)
        if poison and step == 4:
            with torch.no_grad():
                model.body.embed().weight.mul_(1.5)
        chosen = items[:4] if step % 2 else items[4:]
        losses.append(float(wrapped([pack(chosen)])))
        optimizer.step()
        optimizer.zero_grad()
    return losses, count[0], model


def test_the_same_losses_and_weights_with_one_pass_below(tmp_path: Path) -> None:
    plain, often, one = run(tmp_path, cache=False)
    cached, once, other = run(tmp_path, cache=True)
    assert cached == pytest.approx(plain, abs=1e-5) and plain[-1] < plain[0]
    # 8 steps without; with it the two batches of the filling, and one more that tries whether layers can be passed over
    assert (often, once) == (8, 3)
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert list(tmp_path.iterdir()) == [], "nothing is left on the disk"


def test_bits_do_not_depend_on_where_a_run_began(tmp_path: Path) -> None:
    assert run(tmp_path, cache=True)[0] == run(tmp_path, cache=True)[0]


def test_what_moves_embeddings_has_the_layers_run_each_time(tmp_path: Path) -> None:
    plain, often, _ = run(tmp_path, cache=False, more=[Fgm(epsilon=2.0)])
    cached, again, _ = run(tmp_path, cache=True, more=[Fgm(epsilon=2.0)])
    assert cached == plain and often == 16 and again >= often


def test_a_frozen_weight_that_was_written_to_is_seen(tmp_path: Path) -> None:
    plain, _, _ = run(tmp_path, cache=False, poison=True)
    cached, ran, _ = run(tmp_path, cache=True, poison=True)
    assert cached == pytest.approx(plain, abs=1e-5) and ran == 3 + 4


class _Noise(Method):
    """Adds one to the embeddings."""

    def extend(self, model: Model) -> None:
        model.body.embed().register_forward_hook(lambda m, i, o: o + 1.0)


def test_noise_over_the_embeddings_is_not_passed_over(tmp_path: Path) -> None:
    plain, often, _ = run(tmp_path, cache=False, more=[_Noise()])
    cached, again, _ = run(tmp_path, cache=True, more=[_Noise()])
    assert cached == plain and (often, again) == (8, 8 + 3)
