"""What a cluster must have before work is given to it. No cluster is started."""

import atexit
import errno
import os
import re
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import pytest

from dfnas_ray.config.cluster import ClusterConfig, WorkerResources
from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.machine import allow_open_files
from dfnas_ray.execution.ray import waiting
from dfnas_ray.execution.ray.cluster import ClusterSize
from dfnas_ray.execution.ray.connection import Connection
from dfnas_ray.execution.token import token_settings


def has(monkeypatch, *nodes: dict[str, float], alive: bool = True) -> None:
    """Make Ray tell of these nodes, and of one that is gone."""
    gone = {"Alive": False, "Resources": {"CPU": 100.0, "GPU": 100.0}}
    monkeypatch.setattr("ray.nodes", lambda: [gone, *({"Alive": alive, "Resources": node} for node in nodes)])


@pytest.fixture
def refusal(monkeypatch):
    """Return a function that gives the message with which a cluster of 4 CPUs and 1 GPU refuses."""
    has(monkeypatch, {"CPU": 4.0, "GPU": 1.0})

    def message(stage, cpus, gpus, workers=1) -> str:
        with pytest.raises(ClusterError) as raised:
            ClusterSize(ClusterConfig()).check_fits(stage, WorkerResources(cpus=cpus, gpus=gpus), workers)
        return str(raised.value)

    return message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("synthesis", 8, 0), ["8 CPUs", "cluster.synthesis.cpus=8", "has 4", "Lower cluster.synthesis.cpus."]),
        (("synthesis", 1, 2), ["2 GPUs", "cluster.synthesis.gpus=2", "has 1", "0 runs on CPUs"]),
        (("retraining", 2, 0, 3), ["6 CPUs", "retraining.num_workers=3", "Lower retraining.num_workers to 2"]),
        (("retraining", 1, 0.5, 3), ["1.5 GPUs", "retraining.num_workers=3", "Lower retraining.num_workers to 2"]),
        (
            ("search", 1, 0, 6),
            [
                "6 CPUs",
                "cluster.search.scoring_workers=5",
                "the trial itself",
                "Lower cluster.search.scoring_workers to 3",
            ],
        ),
        (
            ("search", 3, 0, 2),
            ["cluster.search.scoring_workers=1", "scoring_workers to 0", "lower cluster.search.cpus"],
        ),
        (("retraining", 8, 0, 2), ["retraining.num_workers=2", "Not even one worker", "Lower cluster.retraining.cpus"]),
    ],
)
def test_more_than_the_cluster_has_is_refused_by_every_setting_that_asks_for_it(refusal, arguments, words):
    message = refusal(*arguments)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("arguments", [("synthesis", 8, 0), ("search", 8, 0, 1), ("retraining", 8, 0, 1)])
def test_one_worker_that_is_too_large_is_not_blamed_on_the_number_of_workers(refusal, arguments):
    message = refusal(*arguments)
    assert "workers" not in message


def test_what_just_fits_is_accepted(monkeypatch):
    has(monkeypatch, {"CPU": 4.0, "GPU": 1.0})
    ClusterSize(ClusterConfig()).check_fits("search", WorkerResources(gpus=0.25), 4)


# several nodes, memory and custom resources


def test_a_worker_must_fit_on_one_node(monkeypatch):
    has(monkeypatch, {"CPU": 2.0}, {"CPU": 3.0})
    runtime = ClusterSize(ClusterConfig(address="auto"))
    runtime.check_fits("synthesis", WorkerResources(cpus=3))
    with pytest.raises(ClusterError, match=r"cluster\.synthesis\.cpus=4, each on one node .*largest has 3 CPUs"):
        runtime.check_fits("synthesis", WorkerResources(cpus=4))
    assert runtime.room_for(WorkerResources(cpus=2)) == 2
    assert runtime.room_for(WorkerResources()) == 5


@pytest.mark.parametrize(
    ("placement", "room", "words"),
    [
        ("PACK", 5, "each on one node"),
        ("STRICT_PACK", 3, "all on one node"),
        ("STRICT_SPREAD", 2, "each on a node of its own"),
    ],
)
def test_a_strict_placement_that_can_never_be_is_refused_not_waited_for(monkeypatch, placement, room, words):
    has(monkeypatch, {"CPU": 2.0}, {"CPU": 3.0})
    runtime = ClusterSize(ClusterConfig(address="auto"))
    resources = WorkerResources(placement=placement)
    runtime.check_fits("retraining", resources, room)
    if placement != "PACK":
        with pytest.raises(ClusterError, match=rf"{words} \(cluster\.retraining\.placement={placement}\)"):
            runtime.check_fits("retraining", resources, room + 1)


@pytest.mark.parametrize("placement", ["STRICT_PACK", "STRICT_SPREAD"])
def test_workers_that_do_not_start_together_have_room_on_all_nodes(monkeypatch, placement):
    has(monkeypatch, {"CPU": 2.0}, {"CPU": 3.0})
    assert ClusterSize(ClusterConfig(address="auto")).room_for(WorkerResources(placement=placement)) == 5


def test_memory_and_custom_resources_are_counted(monkeypatch):
    has(monkeypatch, {"CPU": 8.0, "memory": 16e9, "spot": 3.0}, {"CPU": 8.0, "memory": 16e9})
    runtime = ClusterSize(ClusterConfig())
    assert runtime.room_for(WorkerResources(memory="5GB")) == 6
    assert runtime.room_for(WorkerResources(memory="5GB", custom={"spot": 1})) == 3
    with pytest.raises(
        ClusterError, match=r"asks for 2 of the custom resource big \(cluster\.search\.custom\.big=2\), .*has 0"
    ):
        runtime.check_fits("search", WorkerResources(custom={"big": 2}))
    with pytest.raises(ClusterError, match=r"memory.*cluster\.search\.memory=.*the cluster has 29\.8GiB"):
        runtime.check_fits("search", WorkerResources(memory="64GB"))


# two stages at once


@pytest.mark.parametrize(
    ("nodes", "synthesis", "trial", "trials", "room"),
    [
        ([{"CPU": 2.0}], {}, {}, 1, 1),
        ([{"CPU": 2.0}], {}, {}, 2, 0),
        ([{"CPU": 2.0}], {}, {"cpus": 2}, 1, 0),
        ([{"CPU": 2.0}], {}, {"cpus": 3}, 1, 0),  # the trial itself has no room
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}], {"gpus": 0.25}, {"cpus": 4}, 2, 4),  # trials keep off the GPU's node
        ([{"CPU": 8.0, "GPU": 1.0}], {"gpus": 0.25}, {"gpus": 0.5}, 1, 2),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"cpus": 2}, {"cpus": 1}, 2, 2),
    ],
)
def test_room_beside_workers_of_another_stage(monkeypatch, nodes, synthesis, trial, trials, room):
    has(monkeypatch, *nodes)
    runtime = ClusterSize(ClusterConfig())
    assert runtime.room_beside(WorkerResources(**synthesis), WorkerResources(**trial), trials) == room


def test_stages_that_cannot_work_side_by_side_are_refused_with_what_each_asks_for(monkeypatch):
    has(monkeypatch, {"CPU": 4.0, "GPU": 1.0})
    runtime, one = ClusterSize(ClusterConfig()), WorkerResources(gpus=1)
    runtime.check_beside("synthesis", WorkerResources(gpus=0.5), "search", WorkerResources(gpus=0.5), 1, "x")
    with pytest.raises(ClusterError) as refused:
        runtime.check_beside("synthesis", one, "search", one, 1, "search.start_after_shards (2) to null")
    for words in ("cluster.synthesis.gpus=1", "cluster.search.gpus=1", "has 4 CPUs, 1 GPUs", "(2) to null", "fraction"):
        assert words in str(refused.value)


def test_an_autoscaling_cluster_has_room_for_both_stages_in_what_it_may_grow_to(monkeypatch):
    has(monkeypatch, {"CPU": 2.0})
    runtime = ClusterSize(ClusterConfig(address="auto", max_cpus=10, max_gpus=4))
    assert runtime.room_beside(WorkerResources(gpus=1), WorkerResources(gpus=0.5), 2) == 3


def test_amounts_reach_ray_under_its_own_names():
    resources = WorkerResources(cpus=2, gpus=0.5, memory="1GB", custom={"spot": 1})
    assert resources.bundle() == {"CPU": 2.0, "GPU": 0.5, "memory": 1e9, "spot": 1.0}
    assert resources.options() == {"num_cpus": 2, "num_gpus": 0.5, "memory": 10**9, "resources": {"spot": 1.0}}
    assert WorkerResources().bundle() == {"CPU": 1.0}


@pytest.mark.parametrize("custom", [{"GPU": 1}, {"memory": 1}, {"spot": 0}])
def test_custom_resources_that_are_none_are_refused(custom):
    with pytest.raises(ValueError, match=r"setting of its own|above 0"):
        WorkerResources(custom=custom)


# joining through Ray Client

LOST_SERVER = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.

"""


@pytest.fixture
def joining(monkeypatch):
    """Return a function that makes Ray fail so many times before it joins; it returns the list of attempts."""

    def failing(error: Exception, times: int) -> list[str]:
        attempts = []

        def init(address, **options):
            attempts.append(address)
            if len(attempts) <= times:
                raise error

        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr("ray.init", init)
        monkeypatch.setattr("dfnas_ray.execution.ray.connection._probe", lambda address: None)
        monkeypatch.setattr("dfnas_ray.execution.ray.connection.Watch", lambda address: None)  # nothing runs
        return attempts

    return failing


def test_a_server_that_the_proxy_loses_is_asked_for_again_and_a_line_says_so(joining, caplog):
    attempts = joining(ConnectionAbortedError(LOST_SERVER), times=4)
    Connection(ClusterConfig(address="ray://head:10001")).ensure()
    assert attempts == ["ray://head:10001"] * 5
    assert len(caplog.messages) == 4
    for words in ("ray://head:10001", "Starting Ray client server failed", "attempt 2 of 5"):
        assert words in caplog.messages[0]


def test_a_proxy_that_never_starts_a_server_is_an_error_that_says_why_and_where_to_look(joining):
    attempts = joining(ConnectionAbortedError(LOST_SERVER), times=100)
    with pytest.raises(ClusterError) as raised:
        Connection(ClusterConfig(address="ray://head:10001")).ensure()
    assert len(attempts) == 5
    for words in ("5 attempts: RuntimeError: Starting Ray client server failed. See", "log folder", "dfnas submit"):
        assert words in str(raised.value)


@pytest.mark.parametrize("error", [ConnectionError("Version mismatch.\nlong"), RuntimeError("")])
def test_what_does_not_pass_by_itself_is_not_tried_again(joining, error):
    attempts = joining(error, times=100)
    with pytest.raises(
        ClusterError, match=r"cannot be reached: (Version mismatch|RuntimeError\(''\))\. Start a cluster"
    ):
        Connection(ClusterConfig(address="ray://head:10001")).ensure()
    assert len(attempts) == 1


# token_settings


@pytest.fixture
def not_a_home(tmp_path):
    """A home directory that nobody, an administrator included, can write."""
    (tmp_path / "file").touch()
    return str(tmp_path / "file" / "home")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files; nothing is left to the end of the process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda *args, **kwargs: None)
    return tmp_path


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_that_can_be_written_keeps_a_private_token_where_ray_looks_for_it(temporary):
    assert token_settings({"HOME": str(temporary / "home")}) == {}
    token = temporary / "home" / ".ray" / "auth_token"
    assert (mode_of(token), mode_of(token.parent)) == (0o600, 0o700)
    assert len(token.read_text()) == 64
    before = token.read_text()
    assert token_settings({"HOME": str(temporary / "home")}) == {}
    assert token.read_text() == before


def test_a_token_that_all_can_read_is_made_private_and_used(temporary):
    (temporary / ".ray").mkdir()
    token = temporary / ".ray" / "auth_token"
    token.write_text("a" * 64)
    token.chmod(0o644)
    assert token_settings({"HOME": str(temporary)}) == {}
    assert (mode_of(token), token.read_text()) == (0o600, "a" * 64)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_token_is_not_taken_for_one(temporary, content):
    (temporary / ".ray").mkdir()
    (temporary / ".ray" / "auth_token").write_bytes(content)
    assert list(token_settings({"HOME": str(temporary)})) == ["RAY_AUTH_TOKEN_PATH"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_another_user_of_the_machine_cannot_read_it(temporary):
    for folder in (temporary, *temporary.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o055)  # a home that others can enter
    token_settings({"HOME": str(temporary / "home")})
    (temporary / "home").chmod(0o755)
    done = subprocess.run(
        ["cat", temporary / "home" / ".ray" / "auth_token"], user=65534, group=65534, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("mode", [{}, {"RAY_AUTH_MODE": "token"}])
def test_without_a_home_the_token_is_in_a_private_temporary_directory(temporary, not_a_home, mode):
    for home in ({"HOME": not_a_home}, {}):
        settings = token_settings({**mode, **home})
        assert list(settings) == ["RAY_AUTH_TOKEN_PATH"]
        token = Path(settings["RAY_AUTH_TOKEN_PATH"])
        assert token.parent.parent == temporary
        assert (mode_of(token.parent), mode_of(token)) == (0o700, 0o600)
        assert len(token.read_text()) == 64


def test_every_token_is_another(temporary, not_a_home):
    paths = [token_settings({"HOME": not_a_home})["RAY_AUTH_TOKEN_PATH"] for _ in range(2)]
    assert Path(paths[0]).read_text() != Path(paths[1]).read_text()


@pytest.mark.parametrize("chosen", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"])
def test_what_the_user_chose_stays(temporary, not_a_home, chosen):
    assert token_settings({"HOME": not_a_home, chosen: "disabled"}) == {}


def test_where_no_private_file_can_be_written_no_cluster_is_started(monkeypatch, not_a_home):
    monkeypatch.setattr(tempfile, "tempdir", not_a_home)
    with pytest.raises(ClusterError, match=r"kept neither below HOME .* Set TMPDIR or HOME .* RAY_AUTH_TOKEN"):
        token_settings({"HOME": not_a_home})


# starting


class FakeReaper:
    """Keeps what it should say."""

    sentences: ClassVar[list[str]] = []

    def __init__(self):
        self.sentences.clear()

    def expect(self, sentence):
        self.sentences.append(sentence)


def failing_start(monkeypatch, *errors):
    left = list(errors)

    def init(**options):
        if left:
            raise left.pop(0)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("dfnas_ray.execution.ray.connection._START_PAUSE", 0)
    monkeypatch.setattr("dfnas_ray.execution.ray.connection.Watch", lambda address: None)  # nothing runs
    monkeypatch.setattr("dfnas_ray.execution.ray.connection.Reaper", FakeReaper)
    Connection(ClusterConfig()).ensure()
    return left


BUSY = Exception("The current node timed out during startup. This could happen because ...")


def test_whoever_watches_from_outside_speaks_only_while_ray_starts(monkeypatch):
    failing_start(monkeypatch, BUSY)
    assert [sentence[:36] for sentence in FakeReaper.sentences] == ["error: This command ended while Ray ", ""] * 2
    with pytest.raises(ClusterError):
        failing_start(monkeypatch, RuntimeError("no"))
    assert FakeReaper.sentences[-1] == ""


def test_a_start_on_a_busy_machine_is_tried_again(monkeypatch, caplog):
    assert failing_start(monkeypatch, BUSY, BUSY) == []
    assert "Ray did not start (The current node timed out" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BUSY, r"timed out during startup.*\. The machine is too busy: wait .* or use --address inline"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes: '/tmp/x'"), "set TMPDIR to a short path"),
        (OSError(errno.EMFILE, "Too many open files"), r"Raise the number of open files \(ulimit -n 4096\)"),
        (RuntimeError("something"), "something. Look into /tmp/ray/session_latest/logs, or use --address inline"),
    ],
)
def test_a_machine_where_no_cluster_starts_is_told_with_what_to_do(monkeypatch, error, said):
    with pytest.raises(ClusterError, match="Ray cannot be started on this machine: ") as raised:
        failing_start(monkeypatch, *[error] * 9)
    assert re.search(said, str(raised.value))
    assert "use --address local" not in str(raised.value)


def test_the_limit_of_open_files_is_raised_or_named(monkeypatch):
    asked = []
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: asked.append(limits))
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, 64))
    with pytest.raises(ClusterError, match=r"may open 64 files at once, and Ray needs 512\. Raise the limit"):
        allow_open_files()
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    allow_open_files()
    assert asked == [(4096, 4096)]


# autoscaling


@pytest.fixture
def growing(monkeypatch):
    """A cluster whose head has 2 CPUs, and which may grow."""
    has(monkeypatch, {"CPU": 2.0})
    return ClusterSize(ClusterConfig(address="auto", max_cpus=10, max_gpus=2))


def test_an_autoscaling_cluster_is_planned_for_what_it_may_grow_to(growing):
    growing.check_fits("search", WorkerResources(gpus=0.5), 4)
    assert growing.room_for(WorkerResources(gpus=0.5)) == 4  # by its GPUs
    assert growing.room_for(WorkerResources(cpus=4, custom={"spot": 1})) == 2  # by its CPUs


def test_more_than_an_autoscaling_cluster_may_grow_to_is_refused(growing):
    with pytest.raises(ClusterError, match="the cluster has 2") as raised:
        growing.check_fits("search", WorkerResources(gpus=1), 3)
    assert "cluster.max_gpus" in str(raised.value)


@pytest.mark.parametrize(
    ("nodes", "worker", "room"),
    [
        ([{"CPU": 4.0}], {"gpus": 1}, 8),
        ([{"CPU": 4.0}], {"gpus": 1, "cpus": 4}, 8),
        ([{"CPU": 4.0}], {"gpus": 1, "cpus": 8, "memory": "64GB", "custom": {"spot": 1}}, 8),
        ([{"CPU": 4.0}], {"gpus": 1, "placement": "STRICT_SPREAD"}, 8),
        ([{"CPU": 4.0}], {"gpus": 1, "placement": "STRICT_PACK"}, 8),
        ([{"CPU": 4.0, "GPU": 4.0}], {"gpus": 1, "cpus": 4}, 1 + 4),  # here by CPUs, on new nodes by GPUs
        ([{"CPU": 4.0, "GPU": 8.0}], {"gpus": 1, "cpus": 4}, 1),  # nothing can be added
        ([{"CPU": 4.0}], {"cpus": 2}, 2),  # nobody said that nodes come for work without a GPU
    ],
)
def test_gpus_that_may_be_added_bring_their_own_cpus(monkeypatch, nodes, worker, room):
    has(monkeypatch, *nodes)
    runtime, resources = ClusterSize(ClusterConfig(address="auto", max_gpus=8)), WorkerResources(**worker)
    assert runtime.room_for(resources) == room
    runtime.check_fits("retraining", resources, room)
    with pytest.raises(ClusterError):
        runtime.check_fits("retraining", resources, room + 1)


def test_more_gpu_work_than_may_be_added_is_refused_for_its_gpus_not_for_cpus(monkeypatch):
    has(monkeypatch, {"CPU": 1.0})
    runtime = ClusterSize(ClusterConfig(address="auto", max_gpus=2))
    with pytest.raises(ClusterError, match=r"asks for 3 GPUs .*the cluster has 2\. Lower retraining.num_workers to 2"):
        runtime.check_fits("retraining", WorkerResources(gpus=1, cpus=4), 3)
    with pytest.raises(ClusterError, match="asks for 4 CPUs"):
        runtime.check_fits("retraining", WorkerResources(cpus=4))


@pytest.mark.parametrize(
    ("synthesis", "trial", "trials", "room"),
    [
        ({"gpus": 1, "cpus": 4}, {"gpus": 0.5, "cpus": 4}, 2, 7),
        ({"gpus": 1, "cpus": 4}, {"cpus": 2}, 2, 8),  # the trials have the CPUs that are there
        ({"gpus": 1, "cpus": 4}, {"cpus": 2}, 3, 0),  # the third trial has none
        ({"cpus": 1}, {"gpus": 1, "cpus": 4}, 8, 4),
        ({"cpus": 1}, {"gpus": 1, "cpus": 4}, 9, 0),
    ],
)
def test_gpus_that_may_be_added_bring_cpus_for_one_stage_beside_another(monkeypatch, synthesis, trial, trials, room):
    has(monkeypatch, {"CPU": 4.0})
    runtime = ClusterSize(ClusterConfig(address="auto", max_gpus=8))
    assert runtime.room_beside(WorkerResources(**synthesis), WorkerResources(**trial), trials) == room


def test_a_joined_cluster_without_room_is_told_of_the_autoscaling_limits(monkeypatch):
    has(monkeypatch, {"CPU": 2.0})
    with pytest.raises(ClusterError, match=r"If the cluster autoscales, say with cluster\.max_gpus"):
        ClusterSize(ClusterConfig(address="auto")).check_fits("synthesis", WorkerResources(gpus=1))


def test_a_worker_for_which_no_node_has_come_is_told_once_and_again_after_one_came_and_went(monkeypatch, caplog):
    monkeypatch.setattr(waiting, "_EVERY", 0.02)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    has(monkeypatch, {"CPU": 4.0})
    size, resources = ClusterSize(ClusterConfig(max_gpus=4)), WorkerResources(cpus=1, gpus=1)

    def told(number: int) -> bool:
        return (
            len([record for record in caplog.records if "No node of the cluster has room" in record.message]) == number
        )

    with waiting.waiting_is_told(size, "synthesis", resources):
        wait_for(lambda: told(1))
        assert "cluster.synthesis.cpus=1, cluster.synthesis.gpus=1" in caplog.text
        time.sleep(0.1)
        assert told(1)
        has(monkeypatch, {"CPU": 4.0, "GPU": 1.0})
        time.sleep(0.1)
        assert told(1)
        has(monkeypatch, {"CPU": 4.0})
        wait_for(lambda: told(2))
    with waiting.waiting_is_told(size, "synthesis", WorkerResources(cpus=1)):
        time.sleep(0.1)
    assert told(2)


def test_a_lost_connection_ends_neither_the_telling_nor_prints_its_traceback(monkeypatch, caplog, capsys):
    monkeypatch.setattr(waiting, "_EVERY", 0.02)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    asked = []

    def nodes():
        asked.append(1)
        if len(asked) < 3:
            raise TypeError("of Ray Client, whose channel is gone")
        return []

    monkeypatch.setattr("ray.nodes", nodes)
    with waiting.waiting_is_told(ClusterSize(ClusterConfig(max_gpus=4)), "synthesis", WorkerResources(cpus=1, gpus=1)):
        wait_for(lambda: "No node of the cluster has room" in caplog.text)
    assert capsys.readouterr().err == ""


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
