"""Seeds by name."""

import random
from hashlib import blake2b

import numpy as np
import pytest
import torch

from dfnas_ray.seeding import derive_seed, fixed_threads, numpy_generator, seed_everything, torch_generator


def test_derived_seed_has_the_value_that_stored_runs_were_made_with():
    # A change of this number silently invalidates every shard and trial that users have kept.
    assert derive_seed(0, "synthesis", "shard", 3) == 7_821_860_445_495_823_475


def test_derived_seed_is_the_upper_63_bits_of_blake2b():
    digest = blake2b(b"7/str:shard/int:12", digest_size=8).hexdigest()
    assert derive_seed(7, "shard", 12) == int(digest, 16) // 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "a", "b"), (0, "b", "a")),
        ((0, "a", "b"), (0, "a")),
        ((0, "a", "b"), (0, "a", "c")),
        ((0, "a", "b"), (0, "c", "b")),
        ((0, "a"), (1, "a")),
        ((0, 1), (0, "1")),
        ((0, "ab"), (0, "a", "b")),
        ((1, 2, 3), (12, 3)),
        ((0, ""), (0,)),
    ],
    ids=str,
)
def test_derived_seed_depends_on_root_order_type_and_every_name(one, other):
    assert derive_seed(*one) != derive_seed(*other)


def test_a_name_that_holds_the_separator_is_not_two_names():
    assert derive_seed(0, "a/str:b") != derive_seed(0, "a", "b")


def test_derived_seeds_fit_a_signed_64_bit_integer_and_do_not_collide():
    seeds = [derive_seed(0, "shard", index) for index in range(2_000)]
    assert len(set(seeds)) == 2_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # the whole range is used


def test_seed_everything_repeats_the_draws_of_torch_numpy_and_random():
    def draws():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]

    seed_everything(derive_seed(1, "a"))  # larger than numpy's 32 bits
    first = draws()
    second = draws()
    seed_everything(derive_seed(1, "a"))
    assert draws() == first
    for before, after in zip(first, second, strict=True):
        assert before != after


def test_named_generators_ignore_the_global_state_and_leave_it_alone():
    torch.manual_seed(0)
    expected = torch.rand(1).item()
    torch.manual_seed(0)
    first = torch.rand(4, generator=torch_generator(3, "noise"))
    numpy_first = numpy_generator(3, "noise").random(4)
    assert torch.rand(1).item() == expected
    assert torch.equal(torch.rand(4, generator=torch_generator(3, "noise")), first)
    assert np.array_equal(numpy_generator(3, "noise").random(4), numpy_first)
    assert not torch.equal(torch.rand(4, generator=torch_generator(3, "crop")), first)
    assert not np.array_equal(numpy_generator(3, "crop").random(4), numpy_first)


def test_fixed_threads_holds_inside_and_restores_after():
    before = torch.get_num_threads()
    with fixed_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_fixed_threads_restores_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), fixed_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before
