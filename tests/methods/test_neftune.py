"""The size of the noise, and when it is drawn anew."""

import pytest
import torch

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Facts, Model
from trainformer.methods.neftune import Neftune


def noises(method: Neftune, model: Model, batch: Batch) -> torch.Tensor:
    """What is added to the embeddings of a batch, seen from inside."""
    seen = []

    def grad(batches: list[Batch]) -> torch.Tensor:
        seen.append(model.body(batches[0])[0] * 0 + batches[0].parts[0].shift)
        return torch.tensor(0.0)

    method.wrap_grad(grad, model)([batch])
    return seen[0].detach()


@pytest.mark.parametrize("tokens", [1, 100])
def test_noise_is_uniform_and_smaller_for_longer_rows(tokens: int, bag: Model, facts: Facts) -> None:
    row = pack([Encoded((Part(torch.zeros(tokens, dtype=torch.long), [tokens]),), torch.tensor([1]), row=3)])
    method = Neftune(alpha=5.0)
    method.prepare(bag, facts)
    most = 5.0 / (tokens * 2) ** 0.5
    drawn = []
    for step in range(200 // tokens):
        drawn.append(noises(method, bag, row).flatten())
        method.after_step(bag, step)
    every = torch.cat(drawn)
    assert float(every.abs().max()) <= most and float(every.abs().max()) > 0.9 * most
    assert float(every.std()) == pytest.approx(most / 3**0.5, rel=0.15), "a uniform number's deviation"


def test_the_same_step_and_row_have_the_same_noise_whatever_stands_beside(bag: Model, batch: Batch, facts: Facts) -> None:
    method = Neftune()
    method.prepare(bag, facts)
    other = Encoded((Part(torch.tensor([1, 2]), [2]),), torch.tensor([1]), row=1)
    alone, beside = noises(method, bag, batch), noises(method, bag, pack([other, *batch.examples]))
    assert torch.equal(alone, beside[2:])
    method.after_step(bag, 0)
    assert not torch.equal(alone, noises(method, bag, batch))


def test_the_model_adds_it_to_its_embeddings(bag: Model, batch: Batch, facts: Facts) -> None:
    method = Neftune()
    method.prepare(bag, facts)
    said = []
    method.wrap_grad(lambda batches: said.append(bag(batches[0])) or torch.tensor(0.0), bag)([batch])
    noise = noises(method, bag, batch)
    assert torch.allclose(said[0], bag(batch) + noise @ bag.head.weight)
