"""A place on a filesystem, local or in an object store, and files that are complete or absent."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from dfnas_ray.errors import StorageError


@dataclass(frozen=True)
class Location:
    """A file or folder: a pyarrow filesystem and a path in it. It can be sent to another process."""

    filesystem: fs.FileSystem
    path: str

    @classmethod
    def parse(cls, uri: str | Path) -> Location:
        """Take a local path or a URI such as s3://bucket/prefix.

        Raises:
            StorageError: the URI's scheme is unknown or its store cannot be reached.
        """
        text = str(uri)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), str(Path(text).expanduser().absolute()))
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"Storage {text} cannot be opened: {error}") from error
        return cls(filesystem, path.rstrip("/"))

    def __truediv__(self, name: str) -> Location:
        return Location(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the machine's own filesystem."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def exists(self) -> bool:
        """Whether a file or folder is here."""
        with _storage_errors(self, "read"):
            return self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound

    def file_names(self) -> list[str]:
        """Names of the files directly in this folder, sorted; empty if the folder is absent."""
        with _storage_errors(self, "read"):
            infos = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.File)

    def make_dir(self) -> Location:
        """Create the folder and those above it, and return it."""
        with _storage_errors(self, "write"):
            self.filesystem.create_dir(self.path, recursive=True)
        return self

    def read_bytes(self) -> bytes:
        """Return the file's content."""
        with _storage_errors(self, "read"), self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the whole file or nothing: a reader, or a later run, never sees a part of it.

        On a local disk the content goes to a temporary name, reaches the disk, and is renamed; an object store makes
        an object visible when its upload is complete.
        """
        with _storage_errors(self, "write"):
            if self.is_local:
                _write_local(Path(self.path), data)
            else:
                with self.filesystem.open_output_stream(self.path) as stream:
                    stream.write(data)

    def read_json(self) -> Any:
        """Return the parsed content of a JSON file."""
        try:
            return json.loads(self.read_bytes())
        except ValueError as error:
            raise StorageError(f"{self} is not valid JSON ({error}). Delete it and run again.") from error

    def write_json(self, value: Any) -> None:
        """Write ``value`` as indented JSON, whole or not at all."""
        self.write_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def delete_file(self) -> None:
        """Remove the file."""
        with _storage_errors(self, "write"):
            self.filesystem.delete_file(self.path)


def _write_local(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _storage_errors(location: Location, doing: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            advice = "The disk is full. Free some space and run the same command again: what is finished is kept."
        elif isinstance(error, FileNotFoundError):
            advice = "The file is not there."
        else:
            advice = "Check that the path exists and may be written, or choose another with run_dir."
        raise StorageError(f"Cannot {doing} {location}: {error}. {advice}") from error
