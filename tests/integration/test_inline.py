"""Everything in one process: what a local Ray cluster leaves, byte for byte, and where Ray cannot be imported."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import no_ray
import pytest
import yaml

from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.timeout(240)

REPOSITORY = Path(__file__).parents[2]
INLINE = "cluster.address=inline"
RESULTS = (
    "synthesis/*/shard-*.parquet",
    "synthesis/*/manifest.json",
    "synthesis/*/quality.json",
    "search/*/*/result.json",
    "search/*/trials.json",
    "search/*/comparison.json",
    *(f"{stage}/*/{name}" for stage in ("retraining", "baseline") for name in ("weights.safetensors", "history.json")),
)
WITHOUT_TIMES = {"seconds", "finished_at", "machine", "actors"}


def results(run: Path) -> dict[str, bytes]:
    """Every artefact of a run by its place: folders are named after keys, which are compared as well."""
    files = {str(file.relative_to(run)): file for pattern in RESULTS for file in run.glob(pattern)}
    assert {name.partition("/")[0] for name in files} == {"synthesis", "search", "retraining", "baseline"}
    return {name: file.read_bytes() for name, file in sorted(files.items())}


def records(run: Path) -> dict[str, dict]:
    """What the stages say of themselves, but for times and machines."""
    return {
        str(file.relative_to(run)): {k: v for k, v in json.loads(file.read_text()).items() if k not in WITHOUT_TIMES}
        for file in run.glob("*/*/done.json")
    }


def test_a_run_in_one_process_is_that_on_ray_byte_for_byte(tiny_run, tiny_inline_run):
    ours, theirs = (results(run.folder) for run in (tiny_inline_run, tiny_run))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert records(tiny_inline_run.folder) == records(tiny_run.folder)


@pytest.mark.parametrize("of_ray", [True, False], ids=["on-ray-then-inline", "inline-then-on-ray"])
def test_what_one_executor_has_finished_the_other_one_takes_up(
    tiny_run, tiny_inline_run, tiny_experiment, tmp_path, of_ray
):
    folder = shutil.copytree((tiny_run if of_ray else tiny_inline_run).folder, tmp_path / "run")
    config = tiny_experiment(folder, *([INLINE] if of_ray else []))
    with Session(config).opened() as session:
        outcomes = order.run(session)
    assert {name: outcome.reused for name, outcome in outcomes.items()} == dict.fromkeys(tiny_run.outcomes, True)


def test_a_run_says_where_it_was_done(tiny_inline_run):
    machine = tiny_inline_run.outcomes["search"].summary["machine"]
    assert machine["executor"] == "inline"
    assert "ray" not in machine


@pytest.mark.parametrize(
    ("command", "settings", "words"),
    [
        ("run", "retraining.num_workers=2", ["retraining.num_workers (2)", "Set it to 1"]),
        ("run", "search.start_after_shards=1", ["search.start_after_shards (1) to null"]),
        ("search", "search.start_after_shards=1", ["search.start_after_shards (1) to null"]),
        (
            "run",
            "search.algorithm={kind: multi_fidelity, proposals: tpe}",
            ["search.algorithm.proposals (tpe)", "Ray Tune"],
        ),
        (
            "search",
            "search.algorithm={kind: multi_fidelity, proposals: tpe}",
            ["search.algorithm.proposals (tpe)", "Ray Tune"],
        ),
        ("run", "search.algorithm={kind: multi_fidelity, scheduler: hyperband}", ["scheduler (hyperband)", "Ray Tune"]),
        (
            "search",
            "search.algorithm={kind: multi_fidelity, scheduler: hyperband}",
            ["scheduler (hyperband)", "Ray Tune"],
        ),
    ],
)
def test_what_one_process_cannot_do_is_refused_before_anything_is_made(
    dfnas, tiny_yaml, tmp_path, command, settings, words
):
    run_dir = tmp_path / "run"
    code, _, err = dfnas(command, tiny_yaml, "--run-dir", run_dir, "--address", "inline", "--set", settings)
    assert code == 2, err
    assert [word for word in [*words, "cluster.address"] if word not in err] == [], err
    assert "Traceback" not in err
    assert {path.name for path in run_dir.glob("*")} <= {".lock", "teacher"}


def test_a_population_is_halved_rung_by_rung_and_goes_on_where_it_broke_off(
    tiny_inline_run, tiny_experiment, tmp_path, monkeypatch
):
    halving = "{kind: multi_fidelity, candidates: 6, max_epochs: 4, reduction_factor: 2, batch_size: 16}"

    def search(folder: Path) -> bytes:
        config = tiny_experiment(folder, INLINE, f"search.algorithm={halving}", "search.seeds=[0]")
        with Session(config).opened() as session:
            outcome = order.search(session)
        (trial,) = json.loads((Path(outcome.location.path) / "trials.json").read_text())
        rungs = [(entry["epochs"], len(entry["genotypes"])) for entry in trial["history"] if "epochs" in entry]
        return rungs, trial

    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        for name in ("synthesis", "teacher"):
            shutil.copytree(tiny_inline_run.folder / name, folder / name)
    whole = search(folders[0])

    from dfnas_ray.algorithms import trials

    save, saved = trials.save, []

    def breaking(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(trials, "save", breaking)
    with pytest.raises(KeyboardInterrupt):
        search(folders[1])
    monkeypatch.undo()
    assert search(folders[1]) == whole


def command(folder: Path, file: Path, *arguments: str | Path, **options) -> subprocess.Popen[str]:
    """Start the command where no Ray can be imported."""
    return subprocess.Popen(
        [sys.executable, "-m", "dfnas_ray", "run", str(file), *map(str, arguments)],
        cwd=REPOSITORY,
        env=no_ray.environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_a_run_where_ray_cannot_be_imported(tiny_inline_run, tiny_yaml, tmp_path):
    process = command(tmp_path, tiny_yaml, "--run-dir", tmp_path / "run", "--address", "inline")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert results(tmp_path / "run") == results(tiny_inline_run.folder)


@pytest.mark.parametrize(
    "arguments", [("run",), ("sweep", "--set", "sweep={settings: {synthesis.method.lr: {uniform: [1, 2]}}}")]
)
def test_without_ray_and_without_inline_one_error_says_what_to_do(tiny_yaml, tmp_path, arguments):
    (name, *more) = arguments
    done = subprocess.run(
        [sys.executable, "-m", "dfnas_ray", name, str(tiny_yaml), "--run-dir", str(tmp_path / "run"), *more],
        env=no_ray.environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    assert "--address inline" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {".lock", "teacher"}


@pytest.mark.parametrize("arguments", [("submit", "FILE", "--run-dir", "/tmp/shared"), ("jobs", "list")])
def test_what_needs_a_cluster_says_so_where_there_is_no_ray(tiny_yaml, tmp_path, arguments):
    words = [str(tiny_yaml) if word == "FILE" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "dfnas_ray", *words, "--dashboard", "http://127.0.0.1:1"],
        env=no_ray.environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Ray" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_digits_experiment_where_ray_cannot_be_imported(tmp_path):
    file = REPOSITORY / "experiments" / "digits.yaml"
    process = command(tmp_path, file, "--run-dir", tmp_path / "run", "--address", "inline")
    output, _ = process.communicate(timeout=580)
    assert process.returncode == 0, output
    assert "searched network" in output or "retraining" in output.lower()
    assert results(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(
    tiny_inline_run, tiny_yaml, tmp_path
):
    """Ten kills in one run directory, each at another moment of what is left of the work."""
    values = yaml.safe_load(tiny_yaml.read_text())
    tiny_yaml.write_text(yaml.safe_dump(values))
    expected = results(tiny_inline_run.folder)
    rng = random.Random(0)
    killed = 0
    for round_number in range(40):
        if killed == 10:
            break
        run_dir = tmp_path / "run"
        process = command(tmp_path, tiny_yaml, "--run-dir", run_dir, "--address", "inline", start_new_session=True)
        limit = time.monotonic() + 60
        while not (run_dir / "teacher").exists():  # imports take longer than everything else
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 4))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        if (run_dir / "report.html").exists():
            assert results(run_dir) == expected, f"after round {round_number}"
            shutil.rmtree(run_dir)
    assert killed == 10
    process = command(tmp_path, tiny_yaml, "--run-dir", tmp_path / "run", "--address", "inline")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert results(tmp_path / "run") == expected
    assert not list((tmp_path / "run").rglob("*.tmp"))
