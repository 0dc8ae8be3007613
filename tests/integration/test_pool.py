"""The pool of synthesis actors, with actors that only pretend: they die and fail on cue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dfnas_ray.distributed.synthesis_pool import run_pool
from dfnas_ray.errors import ClusterError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]


@pytest.fixture
def pool(ray_cluster, tmp_path):
    """Return a function that runs the pool on actors that misbehave as told, and gives what was made and what failed."""
    import ray

    def run(behave, shards, num_actors=2, attempts=3, dies_at_start=False):
        class Pretender:  # local, so that it travels by value: workers cannot import this file
            def __init__(self, notes: str):
                if dies_at_start:
                    import os

                    os._exit(1)
                self.notes = notes

            def ready(self):
                pass

            def make(self, shard):
                import pathlib

                attempt = 1
                while True:  # each attempt leaves a file, whichever process makes it
                    try:
                        (pathlib.Path(self.notes) / f"{shard}-{attempt}").touch(exist_ok=False)
                        break
                    except FileExistsError:
                        attempt += 1
                behave(shard, attempt)
                return {"shard": shard}

        made: list[int] = []
        actor = ray.remote(num_cpus=0, max_restarts=0)(Pretender)
        failed = run_pool(
            lambda: actor.remote(str(tmp_path)), shards, num_actors, attempts, lambda entry: made.append(entry["shard"])
        )
        return made, failed

    return run


def attempts_at(notes: Path, shard: int) -> int:
    return len(list(notes.glob(f"{shard}-*")))


def test_every_shard_is_made_once(pool, tmp_path):
    made, failed = pool(lambda shard, attempt: None, range(5))
    assert Counter(made) == Counter(range(5))
    assert failed == {}
    assert [attempts_at(tmp_path, shard) for shard in range(5)] == [1] * 5


@pytest.mark.parametrize("num_actors", [1, 2])
def test_an_actor_that_dies_is_replaced_and_its_shard_is_made(pool, tmp_path, num_actors):
    def behave(shard, attempt):
        if shard == 1 and attempt == 1:
            import os

            os._exit(1)

    made, failed = pool(behave, range(4), num_actors)
    assert Counter(made) == Counter(range(4))
    assert failed == {}
    assert attempts_at(tmp_path, 1) == 2


def test_an_error_that_passes_is_tried_again(pool):
    def behave(shard, attempt):
        if attempt < 3:
            raise RuntimeError("out of luck")

    made, failed = pool(behave, [0, 1], attempts=3)
    assert Counter(made) == Counter([0, 1])
    assert failed == {}


def test_an_error_that_stays_is_reported_for_its_shard_only(pool, tmp_path):
    def behave(shard, attempt):
        if shard == 2:
            raise RuntimeError("out of luck")

    made, failed = pool(behave, range(4), attempts=3)
    assert Counter(made) == Counter([0, 1, 3])
    assert list(failed) == [2]
    assert "out of luck" in failed[2]
    assert attempts_at(tmp_path, 2) == 3


def test_an_error_that_the_user_has_to_mend_is_not_tried_again(pool, tmp_path):
    def behave(shard, attempt):
        from dfnas_ray.errors import SynthesisError

        if shard == 0:
            raise SynthesisError("the loss is not finite; lower synthesis.lr")

    made, failed = pool(behave, range(3), attempts=3)
    assert Counter(made) == Counter([1, 2])
    assert failed == {0: "the loss is not finite; lower synthesis.lr"}
    assert attempts_at(tmp_path, 0) == 1


def test_a_shard_that_kills_its_actor_every_time_is_reported_and_the_others_are_made(pool, tmp_path):
    def behave(shard, attempt):
        if shard == 0:
            import os

            os._exit(1)

    made, failed = pool(behave, range(3), num_actors=1, attempts=3)
    assert Counter(made) == Counter([1, 2])
    assert list(failed) == [0]
    assert attempts_at(tmp_path, 0) == 3


def test_actors_that_die_while_starting_end_in_an_error_not_in_a_wait(pool):
    with pytest.raises(ClusterError, match="keep dying"):
        pool(lambda shard, attempt: None, range(2), num_actors=1, dies_at_start=True)


def test_actors_that_die_at_every_shard_end_in_an_error_not_in_a_wait(pool):
    def behave(shard, attempt):
        import os

        os._exit(1)

    with pytest.raises(ClusterError, match="keep dying"):
        pool(behave, range(4), num_actors=1, attempts=3)
