"""The cores of a submitted job. No cluster is started."""

import json
import os

import pytest
import torch

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.execution.machine import JOB_OF_RAY, available_cores, use_cores_of_job
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.workflow.session import Session


@pytest.fixture
def job(monkeypatch):
    """A submitted job on 3 cores, as Ray starts its command."""
    monkeypatch.setenv(JOB_OF_RAY, json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}, "metadata": {}}))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr("dfnas_ray.execution.machine.available_cores", lambda: 3)
    with fixed_threads(1):
        yield


def threads() -> int:
    use_cores_of_job()
    return torch.get_num_threads()


def test_the_command_of_a_job_uses_the_cores_that_it_has(job, tmp_path):
    session = Session(make_experiment({"teacher": "digits", "run_dir": str(tmp_path / "run")}))
    with session.opened():
        assert torch.get_num_threads() == 3


def test_outside_of_a_job_the_number_of_threads_stays(job, monkeypatch):
    monkeypatch.delenv(JOB_OF_RAY)
    assert threads() == 1


@pytest.mark.parametrize(("name", "number"), [("OMP_NUM_THREADS", "2"), ("MKL_NUM_THREADS", "1")])
def test_a_number_in_the_clusters_environment_stays(job, monkeypatch, name, number):
    monkeypatch.setenv(name, number)
    assert threads() == 1


def test_a_number_in_the_jobs_environment_stays(job, monkeypatch):
    monkeypatch.setenv(JOB_OF_RAY, json.dumps({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}))
    assert threads() == 1


def test_a_number_that_the_program_set_stays(job):
    torch.set_num_threads(2)
    assert threads() == 2


def test_a_process_may_use_the_cores_of_its_affinity(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for cores in (1, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert available_cores() == cores
