"""A table cut to the rows that are read trains as the whole one does, to the bit."""

import pytest
import torch
from torch import nn

from trainformer.nn.few_rows import FewRows, keep_rows, whole_again

VOCABULARY, WIDTH = 50, 4


def table(padding: int | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding), nn.Linear(WIDTH, 1))


def train(model: nn.Sequential) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    for step in range(5):
        ids = torch.randint(5, 20, (8,), generator=torch.Generator().manual_seed(step))
        ids[0] = 3
        loss = model(ids).pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@pytest.mark.parametrize("padding", [None, 3])
def test_same_training(padding: int | None) -> None:
    whole, few = table(padding), table(padding)
    assert keep_rows(few, few[0], torch.tensor([3, *range(5, 20), 3]))
    assert isinstance(few[0], FewRows) and few[0].weight.shape == (16, WIDTH)
    train(whole), train(few)
    whole_again(few)
    assert type(few[0]) is nn.Embedding and few[0].padding_idx == padding and few[0].num_embeddings == VOCABULARY
    for one, other in zip(whole.state_dict().items(), few.state_dict().items(), strict=True):
        assert one[0] == other[0]
        torch.testing.assert_close(one[1], other[1], atol=1e-7, rtol=1e-6)  # the norm is summed in another order
    untouched = [i for i in range(VOCABULARY) if i not in range(5, 20) and i != 3]
    assert few[0].weight[untouched].equal(table(padding)[0].weight[untouched])


def test_a_token_outside_is_an_error() -> None:
    model = table()
    keep_rows(model, model[0], torch.tensor([1, 2]))
    with pytest.raises(IndexError):
        model(torch.tensor([7]))


def test_left_alone() -> None:
    """Frozen, shared, or read almost whole."""
    frozen, shared, read = table(), table(), table()
    frozen[0].weight.requires_grad_(False)
    shared.append(nn.Linear(WIDTH, VOCABULARY, bias=False))
    shared[2].weight = shared[0].weight
    few = torch.tensor([1, 2])
    assert not keep_rows(frozen, frozen[0], few) and not keep_rows(shared, shared[0], few)
    assert not keep_rows(read, read[0], torch.arange(VOCABULARY))
