"""The pool of actors, with actors that only pretend: they die and fail on cue."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.base import Work
from dfnas_ray.execution.ray.pool import Pool

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]


@pytest.fixture
def pool(ray_cluster, tmp_path):
    """Return a function that runs the pool on actors that misbehave as told, and gives what was made and what failed."""
    import ray

    def run(behave, shards, num_actors=2, attempts=3, at_start=lambda start: None, teacher=None, after=None):
        class Pretender:  # local, so that it travels by value: workers cannot import this file
            def __init__(self, notes: str, teacher):
                self.notes = notes
                at_start(self.note("start"))

            def ready(self):
                pass

            def do(self, shard):
                behave(shard, self.note(shard))
                return 10 * shard

            def note(self, what):
                import pathlib

                attempt = 1
                while True:  # each attempt leaves a file, whichever process makes it
                    try:
                        (pathlib.Path(self.notes) / f"{what}-{attempt}").touch(exist_ok=False)
                        return attempt
                    except FileExistsError:
                        attempt += 1

        made: list[int] = []

        def on_done(shard, result):
            assert result == 10 * shard
            made.append(shard)

        actor, shared = ray.remote(num_cpus=0, max_restarts=0)(Pretender), ray.put(teacher)
        work = Work("synthesis", "shard", lambda device: lambda shard: None)
        pool = Pool(lambda: actor.remote(str(tmp_path), shared), work, attempts, num_actors)
        return made, pool.run(list(shards), on_done, after)

    return run


def attempts_at(notes: Path, what: int | str) -> int:
    return len(list(notes.glob(f"{what}-*")))


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
            raise SynthesisError("the loss is not finite; lower synthesis.method.lr")

    made, failed = pool(behave, range(3), attempts=3)
    assert Counter(made) == Counter([1, 2])
    assert failed == {0: "the loss is not finite; lower synthesis.method.lr"}
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
    def at_start(start):
        import os

        os._exit(1)

    with pytest.raises(ClusterError, match=r"keep dying.*its process or its node was lost"):
        pool(lambda shard, attempt: None, range(2), num_actors=1, at_start=at_start)


def test_an_error_at_the_start_of_every_actor_is_shown_after_a_few_attempts(pool, tmp_path):
    def at_start(start):
        raise RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to debug.\n")

    with pytest.raises(ClusterError) as raised:
        pool(lambda shard, attempt: None, range(4), num_actors=2, attempts=3, at_start=at_start)
    message = str(raised.value)
    for words in ("cannot start (3 attempts, ", "; the last one: RuntimeError: CUDA error: out of memory)", "gpus=1"):
        assert words in message
    assert "lost" not in message
    assert 3 <= attempts_at(tmp_path, "start") <= 4  # the second actor may have begun once more


def test_a_teacher_that_the_nodes_cannot_import_is_told_by_its_missing_module(pool, tmp_path, monkeypatch):
    name = "module_that_only_the_driver_of_a_test_has"
    (tmp_path / f"{name}.py").write_text("class Network:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = importlib.import_module(name).Network()
    with pytest.raises(ClusterError, match=rf"cannot start .*: ModuleNotFoundError: No module named '{name}'\)"):
        pool(lambda shard, attempt: None, range(2), num_actors=1, attempts=2, teacher=teacher)
    del sys.modules[name]


def test_an_error_at_the_start_that_passes_is_tried_again(pool, tmp_path):
    def at_start(start):
        if start < 3:
            raise RuntimeError("out of luck")

    made, failed = pool(lambda shard, attempt: None, range(3), num_actors=1, at_start=at_start)
    assert Counter(made) == Counter(range(3))
    assert failed == {}
    assert attempts_at(tmp_path, "start") == 3


def test_the_work_goes_on_with_those_that_could_start(pool, tmp_path):
    notes = str(tmp_path)

    def wait_for(name):
        import pathlib
        import time

        deadline = time.monotonic() + 60
        while not (pathlib.Path(notes) / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def at_start(start):
        if start > 1:
            wait_for("0-1")
            raise RuntimeError("somebody else has this GPU")

    def behave(shard, attempt):
        if shard == 0:
            wait_for("start-4")

    made, failed = pool(behave, range(4), num_actors=2, attempts=3, at_start=at_start)
    assert Counter(made) == Counter(range(4))
    assert failed == {}
    assert attempts_at(tmp_path, "start") == 4  # the one that works, and three attempts at another


def test_actors_that_die_at_every_shard_end_in_an_error_not_in_a_wait(pool):
    def behave(shard, attempt):
        import os

        os._exit(1)

    with pytest.raises(ClusterError, match="keep dying"):
        pool(behave, range(4), num_actors=1, attempts=3)


@pytest.mark.parametrize("num_actors", [1, 3])
def test_a_shard_is_made_after_the_one_that_it_goes_on_from(pool, tmp_path, num_actors):
    def behave(shard, attempt):
        if shard == 0 and attempt == 1:
            import os

            os._exit(1)

    made, failed = pool(behave, range(6), num_actors, after={2: 0, 3: 1, 4: 2, 5: 3})
    assert Counter(made) == Counter(range(6))
    assert failed == {}
    assert [shard for shard in made if shard % 2 == 0] == [0, 2, 4]
    assert [shard for shard in made if shard % 2] == [1, 3, 5]
    assert [attempts_at(tmp_path, shard) for shard in range(6)] == [2, 1, 1, 1, 1, 1]


def test_a_shard_whose_predecessor_is_there_already_is_made(pool):
    made, failed = pool(lambda shard, attempt: None, [2, 3], after={2: 0, 3: 1})
    assert Counter(made) == Counter([2, 3])
    assert failed == {}


@pytest.mark.parametrize("is_final", [False, True])
def test_what_goes_on_from_a_shard_that_cannot_be_made_fails_with_it_and_says_why(pool, tmp_path, is_final):
    def behave(shard, attempt):
        from dfnas_ray.errors import SynthesisError

        if shard == 0:
            raise SynthesisError("the loss is not finite") if is_final else RuntimeError("out of luck")

    made, failed = pool(behave, range(5), num_actors=2, attempts=2, after={2: 0, 3: 1, 4: 2})
    assert made == [1, 3]
    assert sorted(failed) == [0, 2, 4]
    assert failed[2] == "it continues from shard 0, which failed"
    assert failed[4] == "it continues from shard 2, which failed"
    assert [attempts_at(tmp_path, shard) for shard in (0, 2, 4)] == [1 if is_final else 2, 0, 0]
