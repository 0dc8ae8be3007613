"""What classes are called: a list, or a file in one of the usual forms; everything else is one error."""

from __future__ import annotations

import json

import pytest
import torch
from torchvision.models import squeezenet1_1

from dfnas_ray.config.experiment import dump_experiment, make_experiment
from dfnas_ray.config.yaml_text import read_yaml
from dfnas_ray.errors import ConfigError, TeacherError
from dfnas_ray.teachers.base import freeze_teacher, load_teacher
from dfnas_ray.teachers.class_names import name_of, read_class_names, unique_names
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.teachers.torchvision_models import TorchvisionTeacherConfig

FILES = {
    "a name per line": "cat\ndog\n old owl \n\n",
    "with the marks of Windows": "\ufeffcat\r\ndog\r\nold owl\r\n",
    "a list": json.dumps(["cat", "dog", "old owl"]),
    "numbers to names": json.dumps({"1": "dog", "0": "cat", "2": "old owl"}),
    "names to numbers": json.dumps({"dog": 1, "cat": 0, "old owl": 2}),
    "a configuration of Hugging Face": json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "old owl"}, "a": 5}),
    "with the numbers of WordNet": json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "old owl"]}),
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_names_are_read_from_a_file(tmp_path, text):
    file = tmp_path / "names"
    file.write_text(text, encoding="utf-8", newline="")
    assert read_class_names(file, 3) == ("cat", "dog", "old owl")


REFUSED = {
    "too few": ("cat\ndog", r"names 2 classes, and the teacher has 3 outputs"),
    "an empty line": ("cat\n\ndog", r"the name of class 1 \(''\) must be 1 to 200 characters"),
    "what no terminal shows": ("cat\ndog\n\x1b[31m", r"the name of class 2 .* plain text"),
    "a long one": ("cat\ndog\n" + "a" * 201, "the name of class 2"),
    "half an object": ('{"0": "cat"', "is not valid JSON"),
    "deep": ("[" * 100_000, "is not valid JSON"),
    "a number left out": ('{"0": "cat", "1": "dog", "3": "owl"}', "must number its classes from 0 to 2, each once"),
    "a number twice": ('{"cat": 0, "dog": 0, "owl": 1}', "must number its classes from 0 to 2, each once"),
    "no text": ("[1, 2, 3]", "names that are not text"),
    "nothing": ("", "names 0 classes"),
    "an empty object": ("{}", "names 0 classes"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_list_of_names_is_one_error(tmp_path, text, words):
    file = tmp_path / "names"
    file.write_text(text)
    with pytest.raises(TeacherError, match=words) as error:
        read_class_names(file, 3)
    assert str(error.value).startswith("teacher.class_names")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TeacherError, match=r"class_names \(.*nowhere\) is not a file"):
        read_class_names(tmp_path / "nowhere", 3)
    (tmp_path / "names").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(TeacherError, match="it is not UTF-8"):
        read_class_names(tmp_path / "names", 3)


def test_the_setting_takes_a_list_or_a_file_and_is_dumped_as_it_was():
    given = [*(str(digit) for digit in range(9)), "nine"]
    config = make_experiment({"teacher": {"kind": "digits", "class_names": [*range(9), "nine"]}})
    assert config.teacher.class_names == tuple(given)
    assert make_experiment(read_yaml(dump_experiment(config))) == config
    file = make_experiment({"teacher": {"kind": "digits", "class_names": "names.txt"}})
    assert str(file.teacher.class_names) == "names.txt"
    assert make_experiment(read_yaml(dump_experiment(file))) == file
    assert next(iter(read_yaml(dump_experiment(config))["teacher"])) == "kind"


@pytest.mark.parametrize("value", [5, {"cat": 1}, [["cat"]], [True], ""])
def test_another_value_of_the_setting_is_refused(value):
    with pytest.raises(ConfigError, match=r"teacher\.class_names.*list of names, or the path"):
        make_experiment({"teacher": {"kind": "digits", "class_names": value}})


def test_names_of_the_settings_replace_those_of_the_source_and_change_no_fingerprint(digits_cache, digits_teacher):
    assert digits_teacher.class_names == tuple("0123456789")
    given = [f"digit {number}" for number in range(10)]
    config = make_experiment({"teacher": {"kind": "digits", "class_names": given}}).teacher
    teacher = load_teacher(config, digits_cache)
    assert teacher.class_names == tuple(given)
    assert teacher.fingerprint == digits_teacher.fingerprint
    short = make_experiment({"teacher": {"kind": "digits", "class_names": ["a", "b"]}}).teacher
    with pytest.raises(TeacherError, match=r"teacher\.class_names names 2 classes, and the teacher has 10 outputs"):
        load_teacher(short, digits_cache)


def test_a_model_of_ones_own_may_name_its_classes():
    torch.manual_seed(0)  # a network that was never trained may look like one with a sigmoid

    def frozen(names):
        return freeze_teacher("mine", DigitsCNN(4, 3), (1, 16, 16), (0.5,), (0.5,), class_names=names)

    assert frozen(["cat", "dog", "owl"]).class_names == ("cat", "dog", "owl")
    assert frozen(None).class_names is None
    with pytest.raises(TeacherError, match="class_names of teacher mine names 2 classes"):
        frozen(["cat", "dog"])


def test_published_weights_know_their_classes(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(squeezenet1_1(num_classes=1000).state_dict(), file)
    teacher = TorchvisionTeacherConfig(kind="torchvision", name="squeezenet1_1", checkpoint=file).load(tmp_path)
    assert teacher.class_names[:2] == ("tench", "goldfish")
    assert len(teacher.class_names) == 1000


def test_where_two_classes_are_called_alike_their_numbers_tell_them_apart():
    assert unique_names(3, ["crane", "cat", "crane"]) == ["crane (0)", "cat", "crane (2)"]
    assert unique_names(3, ["a", "a", "a (0)"]) == ["a (0)", "a (1)", "a (0) (2)"]
    assert unique_names(2, None) == ["0", "1"]


def test_a_class_without_a_name_is_called_by_its_number():
    assert (name_of(1, ["cat", "dog"]), name_of(1, None), name_of(5, ["cat"])) == ("dog", "class 1", "class 5")
