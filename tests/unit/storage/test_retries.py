"""Which errors of a storage are waited out."""

from __future__ import annotations

import errno

import pytest
from pyarrow import fs

from dfnas_ray.errors import StorageError
from dfnas_ray.storage import retries
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.sealed import remove_altered, seal


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


PASSING = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    OSError("When reading 'x': AWS Error SLOW_DOWN during ListObjectsV2 operation: Please reduce your request rate."),
    OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
    OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server"),
    OSError("google::cloud::Status(UNAVAILABLE: try again)"),
]
FINAL = [
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file"),
    OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
    OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: The specified bucket does not exist"),
    ValueError("SLOW_DOWN"),
]


class Operation:
    def __init__(self, error: Exception, times: int):
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "done"


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_an_error_that_passes_is_waited_out_and_told_once(error, caplog):
    operation = Operation(error, 3)
    assert retries.with_retries(operation, "write it") == "done"
    assert operation.calls == 4
    assert caplog.text.count("Cannot write it for now") == 1


@pytest.mark.parametrize("error", FINAL, ids=str)
def test_an_error_of_the_request_itself_is_final_at_once(error):
    operation = Operation(error, 1)
    with pytest.raises(type(error)):
        retries.with_retries(operation, "write it")
    assert operation.calls == 1


def test_a_storage_that_stays_away_is_given_up_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.05)
    location = Location.parse(tmp_path / "x")

    def fail(path, data):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("dfnas_ray.storage.location._write_local", fail)
    with pytest.raises(StorageError, match=r"Cannot write .*Stale.*unavailable for too long.*run the same command"):
        location.write_bytes(b"x")


class Unsteady:
    """A filesystem that fails when a folder is listed for the first time."""

    def __init__(self):
        self.inner, self.listed = fs.LocalFileSystem(), Operation(PASSING[2], 1)

    def get_file_info(self, what):
        if isinstance(what, fs.FileSelector):
            self.listed()
        return self.inner.get_file_info(what)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_stage_is_sealed_although_the_storage_fails_when_its_folder_is_listed(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    folder = Location(Unsteady(), str(tmp_path))
    seal(folder, b"record")
    assert folder.filesystem.listed.calls == 2
    (tmp_path / "done.json").write_bytes(b"record")
    assert not remove_altered(folder, pytest.fail)


def test_the_folders_in_a_folder_are_listed_although_the_storage_fails(tmp_path):
    (tmp_path / "checkpoint_1").mkdir()
    assert Location(Unsteady(), str(tmp_path)).folder_names() == ["checkpoint_1"]


class WrappedError(Exception):
    """What a library makes of an error of the storage."""


def passes(error):
    return retries.passes_by_itself(error.__cause__ if isinstance(error, WrappedError) else error)


def failing(error: Exception, times: int):
    operation = Operation(error, times)

    def run() -> str:
        try:
            return operation()
        except OSError as failure:
            raise WrappedError from failure

    return operation, run


def test_a_long_operation_that_the_storage_ended_is_started_again_when_it_answers(caplog):
    (operation, run), waited = failing(PASSING[2], 2), []
    assert retries.with_restarts(run, 3, lambda: waited.append(operation.calls), passes) == "done"
    assert waited == [1, 2]
    assert "attempt 3 of 3 follows" in caplog.text


@pytest.mark.parametrize(("error", "calls"), [(PASSING[2], 3), (FINAL[3], 1)], ids=["too-often", "of-the-request"])
def test_a_long_operation_is_not_started_again_for_ever(error, calls):
    operation, run = failing(error, 9)
    with pytest.raises(WrappedError):
        retries.with_restarts(run, 3, lambda: None, passes)
    assert operation.calls == calls
