"""One command at a time where nothing can be locked."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dfnas_ray.errors import StorageError
from dfnas_ray.storage import lease as module
from dfnas_ray.storage.lease import Lease
from dfnas_ray.storage.location import Location

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ELSEWHERE = {"host": "elsewhere pid:[1]", "pid": 7, "started": 0.0, "state": "holding"}


@pytest.fixture
def where(tmp_path) -> Location:
    return Location.parse(tmp_path)


def quick(where: Location, wait=time.sleep) -> Lease:
    return Lease(where, renew_seconds=0.05, dead_seconds=0.5, wait=wait)


def left(where: Location) -> list[str]:
    """The leases that are there; one that is being written has another name until it is whole."""
    return [name for name in (where / ".lock").file_names() if not name.startswith(".")]


def test_a_lease_is_renewed_while_it_is_held_and_gone_afterwards(where):
    with quick(where).held():
        (name,) = left(where)
        about = (where / ".lock" / name).read_json()
        first = os.stat(f"{where}/.lock/{name}").st_mtime_ns  # noqa: PTH116
        assert (about["pid"], about["state"]) == (os.getpid(), "holding")
        time.sleep(0.3)
        assert os.stat(f"{where}/.lock/{name}").st_mtime_ns > first  # noqa: PTH116
    assert left(where) == []


def test_a_second_command_is_refused_while_the_first_is_alive(where):
    with quick(where).held():
        with pytest.raises(StorageError, match=rf"Another command is working .*process {os.getpid()} on"):
            quick(where).held().__enter__()
        assert len(left(where)) == 1
    with quick(where).held():
        pass


def test_a_command_that_shows_no_sign_of_life_is_waited_for_and_then_taken_over(where, caplog):
    (where / ".lock" / "0.json").write_json(ELSEWHERE)
    started = time.monotonic()
    with quick(where).held():
        assert time.monotonic() - started >= 0.3
        assert "0.json" not in left(where)
    assert "A command on elsewhere was at work here" in caplog.text


def test_a_dead_process_of_this_machine_is_not_waited_for(where):
    (where / ".lock" / "0.json").write_json({**ELSEWHERE, "host": module._host(), "pid": 2**22 + 1})
    waits: list[float] = []
    with quick(where, waits.append).held():
        assert waits == []
        assert "0.json" not in left(where)


def test_a_command_that_starts_at_the_same_time_gives_way_to_the_lesser_name(where):
    def renew(seconds: float = 0.0) -> None:
        (where / ".lock" / "0.json").write_json({**ELSEWHERE, "state": "waiting"})

    renew()
    with pytest.raises(StorageError, match="Another command"):
        quick(where, wait=renew).held().__enter__()
    assert left(where) == ["0.json"]


def test_a_command_that_died_while_it_waited_is_waited_for_and_then_taken_over(where):
    (where / ".lock" / "0.json").write_json({**ELSEWHERE, "state": "waiting"})
    with quick(where).held():
        assert "0.json" not in left(where)


def test_a_rival_with_a_greater_name_is_waited_out(where):
    rival = where / ".lock" / "z.json"
    rival.write_json({**ELSEWHERE, "state": "waiting"})
    with quick(where, wait=lambda seconds: rival.delete_file()).held():
        assert len(left(where)) == 1


def test_many_that_start_at_once_never_work_together(where):
    working, most, done = [], [], []
    guard = threading.Lock()

    def command() -> None:
        try:
            with quick(where).held():
                with guard:
                    working.append(1)
                    most.append(len(working))
                time.sleep(0.4)
                with guard:
                    working.pop()
                    done.append(1)
        except StorageError:
            pass

    threads = [threading.Thread(target=command) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most, default=0) <= 1
    assert left(where) == []


def test_a_lease_written_by_another_version_counts_as_held(where):
    (where / ".lock" / "0.json").write_bytes(json.dumps({"who": "me"}).encode())
    with quick(where).held():
        assert "0.json" not in left(where)  # silent for long enough


@pytest.fixture(params=["sigint", "sigterm"])
def stoppable(request):
    """The main thread hears SIGINT; or only SIGTERM, as a command in the background of a shell, once Ray is started."""

    def leave(number, frame):
        raise SystemExit(number)

    heard = {"sigint": (signal.default_int_handler, signal.SIG_DFL), "sigterm": (signal.SIG_IGN, leave)}[request.param]
    before = [signal.signal(number, handler) for number, handler in zip(SIGNALS, heard, strict=True)]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_a_command_that_was_taken_for_dead_stops_when_it_reaches_the_store_again(where, caplog, stoppable):
    waited_in_vain = []

    def work() -> None:
        (where / ".lock" / left(where)[0]).delete_file()
        time.sleep(10)
        waited_in_vain.append(True)

    with (
        pytest.raises(StorageError, match="was considered dead, and another command has continued"),
        quick(where).held(),
    ):
        work()
    assert not waited_in_vain, "what it waits in ends at once"
    assert left(where) == [], "its object is not written again"
    assert "considered dead" in caplog.text


def hanging(where: Location, at_write, slow: int = 3, wait=time.sleep) -> Lease:
    """A lease of which one write takes longer than a command may be silent; the third is its first renewal."""
    lease, writes = quick(where, wait), []

    class Slow(Location):
        def write_json(self, value):
            writes.append(value)
            if len(writes) == slow:
                time.sleep(0.7)
            at_write(lease, len(writes))
            super().write_json(value)

    lease.own = Slow(lease.own.filesystem, lease.own.path)
    return lease


@pytest.mark.parametrize("holds_at", [3, 5])
def test_a_command_whose_renewal_hung_stops_if_another_has_taken_over(where, stoppable, holds_at):
    """One that still waited when this one looked may have begun since: this one looks again."""

    def take_over(lease: Lease, number: int) -> None:
        if number == 3:
            lease.own.delete_file()
        if number >= 3:
            state = "waiting" if number < holds_at else "holding"
            (where / ".lock" / "z.json").write_json({**ELSEWHERE, "state": state})

    with (
        pytest.raises(StorageError, match="was considered dead, and another command has continued"),
        hanging(where, take_over).held(),
    ):
        time.sleep(5)
    assert left(where) == ["z.json"]


def test_a_command_that_began_too_late_looks_again_before_its_work(where):
    def show_life(seconds: float = 0.0) -> None:
        (where / ".lock" / "z.json").write_json(ELSEWHERE)

    def take_over(lease: Lease, number: int) -> None:
        if number == 2:  # as the lease's holder
            lease.own.delete_file()
            show_life()

    with pytest.raises(StorageError, match="Another command is working"):
        hanging(where, take_over, slow=2, wait=show_life).held().__enter__()
    assert left(where) == ["z.json"]


def test_a_command_whose_renewal_hung_goes_on_if_nobody_has_taken_over(where):
    numbers: list[int] = []
    with hanging(where, lambda lease, number: numbers.append(number)).held():
        time.sleep(1.2)
    assert max(numbers) > 4


def test_ctrl_c_is_passed_on(where):
    with pytest.raises(KeyboardInterrupt), quick(where).held():
        raise KeyboardInterrupt


def test_two_machines_of_one_name_are_told_apart(where, monkeypatch):
    mine = module._host()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot_id in mine
    other = mine.replace(boot_id, "00000000-0000-0000-0000-000000000000")
    (where / ".lock" / "0.json").write_json({**ELSEWHERE, "host": other, "pid": 2**22 + 1})
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    with quick(where, wait).held():
        assert waits, "no process of that number here says nothing about one there"
