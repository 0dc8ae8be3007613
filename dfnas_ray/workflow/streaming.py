"""A search that starts while its images are still being made (`search.start_after_shards`).

Workers make shards, controlled by a thread of this process, while the trials run. The trials never wait for a shard
(algorithms/trials.py). Evolution and the comparison of finalists need all images and come afterwards, as in a search
that waited.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from dfnas_ray.execution.base import Crew
from dfnas_ray.execution.room import RoomForBoth
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.manifest import ManifestEntry
from dfnas_ray.storage.shards import shard_name
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.synthesis import Synthesis, SynthesisRecord


def synthesize_beside(synthesis: Synthesis, search: Search) -> None:
    """Finish the synthesis while the search runs as far as it can. The search itself must be finished afterwards.

    Args:
        synthesis: The source of the search's images.
        search: A search with `search.start_after_shards` that is not finished.

    Raises:
        SynthesisError: some shards cannot be made. The others are committed, and the trials' states are kept.
        ClusterError: a trial has no room beside a synthesis worker.
    """
    session = search.session
    if synthesis.is_done:
        return
    room = RoomForBoth(session.executor, session.config.search)
    room.check()  # before anything is written
    todo = synthesis.missing()
    if not todo:
        synthesis.finish()
        return
    synthesis.begin()
    for name in {shard_name(shard) for shard in todo} & set(synthesis.location.file_names()):
        (synthesis.location / name).delete_file()  # so that a damaged shard does not count as a finished one
    config, started = session.config.synthesis, time.monotonic()
    num_actors = min(len(todo), room.num_actors(session.listener))
    with BackgroundSynthesis(synthesis, num_actors) as background:
        background.wait_for(session.config.search.start_after_shards or 1)
        search.begin()
        search.go_ahead(ShardFolder(synthesis.location, synthesis.key, config.num_shards, config.rows_per_shard))
        record = background.result()
    beside = max(0.0, background.ended - search.began)
    times = {"seconds": round(background.ended - started, 2), "seconds_beside_search": round(beside, 2)}
    synthesis.complete(record.model_copy(update=times))


class BackgroundSynthesis:
    """Makes a set of images while the block runs; stops if the block fails.

    Attributes:
        ended: When the set was finished, on the monotonic clock.
    """

    def __init__(self, synthesis: Synthesis, num_actors: int):
        self._synthesis = synthesis
        self._num_there = len(synthesis.intact)
        self._future = Future[SynthesisRecord]()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._crew = Crew(num_actors, self._on_started, self._stop.is_set)
        self._has_started = False
        self._thread = threading.Thread(target=self._make, name="synthesis", daemon=True)
        self.ended = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, shards: int) -> None:
        """Return when ``shards`` shards are committed and a worker has been placed.

        Raises:
            DfnasError: the work has failed, and there are fewer shards.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._future.done() or (self._has_started and self._num_there >= shards))
            if self._num_there < shards:
                self._future.result()  # raises the error

    def result(self) -> SynthesisRecord:
        """Wait for the whole set, and return its record.

        Raises:
            DfnasError: some shards cannot be made.
        """
        return self._future.result()

    def _make(self) -> None:
        try:
            self._future.set_result(self._synthesis.work(self._crew, self._on_made))
        except BaseException as error:
            self._future.set_exception(error)
        finally:
            with self._changed:
                self.ended = time.monotonic()
                self._changed.notify_all()

    def _on_started(self) -> None:
        with self._changed:
            self._has_started = True
            self._changed.notify_all()

    def _on_made(self, shard: int, entry: ManifestEntry) -> None:
        with self._changed:
            self._num_there += 1
            self._changed.notify_all()
