"""Code that settings name: how it is imported, and which installed package it belongs to."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, distributions, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

GROUP = "dfnas_ray"
"""The group of entry points in which installed packages register their plug-ins."""


def import_code(path: str) -> Any:
    """Return what ``package.module:name`` names; the working directory can be imported from.

    Raises:
        Exception: whatever importing it raises, since that runs its code.
    """
    module, _, name = path.partition(":")
    _allow_working_directory()
    with as_a_guest(f"importing {module}"):
        found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@contextmanager
def as_a_guest(doing: str) -> Iterator[None]:
    """Run code of the user in the block, so that it can neither end this program nor change its global state.

    The code does not see the arguments of the command, and its output goes to stderr. Random states, torch's global
    settings and the working directory are restored afterwards.

    Raises:
        RuntimeError: the code called ``sys.exit()``.
    """
    from dfnas_ray.surroundings import everything_kept  # imports torch: kept out of `dfnas --help`

    def say(changed: list[str]) -> None:
        logger.warning(
            "%s changed %s for the whole program: restored.", doing[0].upper() + doing[1:], ", ".join(changed)
        )

    try:
        with everything_kept(say):
            yield
    except SystemExit as error:
        raise RuntimeError(
            f"{doing} ended the program (sys.exit, perhaps of argparse: {error}); put the code that runs it as a "
            "script below if __name__ == '__main__'"
        ) from error


def is_module(name: str) -> bool:
    """Return whether a top-level module of this name can be imported, without importing it."""
    _allow_working_directory()
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def path_of(code: type) -> str:
    """Return the ``package.module:Class`` by which `import_code` finds a class."""
    return f"{code.__module__}:{code.__qualname__}"


def package_of(module: str) -> str | None:
    """Return name and version of the installed package that a module belongs to, such as my-package 0.1."""
    top = module.partition(".")[0]
    for point in installed():
        if point.module.partition(".")[0] == top and (package := package_of_entry(point)):
            return package
    return _package_with(top)


def package_of_entry(point: EntryPoint) -> str | None:
    """Return name and version of the package that registered an entry point."""
    return None if point.dist is None else f"{point.dist.name} {point.dist.version}"


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of installed plug-ins, without importing them."""
    return tuple(entry_points(group=GROUP))


def forget_installed() -> None:
    """Clear the caches, so that installed packages are looked up again."""
    installed.cache_clear()
    _package_with.cache_clear()


@cache
def _package_with(top: str) -> str | None:
    """Return name and version of the package that has a top-level module.

    `importlib.metadata.packages_distributions` looks up all modules at once, which takes seconds.
    """
    for package in distributions():
        names = package.read_text("top_level.txt")
        if names is not None:
            has_it = top in names.split()
        else:
            files = "\n" + (package.read_text("RECORD") or "")
            has_it = f"\n{top}/" in files or f"\n{top}.py," in files
        if has_it:
            return f"{package.name} {package.version}"
    return None


def _allow_working_directory() -> None:
    """Let modules of the working directory be imported, after all others."""
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
