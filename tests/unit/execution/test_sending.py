"""What is said of an object of another package that cannot be sent to workers: package, member and rule."""

import threading

import pytest
from outside_package import OutsidePackages
from torch import nn

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.ray.sending import check_can_be_sent
from dfnas_ray.synthesis.regularizers import REGULARIZERS, RegularizersConfig
from dfnas_ray.teachers.base import freeze_teacher

CODE = """
import threading
from typing import ClassVar

from pydantic import PrivateAttr
from torch import nn

from dfnas_ray.synthesis.regularizers import RegularizerConfig


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), Layer())


class Layer(nn.Linear):
    def __init__(self):
        super().__init__(256, 10)
        self.caches = {"recent": []}  # filled later: a network with a lock cannot even be copied


class Guarded(RegularizerConfig):
    kind: ClassVar[str] = "guarded"
    weight: float = 1
    _lock = PrivateAttr(default_factory=threading.Lock)

    def loss(self):
        return lambda observation: observation.images.mean()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    packages = OutsidePackages(tmp_path, monkeypatch)
    packages.install("my-package", "my_members", CODE, {"guarded": "Guarded"})
    yield
    packages.remove()


def refusal(*values):
    with pytest.raises(ClusterError) as raised:
        check_can_be_sent(*values)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_part_of_a_network_is_named_with_its_class_and_package(installed):
    from my_members import Net

    teacher = freeze_teacher("t", Net(), (1, 16, 16), (0.5,), (0.5,))
    teacher.model[1].caches["recent"].append(threading.Lock())
    assert refusal(teacher) == (
        "A Teacher cannot be sent to the cluster's workers: caches.recent.0 of my_members:Layer (my-package 0.1) cannot be "
        "pickled: cannot pickle '_thread.lock' object. Whatever is sent must be picklable: no lock, open file or generator "
        "as an attribute. Or set cluster.address to inline."
    )


def test_the_settings_of_a_member_are_named_with_its_class_and_package(installed):
    regularizers = RegularizersConfig(guarded=REGULARIZERS.find("guarded")())
    assert "_lock of my_members:Guarded (my-package 0.1) cannot be pickled" in refusal(1, [regularizers])


def test_what_can_be_sent_passes():
    check_can_be_sent(freeze_teacher("t", nn.Flatten(), (1, 2, 2), (0.5,), (0.5,)), lambda: 3, {"a": [1]})


def test_an_object_of_no_package_is_named_by_its_class():
    class Holder:
        def __init__(self):
            self.own = self
            self.lock = threading.Lock()

    assert "lock of " in refusal(Holder())
    assert "Holder cannot be pickled" in refusal(Holder())
