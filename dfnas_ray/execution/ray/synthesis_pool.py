"""Synthesis on a pool of actors that may die.

A queue of shards, a set of actors that are still starting, and a map of running calls. An actor whose process or node is
lost is replaced and its shard goes back to the queue; an actor that cannot be placed just waits among the starting ones.
An actor that raises while it starts would do so again and again: after a few attempts the pool goes on without it.
(`ray.util.ActorPool` hangs when a node is lost without replacement.)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from dfnas_ray.config.cluster import SynthesisResources
from dfnas_ray.errors import ClusterError, DfnasError, SynthesisError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion import Inverter, OnSteps
from dfnas_ray.synthesis.shard import ShardImages, synthesize_shard
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)

_MAX_REPLACEMENTS_PER_ACTOR = 5
_STOP_SECONDS = 2.0  # between two looks at whether the pool is to stop


@dataclass(frozen=True)
class ShardJob:
    """What every shard of one stage has in common."""

    config: SynthesisConfig
    seed: int
    key: str
    teacher_fingerprint: str
    folder: Location


class _SynthesisActor:
    def __init__(self, teacher: Teacher, job: ShardJob, threads: int, board: ProgressBoard):
        self.job, self.board, self.threads = job, board, threads
        self.inverter = Inverter(teacher, job.config, worker_device(threads))

    def ready(self) -> None:
        """Return when the actor has started, and sees where its shards belong.

        Raises:
            ClusterError: it does not see it.
        """
        check_seen(self.job.folder)

    def make(self, shard: int) -> dict[str, Any]:
        """Synthesize, label and commit one shard; return its line in the manifest."""
        worker_device(self.threads)
        write = self.board.writer(f"shard {shard}")
        done = 0

        def on_steps(images: int) -> None:
            nonlocal done
            done += images
            write(done, "")

        return make_shard(self.inverter, self.job, shard, on_steps)


def make_shard(inverter: Inverter, job: ShardJob, shard: int, on_steps: OnSteps) -> dict[str, Any]:
    """Synthesize, label and commit one shard; return its line in the manifest."""
    return commit_shard(synthesize_shard(inverter, job.seed, shard, on_steps), job, shard)


def commit_shard(made: ShardImages, job: ShardJob, shard: int) -> dict[str, Any]:
    """Write a finished shard, whole or not at all; return its line in the manifest."""
    info = ShardInfo(
        key=job.key,
        shard=shard,
        num_shards=job.config.num_shards,
        teacher=job.teacher_fingerprint,
        curves=[[asdict(point) for point in curve] for curve in made.curves],
    )
    data = encode_shard(info, made.images, made.labels, made.rounds, made.logits)
    (job.folder / shard_name(shard)).write_bytes(data)
    return manifest_entry(shard, data, len(made.labels))


def run_pool(
    make_actor: Callable[[], Any],
    shards: Sequence[int],
    num_actors: int,
    attempts: int,
    on_made: Callable[[dict[str, Any]], None],
    on_started: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, str]:
    """Have actors make all ``shards``; return the reason for each shard that could not be made.

    Args:
        make_actor: Starts an actor that has ``ready()`` and ``make(shard)``.
        shards: Their numbers.
        num_actors: At work at once.
        attempts: Per shard, and in a row at starting an actor. A shard's error that the user has to mend is final at once.
        on_made: Called with each shard's manifest entry as soon as the shard is committed.
        on_started: Called whenever an actor has got its place and is ready.
        should_stop: Asked every few seconds; the pool ends early when it returns True.

    Raises:
        ClusterError: actors keep dying, or none can start.
    """
    queue = deque((shard, 1) for shard in shards)
    starting: dict[Any, Any] = {}  # ready() call -> actor
    running: dict[Any, tuple[Any, int, int]] = {}  # make() call -> actor, shard, attempt
    failed: dict[int, str] = {}
    replacements = 0
    start_failures = 0  # in a row

    def start() -> None:
        actor = make_actor()
        starting[actor.ready.remote()] = actor

    def give_work(actor: Any) -> None:
        if queue:
            shard, attempt = queue.popleft()
            running[actor.make.remote(shard)] = (actor, shard, attempt)
        else:
            ray.kill(actor)

    def try_again(shard: int, attempt: int, reason: str) -> None:
        if attempt < attempts:
            logger.warning("Shard %d failed (%s): attempt %d of %d follows.", shard, reason, attempt + 1, attempts)
            queue.append((shard, attempt + 1))
        else:
            logger.error("Shard %d failed for good after %d attempts: %s", shard, attempts, reason)
            failed[shard] = reason

    def replace(reason: str) -> None:
        nonlocal replacements
        replacements += 1
        if replacements > _MAX_REPLACEMENTS_PER_ACTOR * num_actors:
            raise ClusterError(
                f"Synthesis actors keep dying ({replacements} so far; the last one: {reason}). Committed shards are kept: "
                "look into Ray's logs, give an actor more memory or fewer images (synthesis.batch_size), and run again."
            )
        logger.warning("A synthesis actor died (%s) and is replaced.", reason)
        start()

    def start_again(reason: str) -> None:
        nonlocal start_failures
        start_failures += 1
        if start_failures < attempts:
            logger.warning(
                "A synthesis actor cannot start (%s): attempt %d of %d follows.", reason, start_failures + 1, attempts
            )
            start()
        elif running:
            logger.warning("A synthesis actor cannot start (%s): the work goes on with %d.", reason, len(running))
        else:
            raise ClusterError(
                f"Synthesis actors cannot start ({start_failures} attempts, cluster.synthesis.attempts; the last one: "
                f"{reason}). Committed shards are kept: make every node able to import what the teacher needs, and to hold "
                "its model (cluster.synthesis.gpus=1 gives an actor a whole GPU, 0 none), and run again."
            )

    try:
        for _ in range(min(num_actors, len(shards))):
            start()
        while running or queue:
            is_short = len(running) < min(num_actors, len(queue) + len(running))
            if is_short and not starting and start_failures < attempts:
                start()
            finished, _ = ray.wait([*starting, *running], num_returns=1, timeout=_STOP_SECONDS)
            if should_stop():
                break
            for call in finished:
                if call in starting:
                    actor = starting.pop(call)
                    try:
                        ray.get(call)
                    except RayError as error:
                        if isinstance(error, RayTaskError) and isinstance(error.cause, ClusterError):
                            raise error.cause from None
                        again = start_again if _raised_at_start(error) else replace
                        again(_reason(error))
                    else:
                        start_failures = 0
                        on_started()
                        give_work(actor)
                    continue
                actor, shard, attempt = running.pop(call)
                try:
                    on_made(ray.get(call))
                except RayTaskError as error:
                    if isinstance(error.cause, SynthesisError):  # the same numbers would fail again
                        failed[shard] = str(error.cause)
                        logger.error("Shard %d cannot be made: %s", shard, error.cause)
                    else:
                        try_again(shard, attempt, _reason(error))
                    give_work(actor)
                except RayError as error:
                    try_again(shard, attempt, _reason(error))
                    if queue:
                        replace(_reason(error))
                else:
                    give_work(actor)
    finally:
        for actor in [*starting.values(), *(actor for actor, _, _ in running.values())]:
            ray.kill(actor)
    return failed


def synthesize_shards(
    teacher: Teacher,
    job: ShardJob,
    shards: Sequence[int],
    resources: SynthesisResources,
    num_actors: int,
    board: ProgressBoard,
    on_made: Callable[[dict[str, Any]], None],
    on_started: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Make the given shards on ``num_actors`` Ray actors; the teacher goes into the object store once.

    The callbacks are those of `run_pool`.

    Raises:
        SynthesisError: some shards cannot be made; names them. The others are committed.
    """
    actor_class = ray.remote(
        **resources.options(),
        max_restarts=0,
        scheduling_strategy="SPREAD" if resources.placement == "SPREAD" else "DEFAULT",
    )(_SynthesisActor)
    shared_teacher = ray.put(teacher)
    failed = run_pool(
        lambda: actor_class.remote(shared_teacher, job, resources.cpus, board),
        shards,
        num_actors,
        resources.attempts,
        on_made,
        on_started,
        should_stop,
    )
    if failed:
        listed = "; ".join(f"shard {shard}: {reason}" for shard, reason in sorted(failed.items())[:3])
        raise SynthesisError(
            f"{len(failed)} of {job.config.num_shards} shards could not be made ({listed}). The other shards are kept; "
            "change the setting that is named, or run the same command again for these shards alone."
        )


def _raised_at_start(error: RayError) -> bool:
    return isinstance(error, RayActorError) and error.actor_init_failed


def _reason(error: RayError) -> str:
    if _raised_at_start(error):
        return _raised(str(error))  # all that Ray keeps of the cause
    if not isinstance(error, RayTaskError):
        return f"its process or its node was lost: {type(error).__name__}"
    cause = error.cause
    if isinstance(cause, DfnasError):
        return str(cause)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[-1]}" if lines else type(cause).__name__


def _raised(traceback: str) -> str:
    """Return the last error of a traceback of Ray's, without further lines of its message."""
    lines = traceback.strip().splitlines()
    message = list(takewhile(lambda line: not line.startswith(" ") and "ray::" not in line, reversed(lines)))
    return message[-1].strip() if message else lines[-1].strip()
