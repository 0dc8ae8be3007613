"""The house's one rule that a machine can check: imports go downwards, and Ray stays in one room."""

import ast
from pathlib import Path

import pytest

import dfnas_ray

ROOT = Path(dfnas_ray.__file__).parent
FLOORS = [
    "errors", "seeding", "progress", "ops", "datasets", "teachers", "storage", "synthesis", "search_spaces",
    "training", "algorithms", "distributed", "experiment", "report", "pipeline", "cli",
]  # fmt: skip
MODULES = [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in FLOORS]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    for name in imported(path):
        if name.startswith("dfnas_ray."):
            assert FLOORS.index(name.split(".")[1]) <= floor, f"{path} imports {name}"


def test_ray_is_imported_in_one_place():
    users = [
        path.relative_to(ROOT).parts[0] for path in MODULES for name in imported(path) if name.split(".")[0] == "ray"
    ]
    assert set(users) == {"distributed"}
