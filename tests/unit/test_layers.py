"""Imports go downwards, lazy and type-only ones included, and Ray stays in one room."""

import ast
from pathlib import Path

import pytest

import dfnas_ray

ROOT = Path(dfnas_ray.__file__).parent
FLOORS = [
    "version", "errors", "limits", "surroundings", "config.code", "config.own_code", "config.registry", "config.member",
    "config.dotted",
    "config.yaml_text",
    "config.explain",
    "config.cluster", "config.tracking", "seeding", "progress", "formatting", "storage", "ops", "datasets", "teachers",
    "search_spaces", "sources", "training", "synthesis", "algorithms", "sweeps", "ranking", "comparison",
    "config.experiment", "config.imports",
    "planning", "execution", "workflow", "report", "library", "submission", "testing", "cli", "__main__",
]  # fmt: skip
FACADE = ROOT / "__init__.py"  # the public names, loaded when they are asked for
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != FACADE)
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(source, package):
    """Absolute dotted names of all modules that ``source``, in ``package``, imports anywhere."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            base = base if node.level else node.module
            # `from dfnas_ray import workflow` names a module only in its second half
            names += [f"{base}.{alias.name}" for alias in node.names] if base == "dfnas_ray" else [base]
    return names


def imports_of(path):
    package = ".".join(["dfnas_ray", *path.relative_to(ROOT).parts[:-1]])
    return imported(path.read_text(), package)


def names_in(path):
    """What a module imports, by the names of modules: of `from a import b`, a.b if that is one."""
    package = ".".join(["dfnas_ray", *path.relative_to(ROOT).parts[:-1]])
    names = imports_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def floor_of(name):
    """The floor of a module, by its dotted name within the package; those of config/ have one each."""
    parts = name.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in FLOORS else parts[0]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_reader_of_imports_sees_every_form():
    source = """
import ray.train as t
from dfnas_ray import workflow
from . import location
from ..errors import ShardError
if TYPE_CHECKING:
    from dfnas_ray.report.page import write_report
def f():
    from ray import tune
"""
    assert sorted(imported(source, "dfnas_ray.storage")) == [
        "dfnas_ray.errors",
        "dfnas_ray.report.page",
        "dfnas_ray.storage",
        "dfnas_ray.workflow",
        "ray",
        "ray.train",
    ]


def test_every_package_has_a_floor():
    assert {floor_of(name_of(path)) for path in MODULES} - {"config"} == set(FLOORS)


@every_module
def test_a_module_imports_only_from_its_floor_and_below(path):
    if name_of(path) == "config":
        assert imports_of(path) == []
        return
    allowed = FLOORS[: FLOORS.index(floor_of(name_of(path))) + 1]
    for name in imports_of(path):
        if name.startswith("dfnas_ray."):
            assert floor_of(name.removeprefix("dfnas_ray.")) in allowed, f"{path.relative_to(ROOT)} imports {name}"


@every_module
def test_only_one_room_imports_ray(path):
    uses_ray = any(name.split(".")[0] == "ray" for name in imports_of(path))
    assert not uses_ray or name_of(path).startswith("execution.ray")


def test_regularizers_know_only_each_other_errors_and_the_registry():
    for path in (ROOT / "synthesis" / "regularizers").glob("*.py"):
        for name in imports_of(path):
            own = name.startswith(
                ("dfnas_ray.synthesis.regularizers", "dfnas_ray.config.registry", "dfnas_ray.config.member")
            )
            assert own or not name.startswith("dfnas_ray") or name == "dfnas_ray.errors", f"{path.name} imports {name}"


def test_the_registry_needs_no_torch():
    for name in ("code", "registry", "member"):
        assert not [found for found in imports_of(ROOT / "config" / f"{name}.py") if found.split(".")[0] == "torch"]


def test_no_two_public_classes_share_a_name():
    classes = [
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in classes if classes.count(name) > 1} - {"WorkingDir"}) == []


def test_no_modules_import_each_other_in_a_circle():
    files = {name_of(path): path for path in MODULES}
    graph = {}
    for name, path in files.items():
        found = {imported_name.removeprefix("dfnas_ray.") for imported_name in names_in(path)}
        graph[name] = {other for other in found if other in files and other != name}
    while leaves := {name for name, others in graph.items() if not others}:
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    assert graph == {}, "these modules import each other, lazy and type-only imports included"


def test_the_facade_loads_nothing_by_itself():
    top_level = [node for node in ast.parse(FACADE.read_text()).body if isinstance(node, ast.ImportFrom | ast.Import)]
    names = [name for node in top_level for name in imported(ast.unparse(node), "dfnas_ray")]
    assert not [name for name in names if name.split(".")[0] in {"dfnas_ray", "ray", "torch"} - {"dfnas_ray"}]
    assert [name for name in names if name.startswith("dfnas_ray")] == ["dfnas_ray.version"]


def test_the_benchmarks_take_names_that_the_package_has():
    programs = Path(__file__).parents[1].joinpath("benchmarks").glob("*.py")
    wanted = {
        (file.name, ast.unparse(node))
        for file in programs
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfnas_ray")
    }
    assert wanted
    for _, statement in sorted(wanted):
        exec(statement, {})
