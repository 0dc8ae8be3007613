"""A lease: only one command at a time works in a run directory where no file can be locked, as in an object store.

Each command keeps a small object of its own in a folder and renews it. To begin, it writes its object and then lists
the folder. Stores list what was written before, so of two commands at least one sees the other. Signs of life are
compared by the store's own modification times, so the machines' clocks do not matter.

A command that cannot reach the store for longer than DEAD_SECONDS may be considered dead. It stops as soon as it
reaches the store again and finds that its object was removed, or that another command holds the lease after a renewal
that hung. Until then both may write: whole files, and for the same settings the same bytes.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, Field

from dfnas_ray.errors import AlteredError, StorageError, printable, shortened
from dfnas_ray.storage.location import Location

logger = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
DEAD_SECONDS = 45.0
_ELSEWHERE = "another machine"


class Sign(BaseModel):
    """The content of a command's object. Any other content counts as a command on another machine."""

    host: str = Field(_ELSEWHERE, pattern=r"\S")
    pid: int = Field(0, ge=0, lt=2**31)
    state: Literal["waiting", "holding"] = "holding"


class Lease:
    """The right of one command to work in a location."""

    def __init__(
        self,
        where: Location,
        renew_seconds: float = RENEW_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
        wait: Callable[[float], object] = time.sleep,
        name: str = ".lock",
    ):
        self.where, self.renew_seconds, self.dead_seconds, self.wait = where, renew_seconds, dead_seconds, wait
        self.folder = where / name
        self.own = self.folder / f"{uuid.uuid4().hex}.json"
        self._is_lost, self._renewed = False, time.monotonic()
        self._about = {"host": _host(), "pid": os.getpid(), "started": time.time()}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease while the block runs, in the main thread.

        Raises:
            StorageError: another command holds the lease and is alive, or took the lease while the block ran.
        """
        self._renew("waiting")
        try:
            self._await_the_others()
            while self._renew("holding"):
                self._await_the_others()
            over = threading.Event()
            renewal = threading.Thread(target=self._keep_renewing, args=(over,), daemon=True)
            renewal.start()
            try:
                yield
            except (KeyboardInterrupt, SystemExit) as stop:
                if self._is_lost:
                    raise StorageError(self._loss) from stop
                raise
            finally:
                over.set()
                renewal.join()
        finally:
            with suppress(StorageError):
                self.own.delete_file()

    def _renew(self, state: str) -> bool:
        """Write the object. Return whether the last one may have become too old meanwhile."""
        last, self._renewed = self._renewed, time.monotonic()
        self.own.write_json({**self._about, "state": state})
        return time.monotonic() - last > self.dead_seconds

    def _keep_renewing(self, over: threading.Event) -> None:
        in_doubt = False  # another command may have removed the object before it was written again
        while not over.wait(self.renew_seconds):
            try:
                if not self.own.exists():
                    self._stop()
                    return
                in_doubt = self._renew("holding") or in_doubt
                others = [about.state for _, about in self._others().values()] if in_doubt else []
                if "holding" in others:
                    self._stop()
                    return
                in_doubt = bool(others)  # one that waits may have looked before
            except StorageError as error:
                logger.warning("%s", error)

    @property
    def _loss(self) -> str:
        return (
            f"This command did not reach {self.where} for more than {self.dead_seconds:.0f} s. It was considered dead, "
            "and another command has continued in its place. The results of both are kept."
        )

    def _stop(self) -> None:
        """End the block. From this thread, only a signal can do that."""
        self._is_lost = True
        logger.error("%s", self._loss)
        # SIGINT may be ignored, as in the background of a shell; Ray turns SIGTERM into a SystemExit.
        number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
        main = threading.main_thread().ident
        assert main is not None, "it has started"
        signal.pthread_kill(main, number)  # to that thread itself, so that a blocking call in it ends too

    def _await_the_others(self) -> None:
        first_seen: dict[str, int] = {}
        while others := self._others():
            for name, (sign, about) in others.items():
                if name not in first_seen:
                    first_seen[name] = sign
                    logger.warning(
                        "A command on %s was at work here: waiting up to %.0f s to see whether it still is.",
                        _shown(about),
                        self.dead_seconds,
                    )
                goes_first = about.state == "holding" or name < self.own.name  # of two that wait, the lesser name
                if goes_first and sign != first_seen[name]:  # it is alive
                    raise StorageError(
                        f"Another command is working in {self.where} (process {about.pid} on {_shown(about)}). "
                        "Wait for it, or give this one another run_dir."
                    )
            self.wait(self.renew_seconds / 2)
            self._renew("waiting")

    def _others(self) -> dict[str, tuple[int, Sign]]:
        """Return the other commands that may be alive: name -> last sign of life in ns, and the object's content."""
        modified = {info.base_name: info.mtime_ns for info in self.folder.file_infos()}
        now = modified.pop(self.own.name, None)
        found = {}
        for name, sign in modified.items():
            file = self.folder / name
            try:
                about = file.read_model(Sign)
            except AlteredError:
                about = Sign()
            except StorageError:
                continue  # the command has just ended
            silent = now is not None and now - sign > self.dead_seconds * 1e9
            if silent or (about.host == _host() and not psutil.pid_exists(about.pid)):
                with suppress(StorageError):
                    file.delete_file()
            else:
                found[name] = (sign, about)
        return found


def _host() -> str:
    """Return a name for this machine and its process numbers: containers and clones may share the host's name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _shown(about: Sign) -> str:
    return about.host if about.host == _ELSEWHERE else printable(shortened(about.host.split()[0], 60))
