"""Process-wide settings that foreign code can change, and how they are restored.

Old research code sets torch's default type, seeds all generators or leaves gradients off when it is imported, built or
called. Everything computed afterwards would silently have other values.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import numpy as np
import torch

RandomStates = tuple[bytes, tuple[Any, ...], tuple[Any, ...]]


class _Setting(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_cudnn(flags: tuple[bool, bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - as chdir takes it
    except FileNotFoundError:  # it was deleted
        return ""


def _enter(folder: str) -> None:
    if folder:
        os.chdir(folder)


_TORCH = {
    "torch's default type of numbers": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": _Setting(torch.get_default_device, _set_device),
    "whether torch computes gradients": _Setting(torch.is_grad_enabled, torch._C._set_grad_enabled),
    "torch's deterministic algorithms": _Setting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda mode: torch.use_deterministic_algorithms(mode[0], warn_only=mode[1]),
    ),
    "torch's number of threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "torch's precision of matrix products": _Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "the flags of cuDNN": _Setting(
        lambda: (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        _set_cudnn,
    ),
}
_PROCESS = {
    "the working directory": _Setting(_folder, _enter),
    "which messages are logged": _Setting(lambda: logging.root.manager.disable, logging.disable),
}


@contextmanager
def torch_settings_kept(on_change: Callable[[list[str]], object] = lambda names: None) -> Iterator[None]:
    """Restore torch's global settings after the block.

    Args:
        on_change: Called with the names of the settings that the block has changed, if there are any.
    """
    with _kept(_TORCH, on_change):
        yield


@contextmanager
def everything_kept(on_change: Callable[[list[str]], object] = lambda names: None) -> Iterator[None]:
    """Restore all that a module can change when it is imported.

    Besides torch's settings, these are random states, the working directory, the arguments and the output streams.
    What the block prints goes to stderr, because stdout is for results.

    Args:
        on_change: Called with the names of the settings that the block has changed, if there are any.
    """
    states, errors, arguments = random_states(), sys.stderr, sys.argv
    sys.argv = arguments[:1]
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings(), _kept({**_PROCESS, **_TORCH}, on_change):
            yield
    finally:
        sys.argv, sys.stderr = arguments, errors
        set_random_states(states)


@contextmanager
def _kept(settings: dict[str, _Setting], on_change: Callable[[list[str]], object]) -> Iterator[None]:
    before = {name: setting.get() for name, setting in settings.items()}
    try:
        yield
    finally:
        changed = [name for name, setting in settings.items() if setting.get() != before[name]]
        for name in changed:
            settings[name].set(before[name])
        if changed:
            on_change(changed)


def random_states() -> RandomStates:
    """Return the states of the global generators of torch (on the CPU), numpy and random; == compares them."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), (kind, np.asarray(keys).tobytes(), *rest), random.getstate()


def set_random_states(states: RandomStates) -> None:
    """Restore the states of the global generators."""
    of_torch, (kind, keys, *rest), of_python = states
    torch.set_rng_state(torch.frombuffer(bytearray(of_torch), dtype=torch.uint8))
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
    random.setstate(of_python)
