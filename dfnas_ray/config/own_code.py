"""Digests of the user's own code: with the same settings, it may compute something else after a change."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import dfnas_ray

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_LIBRARIES = tuple(str(Path(place).resolve()) for place in (*_PLACES, str(Path(dfnas_ray.__file__).parent)))
_MAX_MODULES = 500


def digest_of_code(names: Iterable[str], classes: Iterable[type] = ()) -> str:
    """Return a digest of the user's modules with these names, and of those that they use; empty if there are none.

    Comments, docstrings and layout do not count. Installed libraries do not count either, because they announce their
    changes.

    Args:
        names: Names of imported modules.
        classes: Classes; those without a file, such as the classes of a notebook, count as well.
    """
    digest = hashlib.sha256()
    modules = _own_modules(names)
    for name in sorted(modules):
        digest.update(f"{name} {_normalized(modules[name])}".encode())
    loose = sorted((one for one in set(classes) if _is_loose(one.__module__)), key=lambda one: one.__qualname__)
    for one in loose:
        digest.update(f"{one.__qualname__} {_compiled(one)}".encode())
    return digest.hexdigest() if modules or loose else ""


def is_own(function: FunctionType) -> bool:
    """Return whether a function is the user's own."""
    return _is_loose(function.__module__) or _own_file(sys.modules.get(function.__module__)) is not None


def digest_text(code: CodeType) -> str:
    """Return a text for compiled code, the same in every process of one version of Python."""
    inner: list[Any] = [digest_text(each) if isinstance(each, CodeType) else each for each in code.co_consts[1:]]
    return f"{code.co_code.hex()} {inner!r} {code.co_names!r}"


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
        f"{name} {digest_text(value.__code__)}" for name, value in vars(one).items() if isinstance(value, FunctionType)
    )
