"""Jobs on a real Ray head with a token, its dashboard on the loopback."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request

import pytest
import yaml
from ray_heads import Head, ray_head

from dfnas_ray.execution.machine import available_cores

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CANARY = "canary-8d1f"


@pytest.fixture(scope="module")
def head():
    with ray_head("--num-cpus=2", "--num-gpus=0") as started:
        yield started


@pytest.fixture
def project(tmp_path, tiny_values):
    """A working directory with an experiment, and with files that must not leave it."""
    root = tmp_path / "project"
    root.mkdir()
    values = tiny_values()
    values["synthesis"]["num_shards"], values["synthesis"]["method"]["rounds"] = 1, 1
    (root / "tiny.yaml").write_text(yaml.safe_dump(values))
    (root / ".gitignore").write_text("*.key\n/data/\n")
    for name in ("net.py", "id.key", "data/photo.png", "runs/old/report.html", ".env"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(CANARY)
    return root


def done(process, seconds: float = 150) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a finished command."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def answer(head: Head, path: str) -> str:
    """What the dashboard tells everybody who has the token."""
    request = urllib.request.Request(head.dashboard + path)
    request.add_header("Authorization", f"Bearer {head.environment['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


@pytest.mark.slow
def test_a_submitted_command_runs_on_the_cluster_with_the_files_that_may_leave(head, project, tmp_path):
    run_dir = tmp_path / "run"
    command = ("submit", "tiny.yaml", "--command", "synthesize", "--run-dir", run_dir)
    code, out, err = done(head.dfnas(*command, cwd=project, AWS_SECRET_ACCESS_KEY=CANARY))
    assert code == 0, out + err
    assert "20 images in 1 shard" in out  # the job's own output
    assert list(run_dir.glob("synthesis/*/shard-00000.parquet"))
    (done_file,) = run_dir.glob("synthesis/*/done.json")
    assert json.loads(done_file.read_text())["machine"]["threads"] == available_cores(), "Ray gives it one thread"

    files = {name for name in head.arrived() if not name.startswith("dfnas_ray")}
    assert files == {"net.py", "tiny.yaml"}
    assert re.search(r"\d  net\.py\n", err)  # listed before it is sent
    assert re.search(r"and \d+ more, this package's included", err)

    (job,) = json.loads(answer(head, "/api/jobs/"))
    assert job["status"] == "SUCCEEDED"
    assert job["metadata"]["experiment"] == "tiny"
    assert CANARY not in json.dumps(job) + out + err
    written = [path for path in [*run_dir.rglob("*"), *head.folder.rglob("logs/*")] if path.is_file()]
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_the_exit_code_and_the_message_of_a_failed_job_come_back(head, project, tmp_path):
    teacher = (
        "{kind: checkpoint, checkpoint: /nowhere/x.pt, builder: 'a:b', image_shape: [1, 16, 16], mean: [0], std: [1]}"
    )
    command = ("submit", "tiny.yaml", "--run-dir", tmp_path / "run", "--set", f"teacher={teacher}")
    code, out, err = done(head.dfnas(*command, cwd=project))
    assert code == 2
    assert "error: The checkpoint /nowhere/x.pt does not exist" in out
    assert "failed: Job entrypoint command failed with exit code 2" in err
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_a_job_can_be_listed_asked_for_read_and_stopped(head, project, tmp_path):
    command = ("submit", "tiny.yaml", "--no-wait", "--run-dir", tmp_path / "run", "--set", "synthesis.num_shards=500")
    code, out, _ = done(head.dfnas(*command, cwd=project))
    assert code == 0
    job = out.strip()
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", job)
    _, out, _ = done(head.dfnas("jobs", "list", cwd=project))
    assert re.search(rf"{job} +(PENDING|RUNNING) .* run tiny\.yaml", out)
    code, out, _ = done(head.dfnas("jobs", "status", job, cwd=project))
    assert code == 0
    code, _, err = done(head.dfnas("jobs", "stop", job, cwd=project))
    assert (code, "is being stopped" in err) == (0, True)
    code, out, err = done(head.dfnas("jobs", "logs", job, "--follow", cwd=project))
    assert code == 1
    assert f"Job {job} stopped" in err
    code, _, err = done(head.dfnas("jobs", "stop", job, cwd=project))
    assert (code, "had already ended" in err) == (0, True)
    code, _, err = done(head.dfnas("jobs", "logs", "nothing", cwd=project))
    assert (code, "There is no job nothing" in err) == (2, True)


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(head, project, tmp_path):
    command = ("submit", "tiny.yaml", "--run-dir", tmp_path / "run", "--set", "synthesis.num_shards=500")
    process = head.dfnas(*command, cwd=project)
    seen = ""
    while "Running entrypoint" not in seen:
        seen += process.stdout.read(1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, _, err = done(process)
    assert code == 130, err
    job = re.search(r"Job (\S+) goes on", err).group(1)
    assert f"dfnas jobs logs {job} --follow --dashboard {head.dashboard}" in err
    assert "Traceback" not in err
    assert json.loads(answer(head, f"/api/jobs/{job}"))["status"] in ("PENDING", "RUNNING")
    assert done(head.dfnas("jobs", "stop", job, cwd=project))[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("token", "words"), [("", "none was given"), ("wrong", "refuses the one given")])
def test_the_token_is_asked_for(head, project, tmp_path, token, words):
    code, _, err = done(head.dfnas("jobs", "list", cwd=project, RAY_AUTH_TOKEN=token, HOME=str(tmp_path)))
    assert code == 2
    assert words in err
    assert "RAY_AUTH_TOKEN_PATH" in err
    assert "Traceback" not in err
