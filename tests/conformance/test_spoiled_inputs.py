"""Networks of a space, losses and datasets of other packages may do what they like with what they are given."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.algorithms.base import SearchProblem, SearchState, make_algorithm
from dfnas_ray.algorithms.config import ALGORITHMS
from dfnas_ray.algorithms.zero_cost.proxies import Proxy
from dfnas_ray.errors import SynthesisError
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.regularizers import RegularizerConfig
from dfnas_ray.synthesis.work import MakeShards
from dfnas_ray.testing.small import IMAGE_SHAPE, NUM_CLASSES, SMALL_CHAIN, small_batches, small_images, small_teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

EVOLUTION = {"generations": 2, "population": 4, "parents": 2, "mutations": 2, "crossovers": 1}


def spoil(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let a network work on a copy, and leave nothing of what it was given."""
    x, *rest = inputs
    own = x.clone()
    with torch.no_grad():
        x.fill_(7)
    return (own, *rest)


class SpoilingConfig(NASBenchMacroConfig):
    """A space whose networks change their inputs in place."""

    kind: Literal["spoiling"] = "spoiling"  # type: ignore[assignment]  # a kind of its own

    def space(self, image_shape, num_classes):
        space = super().space(image_shape, num_classes)
        build, supernet = space.build, space.supernet

        def with_hook(make):
            def made(*arguments):
                network = make(*arguments)
                network.register_forward_pre_hook(spoil)
                return network

            return made

        space.build, space.supernet = with_hook(build), with_hook(supernet)
        return space


def searched(config, space_config):
    space = space_config.space(IMAGE_SHAPE, NUM_CLASSES)
    batches = small_batches()
    state = SearchState(make_algorithm(config, SearchProblem(space, batches, batches, DistillationConfig(), None, 0)))
    state.run()
    return state.history, state.algorithm.best()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("spos", {"epochs": 1, "batch_size": 16, "calibration_batches": 2, "evolution": EVOLUTION}),
        ("zero_cost", {"proxies": ("naswot", "zico", "az_nas"), "batch_size": 8, "evolution": EVOLUTION}),
        pytest.param(
            "alignment",
            {"candidates": 4, "initial": 2, "round_size": 2, "steps": 1, "batches": 1, "validation_batches": 1}
            | {"batch_size": 16, "surrogate": {"trees": 5, "pool": 20}},
            marks=pytest.mark.slow,
        ),
        pytest.param("darts", {"epochs": 2, "batch_size": 16, "order": "second"}, marks=pytest.mark.slow),
        pytest.param("proxyless", {"epochs": 2, "warmup_epochs": 1, "batch_size": 16}, marks=pytest.mark.slow),
        pytest.param(
            "proxyless",
            {"update": "reinforce", "epochs": 2, "warmup_epochs": 1, "batch_size": 16},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_search_in_a_space_whose_networks_spoil_their_inputs_is_the_same(kind, settings):
    config = ALGORITHMS.find(kind)(**settings)
    spoiling = SpoilingConfig(**SMALL_CHAIN.model_dump(exclude={"kind"}))
    assert searched(config, spoiling) == searched(config, SMALL_CHAIN)


class SoftConfig(RegularizerConfig):
    """Looks at what it is given, and spoils it afterwards."""

    kind: Literal["soft"] = "soft"
    observes: ClassVar[frozenset[str]] = frozenset({"step"})
    spoils: bool = False

    def loss(self):
        def soft(observation):
            value = observation.logits.mean()
            if self.spoils:
                with torch.no_grad():
                    observation.targets.zero_()
                    observation.step.fill_(99)
                observation.images.mul_(0)
            return value

        return soft


class ShiftsConfig(SoftConfig):
    kind: Literal["shifts"] = "shifts"  # type: ignore[assignment]  # a kind of its own
    observes: ClassVar[frozenset[str]] = frozenset({"bn_inputs"})

    def loss(self):
        def shifts(observation):
            observation.bn_inputs[0].x.add_(1)
            return observation.images.mean()

        return shifts


class Careless(InversionConfig):
    """A synthesizer that leaves its teacher in another state."""

    kind: Literal["careless"] = "careless"  # type: ignore[assignment]  # a kind of its own

    def synthesizer(self, teacher, settings, device):
        made = InversionConfig.synthesizer(self, teacher, settings, device)
        teacher.model.train()
        with torch.no_grad():
            for parameter in teacher.model.parameters():
                parameter.zero_()
        return made


def settings(method=InversionConfig, **regularizers):
    method = method(batch_size=4, rounds=1, scales=[{"scale": 1, "steps": 3}], warmup_steps=1)
    return SynthesisConfig(
        num_shards=1, images_per_shard=4, compile=False, precision="float32", method=method, regularizers=regularizers
    )


def images_of(config):
    *_, made = config.method.synthesizer(small_teacher(), config, torch.device("cpu")).make(0, 0)
    return made.images


def test_a_loss_of_another_package_has_copies():
    clean, spoiling = (settings(soft=SoftConfig(weight=0.1, spoils=spoils)) for spoils in (False, True))
    np.testing.assert_array_equal(images_of(spoiling), images_of(clean))
    with pytest.raises(SynthesisError, match=r"changes what BatchNorm layers received \(bn_inputs\) in place"):
        images_of(settings(shifts=ShiftsConfig(weight=0.1)))


class _Kept:
    """Stands for a teacher where all workers can get it."""

    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


def test_a_synthesizer_of_another_package_has_a_teacher_of_its_own():
    teacher = small_teacher()
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    job = type("Job", (), {"config": settings(Careless)})()
    MakeShards(_Kept(teacher), job, board=None)(torch.device("cpu"))  # type: ignore[arg-type]  # makes nothing
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    assert not any(module.training for module in teacher.model.modules())


class SpoilsAll(Proxy):
    kind = "spoils_all"
    figures = ("spoils_all",)

    def measure(self, candidate):
        with torch.no_grad():
            for parameter in candidate.network.parameters():
                parameter.zero_()
            for tensor in (candidate.probe, *(t for batch in candidate.batches for t in batch)):
                tensor.zero_()
        return {"spoils_all": 0.0}


def test_a_proxy_of_another_package_has_a_network_and_images_of_its_own():
    zero_cost = ALGORITHMS.find("zero_cost")
    path = f"{__name__}:SpoilsAll"
    space = SMALL_CHAIN.space(IMAGE_SHAPE, NUM_CLASSES)
    measured = []
    for proxies in (("zico", "expressivity"), (path, "zico", "expressivity")):
        config = zero_cost(proxies=proxies, batch_size=8, evolution=EVOLUTION)
        batches = small_batches()
        problem = SearchProblem(space, batches, batches, DistillationConfig(), None, 0)
        measured.append(make_algorithm(config, problem).scorer()([space.cheapest()])[0])
    assert {name: value for name, value in measured[1].items() if name != "spoils_all"} == measured[0]


def test_logits_that_a_search_divides_are_its_own():
    batches = small_batches()
    before = batches.images.logits.clone()
    for batch in batches.unvaried():
        batch.teacher_logits.div_(4)
    assert torch.equal(batches.images.logits, before)


def test_varied_images_are_labelled_and_learned_from_as_they_are():
    config = DistillationConfig()
    teacher, spoiling = small_teacher(), small_teacher()
    spoiling.model.register_forward_pre_hook(spoil)
    served = [
        list(SyntheticBatches(DeviceImages(small_images(), torch.device("cpu")), each, config, 16, 0).epoch(0))
        for each in (teacher, spoiling)
    ]
    for plain, other in zip(*served, strict=True):
        assert torch.equal(plain.images, other.images)
        torch.testing.assert_close(plain.teacher_logits, other.teacher_logits)
