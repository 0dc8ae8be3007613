"""Ray itself is lost on this machine: one sentence with what to do, exit code 2, and the same command goes on."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from undisturbed import assert_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def kill(session: int, name: str) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, IndexError):
            if os.getsid(process.pid) == session and Path(process.cmdline()[0]).name == name:
                process.kill()
                return
    pytest.fail(f"there is no {name}")


@pytest.mark.parametrize(
    ("name", "artefact"),
    [("raylet", "search/*/*/state.pt"), ("gcs_server", "synthesis/*/shard-*.parquet")],
    ids=["raylet", "gcs_server"],
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
    assert f"its process {name} on this machine has ended" in said.splitlines()[-1]
    assert "run the same command again" in said.splitlines()[-1]
    assert len(said.splitlines()) < 12, "Ray's own lines are not for the terminal"
    assert "Traceback" not in said
    assert start_dfnas(*line, log=log).wait(600) == 0, log.read_text()[-3000:]
    assert_undisturbed(tmp_path / "run", tiny_inline_run.folder)
