"""Whatever another thread does to the process, the sentence is said, and the exit code is that of the sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[3]

COMMAND = """
import logging, os, signal, subprocess, sys, threading, time
from dfnas_ray.execution.last_words import Ending, LastWords, log_files

def hear(*_):
    pass

signal.signal(signal.SIGTERM, hear)
signal.signal(signal.SIGINT, hear)
reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(writer)
logging.basicConfig(filename=sys.argv[1], level=logging.ERROR)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)

def lose():
    {before}
    words = LastWords(Ending("it was lost: é", 2), Ending("it was asked", 130), {was_asked}, reader, {seconds}, log_files())
    threading.Timer(0.02, lambda: os._exit(1)).start()  # as Ray does
    words.speak()

threading.Thread(target=lose).start()
time.sleep(60)
"""


@pytest.fixture
def command(tmp_path):
    started: list[subprocess.Popen[str]] = []

    def start(was_asked: bool = False, seconds: float = 0.3, before: str = "pass") -> subprocess.Popen[str]:
        log = tmp_path / "run.log"
        log.write_text("first line\n")
        line = [sys.executable, "-c", COMMAND.format(was_asked=was_asked, seconds=seconds, before=before), str(log)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(line, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_loss_is_said_although_another_thread_ends_the_process(command, tmp_path):
    lost = command()
    child = psutil.Process(int(lost.stdout.readline()))
    _, said = lost.communicate(timeout=60)
    assert said.splitlines() == ["error: it was lost: é"]
    assert lost.returncode == 2
    child.wait(10)
    first, last = (tmp_path / "run.log").read_text().splitlines()
    assert first == "first line"
    assert last.endswith(" ERROR error: it was lost: é")


def test_a_request_that_came_before_is_what_is_said(command):
    lost = command(was_asked=True)
    assert lost.communicate(timeout=60)[1] == "it was asked\n"
    assert lost.returncode == 130


def test_a_request_that_only_the_old_program_has_seen_counts(command):
    lost = command(before="os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1)")
    assert lost.communicate(timeout=60)[1] == "it was asked\n"
    assert lost.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_comes_a_little_later_counts(command, number):
    lost = command(seconds=30)
    lost.stdout.readline()
    time.sleep(0.5)
    lost.send_signal(number)
    assert lost.communicate(timeout=60)[1] == "it was asked\n"
    assert lost.returncode == 130
