"""What integration and chaos tests share: one Ray cluster, one tiny experiment, one finished run of it."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dfnas_ray.config.experiment import ExperimentConfig, make_experiment

TINY: dict[str, Any] = {
    "name": "tiny",
    "teacher": {"kind": "digits", "width": 4, "epochs": 3},
    "synthesis": {
        "num_shards": 3,
        "images_per_shard": 20,
        "method": {
            "kind": "inversion",
            "batch_size": 20,
            "rounds": 2,
            "scales": [{"scale": 2, "steps": 4}, {"scale": 1, "steps": 6}],
            "warmup_steps": 2,
        },
        "canvas_margin": 2,
        "flip_probability": 0,
        "precision": "float32",
        "compile": False,
    },
    "search": {
        "space": {
            "kind": "nasbench_macro",
            "stem_channels": 4,
            "stage_layers": [1, 1],
            "stage_channels": [8, 16],
            "head_channels": 16,
        },
        "algorithm": {
            "kind": "spos",
            "epochs": 2,
            "batch_size": 16,
            "calibration_batches": 2,
            "evolution": {"generations": 2, "population": 4, "parents": 2, "mutations": 2, "crossovers": 2},
        },
        "max_macs": None,
        "selection": {"finalists": 2, "epochs": 2},
    },
    "retraining": {"epochs": 2, "batch_size": 16},
    "evaluation": {"dataset": {"kind": "digits"}},
    "cluster": {"num_cpus": 2},
}


class Recorder:
    """A `dfnas_ray.progress.Listener` that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    @contextmanager
    def task(self, description: str, total: float, unit: str):
        yield SimpleNamespace(advance_to=lambda done, note="": None)


@pytest.fixture
def recorder() -> Recorder:
    """A listener that remembers."""
    return Recorder()


@pytest.fixture(scope="session")
def tiny_values() -> Callable[[], dict[str, Any]]:
    """Return a function that gives a fresh copy of the tiny experiment as nested mappings."""
    return lambda: copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def tiny_experiment() -> Callable[..., ExperimentConfig]:
    """Return a function ``make(run_dir, *overrides)`` that builds the tiny experiment."""

    def make(run_dir: Path | str, *overrides: str) -> ExperimentConfig:
        return make_experiment({**copy.deepcopy(TINY), "run_dir": str(run_dir)}, overrides)

    return make


@pytest.fixture
def tiny_yaml(tmp_path) -> Path:
    """The tiny experiment as a file."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for all tests in this process; only what is started here is shut down."""
    import ray

    if ray.is_initialized():
        yield
        return
    patch = pytest.MonkeyPatch()
    for name, value in {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "AWS_ACCESS_KEY_ID": "test",  # for the object store of some tests
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        object_store_memory=150_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="session")
def tiny_run(ray_cluster, tiny_experiment, tmp_path_factory) -> SimpleNamespace:
    """The tiny experiment gone the whole way on Ray, once, undisturbed. Do not alter it."""
    return _whole_run(tiny_experiment(tmp_path_factory.mktemp("tiny-run")))


@pytest.fixture(scope="session")
def tiny_inline_run(tiny_experiment, tmp_path_factory) -> SimpleNamespace:
    """The same in this process, without Ray. Do not alter it."""
    return _whole_run(tiny_experiment(tmp_path_factory.mktemp("tiny-inline-run"), "cluster.address=inline"))


def _whole_run(config: ExperimentConfig) -> SimpleNamespace:
    """Return config, session, outcomes by stage, and folder."""
    from dfnas_ray.library import report
    from dfnas_ray.workflow import run as order
    from dfnas_ray.workflow.session import Session

    with Session(config).opened() as session:
        outcomes = order.run(session)
        report(session)
    return SimpleNamespace(config=config, session=session, outcomes=outcomes, folder=Path(config.run_directory))


def _hear_interrupts() -> None:
    """Undo what a shell does to jobs in the background, and to their children: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def start_dfnas() -> Callable[..., subprocess.Popen[bytes]]:
    """Return a function that starts the installed command ``dfnas`` in a process group of its own."""

    def start(*arguments: str | Path, log: Path) -> subprocess.Popen[bytes]:
        command = Path(sys.executable).with_name("dfnas")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["PYTHONUNBUFFERED"] = "1"
        with log.open("ab") as output:
            return subprocess.Popen(
                [command, *map(str, arguments)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    return start
