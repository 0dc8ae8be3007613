"""What integration tests share: the command in this process, and the executors that must do the same."""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from dfnas_ray.cli import console
from dfnas_ray.cli.main import main
from dfnas_ray.teachers.digits import DigitsCNN, DigitsTeacherConfig
from dfnas_ray.workflow import session

_train, _trained = DigitsTeacherConfig._train, dict[DigitsTeacherConfig, DigitsCNN]()


@pytest.fixture(autouse=True)
def each_digits_teacher_is_trained_once(monkeypatch) -> None:
    """Most run directories hold the same teacher, whose training takes a second. `tests/unit/teachers` trains."""

    def once(config: DigitsTeacherConfig) -> DigitsCNN:
        if config not in _trained:
            _trained[config] = _train(config)
        return copy.deepcopy(_trained[config])

    monkeypatch.setattr(DigitsTeacherConfig, "_train", once)


@pytest.fixture
def dfnas(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command in this process and gives exit code, stdout and stderr (one line)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(console.err, "width", 5000)
        monkeypatch.setattr(console.out, "width", 5000)
        monkeypatch.setattr(sys, "argv", ["dfnas", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, " ".join(err.split())

    return run


@pytest.fixture
def held(monkeypatch) -> list[int]:
    """How many sets of images are in memory of this process, noted whenever one is read."""
    read, numbers, sets = session.load_shards, [], []

    def noted(*arguments):
        images = read(*arguments)
        sets.append(weakref.ref(images))
        gc.collect()  # of what is only held in a circle
        numbers.append(sum(one() is not None for one in sets))
        return images

    monkeypatch.setattr(session, "load_shards", noted)
    return numbers


def pytest_generate_tests(metafunc):
    """Give a test that asks for an ``address`` both executors: inline in the quick lanes, Ray in the lane slow."""
    is_given = any("address" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "address" in metafunc.fixturenames and not is_given:
        on_ray = pytest.param("local", marks=[pytest.mark.ray, pytest.mark.slow])
        metafunc.parametrize("address", ["inline", on_ray], indirect=True)


@pytest.fixture
def address(request) -> str:
    """An executor's address; Ray is the cluster that all tests share."""
    if request.param == "local":
        request.getfixturevalue("ray_cluster")
    return str(request.param)
