"""The built-in teacher."""

import pytest
import torch
from pydantic import ValidationError

from dfnas_ray.datasets.digits import load_split
from dfnas_ray.errors import TeacherError
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.teachers import DigitsTeacherConfig
from dfnas_ray.teachers.digits import DigitsCNN

SMALL = DigitsTeacherConfig(width=4, epochs=1)


@torch.no_grad()
def accuracy(teacher, split):
    data = load_split(split)
    return (teacher.model(teacher.normalize(data.images)).argmax(1) == data.labels).float().mean().item()


def test_the_teacher_knows_the_digits_that_it_has_not_seen(digits_teacher):
    assert accuracy(digits_teacher, "test") >= 0.985


def test_the_teacher_states_what_it_takes(digits_teacher):
    assert (digits_teacher.name, digits_teacher.num_classes) == ("digits", 10)
    assert digits_teacher.image_shape == (1, 16, 16)
    pixels = load_split("train").images.float() / 255
    assert digits_teacher.mean == pytest.approx((pixels.mean().item(),), abs=1e-3)
    assert digits_teacher.std == pytest.approx((pixels.std().item(),), abs=1e-3)
    assert len(digits_teacher.batch_norms()) == 5


def test_a_second_load_reads_the_file_and_gives_the_same_fingerprint(digits_teacher, digits_cache, monkeypatch):
    monkeypatch.setattr("dfnas_ray.teachers.digits.train_digits_cnn", None)  # training again would fail
    assert DigitsTeacherConfig().load(digits_cache).fingerprint == digits_teacher.fingerprint


def test_training_again_gives_the_same_fingerprint_whatever_the_threads_and_seeds(tmp_path):
    torch.manual_seed(1)
    with fixed_threads(1):
        first = SMALL.load(tmp_path / "first")
    torch.manual_seed(2)
    with fixed_threads(3):
        second = SMALL.load(tmp_path / "second")
    assert first.fingerprint == second.fingerprint


def test_another_seed_width_or_duration_is_another_teacher_in_another_file(tmp_path):
    settings = [SMALL, *(SMALL.model_copy(update=change) for change in ({"seed": 1}, {"epochs": 2}, {"width": 5}))]
    assert len({config.load(tmp_path).fingerprint for config in settings}) == 4
    assert len(list(tmp_path.iterdir())) == 4  # no temporary file is left either


def test_a_damaged_file_is_an_error_that_names_it(tmp_path):
    SMALL.load(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TeacherError, match=file.name):
        SMALL.load(tmp_path)


def test_a_file_of_another_width_names_the_setting_and_what_to_delete(tmp_path):
    SMALL.load(tmp_path)
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / file.name.replace("w4", "w5"))
    with pytest.raises(TeacherError, match=r"-w5-.* does not fit .*teacher\.width \(5\).*Delete the file") as raised:
        SMALL.model_copy(update={"width": 5}).load(tmp_path)
    assert "teacher.builder" not in str(raised.value)


def test_the_network_takes_half_its_size():
    assert DigitsCNN().eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert DigitsCNN().eval()(torch.zeros(2, 1, 4, 4)).shape == (2, 10)


@pytest.mark.parametrize("change", [{"width": 0}, {"epochs": 0}, {"seed": -1}, {"depth": 3}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        DigitsTeacherConfig(**change)
