"""The hard digits: drawn by fixed seeds, each split from its own digits."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dfnas_ray.datasets import HardDigitsConfig
from dfnas_ray.datasets.digits import LabelledTensors, load_split
from dfnas_ray.datasets.hard_digits import draw_hard_digits


def pixels_of(dataset, rows):
    return np.stack([np.asarray(dataset[row][0]) for row in rows])


def test_the_default_is_one_draw_of_the_540_test_digits():
    dataset = HardDigitsConfig().open()
    assert len(dataset) == 540
    assert [dataset[row][1] for row in range(540)] == load_split("test").labels.tolist()


def test_more_draws_begin_with_fewer_and_show_the_same_labels_anew():
    one, three = HardDigitsConfig(split="train").open(), HardDigitsConfig(split="train", draws=3).open()
    assert (len(one), len(three)) == (1257, 3771)
    rows = range(0, 1257, 100)
    assert (pixels_of(one, rows) == pixels_of(three, rows)).all()
    again = [1257 + row for row in rows]
    assert [three[row][1] for row in again] == [one[row][1] for row in rows]
    assert all(
        (np.asarray(three[new][0]) != np.asarray(one[old][0])).any() for new, old in zip(again, rows, strict=True)
    )


def test_an_image_depends_on_its_index_alone():
    first, second = HardDigitsConfig(draws=2).open(), HardDigitsConfig(draws=2).open()
    np.random.seed(3)
    torch.manual_seed(3)
    backwards = pixels_of(second, [1000, 600, 5])
    assert (pixels_of(first, [5, 600, 1000]) == backwards[::-1]).all()


def test_the_evaluation_never_opens_the_training_digits(monkeypatch):
    opened = []
    monkeypatch.setattr(
        "dfnas_ray.datasets.hard_digits.load_split", lambda split: opened.append(split) or load_split(split)
    )
    dataset = HardDigitsConfig().open()
    assert opened == []  # nothing is read before it is asked for
    for row in range(0, len(dataset), 50):
        assert dataset[row]
    assert opened == ["test"]


def test_splits_and_draws_are_told_apart():
    configs = [HardDigitsConfig(), HardDigitsConfig(draws=2), HardDigitsConfig(split="train")]
    assert len({config.open().fingerprint for config in configs}) == 3


def test_an_image_is_the_digit_moved_with_another_one_and_noise():
    """One bright pixel each: the digit's has 1 / 1.45 of its brightness, the other's 0.45 / 1.45, moved by 3 at most."""
    images = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    images[:, 0, 8, 8] = 255
    hard = draw_hard_digits(LabelledTensors(images, torch.arange(400)), "test", 0)
    assert hard.labels.tolist() == list(range(400))
    mean = hard.images[:, 0].float().mean(0) / 255
    dark = mean[:4].mean().item()  # noise alone, of which the half below 0 is cut off: 0.3 / sqrt(2 pi)
    assert dark == pytest.approx(0.30 / np.sqrt(2 * np.pi), abs=0.01)
    middle = mean[5:12, 5:12].mean().item()
    assert mean[4, :].mean().item() == pytest.approx(dark, abs=0.01)
    assert mean[:, 12].mean().item() == pytest.approx(dark, abs=0.02)
    # 1 / 1.45 and 0.45 / 1.45 are mirror images about 0.5, as is the cut at 0 and 1: their means with noise add up to 1.
    assert middle - dark == pytest.approx((1 - 2 * dark) / 49, abs=0.002)


@pytest.mark.parametrize("change", [{"draws": 0}, {"draws": 1001}, {"split": "validation"}, {"noise": 0.1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        HardDigitsConfig(**change)
