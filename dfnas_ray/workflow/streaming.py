"""A search that starts while its images are still being made (`search.start_after_shards`).

Actors make shards in the background, under a thread of this process, while the trials run. Trials never wait for a shard
(execution/ray/search_trials.py), so both stages can share a cluster without ever waiting for each other. What needs all
images, evolution and the comparison of finalists, comes afterwards, as in a search that waited.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

from dfnas_ray.config.cluster import SearchResources, SynthesisResources
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.storage.shards import shard_name
from dfnas_ray.workflow import stages
from dfnas_ray.workflow.session import Session


def synthesize_and_search(
    session: Session, stage: StageDir, kept: stages.Entries, *, search: StageDir, begin: Callable[[StageDir], float]
) -> dict[str, Any]:
    """Make the shards that are not ``kept``, and let the search go as far as it can meanwhile.

    Args:
        session: The command, with `search.start_after_shards`.
        stage: Of the synthesis.
        kept: Manifest entries of the shards that are there, by number.
        search: The search's stage, which is not finished.
        begin: Called with ``search`` when the first shards are there; returns when that was, on the monotonic clock.

    Returns:
        The synthesis stage's summary.

    Raises:
        SynthesisError: some shards cannot be made. The others are committed, and the trials' states are kept.
        ClusterError: a trial has no room beside a synthesis actor.
    """
    config = session.config.synthesis
    todo = stages.missing_shards(session, kept)
    if not todo:
        return stages.synthesize(session, stage, kept)
    for name in {shard_name(shard) for shard in todo} & set(stage.location.file_names()):
        (stage.location / name).delete_file()  # a damaged one must not be taken for one that is made
    num_actors = min(len(todo), actors_beside_trials(session))
    started = time.monotonic()
    with BackgroundSynthesis(session, stage, kept, num_actors) as synthesis:
        synthesis.wait_for(session.config.search.start_after_shards or 1)
        begun = begin(search)
        folder = ShardFolder(stage.location, stage.key, config.num_shards, config.rows_per_shard)
        stages.search_beside_synthesis(session, search, folder)
        entries = synthesis.result()
    making, beside = synthesis.ended - started, max(0.0, synthesis.ended - begun)
    measured = time.monotonic()
    summary = stages.describe_images(session, stage, entries, len(todo), num_actors)
    measuring = time.monotonic() - measured
    return {
        **summary,
        "seconds": round(making + measuring, 2),
        "seconds_beside_search": round(beside + measuring, 2),  # counted by both stages
    }


def check_room_for_both(session: Session) -> None:
    """Make sure that the cluster holds a synthesis actor beside a search trial.

    Raises:
        ClusterError: it does not; says what each asks for.
    """
    runtime, cluster, search = session.runtime, session.config.cluster, session.config.search
    workers = 1 + cluster.search.scoring_workers
    runtime.check_fits("synthesis", cluster.synthesis)
    runtime.check_fits("search", cluster.search, workers)
    runtime.check_beside(
        "synthesis", cluster.synthesis, "search", cluster.search, workers,
        f"search.start_after_shards ({search.start_after_shards}) to null, which lets the search wait for all shards",
    )  # fmt: skip


def actors_beside_trials(session: Session) -> int:
    """Return how many synthesis actors there are, so that search trials have room beside them.

    Room is left for all trials, as far as the actors keep half of what they would have alone, and for one in any case.

    Raises:
        ClusterError: there is no room for one of each.
    """
    check_room_for_both(session)
    runtime, cluster, search = session.runtime, session.config.cluster, session.config.search
    synthesis: SynthesisResources = cluster.synthesis
    trial: SearchResources = cluster.search
    workers = 1 + trial.scoring_workers
    most = runtime.room_beside(synthesis, trial, workers)
    if synthesis.actors is None:
        enough = max(1, runtime.room_for(synthesis) / 2)
        rooms = (runtime.room_beside(synthesis, trial, count * workers) for count in range(2, len(search.trials) + 1))
        return min([most, *takewhile(lambda room: room >= enough, rooms)])
    if synthesis.actors > most:
        session.listener.say(
            f"{most} of {synthesis.actors} synthesis actors (cluster.synthesis.actors) are at work: more would leave no "
            "room for a search trial."
        )
    return min(most, synthesis.actors)


class BackgroundSynthesis:
    """Shards that are made while the block runs; stopped if the block fails.

    Attributes:
        ended: When the last shard was made, on the monotonic clock.
    """

    def __init__(self, session: Session, stage: StageDir, kept: stages.Entries, num_actors: int):
        self._session, self._stage, self._kept, self._num_actors = session, stage, kept, num_actors
        self._entries = dict(kept)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._has_started = self._has_ended = False
        self._error: BaseException | None = None
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
        """Return when so many shards are committed and an actor has its place.

        Raises:
            DfnasError: the work has ended by then, and some shards cannot be made.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or (self._has_started and len(self._entries) >= shards))
            if self._error is not None:
                raise self._error

    def result(self) -> stages.Entries:
        """Wait for all shards and return the manifest's entries.

        Raises:
            DfnasError: some shards cannot be made.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._entries

    def _make(self) -> None:
        try:
            stages.make_shards(
                self._session,
                self._stage,
                self._kept,
                self._num_actors,
                self._on_made,
                self._on_started,
                self._stop.is_set,
            )
        except BaseException as error:
            self._error = error  # raised again for whoever asks for the result
        finally:
            with self._changed:
                self.ended, self._has_ended = time.monotonic(), True
                self._changed.notify_all()

    def _on_started(self) -> None:
        with self._changed:
            self._has_started = True
            self._changed.notify_all()

    def _on_made(self, entry: dict[str, Any]) -> None:
        with self._changed:
            self._entries[entry["shard"]] = entry
            self._changed.notify_all()
