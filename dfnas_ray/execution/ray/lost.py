"""Detection of a cluster that is lost while a command runs: one message, before Ray ends this process without any.

Ray ends a driver that has lost its raylet after about a second, and one that has lost its GCS after a minute. It does
so from threads that Python does not see, so no exception can be caught. Therefore the processes are watched, and the
command ends by itself. Finished work is in the run directory.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

import psutil
import ray

from dfnas_ray.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, INTERRUPTED
from dfnas_ray.execution.ray.end_requests import EndRequests
from dfnas_ray.execution.reaper import end_processes_of

logger = logging.getLogger(__name__)

_ASKED_SECONDS = 0.3  # within which all processes of a job get a signal, and Ray's processes end
_STOP_SECONDS = 1.0  # after which threads notice that they are not needed any more
_PROBE_SECONDS = 3.0  # between two probes of a GCS on another machine, and the limit for a connection
_SILENT_SECONDS = 120.0  # for a head that accepts connections, and may only be busy
_PATIENCE_SECONDS = 45.0  # a GCS may be started again; Ray itself ends the process after 60
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4, with no settings
_RAYLET, _GCS = "raylet", "gcs_server"
_ENDS_ONCE = threading.Lock()  # taken by the first thread that ends the process, and never released


class Watch:
    """Watches the cluster that this process is connected to, until `stop` is called.

    Args:
        address: The value of `cluster.address`.
        end: Called with the message when the cluster is lost.
    """

    def __init__(self, address: str, end: Callable[[str], object] | None = None):
        self.address, self._end = address, end or _end
        self._stop, self._requests = threading.Event(), EndRequests()
        self._processes = _processes_here()
        self._gcs = ray.get_runtime_context().gcs_address
        looks: list[Callable[[], str]] = [partial(self._wait_for, *each) for each in self._processes.items()]
        if _GCS not in self._processes:
            looks.append(self._ask_head)
        for look in looks:
            threading.Thread(target=self._watch, args=(look,), name="ray-watch", daemon=True).start()

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
        """End the command, because it and its cluster were asked to end, or because the cluster is lost."""
        limit = time.monotonic() + _ASKED_SECONDS
        while not self._requests.came and time.monotonic() < limit:
            time.sleep(_ASKED_SECONDS / 10)
        self._end(INTERRUPTED if self._requests.came else self._sentence(what))

    def _wait_for(self, name: str, process: psutil.Process) -> str:
        while not self._stop.is_set():
            with suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                break
        return _has_ended(name)

    def _ask_head(self) -> str:
        last_answer = time.monotonic()
        while not self._stop.wait(_PROBE_SECONDS) and time.monotonic() - last_answer < _PATIENCE_SECONDS:
            if _answers(self._gcs):
                last_answer = time.monotonic()
        return f"its head at {self._gcs} has not answered for {time.monotonic() - last_answer:.0f} s"

    def _sentence(self, what: str) -> str:
        logs = "Ray's logs are in /tmp/ray/session_latest/logs." if self.address == "local" else "Check the cluster."
        return (
            f"Ray ({self.address}) was lost while this command was at work: {what}. What is finished is kept; run the same "
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


def _end(sentence: str) -> None:
    """Log what happened, and end the rest of a cluster that was started here and this process."""
    _ENDS_ONCE.acquire()
    was_asked = sentence == INTERRUPTED
    with suppress(Exception):
        if sys.stderr.isatty():
            sys.stderr.write("\033[?25h")  # a bar has hidden the cursor
        logger.error("%s%s", "" if was_asked else "error: ", sentence)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):  # Ray would print the last lines of its log after the sentence
            os.dup2(nowhere, descriptor)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    with suppress(Exception):
        end_processes_of(os.getpid())  # Ray's agents, if their raylet has ended before
    os._exit(EXIT_INTERRUPTED if was_asked else EXIT_USER_ERROR)
