"""The steps on objects: what a notebook does, with no file, no cluster and no Ray."""

from __future__ import annotations

import inspect
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import dfnas_ray as dfnas
from dfnas_ray.errors import ConfigError, DatasetError, StorageError, TeacherError
from dfnas_ray.progress import Silent
from dfnas_ray.report.page import write_report
from dfnas_ray.seeding import seed_everything
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.workflow.session import Session

SCALES = [{"scale": 2, "steps": 2}, {"scale": 1, "steps": 2}]
SHORT = {"method": {"kind": "inversion", "scales": SCALES, "warmup_steps": 1}, "compile": False}
SPACE = {"kind": "nasbench_macro", "stem_channels": 4, "stage_layers": [1, 1], "stage_channels": [8, 16]}
EVOLUTION = {"generations": 1, "population": 3, "parents": 2, "mutations": 1, "crossovers": 1}
SPOS = {"kind": "spos", "epochs": 1, "batch_size": 16, "calibration_batches": 1, "evolution": EVOLUTION}
SEARCH = {"space": SPACE, "algorithm": SPOS, "seeds": [0], "max_macs": None, "selection": {"finalists": 2, "epochs": 1}}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DigitsCNN(4)


@pytest.fixture(scope="module")
def teacher(model):
    return dfnas.Teacher.from_model(model, image_shape=(1, 16, 16), mean=[0.3], std=[0.3])


@pytest.fixture(scope="module")
def images(teacher):
    return dfnas.synthesize(teacher, 80, canvas_margin=2, **SHORT)


@pytest.fixture(scope="module")
def found(teacher, images):
    return dfnas.search(teacher, images, **SEARCH)


def test_the_users_model_stays_as_it_is():
    model = DigitsCNN(4).train()
    dfnas.Teacher.from_model(model, image_shape=(1, 16, 16), mean=[0.3], std=[0.3])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_that_cannot_be_copied_is_refused_with_the_reason():
    model = DigitsCNN(4)
    model.stream = (number for number in range(3))
    with pytest.raises(TeacherError, match=r"cannot be copied.*generator"):
        dfnas.Teacher.from_model(model, image_shape=(1, 16, 16), mean=[0.3], std=[0.3])


def test_as_many_images_are_made_as_asked_for_over_all_rounds(images):
    assert len(images) == 80
    assert np.bincount(images.data.rounds).tolist() == [40, 40]
    assert images.data.images.shape == (80, 1, 18, 18)


def inversion(**settings):
    return {"method": {"kind": "inversion", **settings}}


@pytest.mark.parametrize(
    ("number", "settings", "words"),
    [
        (35, inversion(batch_size=10), r"multiple of rounds x batch_size \(2 x 10 = 20\).*Next multiple: 40"),
        (0, {}, "Next multiple: 2"),
        (40, {"num_shards": 2}, r"num_shards \(2\) are both given"),
        ("ten", {}, r"num_images \('ten'\) must be a whole number above 0"),
        (10.5, {}, r"num_images \(10.5\) must be a whole number above 0"),
        (40, inversion(batchsize=2), "synthesis.method.batchsize is not a setting. Did you mean batch_size?"),
    ],
)
def test_images_that_cannot_be_asked_for_are_refused_by_name(teacher, number, settings, words):
    with pytest.raises(ConfigError, match=words):
        dfnas.synthesize(teacher, number, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({"rounds": rounds} for rounds in (0, "two")),
        *({"batch_size": size} for size in (0, "many", -5)),
        {"keep": "some"},
    ],
)
def test_a_wrong_setting_beside_a_number_of_images_is_refused_as_in_the_experiment_file(teacher, settings):
    with pytest.raises(ConfigError) as in_the_file:
        dfnas.make_experiment({"teacher": "digits", "synthesis": inversion(**settings)})
    with pytest.raises(ConfigError) as in_the_call:
        dfnas.synthesize(teacher, 40, **inversion(**settings))
    assert str(in_the_call.value) == str(in_the_file.value)


def test_many_images_are_spread_over_shards_of_whole_batches():
    from dfnas_ray.library.steps import _shards_for

    def shards_for(number, **settings):
        shards = _shards_for(number, settings)
        return shards["num_shards"], shards["images_per_shard"], shards["method"].batch_size

    assert shards_for(6000) == (3, 1000, 50)
    assert shards_for(2600) == shards_for(2600, method="inversion") == (2, 650, 50)
    assert shards_for(8) == shards_for(8, **inversion(lr=0.1)) == (1, 4, 4), "smaller batches, if no size is given"
    assert shards_for(2002, **inversion(batch_size=77)) == (13, 77, 77)
    assert shards_for(np.int64(2002), **inversion(batch_size="77")) == (13, 77, 77)
    assert shards_for(2002, method=InversionConfig(batch_size=77)) == (13, 77, 77)


def test_images_are_shown_as_a_grid_of_their_centres(images):
    picture = images.show(9)
    assert isinstance(picture, Image.Image)
    assert picture.size == (3 * 18 + 2, 3 * 18 + 2)  # 16 pixels and a frame of 2


def test_a_data_loader_takes_the_images_as_the_teacher_saw_them(images, teacher):
    inputs, logits = next(iter(DataLoader(images.dataset(), batch_size=8)))
    assert (inputs.shape, inputs.dtype) == ((8, 1, 16, 16), torch.float32)
    with torch.no_grad():
        assert torch.allclose(teacher.model(inputs), logits, atol=1e-4)


def test_saved_images_are_loaded_as_they_were(images, teacher, tmp_path):
    images.save(tmp_path)
    loaded = dfnas.Images.load(tmp_path, teacher)
    assert loaded.key == images.key
    assert np.array_equal(loaded.data.images, images.data.images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "shard-00000.parquet"]


def test_images_of_another_teacher_are_refused(images, tmp_path):
    images.save(tmp_path)
    other = dfnas.Teacher.from_model(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), image_shape=(3, 16, 16), mean=[0.5] * 3, std=[0.5] * 3
    )
    with pytest.raises(ConfigError, match=r"\(1, 18, 18\) with 10 classes.*Give the teacher that they were made from"):
        dfnas.Images.load(tmp_path, other)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        dfnas.Images.load(tmp_path / "nowhere", other)


@pytest.fixture(scope="module")
def other_teacher():
    torch.manual_seed(1)  # the same layers, other weights
    return dfnas.Teacher.from_model(DigitsCNN(4), image_shape=(1, 16, 16), mean=[0.3], std=[0.3], name="other")


def test_images_of_a_teacher_with_other_weights_or_statistics_are_refused(images, model, other_teacher, tmp_path):
    images.save(tmp_path)
    brighter = dfnas.Teacher.from_model(model, image_shape=(1, 16, 16), mean=[0.4], std=[0.3], name="brighter")
    for teacher in (other_teacher, brighter):
        with pytest.raises(ConfigError, match=f"from another teacher .* than {teacher.name} .*Give the teacher"):
            dfnas.Images.load(tmp_path, teacher)


def test_a_step_on_images_of_another_teacher_is_refused(teacher, other_teacher, images, found, tmp_path):
    dfnas.search(teacher, images, run_dir=tmp_path, **SEARCH)  # finished work of the right teacher is not handed out
    with pytest.raises(ConfigError, match=r"from another teacher .* than other .*Give the teacher"):
        dfnas.search(other_teacher, images, run_dir=tmp_path, **SEARCH)
    with pytest.raises(ConfigError, match=r"from another teacher .* than other .*Give the teacher"):
        dfnas.retrain(other_teacher, images, found.architecture, epochs=1)


def test_a_search_gives_architecture_cost_finalists_and_history(found):
    assert set(found.architecture.text) <= set("012")
    assert found.cost.macs == found.record.macs
    assert len(found.finalists) == 2
    (history,) = found.history.values()
    assert [entry.phase for entry in history] == ["training", "sampling"]


def test_the_same_seed_finds_the_same_and_other_images_are_another_search(found, teacher, images, tmp_path):
    again = dfnas.search(teacher, images, run_dir=tmp_path, **SEARCH)
    assert again.record.trials == found.record.trials
    dfnas.search(teacher, dfnas.synthesize(teacher, 80, seed=1, canvas_margin=2, **SHORT), run_dir=tmp_path, **SEARCH)
    assert len(list(tmp_path.glob("search/*"))) == 2


def test_a_step_with_a_run_directory_is_not_done_twice(teacher, images, tmp_path):
    dfnas.search(teacher, images, run_dir=tmp_path, **SEARCH)
    (done,) = tmp_path.glob("search/*/done.json")
    before = done.stat().st_mtime_ns
    dfnas.search(teacher, images, run_dir=tmp_path, **SEARCH)
    assert done.stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def student(teacher, images, found):
    return dfnas.retrain(teacher, images, found.architecture, epochs=2, batch_size=16)


def test_the_student_brings_its_preprocessing(student, teacher):
    pixels = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = student.network(teacher.normalize(pixels))
        assert torch.allclose(student(pixels), expected, atol=1e-5)
        assert torch.allclose(student(pixels.float() / 255), expected, atol=1e-5)
    assert len(student.history) == 2
    assert not student.training


def test_a_saved_student_is_loaded_as_it_was(student, teacher, tmp_path):
    student.save(tmp_path, teacher)
    loaded = dfnas.TrainedNetwork.load(tmp_path)
    pixels = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(pixels), student(pixels))
    assert loaded.architecture.text == student.architecture.text


class Two:
    """Two images of class 3, black and white."""

    description = "two images"
    fingerprint = "two"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Image.new("L", (16, 16), 255 * index), 3


class Watched(nn.Module):
    """Notes where it was moved, and whether it ran itself rather than a copy."""

    def __init__(self, notes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 10))
        self.notes = notes

    def __deepcopy__(self, memo):
        copied = Watched([])
        copied.load_state_dict(self.state_dict())
        return copied

    def _apply(self, fn, recurse=True):
        self.notes.append("moved")
        return super()._apply(fn, recurse)

    def forward(self, x):
        self.notes.append("ran")
        return self.layers(x)


def test_networks_are_measured_on_labelled_images(student, teacher):
    measured = dfnas.evaluate(teacher, {"mine": student}, Two())
    assert set(measured) == {"teacher", "mine"}
    assert set(measured.values()) <= {0.0, 0.5, 1.0}
    with pytest.raises(DatasetError, match="nowhere"):
        dfnas.evaluate(teacher, student, {"kind": "image_folder", "path": "nowhere"})
    with pytest.raises(ConfigError, match="kind"):
        dfnas.evaluate(teacher, student, {"kind": "folder"})


def test_real_images_may_be_named_in_the_short_form(monkeypatch, teacher):
    from dfnas_ray.datasets.digits import DigitsConfig

    monkeypatch.setattr(DigitsConfig, "open", lambda self, setting: Two())
    assert set(dfnas.evaluate(teacher, {}, "digits")) == {"teacher"}
    assert set(dfnas.evaluate(teacher, {}, DigitsConfig())) == {"teacher"}
    with pytest.raises(ConfigError, match=r"Did you mean digits\?"):
        dfnas.evaluate(teacher, {}, "digit")


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (None, "dataset (NoneType) lacks __len__, __getitem__, description"),
        (Path("photos"), "Path) lacks __len__, __getitem__, description"),
        ([1], "(list) lacks description"),
    ],
)
def test_what_is_no_dataset_is_refused(teacher, dataset, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        dfnas.evaluate(teacher, {}, dataset)


def test_a_network_cannot_take_the_teachers_name(teacher, student):
    with pytest.raises(ConfigError, match=r"\(mine, teacher\).*Choose another name"):
        dfnas.evaluate(teacher, {"mine": student, "teacher": student}, Two())


@pytest.mark.parametrize(
    ("setting", "value"), [("mean", [0.5]), ("std", [0.25]), ("mean", [0.3] * 3), ("image_shape", (1, 8, 8))]
)
def test_a_student_whose_images_are_prepared_in_another_way_is_not_measured(teacher, student, setting, value):
    own = {"image_shape": (1, 16, 16), "mean": [0.3], "std": [0.3], setting: value}
    other = dfnas.TrainedNetwork(student.network, student.architecture, **own)
    with pytest.raises(
        ConfigError, match=f"networks.other was trained on images of {setting} .*teacher that it learned"
    ):
        dfnas.evaluate(teacher, {"other": other}, Two())


def test_measuring_leaves_networks_as_and_where_they_are(model):
    teacher = dfnas.Teacher.from_model(model, image_shape=(1, 16, 16), mean=[0.3], std=[0.3])
    notes = []
    mine = Watched(notes).train()
    teacher.model.train()  # in evaluation mode it would be found as it was, copied or not
    dfnas.evaluate(teacher, {"mine": mine}, Two())
    assert mine.training
    assert mine.layers[1].training
    assert teacher.model.training
    assert notes == []


def test_a_network_that_cannot_be_copied_is_refused_with_the_reason(teacher):
    mine = nn.Flatten()
    mine.stream = (number for number in range(3))
    with pytest.raises(ConfigError, match=r"networks.mine cannot be copied: .*generator"):
        dfnas.evaluate(teacher, {"mine": mine}, Two())


def test_saving_leaves_a_student_as_and_where_it_is(monkeypatch, student, teacher, tmp_path):
    saved = []
    monkeypatch.setattr("dfnas_ray.training.export.to_pt2", lambda network, *_: saved.append(network) or b"")
    student.save(tmp_path, teacher)
    (network,) = saved
    assert not {id(each) for each in network.parameters()} & {id(each) for each in student.parameters()}


def test_a_student_is_not_saved_as_if_another_teacher_prepared_its_images(student, teacher, tmp_path):
    own = {"image_shape": (1, 16, 16), "mean": [0.9], "std": [0.3]}
    other = dfnas.TrainedNetwork(student.network, student.architecture, **own)
    with pytest.raises(ConfigError, match="This network was trained on images of mean"):
        other.save(tmp_path / "new", teacher)
    assert not (tmp_path / "new").exists()


def test_settings_of_the_cluster_reach_the_step(teacher, images, tmp_path):
    dfnas.search(teacher, images, run_dir=tmp_path, cluster={"search": {"cpus": 2}}, **SEARCH)
    (inputs,) = tmp_path.glob("search/*/inputs.json")
    assert json.loads(inputs.read_text())["threads"] == 2


def test_settings_of_the_cluster_are_combined_with_its_address(monkeypatch, teacher, images, found):
    class OpenedError(Exception):
        pass

    def stop(config, *_, **__):
        raise OpenedError(config.cluster.address, config.cluster.num_cpus)

    monkeypatch.setattr("dfnas_ray.library.steps.Session", stop)
    for step in (
        lambda **where: dfnas.synthesize(teacher, **where),
        lambda **where: dfnas.search(teacher, images, **where),
        lambda **where: dfnas.retrain(teacher, images, found.architecture, **where),
    ):
        with pytest.raises(OpenedError) as opened:
            step(address="auto", cluster={"num_cpus": 7})
        assert opened.value.args == ("auto", 7)
        with pytest.raises(ConfigError, match=r"cluster.search.cpus \(0\)"):
            step(cluster={"search": {"cpus": 0}})
        with pytest.raises(ConfigError, match=r"cluster.address \(auto\) must be given as address"):
            step(cluster={"address": "auto"})


def test_no_experiment_is_recorded_that_would_name_another_teacher(teacher, images, tmp_path):
    dfnas.search(teacher, images, run_dir=tmp_path, **SEARCH)
    assert (tmp_path / "latest.json").exists()
    assert not (tmp_path / "experiment.yaml").exists()
    page = write_report(RunDir(tmp_path)).read_bytes().decode()
    assert "Search" in page
    assert "digits" not in page
    assert "experiment.yaml" not in page


def test_a_report_shows_the_teacher_that_was_given(teacher, tmp_path):
    dfnas.synthesize(teacher, 4, run_dir=tmp_path, **SHORT)
    page = write_report(RunDir(tmp_path)).read_bytes().decode()
    assert teacher.fingerprint in page
    assert "digits" not in page


def test_an_experiment_that_names_its_teacher_is_recorded(teacher, tmp_path):
    config = dfnas.make_experiment({"teacher": "digits", "run_dir": str(tmp_path)})
    for given in (teacher, None):
        session = Session(config, teacher=given)
        stage = session.run_dir.stage("search", {})
        stage.begin()
        session.note(stage)
        session.record()
        assert (tmp_path / "experiment.yaml").exists() == (given is None)


def test_a_step_trains_no_baseline(teacher, images, found):
    with pytest.raises(ConfigError, match=r"retraining.baseline \(True\) trains a second network"):
        dfnas.retrain(teacher, images, found.architecture, baseline=True, epochs=1)
    with pytest.raises(ConfigError, match=r"retraining.baseline \('perhaps'\)"):
        dfnas.retrain(teacher, images, found.architecture, baseline="perhaps", epochs=1)
    trained = dfnas.retrain(teacher, images, found.architecture, baseline=False, epochs=1, batch_size=16)
    assert len(trained.history) == 1


@pytest.mark.parametrize("step", ["synthesize", "search", "retrain", "evaluate", "one that fails"])
def test_the_callers_random_numbers_go_on_as_if_there_had_been_no_step(step, teacher, images, found, student):
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def take():
        if step == "synthesize":
            dfnas.synthesize(teacher, 4, **SHORT)
        elif step == "search":
            dfnas.search(teacher, images, **SEARCH)
        elif step == "retrain":
            dfnas.retrain(teacher, images, found.architecture, epochs=1, batch_size=16)
        elif step == "evaluate":
            dfnas.evaluate(teacher, student, Two())
        else:
            with pytest.raises(KeyboardInterrupt):
                dfnas.search(teacher, images, listener=Stopping(), **SEARCH)

    seed_everything(5)
    expected = draw()
    seed_everything(5)
    take()
    assert draw() == expected


class Stopping(Silent):
    """Stops a step when its work has begun."""

    def task(self, *_, **__):
        seed_everything(6)
        raise KeyboardInterrupt


EXAMPLE = [line.strip() for line in inspect.getdoc(dfnas).splitlines() if line.startswith("    ")]
RUN_IT = """
import sys

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ImportError("there is no Ray here", name=name)

sys.meta_path.insert(0, NoRay())
import torch
from torch import nn
from dfnas_ray.library import steps

small = {small!r}
make = steps.make_experiment


def make_small(values):  # the defaults are those of published runs: only the amount of work is changed
    for name in small.keys() & values.keys():
        values[name] = {{**small[name], **values[name]}}
        for member in ("space", "algorithm"):
            if isinstance(values[name].get(member), str):
                values[name][member] = {{"kind": values[name][member], **small[member]}}
    return make(values)


steps.make_experiment = make_small
torch.manual_seed(0)
torch.set_num_threads(1)
pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
model = nn.Sequential(nn.Conv2d(3, 128, 3), nn.BatchNorm2d(128), nn.ReLU(), *pooled, nn.Linear(128, 10))
{example}
print(len(images), found.architecture.text, tuple(student(torch.rand(2, 3, 32, 32)).shape), "ray" in sys.modules)
"""


def test_the_documented_example_runs_word_for_word_where_there_is_no_ray():
    small = {
        "synthesis": {
            "method": inversion(scales=[{"scale": 2, "steps": 1}, {"scale": 1, "steps": 1}], warmup_steps=0)["method"],
            "compile": False,
        },
        "search": {"seeds": [0], "selection": {"finalists": 1, "epochs": 1}},
        "retraining": {"epochs": 1},
        "space": {"channels": 4, "cells_per_stage": 1},
        "algorithm": {"epochs": 1, "calibration_batches": 1, "evolution": EVOLUTION},
    }
    assert len(EXAMPLE) == 5, "the import and four lines"
    code = RUN_IT.format(small=small, example="\n".join(EXAMPLE))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    number, genotype, *rest = done.stdout.splitlines()[-1].split(" ", 2)
    assert number == "1000"
    assert genotype.startswith("|")
    assert rest == ["(2, 10) False"]
