"""A run directory that somebody else wrote to leads nowhere else, runs nothing, and takes no time."""

from __future__ import annotations

import sys
import time

import pytest

from dfnas_ray.algorithms.config import distinct
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.datasets.numbering import number_names
from dfnas_ray.errors import ConfigError, DatasetError, StorageError
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.table import read_table
from dfnas_ray.search_spaces import make_space
from dfnas_ray.storage.lease import Lease
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.sealed import remove_altered
from dfnas_ray.storage.uri import refuse_passwords


@pytest.mark.parametrize("name", ["../precious", "../../precious", "/precious", "a/../../precious", "./../precious"])
def test_digests_delete_nothing_outside_of_their_folder(tmp_path, name):
    folder, said = tmp_path / "run" / "stage", []
    folder.mkdir(parents=True)
    for place in (tmp_path, tmp_path / "run"):
        (place / "precious").write_text("years of work")
    Location.parse(folder / "digests.json").write_json({name: "0"})
    assert remove_altered(Location.parse(folder), said.append)
    assert len(said) == 1
    assert all((place / "precious").exists() for place in (tmp_path, tmp_path / "run"))


def test_digests_delete_nothing_behind_a_link(tmp_path):
    folder = tmp_path / "stage"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("years of work")
    (folder / "link").symlink_to(tmp_path / "home")
    (folder / "weights").write_text("altered")
    Location.parse(folder / "digests.json").write_json({"link/precious": "0", "weights": "0"})
    assert remove_altered(Location.parse(folder), lambda line: None)
    assert (tmp_path / "home" / "precious").exists()
    assert not (folder / "weights").exists()


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match=r"\.lock is a symbolic link"), RunDir(tmp_path / "run").locked():
        pass
    assert (tmp_path / "precious").read_text() == "years of work"


def test_a_record_imports_no_code(tmp_path, monkeypatch):
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit('this code was run')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"of the kind of_a_stranger:Space\. That is code to be imported"):
        make_space({"kind": "of_a_stranger:Space"}, (3, 32, 32), 10)
    assert "of_a_stranger" not in sys.modules
    with pytest.raises(ConfigError):
        make_space({"kind": "os:system"}, (3, 32, 32), 10)


@pytest.mark.parametrize(
    "content", [b"null", b"[1]", b"{", b'{"pid": "x"}', b'{"host": " "}', b'{"host": 5, "state": []}', b'{"pid": -1}']
)
def test_a_sign_of_life_that_says_nothing_is_anothers(tmp_path, content):
    waited = []
    lease = Lease(Location.parse(tmp_path), 1.0, 0.5, lambda seconds: (waited.append(seconds), time.sleep(0.3)))
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "0.json").write_bytes(content)
    with lease.held():
        assert waited, "it may be alive"


@pytest.mark.timeout(20)
def test_long_texts_and_many_names_take_no_time(tmp_path):
    refuse_passwords("a" * 300_000, "name")
    refuse_passwords("a:/" * 100_000, "name")
    with pytest.raises(StorageError, match="holds a password"):
        refuse_passwords("9http://user:pw@host/x", "name")
    names = [f"class {number}" for number in range(21_000)]
    labels, numbering = number_names(names, names[::-1], "x", "folders")
    assert labels == list(range(21_000))[::-1]
    assert len(numbering.names) == 21_000
    assert distinct(["a", "b"] * 50_000)[-1] == "b-50000"
    (tmp_path / "t.csv").write_text(",".join(["arch", *(f"c{n}" for n in range(20_000)), "arch"]) + "\n")
    space = make_space({"kind": "nasbench_macro"}, (3, 32, 32), 10)
    with pytest.raises(DatasetError, match="has the column arch twice"):
        read_table(BenchmarkConfig(table=str(tmp_path / "t.csv")), space)


def test_a_sweep_of_more_settings_than_can_be_tried_is_refused():
    sweep = {"settings": {"synthesis.method.tau": {"choice": list(range(1, 1000))}}}
    with pytest.raises(ConfigError, match="at most 200"):
        make_experiment({"teacher": "digits", "sweep": sweep})
