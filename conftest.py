"""The lanes of the tests, and the one in which Ray cannot be imported: ``DFNAS_NO_RAY=1 pytest -m 'not ray and not slow'``."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent / "tests" / "helpers"
RAY_ROOM = re.compile(r"dfnas_ray\.execution\.ray\.(?!dashboard)")  # that one imports Ray when it is connected to

if os.environ.get("DFNAS_NO_RAY"):
    sys.path.insert(0, str(HELPERS))
    import no_ray

    no_ray.block()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot even be read where there is no Ray."""
    is_there = not os.environ.get("DFNAS_NO_RAY") and importlib.util.find_spec("ray") is not None
    return True if not is_there and _needs_ray(collection_path) else None


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put into the lane `ray` whatever uses the shared cluster, and all of a module that imports Ray.

    Of several processes that share the tests, one runs the whole lane: there is one cluster.
    """
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()) or _needs_ray(item.path):
            item.add_marker(pytest.mark.ray)
        if item.get_closest_marker("ray") is not None:
            item.add_marker(pytest.mark.xdist_group("ray"))


@cache
def _needs_ray(path: Path) -> bool:
    """Whether a test module imports Ray before its first test."""
    if path.suffix != ".py" or not path.name.startswith("test_"):
        return False
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return any(name.split(".")[0] == "ray" or RAY_ROOM.match(name) for name in names)
