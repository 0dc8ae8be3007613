"""Ray itself is lost on this machine: one sentence with what to do, exit code 2, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_heads import ray_head
from undisturbed import assert_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def process_of(head: Path, name: str) -> psutil.Process:
    for process in psutil.process_iter():
        with suppress(psutil.Error, IndexError):
            words = process.cmdline()
            if Path(words[0]).name == name and any(str(head) in word for word in words):
                return process
    pytest.fail(f"there is no {name}")


def client_proxy(address: str) -> psutil.Process:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "--mode=proxy" in words and f"--port={address.rpartition(':')[2]}" in words:
                return process
    pytest.fail("there is no proxy of Ray Client")


def kill(session: int, name: str) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, IndexError):
            if os.getsid(process.pid) == session and Path(process.cmdline()[0]).name.strip() == name:
                process.kill()
                return
    pytest.fail(f"there is no {name}")


@pytest.mark.parametrize(
    ("name", "artefact"),
    [
        ("raylet", "search/*/*/state.pt"),
        ("gcs_server", "synthesis/*/shard-*.parquet"),
        ("ray::RuntimeEnvAgent", "synthesis/*/shard-*.parquet"),  # the raylet ends because of it
    ],
    ids=["raylet", "gcs_server", "agent"],
)
def test_a_lost_ray_is_said_in_one_sentence_and_the_run_goes_on(
    start_dfnas, tiny_yaml, tiny_inline_run, tmp_path, name, artefact
):
    line, log = ("run", tiny_yaml, "--run-dir", tmp_path / "run"), tmp_path / "log.txt"
    command, end = start_dfnas(*line, log=log), time.monotonic() + 300
    while not list((tmp_path / "run").glob(artefact)):
        assert command.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.02)
    kill(command.pid, name)
    assert command.wait(60) == 2, log.read_text()[-3000:]
    said = log.read_text()
    assert f"its process {name.removeprefix('ray::')} on this machine has ended" in said.splitlines()[-1]
    assert "run the same command again" in said.splitlines()[-1]
    assert len(said.splitlines()) < 12, "Ray's own lines are not for the terminal"
    assert "Traceback" not in said
    assert start_dfnas(*line, log=log).wait(600) == 0, log.read_text()[-3000:]
    assert_undisturbed(tmp_path / "run", tiny_inline_run.folder)


@pytest.mark.parametrize("through_client", [False, True], ids=["joined", "ray-client"])
def test_a_head_that_stops_answering_is_said_in_one_sentence_and_the_run_goes_on_elsewhere(
    start_dfnas, tiny_yaml, tiny_inline_run, tmp_path, through_client
):
    with ray_head("--num-cpus=2", "--num-gpus=0") as head:
        address = head.client if through_client else head.address
        command = head.dfnas("run", "tiny.yaml", "--run-dir", "run", "--address", address, cwd=tmp_path)
        end = time.monotonic() + 300
        while not list((tmp_path / "run").glob("search/*/*/state.pt")):
            assert command.poll() is None, command.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        # Whatever it is that listens: its port still takes connections.
        listening = client_proxy(head.client) if through_client else process_of(head.folder, "gcs_server")
        listening.send_signal(signal.SIGSTOP)
        try:
            _, said = command.communicate(timeout=300)
        finally:
            listening.send_signal(signal.SIGCONT)
    assert command.returncode == 2, said
    # After two minutes, because the head may only be busy. Ray Client gives up earlier.
    reason = "Client is shutting down" if through_client else f"its head at {address} has not answered for 1"
    words = " ".join(said.split())
    assert f"was lost while this command was at work: {reason}" in words
    assert "run the same command again" in words
    assert "Traceback" not in said
    log, line = tmp_path / "log.txt", ("run", tiny_yaml, "--run-dir", tmp_path / "run")
    assert start_dfnas(*line, "--address", "inline", log=log).wait(400) == 0, log.read_text()[-3000:]
    assert_undisturbed(tmp_path / "run", tiny_inline_run.folder)
