"""Keys stay what they were: a run directory of before is recognised, and nothing that is finished is made anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.workflow.retraining import Baseline, Retraining
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.sweep import Sweep
from dfnas_ray.workflow.synthesis import Synthesis

FOLDERS = {  # of the tiny experiment with the teacher below, since the synthesizers, whose settings are in every key
    "synthesis": "ad78befe90ce",
    "search": "d22e143b69de",
    "retraining": "8f5905c17e79",
    "baseline": "58731b242faa",
    "sweep": "9d45cc8a9e9f",
}


@pytest.fixture
def stages(tiny_values, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        model[1].weight.fill_(0.5)
        model[1].bias.fill_(0.25)
    teacher = freeze_teacher("constant", model, (1, 16, 16), (0.3,), (0.3,))
    sweep = {"settings": {"synthesis.method.tau": {"uniform": [0.5, 2]}}, "trials": 3}
    config = make_experiment({**tiny_values(), "run_dir": str(tmp_path), "sweep": sweep})
    session = Session(config, teacher=teacher)
    architecture = session.architecture(config.search.space[0].model_dump(mode="json"), "01")
    own = [Synthesis(session), Search(session), Sweep(session)]
    return [*own, *(stage(session, architecture) for stage in (Retraining, Baseline))]


def test_the_folders_of_all_stages_are_those_of_before(stages):
    assert {stage.name: stage.location.name for stage in stages} == FOLDERS


def test_a_changed_setting_is_another_folder(tiny_values, stages, tmp_path):
    changed = make_experiment({**tiny_values(), "run_dir": str(tmp_path), "seed": 1})
    session = Session(changed, teacher=stages[0].session.teacher)
    assert Synthesis(session).location.name != FOLDERS["synthesis"]
    assert Search(session).location.name != FOLDERS["search"]


TERM = """
from typing import Literal
from dfnas_ray.synthesis.regularizers import RegularizerConfig

class SharpConfig(RegularizerConfig):
    kind: Literal["sharp"] = "sharp"

    def loss(self):
        return lambda seen: FACTOR * seen.images.square().mean()
"""


def test_the_users_own_code_of_a_term_is_part_of_the_keys_that_depend_on_it(tiny_values, stages, tmp_path, monkeypatch):
    file = tmp_path / "my_sharp_terms.py"
    file.write_text(TERM.replace("FACTOR", "1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {**tiny_values(), "run_dir": str(tmp_path / "run")}
    values["synthesis"]["regularizers"] = {"sharp": {"kind": "my_sharp_terms:SharpConfig", "weight": 0.1}}

    def keys():
        session = Session(make_experiment(values), teacher=stages[0].session.teacher)
        return [stage(session).key for stage in (Synthesis, Search)]

    before = keys()
    file.write_text("# another comment" + TERM.replace("FACTOR", "1"))
    assert keys() == before
    file.write_text(TERM.replace("FACTOR", "2"))
    assert all(new != old for new, old in zip(keys(), before, strict=True))
    session = Session(make_experiment(values), teacher=stages[0].session.teacher)
    assert list(Synthesis(session).dir.inputs["code"]) == ["synthesis"]
    assert "code" not in Search(session).dir.inputs, "it has only the key of the images"


@pytest.fixture
def sweep_verified_by(tiny_values, stages, tmp_path):
    """Return a function that makes a sweep whose verifier has weights of this seed, always in the same file."""

    def make(seed, **changes):
        torch.manual_seed(seed)
        torch.save(DigitsCNN(width=2).state_dict(), tmp_path / "verifier.pt")
        verifier = {"kind": "checkpoint", "checkpoint": str(tmp_path / "verifier.pt"), "arguments": {"width": 2}}
        verifier |= {"builder": "dfnas_ray.teachers.digits:DigitsCNN", "image_shape": [1, 16, 16]}
        verifier |= {"mean": [0.3], "std": [0.3], **changes}
        sweep = {"settings": {"synthesis.method.tau": {"uniform": [0.5, 2]}}, "objectives": ["verifier_agreement"]}
        values = {**tiny_values(), "run_dir": str(tmp_path), "sweep": {**sweep, "verifier": verifier}}
        return Sweep(Session(make_experiment(values), teacher=stages[0].session.teacher))

    return make


def test_other_weights_of_a_verifier_under_the_same_path_are_another_sweep(sweep_verified_by):
    before = sweep_verified_by(0).location.name
    assert sweep_verified_by(0).location.name == before
    assert sweep_verified_by(1).location.name != before


def test_a_verifier_of_other_images_is_refused_before_a_sweep_begins(sweep_verified_by):
    with pytest.raises(
        TeacherError, match=r"sweep\.verifier \(.*\) takes \(1, 8, 8\) and knows 10 classes, but the teacher"
    ):
        sweep_verified_by(0, image_shape=[1, 8, 8]).inputs()
