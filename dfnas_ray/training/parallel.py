"""Search with several processes, each of which sees a part of every batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch.distributed as dist
from torch import nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes of the default group; see `SearchProblem.average_gradients`.

    Parameters without a gradient are left out. They must be the same in every process, which holds if all processes
    draw the same paths. BatchNorm statistics are not averaged; each process has those of its own part.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = dist.get_world_size()
    pending = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for work in pending:
        work.wait()
    for gradient in gradients:
        gradient.div_(size)
