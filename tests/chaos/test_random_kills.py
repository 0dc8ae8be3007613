"""kill -9 of random processes at random moments of a whole run: the same command goes on, and ends with the same bytes.

``DFNAS_KILLS=200 DFNAS_KILL_SEED=7 pytest -m slow -s tests/chaos/test_random_kills.py`` kills that often on each executor, and
prints the seed and what it did.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from undisturbed import assert_undisturbed

KILLS = int(os.environ.get("DFNAS_KILLS", "4"))
SEED = int(os.environ.get("DFNAS_KILL_SEED") or time.time())
VICTIMS = {"inline": ["command"], "local": ["command", "worker", "agent", "raylet", "gcs_server"]}
LEFT_SECONDS = 30.0
"""After which nothing of a command that was killed may be left."""
HUNG_SECONDS = float(os.environ.get("DFNAS_HUNG_SECONDS", "300"))
"""After which a command that should have ended, or gone on to its end, counts as hung."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(int((1 + KILLS) * HUNG_SECONDS))]


def kind_of(name: str) -> str:
    if name.startswith("ray::"):  # the title of an agent or a worker
        return "agent" if name.endswith("Agent") else "worker"
    return Path(name).name


class Attempt:
    """One start of the command, with all processes that belong to it: they share its session."""

    def __init__(self, start: Callable, *arguments: object, log: Path):
        self.driver = start(*arguments, log=log)
        self.began, self.victim = time.monotonic(), ""

    def family(self) -> list[psutil.Process]:
        """Return what is alive of it, without the command itself."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid != self.driver.pid and os.getsid(process.pid) == self.driver.pid:
                    found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
        return found

    def is_over(self, seconds: float) -> bool:
        """Wait so long for the command to end, and return whether it has."""
        with suppress(Exception):  # subprocess.TimeoutExpired
            self.driver.wait(max(0.0, seconds))
        return self.driver.poll() is not None

    def kill(self, kind: str, chance: random.Random) -> bool:
        """Kill one of its processes, if there is one of the kind."""
        if kind == "command":
            self.driver.kill()
            self.driver.wait()
            return True
        found = []
        for process in self.family():
            with suppress(psutil.Error, IndexError):
                found += [process] if kind_of(process.cmdline()[0].strip()) == kind else []
        if not found:
            return False
        with suppress(psutil.NoSuchProcess):
            victim = chance.choice(sorted(found, key=lambda each: each.pid))
            self.victim = " ".join(victim.cmdline())[:60].strip()
            victim.kill()
        return True

    def left_over(self, seconds: float) -> list[str]:
        """Wait so long for its processes to end, and return those that have not; they are then ended."""
        end = time.monotonic() + seconds
        while (alive := self.family()) and time.monotonic() < end:
            time.sleep(0.25)
        names = []
        for process in alive:
            with suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[:100])
                process.kill()
        if self.driver.poll() is None:
            self.driver.kill()
        return names


def dies_while_ray_starts(log: str) -> bool:
    """Return whether the last line says so: Ray ends a command with exit code 1 if a raylet dies that it connects to."""
    return log.strip().splitlines()[-1].startswith("error: This command ended while Ray was starting")


def say(line: str) -> None:
    sys.__stderr__.write(f"{line}\n")  # so that it is seen while the test runs, with -s


@pytest.mark.parametrize("address", ["inline", pytest.param("local", marks=pytest.mark.ray)])
def test_whoever_is_killed_whenever_the_run_ends_as_if_undisturbed(start_dfnas, tiny_yaml, tmp_path, address):
    chance, killed, rounds, by_ray = random.Random(f"{SEED} {address}"), Counter(), 0, 0
    say(f"seed {SEED}, {address}")
    log, undisturbed = tmp_path / "log.txt", tmp_path / "undisturbed"
    line = ("run", tiny_yaml, "--address", address, "--run-dir")
    first = Attempt(start_dfnas, *line, undisturbed, log=log)
    try:
        assert first.is_over(HUNG_SECONDS), "the undisturbed run hangs"
    finally:
        first.left_over(0)
    assert first.driver.returncode == 0, log.read_text()[-3000:]
    whole = time.monotonic() - first.began
    while killed.total() < KILLS:
        run_dir, rounds, before = tmp_path / f"run-{rounds}", rounds + 1, killed.total()
        while True:
            attempt = Attempt(start_dfnas, *line, run_dir, log=log)
            try:
                ended = attempt.is_over(chance.uniform(0.0, whole))
                kind = chance.choice(VICTIMS[address])
                if not ended and attempt.kill(kind, chance):
                    killed[kind] += 1
                assert attempt.is_over(HUNG_SECONDS), f"hung after the kill of {kind}: {log.read_text()[-3000:]}"
                assert not (left := attempt.left_over(LEFT_SECONDS)), f"after the kill of {kind}: {left}"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(attempt.driver.pid, signal.SIGKILL)
            if (code := attempt.driver.returncode) == 0:
                break
            expected = (2, -signal.SIGKILL) if kind == "command" else (2,)
            if kind != "command" and code == 1 and dies_while_ray_starts(log.read_text()):
                by_ray += 1
                continue
            assert code in expected, (
                f"exit code {code} after the kill of {kind} {attempt.victim}: {log.read_text()[-5000:]}"
            )
        assert_undisturbed(run_dir, undisturbed)
        assert "Traceback" not in log.read_text(), log.read_text()[-5000:]
        shutil.rmtree(run_dir)
        if killed.total() == before:  # the machine is less busy than it was
            whole *= 0.7
        say(
            f"{killed.total()} kills {dict(killed)} in {rounds} runs: none different, none hung, nothing left over, "
            f"{by_ray} times Ray ended the command at its start"
        )
