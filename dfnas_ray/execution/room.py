"""Room for a synthesis beside a search, so that neither waits for the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.execution.base import Executor
from dfnas_ray.progress import Listener


@dataclass(frozen=True)
class RoomForBoth:
    """The room that an executor has while the trials of a search run."""

    executor: Executor
    search: SearchConfig

    def check(self) -> None:
        """Make sure that there is room for a synthesis worker beside a search trial.

        Raises:
            ClusterError: there is none. The message says what each worker asks for.
        """
        self.executor.check_fits("synthesis")
        self.executor.check_fits("search", self._places)
        self.executor.check_beside(
            "synthesis",
            "search",
            self._places,
            f"search.start_after_shards ({self.search.start_after_shards}) to null, which lets the search wait for all "
            "shards",
        )

    def num_actors(self, listener: Listener) -> int:
        """Return the number of synthesis workers that leaves room for search trials.

        At least one trial has room. Others get room as long as the workers keep half of the places that they would have
        alone.

        Args:
            listener: Gets a message if there are fewer workers than were asked for.

        Raises:
            ClusterError: there is no room for one of each.
        """
        self.check()
        executor, synthesis, trial = self.executor, self.executor.cluster.synthesis, self.executor.cluster.search
        most = executor.room_beside(synthesis, trial, self._places)
        if synthesis.actors is None:
            enough = max(1, executor.room_for(synthesis) / 2)
            counts = range(2, len(self.search.trials) + 1)
            rooms = (executor.room_beside(synthesis, trial, count * self._places) for count in counts)
            return min([most, *takewhile(lambda room: room >= enough, rooms)])
        if synthesis.actors > most:
            listener.say(
                f"{most} of {synthesis.actors} synthesis actors (cluster.synthesis.actors) are at work: more would leave no "
                "room for a search trial."
            )
        return min(most, synthesis.actors)

    @property
    def _places(self) -> int:
        """The places of one trial: its own, and those of its scoring workers."""
        return 1 + self.executor.cluster.search.scoring_workers
