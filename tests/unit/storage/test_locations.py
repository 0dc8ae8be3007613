"""Files that are complete or absent."""

import errno
import os
import pickle
import re
from pathlib import Path

import pytest
from pyarrow import fs

from dfnas_ray.errors import StorageError
from dfnas_ray.storage import location as module
from dfnas_ray.storage.location import Location, _advice


def names(folder):
    return sorted(os.listdir(folder))  # noqa: PTH208 - hidden files, too


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path):
    """A folder of the local disk, and one of a filesystem that is not the local one, as object stores are."""
    if request.param == "local":
        return Location.parse(tmp_path)
    return Location(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "bucket").make_dir()


def test_what_is_written_is_read_back(folder):
    assert folder.file_names() == []
    file = folder / "b.json"
    assert not file.exists()
    file.write_json({"z": 1, "a": [1.5, None]})
    (folder / "a").write_bytes(memoryview(b"data"))
    assert file.exists()
    assert file.read_json() == {"z": 1, "a": [1.5, None]}
    assert (folder / "a").read_bytes() == b"data"
    assert folder.file_names() == ["a", "b.json"]
    file.delete_file()
    assert folder.file_names() == ["a"]


def test_an_absent_folder_has_no_files(folder):
    assert (folder / "absent").file_names() == []
    assert (folder / "absent").folder_names() == []


def test_folders_and_the_files_in_them_are_listed(folder):
    for name in ("b", "a"):
        ((folder / name).make_dir() / "x").write_bytes(b"1")
    (folder / "y").write_bytes(b"1")
    assert folder.folder_names() == ["a", "b"]
    assert folder.file_names() == ["y"]
    assert sorted(info.path for info in folder.file_infos(recursive=True)) == [
        f"{folder.path}/{name}" for name in ("a/x", "b/x", "y")
    ]


def test_a_missing_file_is_named(folder):
    with pytest.raises(StorageError, match=r"Cannot read .*absent.*does not exist"):
        (folder / "absent").read_bytes()


def test_text_that_is_not_json_is_named_with_what_to_do(folder):
    (folder / "done.json").write_bytes(b'{"half": ')
    with pytest.raises(StorageError, match=r"done\.json is not valid JSON.*Delete it and run again"):
        (folder / "done.json").read_json()


def test_a_location_travels_to_another_process(folder):
    (folder / "x").write_bytes(b"1")
    assert (pickle.loads(pickle.dumps(folder)) / "x").read_bytes() == b"1"


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location.parse("runs/one").path == f"{tmp_path}/runs/one"
    assert Location.parse("runs/one").name == "one"


def test_an_unknown_scheme_is_refused():
    with pytest.raises(StorageError, match="nonsense://bucket"):
        Location.parse("nonsense://bucket/prefix")


@pytest.mark.parametrize(("uri", "told"), [("s3://bucket/x", "'s3://bucket/x'"), ("file:///x/y", "'file:///x/y'")])
def test_a_uri_that_was_a_path_is_refused(uri, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=rf"folder {re.escape(str(Path(uri)))} looks like a URI .* as text: {told}"):
        Location.parse(Path(uri), "folder").make_dir()
    assert names(tmp_path) == []


def test_a_password_in_a_uri_that_was_a_path_is_not_shown():
    with pytest.raises(StorageError, match="run_dir holds a password") as refused:
        Location.parse(Path("s3://key:canary@bucket/x"))
    assert "canary" not in str(refused.value)


def test_a_folder_with_a_colon_in_its_name_is_one(tmp_path):
    folder = Location.parse(tmp_path / "s3:" / "bucket").make_dir()
    assert folder.path == f"{tmp_path}/s3:/bucket"
    assert Location.parse("c:/x").is_local


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_no_part_and_no_temporary_file(tmp_path, monkeypatch, step):
    file = Location.parse(tmp_path / "file")
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    else:
        monkeypatch.setattr(Path, "replace", failing(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"disk is full.*run the same command again"):
        file.write_bytes(b"new")
    assert names(tmp_path) == []


def test_an_interrupt_while_writing_leaves_the_old_content(tmp_path, monkeypatch):
    file = Location.parse(tmp_path / "file")
    file.write_bytes(b"old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        file.write_bytes(b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((tmp_path / "file").exists()))
    Location.parse(tmp_path / "file").write_bytes(b"new")
    assert seen == [False]
    assert names(tmp_path) == ["file"]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    below = Location.parse(tmp_path / "file" / "run")
    for action in (below.make_dir, lambda: below.write_bytes(b"x")):
        with pytest.raises(StorageError, match=rf"Cannot write {below}.*run_dir"):
            action()


def test_a_file_that_another_machine_has_just_written_is_found_at_the_second_look(tmp_path, monkeypatch):
    """A client of NFS may hold that a file is not there until somebody opens the folder."""
    looks = []

    def look(folder):
        looks.append(folder)
        (tmp_path / "late.json").write_text("{}")

    monkeypatch.setattr(module, "_refresh_folder", look)
    file = Location.parse(tmp_path) / "late.json"
    assert file.read_json() == {}
    (tmp_path / "late.json").unlink()
    assert file.exists()
    assert looks == [tmp_path] * 2
    assert file.exists()
    assert len(looks) == 2  # what is there needs no second look


def test_a_second_look_at_a_folder_that_is_not_there_finds_nothing(tmp_path):
    file = Location.parse(tmp_path) / "absent" / "x.json"
    assert not file.exists()
    with pytest.raises(StorageError, match="does not exist"):
        file.read_bytes()


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("AWS Error NO_SUCH_BUCKET during HeadBucket", "There is no such bucket"),
        ("google::cloud::Status(NOT_FOUND: The specified bucket does not exist.)", "There is no such bucket"),
        ("Cannot write 'MyBucket/run': the path is a file", "Check that the path exists"),
    ],
)
def test_a_bucket_is_missing_only_if_the_store_says_so(message, advice):
    assert _advice(OSError(message)).startswith(advice)
