"""A run directory on S3: a real server on the loopback, other machines played by processes that share no folder."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pyarrow import fs
from s3_server import s3_server

import dfnas_ray
from dfnas_ray.config.yaml_text import MAX_LENGTH
from dfnas_ray.errors import ConfigError, StorageError
from dfnas_ray.report.artefacts import read_artefacts
from dfnas_ray.report.page import commands
from dfnas_ray.report.samples import read_curves
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name
from dfnas_ray.submission.prepare import prepare
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server("bucket") as started:
        yield started


@pytest.fixture(autouse=True)
def working_again(server):
    yield
    server.mode = "works"


@pytest.fixture
def at_home(monkeypatch):
    """The credentials of the test server in this process: those of the workers come from the shared cluster."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def another_machine(tmp_path, values, server, *arguments: str) -> tuple[int, str]:
    """Run the command where nothing of this machine's work can be found but what is in the store."""
    home = tmp_path / "another-home"
    home.mkdir()
    (home / "tiny.yaml").write_text(yaml.safe_dump(values))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))},
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret-of-the-environment",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": server.endpoint,  # the other way to name a server: that of the tools around S3
        "COLUMNS": "500",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("dfnas"), *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_images_made_on_one_machine_are_searched_and_retrained_on_by_another(
    ray_cluster, at_home, server, tiny_experiment, tiny_values, tiny_run, tmp_path
):
    with Session(tiny_experiment(server.uri("bucket/team/run"))).opened() as session:
        made = order.synthesize(session)
    local = tiny_run.outcomes["synthesis"].location
    names = [name for name in local.file_names() if name.endswith(".parquet")]
    assert [(made.location / name).read_bytes() for name in names] == [(local / name).read_bytes() for name in names]

    where = ("--run-dir", "s3://bucket/team/run", "--address", "inline")
    code, text = another_machine(tmp_path, tiny_values(), server, "run", "tiny.yaml", *where)
    assert code == 0, text
    assert "Traceback" not in text
    run = Location.parse(server.uri("bucket/team/run"))
    ours, theirs = (
        {
            stage: (root / stage / name / "done.json").read_json()
            for stage, name in (root / "latest.json").read_json().items()
        }
        for root in (run, tiny_run.session.run_dir.location)
    )
    assert ours["synthesis"]["made_now"] == 3
    assert ours["synthesis"]["finished_at"] == made.summary["finished_at"]  # nothing was made twice
    assert ours["search"]["genotype"] == theirs["search"]["genotype"]
    assert ours["search"]["trials"] == theirs["search"]["trials"]
    for stage in ("retraining", "baseline"):
        folders = [
            root / stage / (root / "latest.json").read_json()[stage]
            for root in (run, tiny_run.session.run_dir.location)
        ]
        ours_bytes, theirs_bytes = ((folder / "weights.safetensors").read_bytes() for folder in folders)
        assert ours_bytes == theirs_bytes
    assert (run / "report.html").exists()
    assert (run / ".lock").file_names() == []
    assert not list((tmp_path / "another-home").rglob("*.parquet"))
    everything = run.filesystem.get_file_info(fs.FileSelector(run.path, recursive=True))
    written = [Location(run.filesystem, info.path).read_bytes() for info in everything if info.is_file]
    assert len(written) > 20
    assert not [data for data in written if b"test-secret-of-the-environment" in data]


def copied_to_a_store(run, uri, *patterns):
    target = Location.parse(uri)
    for file in (file for pattern in patterns for file in run.folder.glob(pattern)):
        (target / str(file.relative_to(run.folder))).write_bytes(file.read_bytes())
    return target


def test_network_and_images_are_loaded_from_a_store(server, at_home, tiny_inline_run):
    uri = server.uri("bucket/travel/run")
    target = copied_to_a_store(
        tiny_inline_run,
        uri,
        "latest.json",
        "teacher.json",
        "retraining/*/*.json",
        "retraining/*/*.safetensors",
        "synthesis/*/*",
    )
    images = torch.from_numpy(dfnas_ray.load_images(uri).data.images[:4])
    with torch.no_grad():
        found, expected = (dfnas_ray.load_network(place)(images) for place in (uri, tiny_inline_run.folder))
    assert torch.equal(found, expected)
    weights = target / "retraining" / (target / "latest.json").read_json()["retraining"] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(StorageError, match=r"weights\.safetensors was altered or lost"):
        dfnas_ray.load_network(uri)


def test_the_commands_that_a_report_shows_can_be_run_on_a_run_in_a_store(server, at_home, tiny_inline_run, tmp_path):
    uri = server.uri("bucket/commands/run")
    target = copied_to_a_store(tiny_inline_run, uri, "*.json", "experiment.yaml", "*/*/done.json")
    shown = commands(read_artefacts(RunDir(target)))
    config = dfnas_ray.load_experiment(tiny_inline_run.folder / "experiment.yaml")
    for command in shown.values():
        program, _, file, *options = shlex.split(command)
        assert program == "dfnas"
        assert dfnas_ray.load_experiment(file) == config
        assert Location.parse(options[options.index("--run-dir") + 1]).path.startswith("bucket/commands/run")
    assert shlex.split(shown["reproduce"])[-1] == server.uri("bucket/commands/run-again")

    _, _, *rest = shlex.split(shown["continue"])
    code, text = another_machine(tmp_path, {}, server, "report", *rest)
    assert code == 0, text
    assert "s3://bucket/commands/run/report.html" in text
    assert (target / "report.html").exists()


def test_an_experiment_in_a_store_is_read_or_refused_in_one_error(server, at_home, tmp_path, monkeypatch):
    uri = server.uri("bucket/experiments/mine.yaml")
    with pytest.raises(StorageError, match=r"Cannot read s3://bucket/experiments/mine\.yaml.*The file does not exist"):
        dfnas_ray.load_experiment(uri)
    file = Location.parse(uri)
    file.write_bytes(b"teacher: digits\nseed: 7\nrun_dir: /tmp/run\n")
    assert dfnas_ray.load_experiment(uri).seed == 7
    with pytest.raises(StorageError, match=r"Give it as text: 's3://bucket/experiments/mine\.yaml"):
        dfnas_ray.load_experiment(Path(uri))
    job = prepare("run", uri, root=tmp_path)
    assert uri in shlex.split(job.entrypoint)
    assert not [name for name in job.working_dir.files if name.endswith("mine.yaml")]
    file.write_bytes(b"#" * (4 * MAX_LENGTH + 1))
    with pytest.raises(ConfigError, match=r"mine\.yaml.* has more than .* bytes"):
        dfnas_ray.load_experiment(uri)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"mine\.yaml.* cannot be read: it is not UTF-8"):
        dfnas_ray.load_experiment(uri)


def test_a_location_in_a_store_is_named_by_a_uri_that_leads_back_to_it(server, at_home):
    place = Location.parse(server.uri("bucket/named/")) / "a" / "b.json"
    assert str(place) == "s3://bucket/named/a/b.json"
    assert place.address == server.uri("bucket/named/a/b.json")
    place.write_json({"kept": 1})
    again = Location.parse(place.address)
    assert (again.path, again.filesystem) == (place.path, place.filesystem)
    assert again.read_json() == {"kept": 1}
    assert Location.parse(pickle.loads(pickle.dumps(place)).move_aside().address).read_json() == {"kept": 1}


def test_a_store_that_is_out_of_order_for_a_while_is_waited_for(server, at_home, caplog):
    file = Location.parse(server.uri("bucket/weather")) / "x.json"
    file.write_json({"kept": 1})
    server.mode = "overloaded"
    before = server.refused

    threading.Timer(8.0, lambda: setattr(server, "mode", "works")).start()  # longer than the client tries by itself
    file.write_json({"kept": 2})
    assert server.refused > before
    assert "trying again for up to 120 s" in caplog.text
    assert file.read_json() == {"kept": 2}


@pytest.mark.slow
def test_a_report_waits_for_shards_that_cannot_be_read_for_a_while(server, at_home):
    folder = Location.parse(server.uri("bucket/shards"))
    data = encode_shard(
        ShardInfo("k", 0, 1, "t", [[{"step": 0, "losses": {"total": 1.0}}]]),
        np.zeros((4, 1, 8, 8), np.uint8), np.arange(4), np.zeros(4, int), np.zeros((4, 5)),
    )  # fmt: skip
    (folder / shard_name(0)).write_bytes(data)
    manifest = Manifest(key="k", shards=(manifest_entry(0, data, 4),))
    server.mode = "overloaded"
    before = server.refused
    threading.Timer(8.0, lambda: setattr(server, "mode", "works")).start()
    facts = read_curves(folder, manifest)
    assert server.refused > before
    assert facts.problems == []
    assert facts.curves == {0: [(0, {"total": 1.0})]}


def test_a_bucket_that_may_not_be_written_is_one_error(server, at_home):
    server.mode = "forbids"
    with pytest.raises(StorageError, match=r"Cannot write s3://bucket/run.*ACCESS_DENIED.*credentials of this machine"):
        (Location.parse(server.uri("bucket/run")) / "latest.json").write_json({})


def test_a_bucket_that_is_not_there_is_one_error(server, at_home):
    with pytest.raises(StorageError, match=r"Cannot write s3://no-such.*no such bucket"):
        (Location.parse(server.uri("no-such/run")) / "latest.json").write_json({})


def test_the_command_says_what_is_wrong_with_a_store_and_leaves_nothing(server, tmp_path, tiny_values):
    server.mode = "forbids"
    where = ("--run-dir", "s3://bucket/closed", "--address", "inline")
    code, text = another_machine(tmp_path, tiny_values(), server, "run", "tiny.yaml", *where)
    assert code == 2
    assert "credentials of this machine do not allow it" in text
    assert "Traceback" not in text
    server.mode = "works"
    assert not Location.parse(server.uri("bucket/closed")).exists()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:hidden@bucket/run", "run_dir holds a password"),
        (
            "s3://bucket/run?colour=red",
            "run_dir holds the parameter colour.*A URI of s3 may have endpoint_override, scheme",
        ),
        ("gs://bucket/run?region=us-east-1", "run_dir holds the parameter region.*A URI of gs may have .*project_id"),
        ("ftp://bucket/run", "a URI such as s3://bucket/prefix"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(uri, words):
    with pytest.raises(StorageError, match=words) as refused:
        Location.parse(uri)
    assert "hidden" not in str(refused.value)


def test_a_location_reaches_its_store_from_another_process(server, at_home):
    file = Location.parse(server.uri("bucket/sent")) / "x"
    pickle.loads(pickle.dumps(file)).write_bytes(b"data")
    assert file.read_bytes() == b"data"
    assert str(file) == "s3://bucket/sent/x"
