"""Machines that are hard to live on: a full disk, no home, proxies, a clock that jumps, two commands at once, another user."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray_heads import ray_head
from undisturbed import assert_undisturbed

from dfnas_ray.errors import DfnasError
from dfnas_ray.library import run as run_experiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STAGES = ("synthesis", "search", "retraining", "baseline", "evaluation")
LEFT_BYTES = 3 * 4096  # enough for small records, too little for what a stage makes


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk: Path):
    """Leave almost no room on a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - LEFT_BYTES)
    yield
    ballast.unlink()


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_is_full_at_a_stage_is_said_and_the_run_goes_on_when_there_is_room(
    small_disk, tiny_inline_run, tiny_experiment, stage
):
    run_dir = small_disk / "run"
    later = STAGES[STAGES.index(stage) :]
    shutil.copytree(tiny_inline_run.folder, run_dir, ignore=shutil.ignore_patterns(*later, "report.html"))
    config = tiny_experiment(run_dir, "cluster.address=inline")
    with filled(small_disk), pytest.raises((DfnasError, OSError)) as full:
        run_experiment(config)
    assert any(words in str(full.value) for words in ("disk is full", "No space left"))
    run_experiment(config)
    assert_undisturbed(run_dir, tiny_inline_run.folder, ("synthesis", "search", "retraining", "baseline"))


def test_a_sweep_on_a_full_disk_is_said_and_goes_on_when_there_is_room(small_disk, tiny_values):
    from dfnas_ray.config.experiment import make_experiment
    from dfnas_ray.library import sweep

    values = tiny_values()
    values["sweep"] = {
        "settings": {"synthesis.regularizers.bn_statistics.weight": {"log_uniform": [0.03, 30]}},
        "trials": 2,
        "objectives": ["semantics"],
    }
    config = make_experiment({**values, "run_dir": str(small_disk / "run")}, ["cluster.address=inline"])
    (small_disk / "run").mkdir()
    with filled(small_disk), pytest.raises((DfnasError, OSError)) as full:
        sweep(config)
    assert any(words in str(full.value) for words in ("disk is full", "No space left", "database or disk is full"))
    assert sweep(config).record.trials == {"complete": 2}


def test_without_a_home_behind_proxies_and_beside_another_cluster_the_run_is_the_same(
    start_dfnas, tiny_yaml, tiny_inline_run, tmp_path, monkeypatch
):
    for name, value in {
        "HOME": "/dev/null/nowhere",
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    line = ("run", tiny_yaml, "--address", "inline", "--run-dir", tmp_path / "run")
    first = start_dfnas(*line, log=tmp_path / "log.txt")
    wait_for(tmp_path / "run", "synthesis/*/inputs.json", first)
    first.send_signal(signal.SIGSTOP)  # however long the other one takes to start
    second = start_dfnas(*line, log=tmp_path / "second.txt")  # on the same run directory
    try:
        assert second.wait(200) == 2
    finally:
        first.send_signal(signal.SIGCONT)
    assert "Another command is working in" in " ".join((tmp_path / "second.txt").read_text().split())
    assert first.wait(300) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert_undisturbed(tmp_path / "run", tiny_inline_run.folder)


@pytest.mark.ray
def test_a_local_cluster_starts_without_a_home_behind_proxies_and_beside_another_cluster(tiny_yaml, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": "/dev/null/nowhere", "http_proxy": "http://127.0.0.1:9", "RAY_ADDRESS": "127.0.0.1:9"}
    command = [sys.executable, "-m", "dfnas_ray", "synthesize", str(tiny_yaml), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr


def wait_for(run_dir: Path, artefact: str, command, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not list(run_dir.glob(artefact)):
        assert command.poll() is None, "it has ended"
        assert time.monotonic() < end, f"{artefact} did not appear"
        time.sleep(0.02)


def test_a_clock_that_jumps_by_an_hour_changes_nothing(tiny_inline_run, tiny_experiment, tmp_path, monkeypatch):
    true_time, jumps = time.time, itertools.cycle([0.0, -3600.0, 3600.0])
    monkeypatch.setattr(time, "time", lambda: true_time() + next(jumps))
    shutil.copytree(tiny_inline_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("search", "retraining"))
    outcomes = run_experiment(tiny_experiment(tmp_path / "run", "cluster.address=inline"))
    assert outcomes["synthesis"].reused
    assert all(outcome.record.seconds >= 0 for outcome in outcomes.values())
    assert_undisturbed(tmp_path / "run", tiny_inline_run.folder, ("synthesis", "search", "retraining"))


AS_ANOTHER = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except BaseException as error:
    print("REFUSED", type(error).__name__, " ".join(str(error).split())[:2000])
else:
    print("CONNECTED", ray.cluster_resources())
"""
NOBODY = 65534


@pytest.mark.ray
def test_another_user_of_the_machine_is_refused_without_the_token(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    names = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    python = next((name for name in names if as_nobody(name, "-c", "import os").returncode == 0), None)
    if python is None:
        pytest.skip(f"none of {names} can be run by another user")
    with ray_head("--num-cpus=1", "--num-gpus=0") as head:
        head.folder.parent.chmod(0o755)  # as /tmp/ray is: what protects the cluster is its token alone
        secret = {name: head.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        stranger = as_nobody(python, "-c", AS_ANOTHER, head.address, RAY_AUTH_MODE="token")
        knows_it = as_nobody(python, "-c", AS_ANOTHER, head.address, **secret)
    assert "REFUSED" in stranger.stdout, stranger.stdout + stranger.stderr
    assert "token" in stranger.stdout.lower(), stranger.stdout
    assert "token" not in knows_it.stdout.lower(), knows_it.stdout  # so it was the token that was missing


def as_nobody(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": ":".join(site.getsitepackages())}
    options = {"capture_output": True, "text": True, "timeout": 200, "check": False, "cwd": "/"}
    try:
        return subprocess.run(command, env=plain | environment, user=NOBODY, group=NOBODY, extra_groups=[], **options)
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


def test_the_token_of_a_local_cluster_cannot_be_read_by_another_user(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    from dfnas_ray.execution.token import token_settings

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    assert token_settings({"HOME": str(tmp_path)}) == {}
    token = tmp_path / ".ray" / "auth_token"
    token.parent.chmod(0o755)
    assert as_nobody("/bin/ls", str(tmp_path)).returncode == 0, "the home itself can be entered"
    assert as_nobody("/bin/cat", str(token)).stdout == ""
    assert token.read_text().strip()
