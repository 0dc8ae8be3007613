"""Bad input: one clear message, exit code 2, no traceback."""

import json
import sys

import pytest
import torch
import yaml

from dfnas_ray.cli.main import main
from dfnas_ray.experiment import load_experiment


class Anything:
    """A class that a pickle would have to import."""


@pytest.fixture
def dfnas(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dfnas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, " ".join(captured.err.split())

    return call


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("teacher: digits\nsearch: {max_macs: null}\nevaluation: {dataset: {kind: digits}}\n")
    return path


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("synthesis.round=3", "synthesis.round is not a setting. Did you mean rounds?"),
        ("synthesis.rounds=many", "synthesis.rounds ('many')"),
        ("synthesis.lr=-1", "synthesis.lr (-1): input should be greater than 0"),
        ("synthesis.batch_size=64", "Next multiple: 1024"),
        ("synthesis.regularizers.bn_statistic.weight=1", "Did you mean bn_statistics?"),
        ("teacher.widht=3", "teacher.widht is not a setting. Did you mean width?"),
        ("teacher.kind=digit", "teacher.kind ('digit') must be one of"),
        ("evaluation.dataset.kind=folder", "evaluation.dataset.kind ('folder') must be one of"),
        ("search.max_macs=half", "neither a number of MACs"),
        ("search", "must have the form dotted.key=value"),
        ("synthesis.stages.7.steps=3", "Give the whole list"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(dfnas, file, setting, message):
    code, _, error = dfnas("config", "show", file, "--set", setting)
    assert (code, "Traceback" in error) == (2, False)
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher: [", "not valid YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("teacher: digits\nseed: 1\nseed: 2\n", "'seed' is given twice"),
        ("seed: 1\n", "teacher is missing"),
    ],
)
def test_a_wrong_file_is_refused(dfnas, tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    code, _, error = dfnas("config", "show", path)
    assert code == 2
    assert message in error


def test_a_missing_file_is_named(dfnas, tmp_path):
    code, _, error = dfnas("run", tmp_path / "absent.yaml")
    assert code == 2
    assert "absent.yaml" in error


CHECKPOINT = (
    "teacher={kind: checkpoint, builder: 'dfnas_ray.teachers.cifar_resnet:resnet20', image_shape: [3, 32, 32], "
    "mean: [0, 0, 0], std: [1, 1, 1], checkpoint: %s}"
)


def test_a_checkpoint_of_another_network_lists_its_keys(dfnas, file, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    code, _, error = dfnas("run", file, "--run-dir", tmp_path / "run", "--set", CHECKPOINT % (tmp_path / "other.pt"))
    assert code == 2
    assert "missing: conv1.weight" in error
    assert "unexpected: fc.weight" in error


def test_a_pickle_that_needs_code_is_refused(dfnas, file, tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Anything()}, tmp_path / "code.pt")
    code, _, error = dfnas("run", file, "--run-dir", tmp_path / "run", "--set", CHECKPOINT % (tmp_path / "code.pt"))
    assert code == 2
    assert "loading it would run code" in error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.max_macs=10", "below the smallest architecture"),
        ("evaluation.dataset={kind: parquet, path: /nowhere/x.parquet}", "/nowhere/x.parquet does not exist"),
        ("run_dir=/dev/null/run", "/dev/null/run"),
        ("synthesis.canvas_margin=3", "Next multiple: 4"),
    ],
)
def test_what_would_fail_later_fails_before_any_work(dfnas, file, tmp_path, setting, message):
    arguments = ["--set", "teacher.epochs=1", "--set", f"run_dir={tmp_path}/run", "--set", setting]
    code, _, error = dfnas("run", file, *arguments)
    assert code == 2
    assert message in error
    assert not (tmp_path / "run" / "synthesis").exists()


def test_a_cluster_that_does_not_answer_is_reported_at_once(dfnas, file, tmp_path):
    import ray

    if ray.is_initialized():
        ray.shutdown()
    arguments = ["--run-dir", tmp_path / "run", "--set", "teacher.epochs=1", "--address", "127.0.0.1:1"]
    code, _, error = dfnas("run", file, *arguments)
    assert code == 2
    assert "127.0.0.1:1 cannot be reached" in error


def test_a_shown_configuration_loads_back_to_an_equal_one(dfnas, file, tmp_path):
    code, shown, _ = dfnas("config", "show", file, "--set", "synthesis.rounds=5")
    assert code == 0
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert load_experiment(again) == load_experiment(file, ["synthesis.rounds=5"])
    assert yaml.safe_load(shown)["synthesis"]["rounds"] == 5


def test_the_schema_is_json_with_every_section(dfnas):
    code, shown, _ = dfnas("config", "schema")
    assert code == 0
    assert {"teacher", "synthesis", "search", "retraining", "evaluation"} <= set(json.loads(shown)["properties"])


def test_teacher_inspect_shows_layers_fingerprint_and_accuracy(dfnas, file, tmp_path):
    code, shown, _ = dfnas("teacher", "inspect", file, "--run-dir", tmp_path, "--set", "teacher.epochs=1")
    assert code == 0
    assert "5 layers with running statistics" in shown
    assert "540 images" in shown
