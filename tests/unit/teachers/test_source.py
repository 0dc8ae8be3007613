"""Code that was edited makes another teacher, though its layers and weights are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.teachers.source import code_digest

NETWORK = '''
"""A network."""
from torch import nn
from own_helper import prepared

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(prepared(x).flatten(1))

def build():
    """Return it."""
    return Network()
'''
HELPER = "def prepared(x):\n    return x\n"
ASK = """
import importlib, json, sys, torch
from pathlib import Path
from dfnas_ray.teachers.checkpoint import CheckpointTeacherConfig

found = []
for number, (network, helper) in enumerate(json.load(sys.stdin)):
    folder = Path(f"version-{number}").resolve()
    folder.mkdir()
    (folder / "own_network.py").write_text(network)
    (folder / "own_helper.py").write_text(helper)
    for name in ("own_network", "own_helper"):
        sys.modules.pop(name, None)
    sys.path[:0] = [str(folder)]
    torch.manual_seed(0)
    torch.save(importlib.import_module("own_network").build().state_dict(), "x.pt")
    config = CheckpointTeacherConfig(
        kind="checkpoint", checkpoint="x.pt", builder="own_network:build", image_shape=(1, 2, 2), mean=(0.5,), std=(0.5,)
    )
    found.append(config.load(".").fingerprint)
print(json.dumps(found))
"""


@pytest.fixture
def fingerprints(tmp_path):
    """Return a function that gives the fingerprints of versions of network and helper, each imported anew."""

    def ask(*versions):
        done = subprocess.run(
            [sys.executable, "-B", "-c", ASK], cwd=tmp_path, capture_output=True, text=True, check=True,
            input=json.dumps(versions), env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        return json.loads(done.stdout)

    return ask


def test_an_edited_forward_is_another_teacher_and_a_comment_is_not(fingerprints):
    before, again, doubled, shifted, commented = fingerprints(
        (NETWORK, HELPER),
        (NETWORK, HELPER),
        (NETWORK.replace("return self.layer(", "return 2 * self.layer("), HELPER),
        (NETWORK, HELPER.replace("return x", "return x - 0.5")),
        (NETWORK.replace('"""Return it."""', '"""Return the network."""  # as ever\n\n'), HELPER),
    )
    assert again == before
    assert doubled != before
    assert shifted not in (before, doubled), "of what it uses as well"
    assert commented == before


def test_networks_of_libraries_have_no_code_of_the_users():
    assert code_digest(DigitsCNN(4)) == ""
    assert code_digest(nn.Sequential(nn.Linear(1, 2))) == ""


def defined_in_a_notebook(factor):
    space = {"nn": nn, "__name__": "__main__"}
    exec(
        f"class Net(nn.Linear):\n    def forward(self, x):\n        return {factor} * super(Net, self).forward(x.flatten(1))",
        space,
    )
    torch.manual_seed(0)
    return freeze_teacher("mine", space["Net"](4, 2), (1, 2, 2), (0.5,), (0.5,)).fingerprint


def test_a_class_without_a_file_is_known_by_what_it_was_compiled_to():
    assert defined_in_a_notebook(1) == defined_in_a_notebook(1)
    assert defined_in_a_notebook(1) != defined_in_a_notebook(2)
