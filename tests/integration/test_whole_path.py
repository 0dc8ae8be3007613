"""One tiny run through every stage on a real local Ray, and what a second one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from dfnas_ray import make_experiment
from dfnas_ray.pipeline import Pipeline
from dfnas_ray.storage.shards import load_shards
from dfnas_ray.synthesis.regions import center_crop

TINY = {
    "name": "tiny",
    "teacher": {"kind": "digits", "width": 4, "epochs": 3},
    "synthesis": {
        "num_shards": 3,
        "images_per_shard": 20,
        "batch_size": 20,
        "rounds": 2,
        "stages": [{"scale": 2, "steps": 4}, {"scale": 1, "steps": 6}],
        "warmup_steps": 2,
        "canvas_margin": 2,
        "flip_probability": 0,
        "precision": "float32",
        "compile": False,
    },
    "search": {
        "space": {
            "kind": "nasbench_macro",
            "stem_channels": 4,
            "stage_layers": [1, 1],
            "stage_channels": [8, 16],
            "head_channels": 16,
        },
        "algorithm": {
            "kind": "spos",
            "epochs": 2,
            "batch_size": 16,
            "calibration_batches": 2,
            "evolution": {"generations": 2, "population": 3, "parents": 2, "mutations": 1, "crossovers": 1},
        },
        "max_macs": None,
    },
    "retraining": {"epochs": 2, "batch_size": 16},
    "evaluation": {"dataset": {"kind": "digits"}},
    "cluster": {"num_cpus": 2},
}

pytestmark = pytest.mark.ray


class Heard:
    """A listener that remembers what it was told."""

    def __init__(self):
        self.messages = []

    def say(self, message):
        self.messages.append(message)

    def task(self, description, total, unit):
        from dfnas_ray.progress import Silent

        return Silent().task(description, total, unit)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=150 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def work(folder, overrides=(), do=Pipeline.run):
    heard = Heard()
    with Pipeline(make_experiment(TINY, [f"run_dir={folder}", *overrides]), heard).opened() as pipeline:
        return do(pipeline), heard.messages, pipeline


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    outcomes, _, pipeline = work(folder)
    return folder, outcomes, pipeline


def shard_bytes(outcome):
    return [path.read_bytes() for path in sorted(Path(outcome.location.path).glob("shard-*.parquet"))]


def test_every_stage_leaves_its_artefacts(finished):
    folder, outcomes, _ = finished
    assert set(outcomes) == {"synthesis", "search", "retraining", "baseline", "evaluation"}
    rows = [pq.read_metadata(path).num_rows for path in Path(outcomes["synthesis"].location.path).glob("*.parquet")]
    assert rows == [20 * 2] * 3
    assert set(outcomes["evaluation"].summary["networks"]) == {"teacher", "retraining", "baseline"}
    assert (Path(outcomes["retraining"].location.path) / "network.pt2").exists()
    assert "<html" in (folder / "report.html").read_text()


def test_stored_logits_are_the_teachers_on_the_stored_images(finished):
    _, outcomes, pipeline = finished
    folder = outcomes["synthesis"].location
    images = load_shards(folder, (folder / "manifest.json").read_json())
    view = center_crop(torch.from_numpy(images.images), (16, 16))
    with torch.no_grad():
        expected = pipeline.teacher.model(pipeline.teacher.normalize(view))
    torch.testing.assert_close(torch.from_numpy(images.logits), expected, rtol=1e-4, atol=1e-4)


def test_a_second_run_redoes_nothing(finished):
    folder, _, _ = finished
    parquet = sorted(folder.rglob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in parquet]
    outcomes, _, pipeline = work(folder)
    assert all(outcome.reused for outcome in outcomes.values())
    assert [path.stat().st_mtime_ns for path in parquet] == before
    assert pipeline._runtime is None  # Ray was not even joined


def test_one_actor_makes_the_same_bytes_and_the_same_genotype(finished, tmp_path):
    _, outcomes, _ = finished
    other, _, pipeline = work(tmp_path, ["cluster.synthesis.actors=1"], Pipeline.search)
    assert shard_bytes(pipeline.synthesize()) == shard_bytes(outcomes["synthesis"])
    assert other.summary["genotype"] == outcomes["search"].summary["genotype"]


def test_a_damaged_shard_is_named_and_made_again(finished):
    folder, outcomes, _ = finished
    expected = shard_bytes(outcomes["synthesis"])
    shard = Path(outcomes["synthesis"].location.path) / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:500])
    outcome, messages, _ = work(folder, do=Pipeline.synthesize)
    assert shard_bytes(outcome) == expected
    assert any("shard-00001" in message for message in messages)


def test_a_changed_setting_redoes_its_stage_alone_and_says_so(finished):
    folder, _, _ = finished
    _, messages, pipeline = work(folder, ["search.algorithm.epochs=1"], Pipeline.search)
    assert any("search.algorithm.epochs: 2 -> 1" in message for message in messages)
    assert pipeline.synthesize().reused


def start_and_kill(command, folder, pattern):
    """Start the command, SIGKILL its driver when a file that matches ``pattern`` appears, and clean up after it."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "RAY_ADDRESS": ""}
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("synthesis/*/shard-*.parquet", marks=pytest.mark.slow),
        "search/*/seed-*/state.pt",
        pytest.param("retraining/*/train/checkpoint_*", marks=pytest.mark.slow),
        pytest.param("baseline/*/train/checkpoint_*", marks=pytest.mark.slow),
    ],
)
def test_a_killed_driver_goes_on_to_the_result_of_an_undisturbed_run(finished, tmp_path, pattern):
    _, undisturbed, _ = finished
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    folder = tmp_path / "run"
    code = "from dfnas_ray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", str(file), "--run-dir", str(folder)]
    start_and_kill(command, folder, pattern)
    outcomes, _, _ = work(folder)
    assert shard_bytes(outcomes["synthesis"]) == shard_bytes(undisturbed["synthesis"])
    assert outcomes["search"].summary["genotype"] == undisturbed["search"].summary["genotype"]
    weights = [Path(o["retraining"].location.path) / "weights.safetensors" for o in (outcomes, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
