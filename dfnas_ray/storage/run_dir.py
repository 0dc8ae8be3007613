"""The run directory: what each stage made, keyed by everything that it depends on.

A stage's folder is named after the fingerprint of its inputs, so a changed setting can never meet a stale artefact, and
going back to an earlier setting finds what was made then.

    RUN/experiment.yaml                 the resolved experiment of the last command
    RUN/teacher.json                    its teacher, and the names of the classes
    RUN/latest.json                     the folder of each stage that belongs to it
    RUN/STAGE/KEY/inputs.json           the inputs of the stage
    RUN/STAGE/KEY/done.json             written last: the stage is finished
    RUN/report.html
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, TypeAlias

from pydantic import RootModel, StringConstraints

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.lease import Lease
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.storage.temporary import remove_temporary

_KEY_LENGTH = 12
_LOCK, _LEASE = ".lock", ".lease"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

FolderName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\w+$")]
"""The name of a stage's folder: never a path that leads elsewhere."""


class LatestFolders(RootModel[dict[str, FolderName]]):
    """The folder of each stage that the last command used: ``latest.json``."""


class RecordedInputs(RootModel[JsonObject]):
    """The inputs of a stage: ``inputs.json``."""

    @classmethod
    def read(cls, folder: Location) -> JsonObject:
        """Return the inputs recorded in a stage's folder; an empty object if there are none.

        Raises:
            StorageError: they are not an object.
        """
        file = folder / "inputs.json"
        return file.read_model(cls).root if file.exists() else {}


def fingerprint(value: Any) -> str:
    """Return the sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class StageDir:
    """The folder of one stage with one set of inputs."""

    def __init__(self, run: RunDir, stage: str, inputs: Mapping[str, Any]):
        self.run, self.stage, self.inputs = run, stage, dict(inputs)
        self.key = fingerprint([stage, self.inputs])
        self.location = run.location / stage / self.key[:_KEY_LENGTH]

    @property
    def done_file(self) -> Location:
        """The record, written last."""
        return self.location / "done.json"

    @property
    def is_done(self) -> bool:
        """Whether the stage finished with these inputs."""
        return self.done_file.exists()

    @property
    def is_started(self) -> bool:
        """Whether a command has begun the stage with these inputs."""
        return (self.location / "inputs.json").exists()

    def begin(self) -> None:
        """Record the inputs. From then on the folder belongs to this stage, finished or not."""
        self.location.make_dir()
        (self.location / "inputs.json").write_json(self.inputs)

    def reopen(self) -> None:
        """Mark the stage as unfinished, because an artefact is damaged."""
        if self.is_done:
            self.done_file.delete_file()

    def changes(self) -> list[str]:
        """Return the inputs that differ from those of the run directory's last command, as ``name: old -> new``.

        The list is empty if that command's folder was deleted.
        """
        latest = self.run.latest().get(self.stage)
        if latest is None or latest == self.key[:_KEY_LENGTH]:
            return []
        inputs = self.run.location / self.stage / latest / "inputs.json"
        if not inputs.exists():
            return []
        before = flat(inputs.read_json())
        after = flat(json.loads(json.dumps(self.inputs)))
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return [f"{name}: {_brief(before.get(name))} -> {_brief(after.get(name))}" for name in names]


class RunDir:
    """One experiment's directory, local or in an object store."""

    def __init__(self, uri: str | Path | Location):
        self.location = Location.parse(uri)
        self._held: tuple[int, int] | None = None  # device and inode of the lock file, while it is held

    @property
    def lock_file(self) -> Location:
        """The file, or in an object store the folder, that exists while the directory is `locked`."""
        return self.location / _LOCK

    def check_held(self, folder: Location) -> None:
        """Make sure that the directory is still the one that was locked, and that a stage's folder still exists.

        Raises:
            StorageError: somebody deleted or moved one of them meanwhile.
        """
        gone = None if self._is_held() else self.location
        if gone is None and not (folder / "inputs.json").exists():
            gone = folder
        if gone is not None:
            raise StorageError(
                f"{gone} was deleted or moved while this command was running, so its results are incomplete. Run the "
                "same command again."
            )

    def _is_held(self) -> bool:
        """Whether the lock file is still the one that was locked; an object store's lease checks itself."""
        if self._held is None:
            return True
        try:
            status = Path(self.lock_file.path).stat()
        except OSError:
            return False
        return self._held == (status.st_dev, status.st_ino)

    def stage(self, stage: str, inputs: Mapping[str, Any]) -> StageDir:
        """Return the folder of a stage for these inputs; nothing is created yet."""
        return StageDir(self, stage, inputs)

    def latest(self) -> dict[str, str]:
        """Return the folder name of each stage that the last command used.

        Raises:
            StorageError: the file was altered, perhaps to lead elsewhere.
        """
        file = self.location / "latest.json"
        return file.read_model(LatestFolders).root if file.exists() else {}

    def set_latest(self, stages: Iterable[StageDir]) -> None:
        """Make ``stages`` the ones that reports show."""
        names = {stage.stage: stage.location.name for stage in stages}
        (self.location / "latest.json").write_model(LatestFolders({**self.latest(), **names}))

    def latest_stage(self, stage: str) -> Location | None:
        """Return the folder that reports show for a stage, if the stage is finished."""
        name = self.latest().get(stage)
        if name is None:
            return None
        location = self.location / stage / name
        return location if (location / "done.json").exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory while the block runs, so that two commands do not write to it at once.

        Raises:
            StorageError: the directory cannot be written, or another command holds it.
        """
        if not self.location.is_local:
            with Lease(self.location).held():
                yield
            return
        folder = Path(self.location.path)
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        self.location.make_dir()
        with self._alone_in(folder, made):
            status = (folder / _LOCK).stat()
            self._held = (status.st_dev, status.st_ino)
            remove_temporary(folder)
            try:
                yield
            finally:
                self._held = None
                _remove_what_stayed_empty(made)

    @contextmanager
    def _alone_in(self, folder: Path, made: Sequence[Path]) -> Iterator[None]:
        """Hold the lock file of a local folder; where the file system has no locks, a lease."""
        from filelock import FileLock, Timeout

        for name in (_LOCK, _LEASE):
            if (folder / name).is_symlink():  # what it leads to would be written
                raise StorageError(
                    f"{folder / name} is a symbolic link, where a regular file must be. Delete it and run again."
                )
        try:
            has_locks = _has_locks(folder)
        except OSError as error:
            raise self._unwritable(error) from error
        if not has_locks:
            try:
                with Lease(self.location, name=_LEASE).held():
                    (folder / _LOCK).touch()  # for workers, who look whether they see it
                    yield
            finally:
                with suppress(OSError):  # another command waits
                    (folder / _LEASE).rmdir()
                _remove_what_stayed_empty(made)
            return
        lock = FileLock(folder / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StorageError(
                f"Another command is working in {self.location}. Wait for it, or give this one another run_dir."
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(
            f"The run directory {self.location} cannot be written: {error}. Choose another with run_dir."
        )


def _has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked. Some network file systems cannot, or only with an option of the mount.

    Raises:
        OSError: no file can be written there.
    """
    with TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


def _remove_what_stayed_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that a command made but left empty, innermost first."""
    if folders and folders[0].is_dir() and [each.name for each in folders[0].iterdir()] == [_LOCK]:
        (folders[0] / _LOCK).unlink()
        with suppress(OSError):  # another command has begun to work there
            for folder in folders:
                folder.rmdir()


def _brief(value: object) -> object:
    """Return a value as messages show it. A fingerprint is cut to the length of a folder's name."""
    return value[:_KEY_LENGTH] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    if isinstance(value, dict):
        items = [flat(inner, f"{prefix}.{name}" if prefix else name) for name, inner in value.items()]
        return {name: inner for part in items for name, inner in part.items()}
    return {prefix: value}
