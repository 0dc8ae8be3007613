"""Work that is done in this process, one item after the other."""

from __future__ import annotations

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import SynthesisError
from dfnas_ray.execution.base import Work
from dfnas_ray.execution.inline import InlineExecutor
from dfnas_ray.storage.location import Location


def done_and_failed(folder, items, after, failing=()):
    def do(item):
        if item in failing:
            raise SynthesisError("the loss is not finite")
        return 10 * item

    done = {}
    work = Work("synthesis", "shard", lambda device: do)
    executor = InlineExecutor(ClusterConfig(), Location.parse(folder))
    failed = executor.map(work, items, done.__setitem__, after=after)
    assert done == {item: 10 * item for item in done}
    return list(done), failed


def test_an_item_is_done_directly_after_the_one_that_it_goes_on_from(tmp_path):
    assert done_and_failed(tmp_path, [0, 1, 2, 3], after={2: 0, 3: 1}) == ([0, 2, 1, 3], {})
    assert done_and_failed(tmp_path, [3, 0, 5], after={}) == ([3, 0, 5], {})


def test_an_item_whose_predecessor_is_not_among_them_is_done(tmp_path):
    assert done_and_failed(tmp_path, [2, 3], after={2: 0, 3: 1}) == ([2, 3], {})


def test_what_goes_on_from_a_failed_item_fails_with_it_and_says_why(tmp_path):
    done, failed = done_and_failed(tmp_path, [0, 1, 2, 3, 4], after={2: 0, 3: 1, 4: 2}, failing=[0])
    assert done == [1, 3]
    assert failed == {
        0: "the loss is not finite",
        2: "it continues from shard 0, which failed",
        4: "it continues from shard 2, which failed",
    }
