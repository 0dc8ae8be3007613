"""Help and completion at once: nothing heavy is imported before a command is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfnas_ray.cli import lazy
from dfnas_ray.cli.main import app

HEAVY = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "matplotlib", "sklearn", "scipy", "optuna", "ray")


def modules_after(code: str, **environment: str) -> set[str]:
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment or None
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument):
    loaded = modules_after(f"sys.argv = ['dfnas', '{argument}']; from dfnas_ray.cli.main import main; main()")
    assert sorted(loaded & set(HEAVY)) == []


def test_completion_of_commands_imports_nothing_heavy():
    environment = {**os.environ, "_DFNAS_COMPLETE": "complete_bash", "COMP_WORDS": "dfnas s", "COMP_CWORD": "1"}
    code = "sys.argv = ['dfnas']; from dfnas_ray.cli.main import app; app(prog_name='dfnas')"
    assert sorted(modules_after(code, **environment) & set(HEAVY)) == []


@pytest.mark.parametrize(
    "module", ["dfnas_ray.config.experiment", "dfnas_ray.synthesis.job", "dfnas_ray.training.retraining"]
)
def test_a_worker_imports_only_what_it_needs(module):
    heavy = {
        "torchvision",
        "torch._dynamo",
        "pandas",
        "matplotlib",
        "sklearn",
        "scipy.stats",
        "scipy.optimize",
        "optuna",
        "ray",
    }
    assert sorted(modules_after(f"import {module}") & heavy) == []


def test_every_command_is_listed_with_the_words_of_its_own_help():
    listed = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    for name in lazy.COMMANDS:
        own = lazy.load_command(name).help.splitlines()[0]
        assert own in listed
        assert lazy._listed(name).help.splitlines()[0] == own


def test_every_module_of_a_command_is_a_command():
    helpers = {"__init__", "console", "lazy", "main", "options", "summary"}
    assert {path.stem for path in Path(lazy.__file__).parent.glob("*.py")} == {*lazy.COMMANDS, *helpers}


def test_a_misspelt_command_is_told_which_one_may_be_meant():
    result = CliRunner().invoke(app, ["synthesise", "x.yaml"])
    assert result.exit_code == 2
    assert "synthesize" in result.output
