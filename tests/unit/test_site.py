"""The site's own code: references made from the package, links of the repository, and nothing from the network."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from dfnas_ray.cli import config, jobs, space, teacher
from dfnas_ray.cli.lazy import COMMANDS
from dfnas_ray.config.experiment import ExperimentConfig

DOCS = Path(__file__).parents[2] / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load("generated")


@pytest.fixture(scope="module")
def hooks(reference, monkeypatch_module) -> ModuleType:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    return load("hooks")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        yield patch
        sys.modules.pop("generated", None)


def test_every_setting_is_in_the_reference_once(reference):
    page, schema = reference.settings_page(), ExperimentConfig.model_json_schema()
    sections = re.findall(r"\{#(\w+)\}", page)
    assert sorted(sections) == sorted(name.lower() for name in schema["$defs"])
    for name, definition in schema["$defs"].items():
        section = page.split(f"{{#{name.lower()}}}")[1].split("\n#")[0]
        rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert rows == [setting for setting in definition["properties"] if setting != "kind"]


@pytest.mark.parametrize(
    "row",
    [
        "| `synthesis` | [Synthesis](#synthesisconfig) | as below | Image synthesis. |",
        "| `num_shards` | whole number &gt; 0, ≤ 1,000,000 | `10` | Number of shard files. |",
        "| `flip_probability` | number ≥ 0, ≤ 1 | `0.5` | Probability of mirroring a crop; 0 where mirroring changes "
        "the class. |",
        "| `method` | [`generator`](#generatorconfig) or [`inversion`](#inversionconfig) | `inversion` | "
        "How images are made: the synthesizer and its settings. |",
        "| `space` | [`darts`](#dartsspaceconfig) or [`nasbench201`](#nasbench201config) or "
        "[`nasbench_macro`](#nasbenchmacroconfig) or [`proxyless`](#proxylessspaceconfig) or "
        "[`shufflenet`](#shufflenetconfig) or a list of them | `nasbench_macro` | One search space, or a list of them. |",
        '| `combine` | `grid` or `pairs` | `"grid"` | grid: every algorithm in every space; pairs: the first algorithm in '
        "the first space, and so on. |",
    ],
)
def test_a_setting_has_its_type_default_and_description(reference, row):
    assert row in reference.settings_page().splitlines()


def test_every_command_and_option_is_in_the_reference(reference):
    page = reference.commands_page()
    assert "| `--minutes NUMBER` | Time for the whole experiment on this machine. | `30` |" in page.splitlines()
    assert "BARE" not in page

    told = dict(re.findall(r"^## (dfnas .+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    groups = {"jobs": jobs, "space": space, "teacher": teacher, "config": config}
    inner = [f"{name} {word}" for name, group in groups.items() for word in typer.main.get_command(group.app).commands]
    assert sorted(told) == sorted(f"dfnas {name}" for name in [*(set(COMMANDS) - set(groups)), *inner])
    for name, group in groups.items():
        for word, command in typer.main.get_command(group.app).commands.items():
            options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
            assert [one.opts[0] for one in options if one.opts[0] not in told[f"dfnas {name} {word}"]] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/css">', ["//fonts.example/css"]),
        ('<link href="https://fonts.example" rel="preconnect">', ["https://fonts.example"]),
        ("<img alt=x src=http://example.com/a.png>", ["http://example.com/a.png"]),
        ("a { background: url('https://example.com/a.png') }", ["https://example.com/a.png"]),
        ('<pre class="mermaid">', ['class="mermaid']),
        ('<a href="https://ray.io">Ray</a><img src="../a.png"><link rel="canonical" href="https://a.b/">', []),
        ('<svg xmlns="http://www.w3.org/2000/svg"></svg><script src="assets/a.js"></script>', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(hooks, text, found):
    assert hooks.loaded_from_elsewhere(text) == found


@pytest.mark.parametrize(
    ("source", "link", "target"),
    [
        ("README.md", "docs/runs.md", "docs/runs.md"),
        ("README.md", "cluster/", "cluster/README.md"),
        ("docs/runs.md", "../experiments/results/scaling.md", "experiments/results/scaling.md"),
        ("cluster/README.md", "aws.yaml", "cluster/aws.yaml"),
        ("docs/runs.md", "https://ray.io", None),
        ("docs/python.md", "reference/settings.md", None),  # made by the site
        ("docs/runs.md", "../../outside.md", None),
    ],
)
def test_a_link_leads_to_a_file_of_the_repository(hooks, source, link, target):
    assert hooks._target(source, link) == target
