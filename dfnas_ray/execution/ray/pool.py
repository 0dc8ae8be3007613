"""A pool of actors that process items, and that may die.

A queue of items, a set of actors that are still starting, and a map of running calls. An actor whose process or node is
lost is replaced and its item goes back to the queue. An actor that cannot be placed waits among the starting ones.
An actor that raises while it starts would do so again and again: after a few attempts the pool goes on without it.
(`ray.util.ActorPool` hangs when a node is lost without replacement, and Ray's own retries of a task that runs out of memory
never end.)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic

import ray
from ray.exceptions import RayError, RayTaskError

from dfnas_ray.config.cluster import WorkerResources
from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.base import Crew, Item, Result, Work
from dfnas_ray.execution.ray.actors import end_actor
from dfnas_ray.execution.ray.connection import worker_device
from dfnas_ray.execution.ray.errors import failed_at_start, is_final, raised_in_worker, reason_of
from dfnas_ray.execution.ray.sending import put
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.storage.location import Location

logger = logging.getLogger(__name__)

_MAX_REPLACEMENTS_PER_ACTOR = 5
_STOP_SECONDS = 2.0  # between two checks whether the pool must stop


class Worker(Generic[Item, Result]):
    """The actor: prepared once, then given one item after the other."""

    def __init__(self, work: Work[Item, Result], threads: int, marker: Location):
        self._threads, self._marker = threads, marker
        self._do = work.prepare(worker_device(threads))

    def ready(self) -> None:
        """Return when the actor has started and sees the run directory.

        Raises:
            ClusterError: it does not see the run directory.
        """
        check_seen(self._marker)

    def do(self, item: Item) -> Result:
        """Process one item, and return its result."""
        worker_device(self._threads)
        return self._do(item)


def actor_maker(work: Work[Any, Any], resources: WorkerResources, marker: Location) -> Callable[[], Any]:
    """Return a function that starts an actor for some work. The work is put into the object store only once."""
    actor_class = ray.remote(
        **resources.options(),
        max_restarts=0,
        scheduling_strategy="SPREAD" if resources.placement in ("SPREAD", "STRICT_SPREAD") else "DEFAULT",
    )(Worker)
    shared = put(work)
    return lambda: actor_class.remote(shared, resources.cpus, marker)


class Pool(Generic[Item, Result]):
    """Actors at work on the items of one `Work`.

    Args:
        make_actor: Starts an actor that has ``ready()`` and ``do(item)``.
        work: The work, which names stage and items in messages.
        attempts: The attempts for an item, and the failed starts of actors in a row.
        size: The most actors at once.
        crew: Its callbacks are used.
    """

    def __init__(
        self,
        make_actor: Callable[[], Any],
        work: Work[Item, Result],
        attempts: int,
        size: int,
        crew: Crew | None = None,
    ):
        self._make_actor, self._work, self._attempts, self._size = make_actor, work, attempts, size
        self._crew = crew or Crew()
        self._queue: deque[tuple[Item, int]] = deque()  # item, attempt
        self._waiting: dict[Item, list[Item]] = {}  # item -> the items that wait for it
        self._starting: dict[Any, Any] = {}  # ready() call -> actor
        self._running: dict[Any, tuple[Any, Item, int]] = {}  # do() call -> actor, item, attempt
        self._failed: dict[Item, str] = {}
        self._replacements = 0
        self._failed_starts = 0  # in a row

    def run(
        self,
        items: Sequence[Item],
        on_done: Callable[[Item, Result], object],
        after: Mapping[Item, Item] | None = None,
    ) -> dict[Item, str]:
        """Process all items, and return the reason for each item that failed.

        Raises:
            ClusterError: actors keep dying, or none can start.
        """
        wanted = set(items)
        for item in items:
            before = after.get(item) if after else None
            if before is not None and before in wanted:
                self._waiting.setdefault(before, []).append(item)
            else:
                self._queue.append((item, 1))
        try:
            for _ in range(min(self._size, len(self._queue))):
                self._start()
            while self._running or self._queue:
                self._fill_up()
                calls = [*self._starting, *self._running]
                finished, _ = ray.wait(calls, num_returns=1, timeout=_STOP_SECONDS)
                if self._crew.should_stop():
                    break
                for call in finished:
                    if call in self._starting:
                        self._handle_started(call)
                    else:
                        self._handle_done(call, on_done)
        finally:
            for actor in [*self._starting.values(), *(actor for actor, _, _ in self._running.values())]:
                end_actor(actor)
        return self._failed

    def _start(self) -> None:
        actor = self._make_actor()
        self._starting[actor.ready.remote()] = actor

    def _fill_up(self) -> None:
        wanted = min(self._size, len(self._queue) + len(self._running))
        if len(self._running) < wanted and not self._starting and self._failed_starts < self._attempts:
            self._start()

    def _handle_started(self, call: Any) -> None:
        actor = self._starting.pop(call)
        try:
            ray.get(call)
        except RayError as error:
            if isinstance(error, RayTaskError) and is_final(error):
                raise raised_in_worker(error) from None
            if failed_at_start(error):
                self._start_again(reason_of(error, self._work.stage))
            else:
                self._replace(reason_of(error, self._work.stage))
        else:
            self._failed_starts = 0
            self._crew.on_started()
            self._give_work(actor)

    def _handle_done(self, call: Any, on_done: Callable[[Item, Result], object]) -> None:
        actor, item, attempt = self._running.pop(call)
        try:
            result = ray.get(call)
        except RayTaskError as error:
            if is_final(error):
                self._fail(item, reason_of(error, self._work.stage))
                logger.error("%s cannot be done: %s", self._name(item), self._failed[item])
            else:
                self._try_again(item, attempt, reason_of(error, self._work.stage))
            self._give_work(actor)
        except RayError as error:
            self._try_again(item, attempt, reason_of(error, self._work.stage))
            if self._queue:
                self._replace(reason_of(error, self._work.stage))
        else:
            on_done(item, result)
            self._queue.extendleft((follower, 1) for follower in reversed(self._waiting.pop(item, [])))
            self._give_work(actor)

    def _give_work(self, actor: Any) -> None:
        if self._queue:
            item, attempt = self._queue.popleft()
            self._running[actor.do.remote(item)] = (actor, item, attempt)
        else:
            end_actor(actor)

    def _try_again(self, item: Item, attempt: int, reason: str) -> None:
        name, attempts = self._name(item), self._attempts
        if attempt < attempts:
            logger.warning("%s failed (%s): attempt %d of %d follows.", name, reason, attempt + 1, attempts)
            self._queue.append((item, attempt + 1))
        else:
            logger.error("%s failed for good after %d attempts: %s", name, attempts, reason)
            self._fail(item, reason)

    def _fail(self, item: Item, reason: str) -> None:
        self._failed[item] = reason
        for follower in self._waiting.pop(item, []):
            self._fail(follower, self._work.cannot_follow(item))

    def _replace(self, reason: str) -> None:
        self._replacements += 1
        if self._replacements > _MAX_REPLACEMENTS_PER_ACTOR * self._size:
            raise ClusterError(
                f"Workers of the {self._work.stage} stage keep dying ({self._replacements} so far; the last one: {reason}). "
                f"What is finished is kept: look into Ray's logs, {self._work.advice}, and run again."
            )
        logger.warning("A worker of the %s stage died (%s) and is replaced.", self._work.stage, reason)
        self._start()

    def _start_again(self, reason: str) -> None:
        stage, attempts = self._work.stage, self._attempts
        self._failed_starts += 1
        if self._failed_starts < attempts:
            logger.warning(
                "A worker of the %s stage cannot start (%s): attempt %d of %d follows.",
                stage,
                reason,
                self._failed_starts + 1,
                attempts,
            )
            self._start()
        elif self._running:
            logger.warning(
                "A worker of the %s stage cannot start (%s): the work goes on with %d.",
                stage,
                reason,
                len(self._running),
            )
        else:
            raise ClusterError(
                f"Workers of the {stage} stage cannot start ({self._failed_starts} attempts, cluster.{stage}.attempts; the "
                f"last one: {reason}). What is finished is kept. Every node must be able to import what the teacher needs, "
                f"and to hold its model: cluster.{stage}.gpus=1 gives a worker a whole GPU, 0 none. Then run again."
            )

    def _name(self, item: Item) -> str:
        return f"{self._work.item.capitalize()} {item}"
