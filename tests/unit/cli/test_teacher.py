"""What `dfnas teacher inspect` says of a teacher."""

from io import StringIO

import pytest
from rich.console import Console
from torch import nn

from dfnas_ray.cli import teacher as module
from dfnas_ray.config.experiment import make_experiment


@pytest.mark.parametrize(("channels", "is_refused"), [(1, False), (2, True), (3, False), (4, True)])
def test_channels_of_which_no_images_can_be_made_are_said(channels, is_refused, make_teacher, monkeypatch):
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    teacher, written = make_teacher(model, (channels, 12, 16)), StringIO()
    monkeypatch.setattr(module, "out", Console(file=written, width=200))
    monkeypatch.setattr(module, "read", lambda *options: make_experiment({"teacher": "digits"}))
    monkeypatch.setattr("dfnas_ray.workflow.session.load_teacher", lambda *settings: teacher)
    module.inspect("x.yaml")
    (line,) = [line for line in written.getvalue().splitlines() if line.startswith("input")]
    assert f"{channels} x 12 x 16" in line
    assert ("no images can be made" in line) == is_refused
