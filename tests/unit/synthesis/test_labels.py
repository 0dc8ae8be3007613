"""Targets of inversion."""

import pytest
import torch

from dfnas_ray.synthesis.labels import calibrated_targets, class_of_slots, one_hot_targets


def test_every_run_of_num_classes_slots_holds_each_class_once():
    classes = class_of_slots(0, 40, num_classes=10, seed=0)
    assert classes.dtype == torch.int64
    for cycle in classes.view(4, 10).tolist():
        assert sorted(cycle) == list(range(10))


def test_each_run_has_its_own_order_that_the_seed_decides():
    cycles = class_of_slots(0, 40, num_classes=10, seed=0).view(4, 10).tolist()
    assert len({tuple(cycle) for cycle in cycles}) == 4
    assert class_of_slots(0, 40, 10, seed=0).tolist() == class_of_slots(0, 40, 10, seed=0).tolist()
    assert class_of_slots(0, 40, 10, seed=0).tolist() != class_of_slots(0, 40, 10, seed=1).tolist()


@pytest.mark.parametrize("size", [1, 4, 7, 10, 25])
def test_slots_are_numbered_through_all_shards(size):
    whole = class_of_slots(0, 100, num_classes=10, seed=3)
    shards = [class_of_slots(first, size, num_classes=10, seed=3) for first in range(0, 100, size)]
    assert torch.equal(torch.cat(shards)[:100], whole)


def test_shards_smaller_than_the_number_of_classes_are_balanced_together():
    shards = [class_of_slots(shard * 4, 4, num_classes=6, seed=0) for shard in range(3)]  # 12 slots, 6 classes
    assert torch.cat(shards).bincount().tolist() == [2] * 6


def test_one_hot_targets_are_distributions():
    assert one_hot_targets(torch.tensor([2, 0]), 3).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_calibrated_targets_are_the_softmax_worked_by_hand():
    logits = torch.tensor([[0.0, 2.0 * torch.tensor(3.0).log().item()]])
    # tau 2: exp(0) : exp(ln 3) = 1 : 3;  tau 1: 1 : 9
    assert calibrated_targets(logits, tau=2.0)[0].tolist() == pytest.approx([0.25, 0.75])
    assert calibrated_targets(logits, tau=1.0)[0].tolist() == pytest.approx([0.1, 0.9])


def test_calibrated_targets_are_float32_and_stable_for_large_logits():
    targets = calibrated_targets(torch.tensor([[1000.0, 0.0]], dtype=torch.float64), tau=1.0)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[1.0, 0.0]]
