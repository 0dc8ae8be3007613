"""`dfnas init` and `dfnas plan` as a user calls them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small_transformers import save_small_resnet

from dfnas_ray.config.experiment import load_experiment
from dfnas_ray.planning import timing
from dfnas_ray.teachers.digits import DigitsCNN

SHAPE = ("--image-shape", "1,16,16", "--mean", "0.3", "--std", "0.3")


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """Options for a network of one's own; the working directory is a folder where nothing else is."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(DigitsCNN(width=8).state_dict(), tmp_path / "own.pt")
    return "--builder", "dfnas_ray.teachers.digits:DigitsCNN", "--argument", "width=8", "--checkpoint", "own.pt"


@pytest.fixture
def known_times(monkeypatch):
    """Steps of this teacher are not timed, which takes ten seconds for each draft."""
    monkeypatch.setattr(
        timing, "time_synthesis", lambda teacher, config, device: 2e-3 * config.synthesis.images_in_total
    )
    monkeypatch.setattr(timing, "time_training", lambda *settings: 2e-4)
    monkeypatch.setattr(timing, "time_trial", lambda *settings, num_candidates=None: 0.05 * (num_candidates or 200))


def test_init_writes_an_experiment_that_plan_and_run_take(dfnas, own_model, tmp_path):
    code, out, err = dfnas(
        "init", "own.yaml", *own_model, *SHAPE, "--minutes", "2", "--evaluation", "digits", "--address", "inline"
    )
    assert code == 0, err
    assert "Next: dfnas run own.yaml" in out
    text = (tmp_path / "own.yaml").read_text()
    config = load_experiment("own.yaml")
    assert text.startswith("# dfnas run own.yaml")
    assert max(map(len, text.splitlines())) <= 120
    assert config.synthesis.flip_probability == 0
    assert config.retraining.distillation.variation.flip_probability == 0
    assert config.teacher.arguments == {"width": 8}
    assert config.teacher.mean == (0.3,)
    code, out, err = dfnas("plan", "own.yaml", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert [stage["stage"] for stage in plan["stages"]] == [
        "synthesis",
        "search",
        "retraining",
        "baseline",
        "evaluation",
    ]
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    assert not list(Path("runs/own").glob("synthesis/*/shard*"))  # nothing was started


def test_more_time_is_more_images_and_longer_training(own_model, digits_sizes, known_times):
    short, long = digits_sizes(0.5), digits_sizes(500)
    assert long.synthesis.images_in_total > short.synthesis.images_in_total
    steps = [config.retraining.epochs * config.synthesis.images_in_total for config in (short, long)]
    assert steps[1] > steps[0]
    assert long.search.algorithm[0].num_candidates > short.search.algorithm[0].num_candidates


@pytest.fixture
def digits_sizes(dfnas, own_model):
    def make(minutes):
        code, _, err = dfnas(
            "init", "sized.yaml", "--force", *own_model, *SHAPE, "--minutes", minutes, "--address", "inline"
        )
        assert code == 0, err
        return load_experiment("sized.yaml")

    return make


def test_mirrored_images_are_used_where_it_is_said(dfnas, own_model, known_times):
    assert dfnas("init", "own.yaml", *own_model, *SHAPE, "--minutes", "1", "--mirror", "--address", "inline")[0] == 0
    config = load_experiment("own.yaml")
    assert config.synthesis.flip_probability == 0.5
    assert config.search.distillation.variation.flip_probability == 0.5
    assert config.retraining.distillation.temperature == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "Which teacher? Give --teacher torchvision:NAME (or timm:, huggingface:), or --builder package.module:function with "
            "--checkpoint FILE.",
        ),
        (("--builder", "a:b"), "Which teacher?"),
        (("--teacher", "digits", "--builder", "a:b"), "--teacher (digits) and --builder are both given"),
        (
            ("--teacher", "digits", "--checkpoint", "x.pt"),
            "--checkpoint does not go with --teacher digits. Leave it out.",
        ),
        (
            ("--teacher", "digits", "--argument", "width=7"),
            "--argument does not go with --teacher digits. Leave it out.",
        ),
        (
            ("--teacher", "digits", "--num-classes", "7"),
            "--num-classes does not go with --teacher digits. Leave it out.",
        ),
        (
            ("--teacher", "huggingface:a/b", "--num-classes", "7"),
            "--num-classes does not go with --teacher huggingface:a/b.",
        ),
        (
            ("--teacher", "torchvision:resnet18", "--num-classes", "7"),
            "--num-classes (7): the published weights of torchvision:resnet18 have 1000 classes. Remove it, or set --checkpoint",
        ),
        (
            ("--teacher", "torchvision:resnet18", "--checkpoint", "x.pt"),
            "The checkpoint x.pt does not exist. Set --checkpoint to the file.",  # an option, where there is no file yet
        ),
        (
            ("--builder", "a:b", "--checkpoint", "x.pt"),
            "--image-shape is missing, and a checkpoint does not contain it.",
        ),
        (("--builder", "a:b", "--checkpoint", "x.pt", "--image-shape", "1,x"), "--image-shape ('1,x') must be numbers"),
        (
            ("--builder", "a:b", "--checkpoint", "x.pt", "--image-shape", "1,8,8"),
            "--mean is missing, and a checkpoint does not contain it. Mean of its training pixels in [0, 1], 1 with commas.",
        ),
        (
            ("--builder", "a:b", "--checkpoint", "x.pt", "--argument", "7"),
            "--argument '7' must have the form NAME=VALUE",
        ),
        (("--example", "mnist"), "--example 'mnist' does not exist. Known: digits."),
    ],
)
def test_what_is_missing_or_wrong_is_one_error_and_writes_nothing(dfnas, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = dfnas("init", "new.yaml", *arguments)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_model_of_hugging_face_in_a_folder_is_drafted(dfnas, tmp_path, monkeypatch, known_times):
    monkeypatch.chdir(tmp_path)
    save_small_resnet(tmp_path / "small", embedding_size=16, hidden_sizes=[16, 32])
    code, _, err = dfnas(
        "init", "own.yaml", "--teacher", "huggingface:org/small", "--checkpoint", "small", "--minutes", "1", "--address", "inline"
    )  # fmt: skip
    assert code == 0, err
    values = yaml.safe_load(Path("own.yaml").read_text())
    assert values["teacher"] == {"kind": "huggingface", "name": "org/small", "checkpoint": "small"}
    code, out, err = dfnas("teacher", "inspect", "own.yaml")
    assert (code, "huggingface:small" in out) == (0, True), err


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (("--num-classes", "7"), {"num_classes": 7}),
        (("--argument", "num_classes=7"), {"arguments": {"num_classes": 7}}),
    ],
)
def test_a_model_of_timm_that_was_trained_on_is_drafted(dfnas, tmp_path, monkeypatch, options, settings, known_times):
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "own.pt")
    source = ("--teacher", "timm:test_resnet", "--checkpoint", "own.pt", "--image-shape", "3,16,16")
    code, _, err = dfnas("init", "own.yaml", *source, *options, "--minutes", "1", "--address", "inline")
    assert code == 0, err
    values = yaml.safe_load(Path("own.yaml").read_text())["teacher"]
    assert values == {
        "kind": "timm", "name": "test_resnet", "checkpoint": "own.pt", "image_shape": [3, 16, 16], **settings
    }  # fmt: skip


def test_a_file_that_is_there_is_not_replaced(dfnas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("teacher: digits\n")
    code, _, err = dfnas("init", "mine.yaml", "--example", "digits")
    assert (code, "already exists. Choose another name, or add --force." in err) == (2, True)
    assert Path("mine.yaml").read_text() == "teacher: digits\n"


def test_the_example_is_the_experiment_of_this_repository(dfnas, tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(tmp_path)
    assert dfnas("init", "digits.yaml", "--example", "digits")[0] == 0
    assert Path("digits.yaml").read_text() == (pytestconfig.rootpath / "experiments" / "digits.yaml").read_text()


def test_a_plan_names_what_a_stage_would_refuse(dfnas, tiny_values, tmp_path):
    file = tmp_path / "tiny.yaml"
    values = tiny_values()
    values["search"]["max_macs"] = 2
    file.write_text(yaml.safe_dump(values))
    code, _, err = dfnas("plan", file, "--run-dir", tmp_path / "run", "--address", "inline")
    assert code == 2
    assert "search.max_macs (2) is below the smallest architecture" in err


def test_a_plan_knows_what_is_done(dfnas, tiny_inline_run):
    code, out, err = dfnas("plan", Path(tiny_inline_run.folder) / "experiment.yaml")
    assert code == 0, err
    assert [line.split()[-1] for line in out.splitlines() if line.startswith(("synthesis", "search"))] == [
        "done",
        "done",
    ]


def test_a_run_of_seconds_is_not_announced_and_a_longer_one_is_in_three_lines(tiny_experiment, tmp_path, recorder):
    from dfnas_ray.library import plans
    from dfnas_ray.workflow.session import Session

    config = tiny_experiment(tmp_path / "run", "cluster.address=inline")
    session = Session(config, recorder)
    plans.announce(session)
    assert recorder.said == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "BRIEF", 0)
        plans.announce(session)
    _, images, search, training = recorder.said
    assert images.startswith("synthesis: 120 images by inversion, 1 worker, about ")
    assert search.startswith("search: spos in nasbench_macro, 2 trials, 4 finalists, about ")
    assert training.startswith("retraining and baseline, evaluation: the network found, 2 epochs, about ")
    assert " In all about " in training


@pytest.mark.parametrize("command", ["run", "synthesize", "search", "retrain", "evaluate"])
def test_results_are_json_for_programs(dfnas, tiny_inline_run, command):
    arguments = (Path(tiny_inline_run.folder) / "experiment.yaml", "--json")
    code, out, err = dfnas(command, *arguments)
    assert code == 0, err
    stages = json.loads(out)["stages"]
    last = {"run": "evaluation", "retrain": "baseline", "evaluate": "evaluation", "synthesize": "synthesis"}.get(
        command, command
    )
    assert list(stages)[-1] == last
    expected = tiny_inline_run.outcomes[last]
    assert stages[last] == {"folder": str(expected.location), "reused": True, **expected.summary}
