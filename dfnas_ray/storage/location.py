"""Locations on a filesystem, local or in an object store. A file there is complete or absent, never half written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import pyarrow as pa
from pyarrow import fs
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from dfnas_ray.errors import AlteredError, StorageError
from dfnas_ray.limits import MAX_RECORD_BYTES, MAX_RECORD_VALUES
from dfnas_ray.storage.regular_files import NotRegularError, check_regular, read_regular
from dfnas_ray.storage.retries import passes_by_itself, with_retries
from dfnas_ray.storage.temporary import temporary_name
from dfnas_ray.storage.uri import append_to_path, is_uri, refuse_one_slash, refuse_secrets

Result = TypeVar("Result")
Model = TypeVar("Model", bound=BaseModel)

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object whose fields are not fixed here, such as the settings of a search space."""

Seconds: TypeAlias = Annotated[float, Field(ge=0, lt=1e12)]
"""A duration in a record."""

Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things, in a record."""

REMEDY = " Delete it and run again."
"""The end of an error about a file that is made again if it is missing."""

_MAX_DEPTH = 100  # nested levels in a JSON file: settings need a dozen, and Python's limit is about a thousand


@dataclass(frozen=True)
class Location:
    """A file or folder: a pyarrow filesystem and a path in it. It can be sent to another process."""

    filesystem: fs.FileSystem
    path: str
    uri: str = ""
    """The URI that names it, with its query; empty for a path of this machine."""

    @classmethod
    def parse(cls, uri: str | Path | Location, setting: str = "run_dir") -> Location:
        """Return the location of a local path, or of a URI such as s3://bucket/prefix.

        For a store that is not Amazon's or Google's own, give the address in the URI's query, as in
        ``s3://bucket/prefix?endpoint_override=minio:9000&scheme=http``, or in AWS_ENDPOINT_URL. When a location is
        sent to another machine, the query is sent along; the environment is not.

        Args:
            uri: Path or URI.
            setting: The setting that holds it, for error messages.

        Raises:
            StorageError: the URI's scheme is unknown, its store cannot be reached, it may hold a credential, or it was
                a `pathlib.Path`.
        """
        if isinstance(uri, Location):
            return uri
        text = str(uri)
        refuse_one_slash(text, setting)
        if not is_uri(text):
            return cls(fs.LocalFileSystem(), str(user_path(text).absolute()))
        refuse_secrets(text, setting)
        try:
            filesystem, path = with_retries(lambda: fs.FileSystem.from_uri(text), f"open {text}")
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"{setting} {text} cannot be opened: {error}. It must be a path, or a URI such as s3://bucket/prefix "
                "or gs://bucket/prefix."
            ) from error
        return cls(filesystem, path.rstrip("/"), text)

    def __truediv__(self, name: str) -> Location:
        return self._appended(f"/{name}")

    def _appended(self, end: str) -> Location:
        return Location(self.filesystem, self.path + end, append_to_path(self.uri, end) if self.uri else "")

    def __str__(self) -> str:
        return self.path if self.is_local else self.address.partition("?")[0]

    @property
    def address(self) -> str:
        """The path or URI from which `parse` makes this location. Messages leave out the query of a URI."""
        return self.path if self.is_local else self.uri or f"{self.filesystem.type_name}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def shown(self) -> str:
        """The location as shown in documents that others may read.

        A local path below the working directory is relative to it; of any other local path only the name is shown.
        """
        if not self.is_local:
            return self.address
        path, here = Path(self.path), Path.cwd()
        return str(path.relative_to(here)) if path != here and path.is_relative_to(here) else self.name

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the machine's own filesystem."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def exists(self) -> bool:
        """Return whether a file or folder exists here."""

        def is_here() -> bool:
            return bool(self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)

        found = self._do("read", is_here)
        if not found and self.is_local:
            _refresh_folder(Path(self.path).parent)
            found = self._do("read", is_here)
        return found

    def file_names(self) -> list[str]:
        """Return the names of the files directly in this folder, sorted; empty if the folder is absent."""
        return sorted(info.base_name for info in self.file_infos())

    def folder_names(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted; empty if the folder is absent."""
        return sorted(info.base_name for info in self._infos() if info.type == fs.FileType.Directory)

    def file_infos(self, recursive: bool = False) -> list[fs.FileInfo]:
        """Return the file infos of the files in this folder; empty if the folder is absent.

        Args:
            recursive: Whether those in its subfolders are among them.
        """
        return [info for info in self._infos(recursive) if info.type == fs.FileType.File]

    def _infos(self, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        return self._do("read", lambda: self.filesystem.get_file_info(selector))

    def make_dir(self) -> Location:
        """Create the folder and those above it, and return it. In an object store, which has no folders, do nothing."""
        if not self._is_object_store:
            self._do("write", lambda: self.filesystem.create_dir(self.path, recursive=True))
        return self

    def read_bytes(self, limit: int | None = None) -> bytes:
        """Return the file's content.

        Args:
            limit: The most bytes that the file may have; by default the free memory of this machine.

        Raises:
            AlteredError: it is a folder, a pipe or a device, or too large.
            StorageError: it cannot be read.
        """

        def read() -> bytes:
            if self.is_local:
                return read_regular(Path(self.path), limit)
            with self.filesystem.open_input_stream(self.path) as stream:
                data = bytes(stream.read(None if limit is None else limit + 1))
            if limit is not None and len(data) > limit:
                raise NotRegularError(f"has more than {limit:,} bytes")
            return data

        if self.is_local and not os.path.lexists(self.path):
            _refresh_folder(Path(self.path).parent)
        return self._do("read", read)

    def open_file(self) -> pa.NativeFile:
        """Open the file for random access, as `pyarrow.parquet.ParquetFile` needs it.

        Raises:
            AlteredError: it is a folder, a pipe or a device.
            OSError: it cannot be opened; there are no retries.
        """
        if self.is_local:
            try:
                check_regular(os.stat(self.path))  # noqa: PTH116 - a location's path is text
            except NotRegularError as error:
                raise self._no_file(error) from error
        return self.filesystem.open_input_file(self.path)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the whole file or nothing: a reader, or a later run, never sees a part of it.

        On a local disk the content goes to a temporary name, reaches the disk, and is renamed; an object store makes
        an object visible when its upload is complete.
        """

        def write() -> None:
            if self.is_local:
                _write_local(Path(self.path), data)
                return
            with self.filesystem.open_output_stream(self.path) as stream:
                stream.write(data)

        self._do("write", write)

    def read_json(self) -> Any:
        """Return the parsed content of a JSON file.

        Raises:
            AlteredError: it is not JSON, or is nested too deeply.
            StorageError: it cannot be read.
        """
        try:
            data = self.read_bytes(MAX_RECORD_BYTES)
            if (values := sum(map(data.count, (b",", b"[", b"{")))) > MAX_RECORD_VALUES:
                raise AlteredError(f"{self} holds some {values:,} values; {MAX_RECORD_VALUES:,} are read.{REMEDY}")
            value = json.loads(data)
        except ValueError as error:
            raise AlteredError(f"{self} is not valid JSON ({error}).{REMEDY}") from error
        except RecursionError:
            value = None
        else:
            if not _is_deep(value):
                return value
        raise AlteredError(f"{self} is nested more than {_MAX_DEPTH} levels deep.{REMEDY}")

    def write_json(self, value: Any) -> None:
        """Write ``value`` as indented JSON, whole or not at all."""
        self.write_bytes(_json(value))

    def read_model(self, model: type[Model]) -> Model:
        """Return the content of a JSON file that `write_model` wrote.

        Raises:
            AlteredError: the file is of another version, or was altered. The message names the first wrong field.
            StorageError: it cannot be read.
        """
        try:
            return model.model_validate(self.read_json())
        except ValidationError as error:
            raise self._altered(error) from error

    def read_models(self, model: type[Model]) -> list[Model]:
        """Return the content of a JSON file that holds a list of models.

        Raises:
            StorageError: as `read_model`.
        """
        try:
            return TypeAdapter(list[model]).validate_python(self.read_json())  # type: ignore[valid-type]  # a type known at run time
        except ValidationError as error:
            raise self._altered(error) from error

    def _altered(self, error: ValidationError) -> AlteredError:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"])) or "its content"
        return AlteredError(f"{self} is of another version, or was altered: {field}: {wrong['msg']}.{REMEDY}")

    def write_model(self, value: BaseModel, exclude_none: bool = False) -> None:
        """Write a model as indented JSON, whole or not at all."""
        self.write_bytes(json_bytes(value, exclude_none))

    def delete_file(self) -> None:
        """Remove the file. A missing file is no error: an attempt whose answer was lost may have removed it."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                if self.is_local and Path(self.path).is_dir() and not Path(self.path).is_symlink():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                self.filesystem.delete_file(self.path)

        self._do("write", delete)

    def move_aside(self) -> Location:
        """Rename a file, or a folder with its content, to NAME.damaged, and return its new location."""
        aside = self._appended(".damaged")

        def move() -> None:
            if self.is_local:
                _remove(Path(aside.path))
                Path(self.path).replace(aside.path)
                return
            if self.filesystem.get_file_info(self.path).type == fs.FileType.Directory:
                fs.copy_files(self.path, aside.path, self.filesystem, self.filesystem)
                self.filesystem.delete_dir(self.path)
                return
            self.filesystem.copy_file(self.path, aside.path)
            self.filesystem.delete_file(self.path)

        self._do("write", move)
        return aside

    @property
    def _is_object_store(self) -> bool:
        return self.filesystem.type_name in ("s3", "gcs", "abfs")

    def _do(self, doing: str, operation: Callable[[], Result]) -> Result:
        """Return what ``operation`` returns, with retries while the storage fails; turn an error into one sentence."""
        try:
            return with_retries(operation, f"{doing} {self}")
        except NotRegularError as error:
            raise self._no_file(error) from error
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"Cannot {doing} {self}: {error}. {_advice(error)}") from error

    def _no_file(self, error: NotRegularError) -> AlteredError:
        return AlteredError(f"{self} {error}.{REMEDY}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def user_path(path: str | Path) -> Path:
    """Return a path with ~ and ~user expanded. If there is no such user, ~user stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises if there is no such user


def json_bytes(value: BaseModel, exclude_none: bool = False) -> bytes:
    """Return a model as the indented JSON that `Location.write_model` writes."""
    return _json(value.model_dump(mode="json", exclude_none=exclude_none))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def section(values: JsonObject, name: str) -> JsonObject:
    """Return the object under ``name`` in an object; an empty one if there is none."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _is_deep(value: Any) -> bool:
    """Return whether a JSON value is nested more deeply than `_MAX_DEPTH`."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        objects = [inner for outer in level if isinstance(outer, dict) for inner in outer.values()]
        level = objects + [inner for outer in level if isinstance(outer, list) for inner in outer]
        if not level:
            return False
    return True


def _refresh_folder(folder: Path) -> None:
    """Open a folder, so that an NFS client asks the server. Otherwise it may miss a new file for a minute."""
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def _write_local(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _advice(error: BaseException) -> str:
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "The disk is full. Free some space and run the same command again: what is finished is kept."
    if isinstance(error, FileNotFoundError):
        return "The file does not exist."
    if isinstance(error, IsADirectoryError):
        return "It is a folder, where a file must be: delete it and run again."
    if any(words in text for words in ("ACCESS_DENIED", "PERMISSION_DENIED", "HTTP status 403", "INVALID_ACCESS_KEY")):
        return (
            "The credentials of this machine do not allow it: they must permit to list, read, write and delete below "
            "run_dir."
        )
    if "NO_SUCH_BUCKET" in text or "bucket does not exist" in text:
        return "There is no such bucket. Create it, or choose another run_dir."
    if passes_by_itself(error):
        return "The storage was unavailable for too long. What is finished is kept: run the same command again."
    return "Check that the path exists and may be written, or choose another with run_dir."
