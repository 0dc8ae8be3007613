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

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.config.tracking import MlflowConfig, TrackingConfig, WandbConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.execution.ray.trackers import callbacks, check_installed
from dfnas_ray.sweeps.study_file import STUDY


def test_without_settings_nobody_is_told():
    assert callbacks(TrackingConfig(), "digits", None) == []


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_named_before_anything_begins(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"tracking\.{name} needs {name}.*pip install 'dfnas-ray\[{name}\]'"):
        check_installed(make_experiment({"teacher": "digits", "tracking": {name: {}}}).tracking)


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
