"""Raw outputs of a model for many rows: longest first, in constant memory, put back in order."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, pack
from trainformer.core.protocols import Metric
from trainformer.core.roles import Decision, Model, Task
from trainformer.data.groups import grouped
from trainformer.data.plan import Rows, by_length


@torch.inference_mode()
def outputs(model: Model, task: Task, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Batch]]:
    """The raw output of each batch, in float32."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))  # an ONNX graph has none of its own
    if any(module.training for module in model.modules()):  # to tell each of hundreds again takes longer than to ask them
        model.eval()
    for batch in batches:
        moved = batch.to(device)
        yield task.predict(model, moved).float(), moved


def batches_of(items: Sequence[Encoded], micro_tokens: int, padded: bool) -> Iterator[Batch]:
    """Examples in memory as batches, longest first."""
    longest_first = sorted(items, key=lambda e: (-e.tokens, e.row))
    return (pack(group) for group in grouped(longest_first, micro_tokens, padded))


def batches_of_rows(model: Model, rows: Rows, micro_tokens: int) -> Iterator[Batch]:
    """Examples of a cache as batches, longest first."""
    return by_length(rows, micro_tokens, is_padded(model))


def is_padded(model: Model) -> bool:
    """Whether the body pads inside: then padding counts in the budget of tokens."""
    return not getattr(model.body, "packed", True)


def in_order(found: Iterable[tuple[Tensor, Batch]], rows: int) -> tuple[Tensor, Tensor]:
    """Outputs "N C" and targets "N" or "N C", in the order of the examples' row numbers 0..N-1.

    Targets of unequal lengths, which a task that hides tokens has, are left out: "N 0".
    """
    result: Tensor | None = None
    targets: list[tuple[list[int], Tensor]] = []
    lengths: set[int] = set()
    for output, batch in found:
        result = torch.empty(rows, output.shape[1]) if result is None else result
        result[batch.rows] = output.cpu()
        targets.append((batch.rows, batch.target.cpu()))
        lengths |= {len(e.target) for e in batch.examples}
    assert result is not None, "there is at least one row"
    width = lengths.pop() if len(lengths) == 1 else 0
    whole = targets[0][1].new_empty(rows, width)
    for places, target in targets if width else []:
        whole[places] = target.view(len(places), -1)
    return result, whole.squeeze(1) if width == 1 else whole


def scored(task: Task, output: Tensor, target: Tensor, decision: Decision | None = None) -> Metric:
    """The task's metric over outputs "N C" and targets of one-unit examples that are in memory."""
    metric = task.metric(decision)
    rows = list(range(len(output)))
    metric.add(output, Batch((), target.reshape(-1), torch.ones(len(output)), rows, [*rows, len(rows)]))
    return metric
