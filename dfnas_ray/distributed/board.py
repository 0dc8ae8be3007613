"""A board on which workers anywhere write how far they are, and from which the driver reads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfnas_ray.progress import Task

_INTERVAL_SECONDS = 0.5


class _Board:
    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    def write(self, worker: str, done: float, note: str) -> None:
        self.done[worker] = done
        if note:
            self.notes[worker] = note

    def read(self) -> tuple[float, str]:
        return sum(self.done.values()), "  ".join(self.notes[worker] for worker in sorted(self.notes))


class ProgressBoard:
    """A handle that can be sent to workers. Losing the board loses progress bars, never work."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()

    def writer(self, worker: str) -> Callable[[float, str], None]:
        """Return a function ``write(done, note)`` that reports at most twice a second."""
        actor, last = self._actor, [0.0]

        def write(done: float, note: str = "") -> None:
            if time.monotonic() - last[0] >= _INTERVAL_SECONDS:
                last[0] = time.monotonic()
                actor.write.remote(worker, done, note)

        return write

    @contextmanager
    def shown_on(self, task: Task) -> Iterator[None]:
        """Keep a bar up to date while the block runs."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(_INTERVAL_SECONDS):
                with contextlib.suppress(Exception):  # the board may be gone with its node: the bar then stands still
                    done, note = ray.get(self._actor.read.remote(), timeout=2)
                    task.advance_to(done, note)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            ray.kill(self._actor)
