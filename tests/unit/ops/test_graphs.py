"""Steps that a GPU records and replays: the same as those that are launched kernel by kernel."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from dfnas_ray.ops import graphs
from dfnas_ray.ops.graphs import GraphedCall
from dfnas_ray.testing.small import small_teacher
from dfnas_ray.training.batches import Batch
from dfnas_ray.training.config import OptimizerConfig
from dfnas_ray.training.student import Student

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; passed on an H200, see gpu.md")


def test_without_a_gpu_the_function_is_called():
    calls = []
    double = GraphedCall(lambda x: calls.append(x) or 2 * x, torch.device("cpu"))
    assert [double(torch.tensor(float(n))).item() for n in range(6)] == [0, 2, 4, 6, 8, 10]
    assert len(calls) == 6


def train(steps):
    device = torch.device("cuda")
    torch.manual_seed(0)
    student = Student(small_teacher().model.train().requires_grad_(True).to(device), OptimizerConfig(), 4.0, steps)
    student.make_recordable()
    learn = GraphedCall(lambda images, logits: student.learn(Batch(images, logits)), device)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        images, logits = torch.randn(8, 1, 16, 16, generator=generator), torch.randn(8, 10, generator=generator)
        student.begin_step()
        losses.append(learn(images.to(device), logits.to(device)).clone())
    return torch.stack(losses).cpu(), student.model.state_dict()


@needs_gpu
def test_a_recorded_training_is_that_of_single_kernels():
    losses, weights = train(12)
    with mock.patch.object(graphs, "_EAGER_CALLS", 1000):
        expected_losses, expected_weights = train(12)
    torch.testing.assert_close(losses, expected_losses)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value)


@needs_gpu
def test_what_cannot_be_recorded_goes_on_with_one_warning(caplog):
    total = GraphedCall(lambda x: x * x.sum().item(), torch.device("cuda"))
    for _ in range(6):
        assert total(torch.ones(2, device="cuda")).tolist() == [2, 2]
    assert len([record for record in caplog.records if "CUDA graph" in record.message]) == 1
