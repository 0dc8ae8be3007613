"""Ray heads for tests: each with ports, a token and a folder of its own, and ended without touching any other."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    """A running head: where it is, and the environment of a client that knows its token."""

    folder: Path
    dashboard: str
    environment: dict[str, str]
    address: str
    client: str

    def dfnas(self, *arguments: str | Path, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        """Start the command as a client of this head."""
        return subprocess.Popen(
            [sys.executable, "-m", "dfnas_ray", *map(str, arguments)],
            cwd=cwd,
            env=self.environment | {"RAY_API_SERVER_ADDRESS": self.dashboard} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def arrived(self) -> set[str]:
        """Names of the files in the one working directory that was unpacked here."""
        (root,) = self.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if "__pycache__" not in path.parts}


def plain_environment() -> dict[str, str]:
    """This process's environment, without what concerns Ray; the package is that of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(REPOSITORY)
    environment["COLUMNS"] = "300"
    return environment


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def ray_head(*options: str, port: int | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Start a head with a token and its dashboard on the loopback; end it and all that it started."""
    folder = Path(tempfile.mkdtemp(prefix="dfh-", dir="/tmp"))  # short: Ray's socket names have 107 bytes
    free, dashboard, client, agent = free_ports(4)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    command = [
        *(BIN / "ray", "start", "--head", "--block", f"--port={port or free}", f"--ray-client-server-port={client}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder / 'r'}"),
        f"--dashboard-agent-listen-port={agent}",  # by default one number for all: this machine's other Ray may hold it
        *("--object-store-memory=150000000", "--disable-usage-stats", *options),
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=plain_environment() | secret | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait_for(url, process, folder / "log.txt")
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret["RAY_AUTH_TOKEN"]}
        yield Head(
            folder / "r",
            url,
            plain_environment() | token,
            f"{_node_address()}:{port or free}",
            f"ray://127.0.0.1:{client}",
        )
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


class Node:
    """A machine that joins a head, played by a raylet and its workers."""

    def __init__(self, head: Head, *options: str):
        self.log = head.folder.parent / f"node-{secrets.token_hex(4)}.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(BIN / "ray", "start", "--block", f"--address={head.address}"),
                    *("--object-store-memory=150000000", "--disable-usage-stats", *options),
                ],
                env=head.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float = 60) -> Node:
        """Return when it has joined."""
        limit = time.monotonic() + seconds
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.1)
        return self

    def lose(self) -> None:
        """Cut the power: everything on the machine is gone at once."""
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()  # nobody says goodbye
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()


def _node_address() -> str:
    """The address under which Ray knows this machine."""
    import ray

    return ray.util.get_node_ip_address()


def end(process: subprocess.Popen) -> None:
    """Ask a process to end, and then kill what is left of it and of what it started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in family:  # psutil compares creation times: a reused pid is not touched
        if each.is_running():
            each.kill()


def _wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while (status := _status(f"{url}/api/version")) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    assert status == 401, "the dashboard asks for no token"


def _status(url: str) -> int | None:
    """What a client without a token gets; None if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
