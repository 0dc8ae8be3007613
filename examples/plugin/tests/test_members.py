"""The members keep what dfnas-ray expects of any, and compute what they say."""

import math

import pytest
import torch
from dfnas_example.entropy import EntropyConfig, entropy_loss
from dfnas_example.local_search import LocalSearchConfig
from dfnas_example.space import PlainChainConfig
from dfnas_example.teacher import DigitsResNetConfig

from dfnas_ray.testing import AlgorithmSuite, RegularizerSuite, SearchSpaceSuite, TeacherSuite


class TestPlainChain(SearchSpaceSuite):
    config = PlainChainConfig(channels=4)


class TestLocalSearch(AlgorithmSuite):
    config = LocalSearchConfig(candidates=5, round_size=2, epochs=1, batch_size=16)


class TestEntropy(RegularizerSuite):
    config = EntropyConfig()


class TestDigitsResNet(TeacherSuite):
    config = DigitsResNetConfig(width=4, epochs=1)


def test_the_entropy_of_two_likely_classes_is_log_2():
    logits = torch.tensor([[9.0, 9.0, -99.0], [99.0, 0.0, 0.0]])  # as likely as each other; certain
    assert entropy_loss(logits).item() == pytest.approx(math.log(2) / 2)
