"""Digests of the user's own code behind a network: it may change what the network computes with the same weights."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

import dfnas_ray

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_LIBRARIES = tuple(str(Path(place).resolve()) for place in (*_PLACES, str(Path(dfnas_ray.__file__).parent)))
_MAX_MODULES = 500
_MAX_DEPTH = 5
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def code_digest(model: nn.Module, builder: str | None = None) -> str:
    """Return a digest of the user's modules that define a network's classes, and of those that they use.

    It is empty if there are none. Comments, docstrings and layout do not count. Installed libraries do not count
    either, because they announce their changes.

    Args:
        model: The network.
        builder: The module that built it.
    """
    classes = {type(module) for module in model.modules()}
    names = {one.__module__ for one in classes} | ({builder} if builder else set())
    digest = hashlib.sha256()
    modules = _own_modules(names)
    for name in sorted(modules):
        digest.update(f"{name} {_normalized(modules[name])}".encode())
    loose = sorted((one for one in classes if _is_loose(one.__module__)), key=lambda one: one.__qualname__)
    for one in loose:  # such as classes of a notebook
        digest.update(f"{one.__qualname__} {_compiled(one)}".encode())
    return digest.hexdigest() if modules or loose else ""


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
        return f"{value.__module__} {value.__qualname__} {_of_code(value.__code__) if _is_own(value) else ''}"
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


def _is_own(function: FunctionType) -> bool:
    return _is_loose(function.__module__) or _own_file(sys.modules.get(function.__module__)) is not None


def _own_modules(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of the user's modules by name: the given ones, and those that they use."""
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting and len(found) < _MAX_MODULES:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = _own_file(module)
        if module is None or file is None or name in found:
            continue
        found[name] = file
        for value in vars(module).values():
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str):
                waiting.append(other)
    return found


def _own_file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    if module is None or module.__name__ == "__main__" or not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return None if str(path).startswith(_LIBRARIES) or not path.is_file() else path


def _is_loose(name: str) -> bool:
    module = sys.modules.get(name)
    return name == "__main__" or module is None or not hasattr(module, "__file__")


def _normalized(file: Path) -> str:
    """Return the code of a file without comments, docstrings and layout."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return "unreadable"
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, False
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def _compiled(one: type) -> str:
    return " ".join(
        f"{name} {_of_code(value.__code__)}" for name, value in vars(one).items() if isinstance(value, FunctionType)
    )


def _of_code(code: CodeType) -> str:
    inner: list[Any] = [_of_code(each) if isinstance(each, CodeType) else each for each in code.co_consts[1:]]
    return f"{code.co_code.hex()} {inner!r} {code.co_names!r}"
