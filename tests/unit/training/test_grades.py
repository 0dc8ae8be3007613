"""Accuracy and negative log likelihood of a network on labelled images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dfnas_ray.datasets import HardDigitsConfig
from dfnas_ray.training.evaluation import decode_all, evaluate_networks, grade, normalised


class Answers(nn.Module):
    """Gives the same logits for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.repeat(len(x), 1)


def test_a_grade_equals_the_hand_computed_one():
    batches = [(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 0])), (torch.zeros(1, 1, 2, 2), torch.tensor([1]))]
    found = grade(Answers(math.log(3.0), 0.0), batches)  # probabilities 3/4 and 1/4
    assert found.accuracy == 0.5
    assert found.nll == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_answers_that_are_no_numbers_have_no_likelihood():
    assert math.isnan(grade(Answers(math.nan, 0.0), [(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))]).nll)


def test_the_accuracy_is_that_of_the_evaluation(tiny_teacher):
    dataset, device = HardDigitsConfig().open(), torch.device("cpu")
    found = grade(tiny_teacher.model, normalised(decode_all(dataset, tiny_teacher), tiny_teacher, device))
    assert found.accuracy == evaluate_networks({"it": tiny_teacher.model}, tiny_teacher, dataset, device)["it"]
