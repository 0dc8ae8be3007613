"""Steps that a GPU records once as a CUDA graph and replays. Without this, small networks wait for kernel launches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

T = TypeVar("T")
_EAGER_CALLS = 3
"""Normal calls before recording, in which libraries choose their algorithms and optimisers create their state."""


class GraphedCall(Generic[T]):
    """A function of tensors that a GPU records after a few calls, and then replays.

    A step of a ResNet-20 with batch size 128 has some 300 kernels of a few microseconds. Launched one by one, they
    leave the GPU idle most of the time. Replaying runs the same kernels, so the results are the same.

    Args:
        function: Takes tensors of fixed shapes. Everything else that it reads and changes (weights, running statistics,
            an optimiser's state) must stay at the same place in memory, and no value may be read on the host. The next
            call overwrites the returned tensors.
        device: The device. On any device other than a GPU, the function is simply called.
    """

    def __init__(self, function: Callable[..., T], device: torch.device):
        self._function = function
        self._eager_calls = _EAGER_CALLS if device.type == "cuda" else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._result: T | None = None

    def __call__(self, *inputs: Tensor) -> T:
        """Call the function, or replay it on these inputs."""
        if self._eager_calls is None:
            return self._function(*inputs)
        if self._eager_calls:
            self._eager_calls -= 1
            return self._call_beside(inputs)
        if self._graph is None and not self._record(inputs):
            return self._function(*inputs)
        assert self._graph is not None
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._result  # type: ignore[return-value]  # set by `_record`

    def _call_beside(self, inputs: tuple[Tensor, ...]) -> T:
        """Call the function on a separate stream, as it will be recorded."""
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            result = self._function(*inputs)
        here.wait_stream(beside)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> bool:
        """Record the function without running it, and return whether that was possible."""
        self._inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                self._result = self._function(*self._inputs)
        except RuntimeError as error:
            logger.warning(
                "A training step cannot be recorded as a CUDA graph (%s); it is launched kernel by kernel, which is slower.",
                str(error).strip().splitlines()[0],
            )
            self._eager_calls = None
            return False
        self._graph = graph
        return True
