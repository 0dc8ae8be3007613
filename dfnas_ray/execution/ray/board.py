"""A board on which workers anywhere write their progress and what happened, and from which the driver reads."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfnas_ray.execution.ray.actors import end_actor
from dfnas_ray.progress import Task, Write

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0  # even on a busy cluster, events must reach the log


class _Board:
    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self.starts: Counter[str] = Counter()
        self.events: list[str] = []

    def write(self, worker: str, done: float, note: str) -> None:
        self.done[worker] = done
        if note:
            self.notes[worker] = note

    def start(self, worker: str, where: str) -> None:
        self.starts[worker] += 1
        if self.starts[worker] > 1:
            self.events.append(f"{worker} was interrupted: start {self.starts[worker]} continues {where}.")

    def read(self, num_seen: int) -> tuple[float, str, list[str]]:
        """Return how much is done, the notes, and the events after the first ``num_seen``.

        Events stay on the board: an answer that arrives too late, or never, must not take them along.
        """
        notes = "  ".join(self.notes[worker] for worker in sorted(self.notes))
        return sum(self.done.values()), notes, self.events[num_seen:]


class ProgressBoard:
    """A handle that can be sent to workers. Losing the board loses bars and remarks, never work."""

    def __init__(self) -> None:
        # Not soft: otherwise an actor without CPUs may be placed on any node, and be lost with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()

    def writer(self, worker: str) -> Write:
        """Return a function ``write(done, note)`` that reports at most twice a second."""
        actor, last = self._actor, [0.0]

        def write(done: float, note: str = "") -> None:
            if time.monotonic() - last[0] >= _INTERVAL_SECONDS:
                last[0] = time.monotonic()
                actor.write.remote(worker, done, note)

        return write

    def start(self, worker: str, where: str) -> None:
        """Record that a worker starts. The driver logs a line if it started before under this command.

        Args:
            worker: The worker's name for users, as the beginning of a sentence.
            where: The point from which it continues, such as "after epoch 3".
        """
        with contextlib.suppress(RayError):  # without a board the work goes on, unremarked
            # Wait until it is recorded: if the worker dies at once, a message on its way would be lost.
            ray.get(self._actor.start.remote(worker, where), timeout=_PATIENCE_SECONDS)

    @contextmanager
    def shown_on(self, task: Task) -> Iterator[None]:
        """While the block runs, keep a bar up to date and log events."""
        stop = threading.Event()
        num_seen = 0

        def show(timeout: float) -> None:
            nonlocal num_seen
            if not ray.is_initialized():  # `ray.get` would start a cluster of its own
                return
            with contextlib.suppress(Exception):  # the board may be gone with its node: the bar then stands still
                done, note, events = ray.get(self._actor.read.remote(num_seen), timeout=timeout)
                task.advance_to(done, note)
                for event in events:
                    logger.warning("%s", event)
                num_seen += len(events)

        def follow() -> None:
            while not stop.wait(_INTERVAL_SECONDS):
                show(timeout=2)
            show(timeout=_PATIENCE_SECONDS)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            end_actor(self._actor)
