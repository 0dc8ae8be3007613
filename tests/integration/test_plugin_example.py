"""examples/plugin as its readers use it: installed into a fresh environment, its tests, and its experiment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
MEMBERS = {
    "plain_chain": "dfnas_example.space:PlainChainConfig",
    "local_search": "dfnas_example.local_search:LocalSearchConfig",
    "digits_resnet": "dfnas_example.teacher:DigitsResNetConfig",
    "entropy": "dfnas_example.entropy:EntropyConfig",
}
SHORT = (
    "synthesis.num_shards=1", "synthesis.images_per_shard=40", "synthesis.method.batch_size=40",
    "synthesis.method.warmup_steps=2", "synthesis.method.scales=[{scale: 2, steps: 3}, {scale: 1, steps: 3}]",
    "search.algorithm.candidates=2", "search.algorithm.epochs=1", "search.algorithm.batch_size=16",
    "search.selection={finalists: 1, epochs: 1}", "retraining.epochs=1", "retraining.batch_size=16",
    "teacher.epochs=1", "teacher.width=8",
)  # fmt: skip


def run(python: Path, *arguments: object, cwd: Path, path: str = "") -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    environment |= {"COLUMNS": "300"} | ({"PYTHONPATH": path} if path else {})
    done = subprocess.run(
        [python, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory) -> Path:
    """A fresh virtual environment that sees the packages of this one, without downloads, and this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    checkout = Path(__file__).parents[2]
    (site / "these.pth").write_text(f"{checkout}\n{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


@pytest.fixture(scope="module")
def installed(empty_environment, tmp_path_factory) -> Path:
    """Its Python, with the example installed from a copy."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    python = empty_environment / "bin" / "python"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q")
    run(python, "-m", "pip", "install", *options, source, cwd=source)
    return python


def dfnas(python: Path, *arguments: object, cwd: Path, path: str = "") -> str:
    return run(python, "-m", "dfnas_ray", *arguments, cwd=cwd, path=path)


def weights_in(folder: Path) -> dict[str, list[float]]:
    (file,) = folder.glob("retraining/*/weights.safetensors")
    return {name: tensor.flatten().tolist() for name, tensor in load_file(file).items()}


def overrides(*more: str) -> list[str]:
    return [word for setting in (*SHORT, *more) for word in ("--set", setting)]


@pytest.fixture
def here(tmp_path) -> Path:
    """An empty folder with the example's experiment and tests, not its code."""
    shutil.copy(EXAMPLE / "experiment.yaml", tmp_path)
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_its_own_tests_pass(installed, here):
    assert "failed" not in run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=here)


def test_the_commands_know_its_members_and_name_the_package(installed, here):
    listed = dfnas(installed, "space", "list", cwd=here)
    assert "plain_chain (dfnas-example 0.1.0)" in listed
    assert "local_search (dfnas-example 0.1.0)" in listed
    shown = dfnas(installed, "config", "show", "experiment.yaml", cwd=here)
    for setting in ("teacher", "synthesis.regularizers.entropy", "search.space", "search.algorithm"):
        assert f"({setting}), from dfnas-example 0.1.0" in shown
    assert yaml.safe_load(shown)["search"]["space"]["kind"] == "plain_chain"
    schema = json.loads(dfnas(installed, "config", "schema", cwd=here))
    for config in ("PlainChainConfig", "LocalSearchConfig", "DigitsResNetConfig", "EntropyConfig"):
        assert config in schema["$defs"]
    drawn = dfnas(installed, "space", "show", "plain_chain", "0213", "--image", "1x16x16", cwd=here)
    assert "conv 5x5" in drawn


def test_its_experiment_runs_and_the_network_is_better_than_chance(installed, here):
    printed = dfnas(installed, "run", "experiment.yaml", "--address", "inline", cwd=here)
    assert "digits_resnet" in printed
    (record,) = (here / "runs" / "plugin").glob("evaluation/*/done.json")
    networks = json.loads(record.read_text())["networks"]
    assert networks["teacher"]["accuracy"] > 0.95
    assert networks["retraining"]["accuracy"] > 0.5
    assert (here / "runs" / "plugin" / "report.html").exists()


def test_named_by_their_classes_the_members_do_the_same_inline_and_on_ray_without_an_installation(installed, tmp_path):
    folder = tmp_path / "not-installed"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    values = yaml.safe_load((folder / "experiment.yaml").read_text())
    values["teacher"] = MEMBERS["digits_resnet"]
    values["search"]["space"]["kind"] = MEMBERS["plain_chain"]
    values["search"]["algorithm"]["kind"] = MEMBERS["local_search"]
    terms = values["synthesis"]["regularizers"]
    terms["sure"] = {"kind": MEMBERS["entropy"], **terms.pop("entropy")}
    (folder / "by-path.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "experiment.yaml").write_text((EXAMPLE / "experiment.yaml").read_text())
    checkout = str(Path(__file__).parents[2])
    for address in ("inline", "local"):
        arguments = ("run", "by-path.yaml", "--address", address, "--run-dir", f"runs/{address}", *overrides())
        dfnas(Path(sys.executable), *arguments, cwd=folder, path=checkout)
    arguments = ("run", "experiment.yaml", "--address", "inline", "--run-dir", "runs/x", *overrides())
    dfnas(installed, *arguments, cwd=tmp_path / "elsewhere")
    by_path = weights_in(folder / "runs" / "inline")
    assert by_path == weights_in(folder / "runs" / "local") == weights_in(tmp_path / "elsewhere" / "runs" / "x")
