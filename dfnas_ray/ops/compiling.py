"""Functions that torch compiles, where that is possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, ParamSpec, TypeVar

import torch

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

COMPILED_TIME = 0.75
"""Time of a compiled training step of a small network on a CPU, as a share of the normal one (experiments/results/images.md)."""

COMPILING_SECONDS = 45.0
"""Time that compiling a small network and its gradients takes on one core, for estimates."""


class CompiledCall(Generic[P, T]):
    """A function that is compiled when it is first called, which takes up to a minute.

    Where the compiler fails, for example because there is no C++ compiler, the function is called as it is, with one
    warning. The gradients are compiled in that call, too, so that their failure is met there (torch 2.9: when they are
    first needed, where a failure is an error).

    Args:
        function: The function, or a network. Its inputs keep their shapes.
        setting: The setting that asked for it, for the warning.
        is_frozen: Whether it is a network whose weights never change and that is called without gradients. The
            compiler may then rewrite the weights, for example merge BatchNorm into convolutions.
    """

    def __init__(self, function: Callable[P, T], setting: str, *, is_frozen: bool = False):
        from torch._inductor.codecache import PyCodeCache  # its import takes a second

        self._function, self._setting = function, setting
        # The compiler keeps only a few versions of a function. In a process with many networks, as in a sweep, it would
        # silently give up, and results would depend on the order. So it forgets earlier ones; those that are still in
        # use are compiled again, mostly from files on the disk.
        torch.compiler.reset()
        PyCodeCache.cache_clear()  # or the weights of every frozen network would stay in memory
        self._call: Callable[P, T] = torch.compile(function, dynamic=False)
        self._is_compiled, self._is_frozen = True, is_frozen

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the compiled function."""
        if not self._is_compiled:
            return self._call(*args, **kwargs)
        try:
            with torch._inductor.config.patch(freezing=self._is_frozen), _gradients_at_once():
                return self._call(*args, **kwargs)
        except Exception as error:
            if not _is_compiler_failure(error):
                raise
            logger.warning(
                "torch.compile does not work here (%s); the work goes on without it, slower. Set %s=false to silence this.",
                str(error).strip().splitlines()[0],
                self._setting,
            )
            self._call, self._is_compiled = self._function, False
            return self._call(*args, **kwargs)


def compiled_time(seconds: float) -> float:
    """Return about how long a training takes on a CPU if it is compiled, from the time that it takes if it is not."""
    return COMPILING_SECONDS + COMPILED_TIME * seconds


def compiled_on_cpu(
    function: Callable[P, T], setting: str, device: torch.device, *, is_frozen: bool = False
) -> Callable[P, T]:
    """Return the function, compiled if ``device`` is a CPU; see `CompiledCall`. On GPUs this was never measured."""
    return CompiledCall(function, setting, is_frozen=is_frozen) if device.type == "cpu" else function


def _gradients_at_once() -> AbstractContextManager[None]:
    """Let the compiler make the backward pass together with the forward pass."""
    from torch._functorch import config

    setting = "force_non_lazy_backward_lowering"
    if not hasattr(config, setting):
        return nullcontext()
    at_once: AbstractContextManager[None] = config.patch({setting: True})
    return at_once


def _is_compiler_failure(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return isinstance(error, TorchDynamoException | CppCompileError | InvalidCxxCompiler)
