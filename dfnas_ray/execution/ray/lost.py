"""Detection of a cluster that is lost while a command runs: one message, before Ray ends this process without any.

Ray ends a driver that has lost its raylet at once or after a second, and one that has lost its GCS after a minute. It does
so from threads that Python does not see, so no exception can be caught. Therefore the processes are watched, and the
command ends by itself (`last_words.py`). Finished work is in the run directory.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import ray

from dfnas_ray.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, INTERRUPTED
from dfnas_ray.execution.last_words import Ending, LastWords, log_files
from dfnas_ray.execution.ray.end_requests import EndRequests

_ASKED_SECONDS = 0.3  # within which all processes of a job get a signal, and Ray's processes end
_LOOK_SECONDS = 0.2  # between two looks at a cluster that is starting
_DEAD_SECONDS = 5.0  # after which a part of it that has ended is not being ended by Ray itself
_STOP_SECONDS = 1.0  # after which threads notice that they are not needed any more
_PROBE_SECONDS = 3.0  # between two probes of a GCS on another machine, and the limit for a connection
_SILENT_SECONDS = 120.0  # for a head that accepts connections, and may only be busy
_PATIENCE_SECONDS = 45.0  # a GCS may be started again; Ray itself ends the process after 60
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4, with no settings
_RAYLET, _GCS = "raylet", "gcs_server"


class Watch:
    """Watches the cluster that this process is connected to, until `stop` is called.

    Args:
        address: The value of `cluster.address`.
        end: Called with the messages when the cluster is lost. By default one is printed, and the process ends.
    """

    def __init__(self, address: str, end: Callable[[LastWords], object] = LastWords.speak):
        self.address, self._end = address, end
        self._stop, self._requests = threading.Event(), EndRequests()
        is_client = ray.util.client.ray.is_connected()  # which may also give up by itself, earlier or later
        self._processes = {} if is_client else _processes_here()
        self._head = address.removeprefix("ray://") if is_client else ray.get_runtime_context().gcs_address
        looks: list[Callable[[], str]] = [partial(self._wait_for, *each) for each in self._processes.items()]
        if not self.owns_cluster:
            looks.append(self._ask_head)
        for look in looks:
            threading.Thread(target=self._watch, args=(look,), name="ray-watch", daemon=True).start()

    @property
    def owns_cluster(self) -> bool:
        """Whether this process started the cluster, whose processes end with it."""
        return _GCS in self._processes

    def stop(self) -> None:
        """Stop watching: from now on processes end on purpose.

        If the command was asked to end, and its cluster as well, the command ends here.
        """
        if self._requests.came:
            psutil.wait_procs(self._processes.values(), timeout=_ASKED_SECONDS)
            self.check()
        self._stop.set()
        self._requests.close()

    def check(self) -> None:
        """End the command if the cluster is lost. Call this after an error that this may have caused."""
        for name, process in self._processes.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                self._lose(_has_ended(name))

    def _watch(self, look: Callable[[], str]) -> None:
        lost = look()
        if not self._stop.is_set():
            self._lose(lost)

    def _lose(self, what: str) -> None:
        """End the command: the cluster is lost, or the command was asked to end, and its cluster with it."""
        lost, asked = Ending(_sentence(self.address, what), EXIT_USER_ERROR), Ending(INTERRUPTED, EXIT_INTERRUPTED)
        requests = self._requests
        self._end(LastWords(lost, asked, requests.came, requests.pipe, _ASKED_SECONDS, log_files()))

    def _wait_for(self, name: str, process: psutil.Process) -> str:
        while not self._stop.is_set():
            with suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                break
        return _has_ended(name)

    def _ask_head(self) -> str:
        last_answer = time.monotonic()
        while not self._stop.wait(_PROBE_SECONDS) and time.monotonic() - last_answer < _PATIENCE_SECONDS:
            if _answers(self._head):
                last_answer = time.monotonic()
        return f"its head at {self._head} has not answered for {time.monotonic() - last_answer:.0f} s"


@contextmanager
def start_watched(address: str, end: Callable[[LastWords], object] = LastWords.speak) -> Iterator[None]:
    """Watch the start of a local cluster while the block runs: if its GCS or raylet dies, Ray waits for a minute, and then ends
    this process without a message.

    Args:
        address: The value of `cluster.address`.
        end: See `Watch`.
    """
    requests, is_over = EndRequests(), threading.Event()

    def watch() -> None:
        seen: dict[int, str] = {}
        ended = 0.0  # since when
        while not is_over.wait(_LOOK_SECONDS):
            alive = _parts_of_cluster()
            gone = [name for pid, name in seen.items() if pid not in alive]
            seen |= alive
            ended = (ended or time.monotonic()) if gone else 0.0
            if gone and time.monotonic() - ended > _DEAD_SECONDS:  # Ray itself ends them just before a start fails
                lost = Ending(_sentence(address, _has_ended(gone[0])), EXIT_USER_ERROR)
                asked = Ending(INTERRUPTED, EXIT_INTERRUPTED)
                end(LastWords(lost, asked, requests.came, requests.pipe, _ASKED_SECONDS, log_files()))
                return

    thread = threading.Thread(target=watch, name="ray-start-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        requests.close()


def _parts_of_cluster() -> dict[int, str]:
    """Return the names of the GCS and the raylets that this process has started and that live, by their process numbers."""
    found = {}
    for process in psutil.Process().children():
        with suppress(psutil.Error, IndexError):
            name = Path(process.cmdline()[0]).name
            if name in (_RAYLET, _GCS) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = name
    return found


def _sentence(address: str, what: str) -> str:
    logs = "Ray's logs are in /tmp/ray/session_latest/logs." if address == "local" else "Check the cluster."
    return (
        f"Ray ({address}) was lost while this command was at work: {what}. What is finished is kept; run the same "
        f"command again to go on from there. {logs}"
    )


def _has_ended(name: str) -> str:
    return f"its process {name.removeprefix('ray::')} on this machine has ended, perhaps for want of memory"


def _processes_here() -> dict[str, psutil.Process]:
    """Return the processes that this one depends on, by name: its raylet, the raylet's agents, and a GCS started here.

    A raylet ends after one of its agents has ended (`agent_manager.cc`), or ends its agents first. Meanwhile its object
    store is closed, and Ray ends a driver that touches it.
    """
    node = ray.get_runtime_context().get_node_id()
    sockets = [each["RayletSocketName"] for each in ray.nodes() if each["NodeID"] == node]
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, IndexError):
            words = process.cmdline()
            name = os.path.basename(words[0])  # noqa: PTH119 - a word of a command line
            if name == _RAYLET and any(f"--raylet_socket_name={place}" in words for place in sockets):
                found[_RAYLET] = process
                found |= _agents_of(process)
            elif name == _GCS and psutil.Process() in process.parents():
                found[_GCS] = process
    return found


def _agents_of(raylet: psutil.Process) -> dict[str, psutil.Process]:
    found = {}
    for process in raylet.children():
        with suppress(psutil.Error, IndexError):
            title = process.cmdline()[0].strip()
            if title.startswith("ray::") and title.endswith("Agent"):
                found[title] = process
    return found


def _answers(address: str) -> bool:
    """Return whether a gRPC server answers a greeting. A stopped process does not, but still accepts connections."""
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS)) as connection:
            connection.settimeout(_SILENT_SECONDS)
            connection.sendall(_GREETING)
            connection.recv(1)  # its settings; where TLS is spoken an alert, or the end
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True
