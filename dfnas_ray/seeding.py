"""Seeds by name: the same shard or trial draws the same numbers in any process, on any machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


def derive_seed(root: int, *names: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on ``root`` and every name, in order.

    The names say what the seed is for, e.g. ``derive_seed(0, "synthesis", "shard", 3)``. Never use a process id,
    a GPU index or a counter that depends on scheduling.
    """
    path = "/".join([str(root), *(f"{type(name).__name__}:{_escape(name)}" for name in names)])
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest(), "big") >> 1


def _escape(name: str | int) -> str:
    return str(name).replace("%", "%25").replace("/", "%2F")


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and random. Each stage worker calls this on entry."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def torch_generator(root: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator seeded by name. Draw on the CPU, then move the result: devices draw differently."""
    return torch.Generator().manual_seed(derive_seed(root, *names))


def numpy_generator(root: int, *names: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by name."""
    return np.random.Generator(np.random.PCG64(derive_seed(root, *names)))


@contextmanager
def fixed_threads(num_threads: int) -> Iterator[None]:
    """Run the block with exactly ``num_threads`` intra-op threads.

    Sums are split between threads, so the last bits of a result depend on the number of threads. Code that promises
    the same bytes on every run sets this number itself, instead of taking the machine's.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
