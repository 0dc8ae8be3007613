"""The built-in teacher of the hard digits."""

import pytest
import torch

from dfnas_ray.datasets.digits import load_split
from dfnas_ray.datasets.hard_digits import draw_hard_digits
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.teachers import TEACHERS, HardDigitsTeacherConfig

SMALL = HardDigitsTeacherConfig(width=4, epochs=2)


@torch.no_grad()
def accuracy(teacher):
    data = draw_hard_digits(load_split("test"), "test", 0)
    return (teacher.model(teacher.normalize(data.images)).argmax(1) == data.labels).float().mean().item()


def test_the_teacher_states_what_it_takes(tmp_path):
    teacher = SMALL.load(tmp_path)
    assert (teacher.name, teacher.num_classes, teacher.image_shape) == ("hard digits", 10, (1, 16, 16))
    pixels = (
        torch.cat([draw_hard_digits(load_split("train"), "train", number).images for number in range(20)]).float() / 255
    )
    assert teacher.mean == pytest.approx((pixels.mean().item(),), abs=1e-3)
    assert teacher.std == pytest.approx((pixels.std().item(),), abs=1e-3)


def test_the_second_load_trains_nothing(tmp_path, monkeypatch):
    first = SMALL.load(tmp_path)
    monkeypatch.setattr("dfnas_ray.teachers.hard_digits.train_digits_cnn", None)  # training again would fail
    assert SMALL.load(tmp_path).fingerprint == first.fingerprint


def test_training_again_gives_the_same_teacher_whatever_the_threads(tmp_path):
    with fixed_threads(3):
        first = SMALL.load(tmp_path / "first")
    torch.manual_seed(2)
    assert SMALL.load(tmp_path / "second").fingerprint == first.fingerprint


def test_another_seed_width_or_duration_is_another_teacher(tmp_path):
    settings = [SMALL, *(SMALL.model_copy(update=change) for change in ({"seed": 1}, {"epochs": 1}, {"width": 5}))]
    assert len({config.load(tmp_path).fingerprint for config in settings}) == 4


def test_it_is_trained_on_images_drawn_anew_and_on_no_test_digit(tmp_path, monkeypatch):
    drawn = []

    def draw(digits, *names):
        drawn.append((len(digits.labels), *names))
        return draw_hard_digits(digits, *names)

    monkeypatch.setattr("dfnas_ray.teachers.hard_digits.draw_hard_digits", draw)
    SMALL.load(tmp_path)
    assert drawn == [(1257, "train", 0), (1257, "train", 1)]


def test_its_default_is_a_teacher_that_knows_much_and_not_all(tmp_path):
    assert TEACHERS.find("hard_digits") is HardDigitsTeacherConfig
    assert (HardDigitsTeacherConfig().width, HardDigitsTeacherConfig().epochs) == (24, 30)
    assert 0.5 < accuracy(HardDigitsTeacherConfig(width=8, epochs=10).load(tmp_path)) < 0.9
