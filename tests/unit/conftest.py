"""Teachers shared by the unit tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from dfnas_ray.seeding import fixed_threads
from dfnas_ray.teachers import DigitsTeacherConfig, Teacher
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors on one thread: many threads are slower, and very slow on a machine that is busy."""
    with fixed_threads(1):
        yield


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory):
    """The folder that holds the digits teacher's weights once `digits_teacher` has trained it."""
    return tmp_path_factory.mktemp("digits-teacher")


@pytest.fixture(scope="session")
def digits_teacher(digits_cache) -> Teacher:
    """The built-in teacher at its default settings, trained once (seconds). Do not alter it."""
    return DigitsTeacherConfig().load(digits_cache)


@pytest.fixture
def make_teacher() -> Callable[..., Teacher]:
    """Return a function that freezes any model as a teacher of 16x16 grey images."""

    def make(model: nn.Module, image_shape=(1, 16, 16), mean=0.5, std=0.25, name="tiny") -> Teacher:
        channels = image_shape[0]
        return freeze_teacher(name, model, image_shape, [mean] * channels, [std] * channels)

    return make


@pytest.fixture
def tiny_teacher(make_teacher) -> Teacher:
    """An untrained digits CNN of width 4, fresh for each test, with arbitrary but fixed weights and statistics."""
    generator = torch.Generator().manual_seed(5)
    model = DigitsCNN(width=4)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return make_teacher(model)


@pytest.fixture
def graphs(monkeypatch) -> list:
    """Whatever is compiled is traced and called as it was, which needs no C++ compiler; the list of traced graphs."""
    seen: list = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return seen


@pytest.fixture
def broken_compiler(monkeypatch):
    """A torch.compile whose function fails as it does where no C++ compiler is installed; returns the call count."""
    calls = []

    def fake_compile(function, **options):
        def compiled(*args):
            calls.append(args)
            raise torch._inductor.exc.InvalidCxxCompiler

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    return calls
