"""Accuracy and negative log likelihood of a network on labelled images."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
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


class RefusesOne(Answers):
    def forward(self, x):
        assert len(x) > 1
        return super().forward(x)


class Squeezes(Answers):
    def forward(self, x):
        return super().forward(x).squeeze()


@pytest.mark.parametrize("kind", [RefusesOne, Squeezes])
def test_a_last_batch_of_one_image_is_evaluated_with_any_network(kind, tiny_teacher):
    picture = Image.new("L", tiny_teacher.image_shape[1:])

    class Pictures:
        description = "257 pictures"

        def __len__(self):
            return 257  # a batch of 256, and one more

        def __getitem__(self, index):
            if not 0 <= index < 257:
                raise IndexError
            return picture, index // 256

    answers = kind(*(float(label == 1) for label in range(tiny_teacher.num_classes)))
    accuracy = evaluate_networks({"it": answers}, tiny_teacher, Pictures(), torch.device("cpu"))
    assert accuracy == {"it": 1 / 257}  # it is right on the last image alone
