"""A cluster that is lost at work: who still answers, and what is said of who does not."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import closing
from types import SimpleNamespace

import grpc
import psutil
import pytest

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import INTERRUPTED
from dfnas_ray.execution.last_words import LastWords
from dfnas_ray.execution.ray import lost
from dfnas_ray.execution.ray.connection import Connection


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lost, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr(lost, "_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(lost, "_PATIENCE_SECONDS", 0.9)


@pytest.fixture
def listener():
    """A socket that takes connections, as the kernel does for a process that is stopped, and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_grpc_server_answers_without_being_asked_for_anything(impatient):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert lost._answers(f"127.0.0.1:{port}")
    finally:
        server.stop(None)


def test_a_head_that_takes_connections_and_says_nothing_does_not_answer(impatient, listener):
    assert not lost._answers(address_of(listener))


def test_a_head_that_is_gone_does_not_answer(impatient, listener):
    address = address_of(listener)
    listener.close()
    assert not lost._answers(address)


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["ends", "resets"])
def test_a_head_that_refuses_the_greeting_is_alive(impatient, listener, linger):
    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(8)
        if linger:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    assert lost._answers(address_of(listener))
    thread.join()


@pytest.fixture
def watch(monkeypatch):
    """Return a function that watches a head, with the sentences that it ended with."""
    watches: list[lost.Watch] = []

    def start(gcs: str, processes: dict[str, psutil.Process]) -> tuple[lost.Watch, list[str], threading.Event]:
        said, ended = [], threading.Event()

        def end(words: LastWords) -> None:
            said.append((words.asked if words.was_asked else words.lost).sentence)
            ended.set()

        monkeypatch.setattr(lost, "_processes_here", lambda: processes)
        monkeypatch.setattr(lost.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=gcs))
        watches.append(lost.Watch("head:6379", end))
        return watches[-1], said, ended

    yield start
    for each in watches:
        each.stop()


def test_a_head_that_stops_answering_ends_the_command_with_what_to_do(impatient, listener, watch):
    _, said, ended = watch(address_of(listener), {})
    assert ended.wait(20)
    assert re.fullmatch(
        rf"Ray \(head:6379\) was lost while this command was at work: its head at {address_of(listener)} has not answered for "
        r"\d s\. What is finished is kept; run the same command again to go on from there\. Check the cluster\.",
        said[0],
    )


def test_a_head_that_stops_answering_while_the_command_leaves_ends_it(impatient, listener, watch, monkeypatch):
    """Ray's own leaving would wait for ever."""
    at_work, said, ended = watch(address_of(listener), {})
    joined = Connection(ClusterConfig(address="head:6379"))
    joined._started, joined._watch = True, at_work
    monkeypatch.setattr("ray.shutdown", lambda: ended.wait(20))
    joined.close()
    assert "has not answered for" in said[0]


def test_a_raylet_of_this_machine_that_ends_is_said_and_a_stopped_watch_says_nothing(watch, listener):
    def sleeping() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    with sleeping() as raylet, sleeping() as gcs:
        processes = {"raylet": psutil.Process(raylet.pid), "gcs_server": psutil.Process(gcs.pid)}
        _, said, ended = watch("127.0.0.1:1", processes)
        raylet.kill()
        assert ended.wait(20)
        assert "its process raylet on this machine has ended" in said[0]
        stopped, nothing, ended = watch(
            "127.0.0.1:1", {"gcs_server": processes["gcs_server"], "raylet": psutil.Process()}
        )
        stopped.stop()
        gcs.kill()
        assert not ended.wait(1.5)
        assert nothing == []


@pytest.fixture
def hears_sigterm():
    """As `dfnas` does; SIGINT may be ignored by whoever runs the tests in the background."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_cluster_that_ends_with_the_command_because_both_were_asked_to_is_an_interruption(watch, hears_sigterm):
    """As `timeout` and Slurm do it. The main thread need not have seen the signal."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as raylet:
        processes = {"raylet": psutil.Process(raylet.pid), "gcs_server": psutil.Process()}
        _, said, ended = watch("127.0.0.1:1", processes)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raylet.kill()
        raylet.wait()
        assert ended.wait(20)
    assert set(said) == {INTERRUPTED}


def test_whoever_listens_for_signals_already_is_left_alone(watch):
    reader, writer = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writer)
    try:
        started, *_ = watch("127.0.0.1:1", {"raylet": psutil.Process(), "gcs_server": psutil.Process()})
        started.stop()
    finally:
        assert signal.set_wakeup_fd(before) == writer
        os.close(reader)
        os.close(writer)


@pytest.fixture
def starting(monkeypatch, tmp_path):
    """A process of this one that is called like Ray's, and the sentences that a watched start ended with."""
    monkeypatch.setattr(lost, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lost, "_DEAD_SECONDS", 0.5)
    said: list[str] = []
    with subprocess.Popen(["gcs_server", "-c", "import time; time.sleep(60)"], executable=sys.executable) as process:
        yield process, said, lambda words: said.append(words.lost.sentence)
        process.kill()


def test_a_gcs_that_dies_while_ray_starts_is_said(starting):
    gcs, said, end = starting
    limit = time.monotonic() + 20
    with lost.start_watched("local", end):
        time.sleep(0.3)
        gcs.kill()
        while not said and time.monotonic() < limit:
            time.sleep(0.05)
    assert (
        "Ray (local) was lost while this command was at work: its process gcs_server on this machine has ended"
        in said[0]
    )


def test_a_start_that_fails_and_ends_its_own_processes_is_not_lost(starting):
    gcs, said, end = starting
    with lost.start_watched("local", end):
        time.sleep(0.3)
        gcs.kill()
        time.sleep(0.2)
    time.sleep(0.6)
    assert said == []
