"""`dfnas truth`: architectures trained on real images, broken off and gone on with, grown, read as a table, and refused."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError, DatasetError
from dfnas_ray.library import benchmark, truth
from dfnas_ray.ranking.table import read_table
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow import truth as stage
from dfnas_ray.workflow.session import Session

IMAGES = {"kind": "real", "dataset": {"kind": "hard_digits", "split": "train"}, "num_images": 60}
ALL = ("00", "01", "02", "10", "11", "12", "20", "21", "22")


@pytest.fixture
def values(tiny_values, tmp_path):
    """The tiny experiment: a space of nine chains on a few hard digits."""

    def make(**changes):
        settings = tiny_values() | {
            "run_dir": str(tmp_path / "run"),
            "teacher": {"kind": "hard_digits", "width": 4, "epochs": 1},
            "allow_real_images": True,
            "retraining": {"epochs": 2, "batch_size": 16, "baseline": False, "images": IMAGES, "labels": {"weight": 1}},
            "evaluation": {"dataset": {"kind": "hard_digits"}},
        }
        return settings | changes

    return make


@pytest.fixture
def experiment(values):
    def make(*overrides, address="inline", **changes):
        return make_experiment(values(**changes), [f"cluster.address={address}", *overrides])

    return make


@pytest.fixture
def table(tmp_path):
    return tmp_path / "table.csv"


def rows_of(file):
    with file.open() as lines:
        return {row["arch"]: row for row in csv.DictReader(lines)}


def trained(tmp_path):
    """The texts of what was trained, in all folders, as often as it was."""
    files = sorted((tmp_path / "run" / "trained").glob("*/trained-*.json"))
    return [text for file in files for text in json.loads(file.read_text())["figures"]]


def test_all_architectures_are_trained_and_read_as_a_table(experiment, table, tmp_path, address):
    config = experiment(address=address)
    outcome = truth(config, table)
    rows = rows_of(table)
    assert list(rows) == list(ALL)
    assert list(rows["00"]) == ["arch", "accuracy", "nll", "params", "macs"]
    assert all(5 < float(row["accuracy"]) < 60 and 1 < float(row["nll"]) < 9 for row in rows.values())
    space = config.search.space[0].space((1, 16, 16), 10)
    assert [(int(row["params"]), int(row["macs"])) for row in rows.values()] == [
        space.cost(space.decode(t)) for t in ALL
    ]
    record = outcome.record
    assert (record.architectures, record.in_space, record.images) == (9, 9, 540)
    assert record.accuracy == pytest.approx(max(float(row["accuracy"]) for row in rows.values()) / 100, abs=1e-6)
    assert not record.data_free
    assert "not data-free" in record.headline
    assert "not data-free" in record.trained_on

    assert sorted(trained(tmp_path)) == sorted(ALL)
    table.unlink()
    assert truth(config, table).reused
    assert rows_of(table) == rows


def test_it_is_what_retraining_and_evaluation_give(experiment, table):
    config = experiment("retraining.drop_path=0")
    truth(config, table, architectures=9)
    with Session(config).opened() as session:
        outcome = order.evaluate(session, "21")
    accuracy = outcome.record.networks["retraining"].accuracy
    assert float(rows_of(table)["21"]["accuracy"]) == pytest.approx(100 * accuracy, abs=1e-3)


def test_one_that_was_killed_goes_on_and_trains_nothing_twice(experiment, table, tmp_path, recorder, monkeypatch):
    truth(experiment(), table)
    undisturbed = table.read_bytes()
    config, before = experiment(run_dir=str(tmp_path / "killed" / "run")), stage.train_at_once
    done = []

    def killed(job, batches):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(job.genotype)
        return before(job, batches)

    monkeypatch.setattr(stage, "train_at_once", killed)
    table.unlink()
    with pytest.raises(KeyboardInterrupt):
        truth(config, table)
    assert not table.exists()
    kept = trained(tmp_path / "killed")
    assert 0 < len(kept) <= 5
    monkeypatch.setattr(stage, "train_at_once", before)
    truth(config, table, listener=recorder)
    assert sorted(trained(tmp_path / "killed")) == sorted(ALL)
    assert trained(tmp_path / "killed")[: len(kept)] == kept
    assert any(f"truth: {len(kept)} of 9 architectures are trained already" in said for said in recorder.said)
    assert table.read_bytes() == undisturbed


def test_a_sample_grows_and_what_was_altered_is_trained_again(experiment, table, tmp_path, recorder):
    truth(experiment(), table, architectures=3)
    few = rows_of(table)
    truth(experiment(), table, architectures=5)
    more = rows_of(table)
    assert len(few) == 3
    assert few.items() <= more.items()
    assert sorted(trained(tmp_path)) == sorted(more)

    file = sorted((tmp_path / "run" / "trained").glob("*/trained-*.json"))[0]
    file.write_text(file.read_text().replace('"accuracy": 0.', '"accuracy": 7.'))
    truth(experiment(), table, architectures=6, listener=recorder)
    assert any("was altered" in said for said in recorder.said)
    assert more.items() <= rows_of(table).items()


def test_another_seed_or_training_is_another_truth(experiment, table, tmp_path):
    for override in (
        "seed=0",
        "seed=1",
        "retraining.epochs=1",
        "retraining.labels.smoothing=0",
        "evaluation.dataset.draws=2",
    ):
        truth(experiment(override), table, architectures=2)
    assert len(trained(tmp_path)) == 10


def test_a_benchmark_takes_the_table(experiment, table):
    truth(experiment(), table)
    quick = {"algorithm": {"kind": "zero_cost", "proxies": ["synflow"], "batch_size": 16}}
    search = experiment().model_dump(mode="json")["search"] | quick
    section = {"table": str(table), "seeds": [0]}
    config = experiment(search=search, benchmark=section)
    space = config.search.space[0]
    assert read_table(config.benchmark, space.space(*space.native_input)).accuracy_column == "accuracy"
    assert benchmark(config).record.architectures == 9


@pytest.mark.parametrize(
    ("overrides", "architectures", "told"),
    [
        (["retraining.images=synthetic"], None, r"retraining.images \(synthetic\) are not real.*allow_real_images: true"),
        (["retraining.images=noise", "retraining.labels=null"], None, r"retraining.images \(noise\) are not real"),
        (["retraining.labels=null"], None, r"retraining.labels is not set.*\{weight: 1"),
        (["evaluation.dataset=null"], None, r"evaluation.dataset is not set"),
        (["retraining.num_workers=2"], None, r"retraining.num_workers \(2\).*Set it to 1"),
        (["search.space=[{kind: nasbench_macro}, {kind: nasbench201}]"], None, r"search.space lists 2 spaces"),
        (["search.space={kind: shufflenet}"], None, r"shufflenet has 1,099,511,627,776 architectures.*--architectures 200"),
        ([], 10, r"--architectures \(10\) must be between 1 and the 9"),
        ([], 0, r"--architectures \(0\) must be between 1 and the 9"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_error_before_anything_is_made(
    experiment, table, tmp_path, overrides, architectures, told
):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        truth(experiment(*overrides), table, architectures)
    assert not (tmp_path / "run").exists()


def test_a_folder_is_no_table(experiment, tmp_path):
    with pytest.raises(ConfigError, match=r"--out \(.*\) is a folder.*table.csv"):
        truth(experiment(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_refused_before_the_teacher_labels_one(experiment, table, tmp_path):
    with pytest.raises(
        DatasetError, match=r"retraining.images.dataset: .*hard digits.* holds 1,257 images, but num_images is 2,000"
    ):
        truth(experiment("retraining.images.num_images=2000"), table)
    assert not (tmp_path / "run" / "trained").exists()


def test_the_command_writes_the_table_and_says_what_it_is(values, dfnas, table, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(values()))
    given = (file, "--address", "inline", "--out", table)
    code, out, err = dfnas("truth", *given, "--architectures", 2)
    assert code == 0, err
    assert "2 architectures" in out
    assert "not data-free" in out
    assert str(table) in out
    assert len(rows_of(table)) == 2
    code, out, _ = dfnas("truth", *given, "--architectures", 2, "--json")
    assert json.loads(out)["stages"]["truth"]["reused"]
    code, _, err = dfnas("truth", *given, "--set", "retraining.labels=null")
    assert code == 2
    assert "retraining.labels is not set" in err
