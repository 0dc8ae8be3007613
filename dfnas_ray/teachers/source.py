"""Digests of the user's own code behind a network: it may change what the network computes with the same weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from dfnas_ray.config.own_code import digest_of_code, digest_text, is_own

_MAX_DEPTH = 5
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def code_digest(model: nn.Module, builder: str | None = None) -> str:
    """Return a digest of the user's modules that define a network's classes; see `digest_of_code`.

    Args:
        model: The network.
        builder: The module that built it.
    """
    classes = {type(module) for module in model.modules()}
    names = {one.__module__ for one in classes} | ({builder} if builder else set())
    return digest_of_code(names, classes)


def values_digest(model: nn.Module) -> str:
    """Return a digest of the values of a network's modules that are neither parameters nor persistent buffers.

    It is empty if there are none. Two networks of one class with the same weights compute differently if a factor, a
    mask or an activation among their attributes differs. Torch's own layers show such attributes in their repr.
    """
    digest = hashlib.sha256()
    found = False
    for path, module in model.named_modules():
        kept = {
            f"{key} (buffer)": value
            for key, value in module._buffers.items()
            if value is not None and key in module._non_persistent_buffers_set
        }
        if not type(module).__module__.startswith("torch."):
            kept |= {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        for key, value in sorted(kept.items()):
            found = True
            digest.update(f"{path}.{key} {describe_value(value)}".encode())
    return digest.hexdigest() if found else ""


def describe_value(value: Any, depth: int = 0) -> str:
    """Return a text for a value that a network's outputs may depend on. The text is the same in every process."""
    if isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | None):
        return repr(value)
    if isinstance(value, torch.Tensor | np.ndarray):
        try:
            tensor = torch.as_tensor(value).detach().cpu().contiguous()
            data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        except (TypeError, ValueError, RuntimeError, NotImplementedError):  # of a layout or a type without plain bytes
            return f"{type(value).__qualname__} {tuple(value.shape)}"
        return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()}"
    if isinstance(value, FunctionType):
        return f"{value.__module__} {value.__qualname__} {digest_text(value.__code__) if is_own(value) else ''}"
    if isinstance(value, type):
        return f"{value.__module__} {value.__qualname__}"
    if depth < _MAX_DEPTH:
        if isinstance(value, functools.partial):
            return f"partial {describe_value([value.func, value.args, value.keywords], depth + 1)}"
        if isinstance(value, Mapping):
            return describe_value([*value.items()], depth + 1)
        if isinstance(value, list | tuple):
            return f"[{', '.join(describe_value(each, depth + 1) for each in value)}]"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(describe_value(each, depth + 1) for each in value))}}}"
    return type(value).__qualname__
