"""What a command that was killed leaves of its Ray, and who ends it. Nothing here starts Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from dfnas_ray.execution.reaper import Reaper, end_processes_of

SLEEP = "import time; time.sleep(60)"
RAY = find_spec("ray")
pytestmark = pytest.mark.skipif(RAY is None, reason="needs Ray's folder, and does not import it")
COMMAND = 99_999_999  # above any process's number


def ray_file() -> str:
    return str(Path(RAY.origin).parent / "_private" / "log_monitor.py")


@contextmanager
def sleeping(*words: str):
    """A process with these words in its command line."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP, *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "is_ended"),
    [
        ((ray_file() if RAY else "", f"--session-name=session_2026-01-02_03-04-05_678_{COMMAND}"), True),
        ((ray_file() if RAY else "", f"--logs-dir=/tmp/ray/session_2026-01-02_03-04-05_678_{COMMAND}/logs"), True),
        ((ray_file() if RAY else "", f"--session-name=session_2026-01-02_03-04-05_678_{COMMAND}1"), False),
        ((ray_file() if RAY else "", f"--session-name=session_2026-01-02_03-04-05_678_1{COMMAND}"), False),
        ((f"/tmp/ray/session_2026-01-02_03-04-05_678_{COMMAND}/logs/raylet.out",), False),
        ((ray_file() if RAY else "",), False),
    ],
    ids=["named", "by its folder", "longer number", "other number", "reads a log", "no session"],
)
def test_only_ray_processes_of_the_session_that_a_command_started_are_ended(words, is_ended):
    with sleeping(*words) as process:
        deadline = time.monotonic() + 20
        while len(psutil.Process(process.pid).cmdline()) < 3 + len(words) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert end_processes_of(COMMAND) == int(is_ended)
        if is_ended:
            assert process.wait(10) == -signal.SIGKILL
        else:
            assert process.poll() is None


DRIVER = """
import os, subprocess, sys, time
from dfnas_ray.execution.reaper import Reaper
reaper = Reaper()
words = [sys.executable, "-c", "import time; time.sleep(60)", sys.argv[1], f"--session-name=session_2026-01-02_0_{os.getpid()}"]
print(subprocess.Popen(words).pid, flush=True)
time.sleep(60)
"""


def test_what_is_left_of_a_command_that_was_killed_is_ended_and_then_the_reaper_ends():
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, ray_file()], stdout=subprocess.PIPE, text=True)
    try:
        left = psutil.Process(int(driver.stdout.readline()))
        family = psutil.Process(driver.pid).children()
        assert len(family) == 2
    finally:
        driver.kill()
        driver.communicate()
    _, alive = psutil.wait_procs([left], timeout=30)
    assert not alive
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_a_command_that_ends_well_ends_the_reaper_first():
    before = psutil.Process().children()
    started = Reaper()
    (reaper,) = (child for child in psutil.Process().children() if child not in before)
    started.stop()
    assert not reaper.is_running()


ENDING = """
import os, sys
from dfnas_ray.execution.reaper import Reaper
reaper = Reaper()
reaper.expect("It died.")
exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os._exit(1)", "It died.\n"),
        ("os.kill(os.getpid(), 9)", "It died.\n"),
        ("reaper.expect('Otherwise.'); os._exit(1)", "Otherwise.\n"),
        ("reaper.expect(''); os._exit(1)", ""),
        ("reaper.stop()", ""),
        ("os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1); print(5)'])", ""),
    ],
    ids=["ended from within", "killed", "another sentence", "nothing expected", "ended well", "became another program"],
)
def test_it_speaks_for_a_command_that_ends_without_a_word(ending, said):
    result = subprocess.run([sys.executable, "-c", ENDING, ending], capture_output=True, text=True, timeout=60)
    assert result.stderr == said
