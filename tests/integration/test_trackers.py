"""Trackers of other projects: MLflow and Weights & Biases through Ray's callbacks, Optuna's dashboard on a sweep's study."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.config.tracking import MlflowConfig, TrackingConfig, WandbConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.execution.machine import JOB_OF_RAY
from dfnas_ray.execution.ray.connection import Connection
from dfnas_ray.execution.ray.executor import RayExecutor
from dfnas_ray.execution.ray.trackers import callbacks, check_installed
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.study_file import STUDY


def test_without_settings_nobody_is_told():
    assert callbacks(TrackingConfig(), "digits", None) == []


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_named_before_anything_begins(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"tracking\.{name} needs {name}.*pip install 'dfnas-ray\[{name}\]'"):
        check_installed(make_experiment({"teacher": "digits", "tracking": {name: {}}}).tracking)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """Return a function that opens the executor of a submitted job, up to where it would connect."""

    def open_it(tracking: TrackingConfig, run_dir: Location | None = None) -> None:
        executor = RayExecutor(ClusterConfig(address="auto"), (run_dir or Location.parse(tmp_path)) / ".lock")
        executor.follow(tracking, "digits")
        executor.open()

    monkeypatch.setenv(JOB_OF_RAY, "{}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setattr("dfnas_ray.execution.ray.executor.check_installed", lambda tracking: None)
    monkeypatch.setattr(Connection, "ensure", lambda self: pytest.fail("connected", pytrace=False))
    return open_it


def test_a_job_without_an_mlflow_server_is_refused_before_its_work_begins(job, monkeypatch):
    tracking = TrackingConfig(mlflow=MlflowConfig())
    with pytest.raises(ConfigError, match=r"no MLflow server is named: set .*, or MLFLOW_TRACKING_URI on"):
        job(tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI of the cluster \(mlruns\) is relative"):
        job(tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    with pytest.raises(pytest.fail.Exception, match="connected"):
        job(tracking)


def test_a_job_whose_offline_files_would_be_in_its_working_directory_is_refused(job, monkeypatch, tmp_path):
    tracking = TrackingConfig(wandb=WandbConfig(mode="offline"))
    far = Location.parse("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1")
    with pytest.raises(ConfigError, match=r"tracking\.wandb\.mode is offline"):
        job(tracking, far)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="connected"):
        job(tracking, far)


def test_outside_of_a_job_the_files_of_trackers_may_be_in_the_current_directory(job, monkeypatch):
    monkeypatch.delenv(JOB_OF_RAY)
    with pytest.raises(pytest.fail.Exception, match="connected"):
        job(TrackingConfig(mlflow=MlflowConfig(tracking_uri="mlruns")))


def test_trackers_need_ray():
    with pytest.raises(ConfigError, match=r"need Ray, and cluster\.address is inline"):
        make_experiment({"teacher": "digits", "tracking": {"wandb": {}}, "cluster": {"address": "inline"}})


def told(tracking, folder):
    """Run two short trials, of which trackers are told."""
    from ray import tune

    from dfnas_ray.execution.ray.tune import fit

    def trial(config):
        for number in range(3):
            tune.report({"best": float(config["trial"] * number)})

    named = tune.TuneConfig(trial_name_creator=lambda one: f"spos-seed-{one.config['trial']}")
    space = {"trial": tune.grid_search([1, 2])}
    assert not fit(trial, "search", named, 1, space, callbacks(tracking, "digits", folder)).errors


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_trial(ray_cluster, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    told(TrackingConfig(mlflow=MlflowConfig(tracking_uri=uri)), tmp_path)
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=["digits"], output_format="list")
    assert {run.info.run_name: run.data.metrics["best"] for run in runs} == {"spos-seed-1": 2.0, "spos-seed-2": 4.0}


@pytest.mark.slow
def test_weights_and_biases_leaves_files_to_send_later(ray_cluster, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told(TrackingConfig(wandb=WandbConfig(mode="offline")), tmp_path)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.slow
def test_optunas_dashboard_opens_the_study(tmp_path):
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("optuna-dashboard is not installed")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name=STUDY)
    study.optimize(lambda trial: trial.suggest_float("synthesis.method.lr", 0, 1), n_trials=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, f"sqlite:///{tmp_path / 'study.db'}", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert STUDY in read(f"http://127.0.0.1:{port}/api/studies")
        assert "<html" in read(f"http://127.0.0.1:{port}/dashboard/").lower()
    finally:
        server.kill()
        server.wait()


def read(address):
    """Return a page, as soon as there is one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(120):
        try:
            with opener.open(address, timeout=10) as page:
                return page.read().decode()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")
