"""Two gloo processes that search together find what one process finds on the same global batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from dfnas_ray.algorithms.base import SearchProblem
from dfnas_ray.algorithms.darts import DartsSearchConfig
from dfnas_ray.algorithms.proxyless import ProxylessSearchConfig
from dfnas_ray.search_spaces.chain import ChainSpace, Position
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.parallel import average_gradients

pytestmark = pytest.mark.xdist_group("parallel_search")  # two processes are started once for all

ALGORITHMS = {
    "darts": DartsSearchConfig(epochs=3, batch_size=16),
    "darts-second-order": DartsSearchConfig(epochs=2, batch_size=16, order="second"),
    "proxyless": ProxylessSearchConfig(epochs=3, warmup_epochs=1, batch_size=16),
}


class SmoothSpace(ChainSpace):
    """Three places of smooth options without BatchNorm, whose statistics would be each process's own."""

    kind = "smooth"

    def __init__(self):
        super().__init__([Position(4, 4, 1)] * 3, (1, 8, 8), 5)

    def stem(self):
        return nn.Conv2d(1, 4, 3, padding=1)

    def head(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 5))

    def option_names(self, position):
        return ("wide", "narrow", "identity")

    def make_option(self, position, choice):
        if choice == 2:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(4, 4, 3 - 2 * choice, padding=1 - choice), nn.Tanh())


def found(name, rank=0, world_size=1, hook=None):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    teacher = freeze_teacher("t", model, (1, 8, 8), (0.5,), (0.25,))
    data = SyntheticImages(
        images=rng.integers(0, 256, (128, 1, 8, 8), dtype=np.uint8),
        labels=np.zeros(128, np.int64),
        rounds=np.zeros(128, np.int64),
        logits=3 * rng.normal(size=(128, 5)).astype(np.float32),
        ids=np.arange(128, dtype=np.uint64),
    )
    distillation = DistillationConfig(labels="stored")
    placed = DeviceImages(data, torch.device("cpu"))
    batches = SyntheticBatches(placed, teacher, distillation, 16 // world_size, 0, rank, world_size)
    extra = {} if hook is None else {"average_gradients": hook}
    search = ALGORITHMS[name].algorithm(
        SearchProblem(SmoothSpace(), batches, batches, distillation, None, 0, "float32", **extra)
    )
    while search.is_training:
        search.train_epoch()
    return torch.cat([alphas.detach().flatten() for alphas in search.architecture.alphas])


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name in ALGORITHMS:
        torch.save(found(name, rank, 2, average_gradients), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder with what two processes found with every algorithm: most of the time is that of their start."""
    folder = tmp_path_factory.mktemp("together")
    mp.start_processes(process, (str(folder),), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_processes_end_with_the_alphas_of_one(name, together):
    first, second = (torch.load(together / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, found(name), rtol=0, atol=1e-5)


def test_without_averaging_two_processes_drift_apart(tmp_path):
    """Else the test above could not fail."""
    ours, theirs = (found("darts", rank, 2) for rank in (0, 1))
    assert (ours - theirs).abs().max() > 1e-4
