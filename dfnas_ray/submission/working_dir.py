"""The archive that is sent with a job: some files of the working directory, and this package.

In a git checkout these are the files that git tracks, elsewhere Python sources. The files that the experiment's
settings and --include name are always added. Hidden files, and files whose name is typical of credentials, are sent
only if --include gives the path of each. Symbolic links, run directories, virtual environments, git's own folder and
what a .rayignore names are never sent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

import dfnas_ray
from dfnas_ray.errors import ClusterError, ConfigError, printable
from dfnas_ray.submission.private_names import CREDENTIALS

_MEBI = 2**20
_MAX_BYTES = 95 * _MEBI  # Ray's dashboard refuses a request of more than 100 MiB
_FIRST_LISTED = 3
_GIT_SECONDS = 60.0
_GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")  # set where a hook runs
_NEVER = {".git", "__pycache__", ".venv", "venv", "runs"}
_SECRET = "its name is typical of credentials; --include with its exact path sends it"
_HIDDEN = "it is hidden; --include with its exact path sends it"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date of ZIP: the same files make the same archive, which Ray uploads once


@dataclass(frozen=True)
class WorkingDir:
    """The files of a job.

    Attributes:
        root: The working directory.
        files: The path of each file, by its name in the job's working directory.
        refused: The reason for each file that git tracks or the settings name but that is not sent.
        notes: Remarks for the user.
    """

    root: Path
    files: dict[str, Path]
    refused: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def collect(
        cls, root: Path, named: Iterable[Path] = (), include: Sequence[str] = (), leave_out: Sequence[Path] = ()
    ) -> WorkingDir:
        """Return the files of ``root`` that are sent, and this package unless ``root`` is a checkout of it.

        Args:
            root: The working directory.
            named: Files and folders that the settings name, relative to ``root``.
            include: Further files, by path or by a pattern as in a .gitignore.
            leave_out: Further folders that are not sent, such as the experiment's run directory.

        Raises:
            ConfigError: ``include`` names nothing that may be sent, or a file's name is not UTF-8.
        """
        root = root.resolve()
        rules = _Rules(root, {os.path.normpath(path) for path in include}, {path.resolve() for path in leave_out})
        tracked, problem = _tracked(root)
        wanted = tracked or [name for name in rules.walk(root) if name.endswith(".py")]
        for path in named:
            if (root / path).exists():
                wanted += [os.path.normpath(path), *rules.walk(root / os.path.normpath(path))]
        wanted += [name for pattern in include for name in rules.included(pattern)]
        refused = {name: reason for name in wanted if (reason := rules.refusal(name))}
        files = {name: root / name for name in wanted if name not in refused and (root / name).is_file()}
        if "dfnas_ray/__init__.py" not in files:  # the job then runs the very code that checked its settings
            package = _Rules(Path(dfnas_ray.__file__).resolve().parents[1])
            files |= {name: package.root / name for name in package.walk(package.root / "dfnas_ray")}
        if unknown := [printable(name) for name in files if name.encode(errors="replace").decode() != name]:
            raise ConfigError(f"In {root}, names are not UTF-8: {_first(unknown)}. Rename them, or use a .rayignore.")
        secret = [printable(name) for name, reason in refused.items() if reason == _SECRET]
        notes = [problem] * bool(problem) + [f"Not sent: {_first(secret)} ({_SECRET})."] * bool(secret)
        return cls(root, dict(sorted(files.items())), refused, tuple(notes))

    @property
    def num_bytes(self) -> int:
        """The size of all files in bytes, before compression."""
        return sum(path.stat().st_size for path in self.files.values())

    def holds(self, path: Path) -> bool:
        """Return whether a file, or a file in a folder, is sent; ``path`` is relative to the working directory."""
        name = os.path.normpath(path)
        return name in self.files or any(other.startswith(f"{name}/") for other in self.files)

    def why_not(self, path: Path) -> str:
        """Return why ``path``, which the settings name, is not sent."""
        return self.refused.get(os.path.normpath(path), "it holds no file that may be sent")

    def write(self, archive: Path) -> Path:
        """Write the archive; the same files make the same bytes.

        Raises:
            ClusterError: a file cannot be read, or the archive is larger than Ray takes. The message names the largest
                files.
        """
        try:
            with zipfile.ZipFile(archive, "w") as target:
                for name, path in self.files.items():
                    entry = zipfile.ZipInfo(name, _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = (path.stat().st_mode & 0o777) << 16
                    with path.open("rb") as source, target.open(entry, "w") as sink:
                        shutil.copyfileobj(source, sink, _MEBI)
        except OSError as error:
            raise ClusterError(f"The working directory {self.root} cannot be packed: {error}.") from error
        if (size := archive.stat().st_size) > _MAX_BYTES:
            sizes = {name: path.stat().st_size for name, path in self.files.items()}
            largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)
            raise ClusterError(
                f"The working directory {self.root} makes an archive of {size / _MEBI:.0f} MiB, and a Ray dashboard takes "
                f"{_MAX_BYTES // _MEBI}. Largest: {_first([f'{n} ({sizes[n] / _MEBI:.0f} MiB)' for n in largest])}. Name what "
                "the job does not need in a .rayignore, and put large files where the cluster's machines can read them."
            )
        return archive


def _first(names: Sequence[str]) -> str:
    more = len(names) - _FIRST_LISTED
    return ", ".join(names[:_FIRST_LISTED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class _Rules:
    """Decides which files of ``root`` may be sent; those in ``one_by_one`` even if hidden or named like credentials."""

    root: Path
    one_by_one: Collection[str] = ()
    leave_out: Collection[Path] = ()
    rayignore: Callable[[Path], GitIgnoreSpec] = field(default_factory=lambda: cache(_rayignore))

    def refusal(self, name: str) -> str | None:
        """Return why the file or folder ``name`` is not sent; None if it may be."""
        path = Path(os.path.normpath(self.root / name))
        if not path.is_relative_to(self.root):
            return f"it is outside of {self.root}"
        if os.path.realpath(path) != str(path):
            return "it is a symbolic link, or below one"
        parts = path.relative_to(self.root).parts
        if name not in self.one_by_one:
            if any(part.startswith(".") for part in parts):
                return _HIDDEN
            if CREDENTIALS.search(name):
                return _SECRET
        above = [self.root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
        folders = above if path.is_dir() else above[1:]
        if any(
            each.name in _NEVER or each in self.leave_out or _is_venv_or_run_dir(each)
            for each in folders
            if each != self.root
        ):
            return "it is in a run directory, a virtual environment or another folder that is never sent"
        for folder in above[1:]:  # the nearest .rayignore with a pattern for it counts
            place = path.relative_to(folder).as_posix() + "/" * (folders is above)
            if (verdict := self.rayignore(folder).check_file(place).include) is not None:
                return "a .rayignore names it" if verdict else None
        return None

    def walk(self, top: Path) -> Iterator[str]:
        """Yield the names of the files in and below a folder that may be sent."""
        for place, folders, names in os.walk(top):
            here = Path(place).relative_to(self.root)
            folders[:] = sorted(folder for folder in folders if not self.refusal((here / folder).as_posix()))
            yield from (name for name in ((here / name).as_posix() for name in sorted(names)) if not self.refusal(name))

    def included(self, pattern: str) -> list[str]:
        """Return the files that ``pattern`` names, at least one.

        Raises:
            ConfigError: it names none that may be sent.
        """
        name = os.path.normpath(pattern)
        reason: str | None = "no file that may be sent has such a name"
        found = [name] if (self.root / name).is_file() else []
        try:
            found = found or list(GitIgnoreSpec.from_lines([pattern]).match_files(self.walk(self.root)))
        except ValueError:
            reason = "it is not a pattern as in a .gitignore"
        if not found or (reason := self.refusal(found[0])):
            raise ConfigError(
                f"--include {printable(pattern)}: {reason}. Give a path or a pattern relative to {self.root}; hidden files, "
                "and those with names of credentials, are sent only one by one, each by its exact path."
            )
        return found


def _rayignore(folder: Path) -> GitIgnoreSpec:
    """Return the patterns of a folder's .rayignore. Invalid lines are skipped, as git does."""
    file, spec = folder / ".rayignore", GitIgnoreSpec([])
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []:
        with suppress(ValueError):
            spec += GitIgnoreSpec.from_lines([line])
    return spec


def _is_venv_or_run_dir(folder: Path) -> bool:
    """Return whether this is a virtual environment or a run directory, whatever its name."""
    return (folder / "pyvenv.cfg").exists() or (
        (folder / "latest.json").exists() and any((folder / each).exists() for each in ("experiment.yaml", ".lock"))
    )


def _tracked(root: Path) -> tuple[list[str], str]:
    """Return the names of the files that git tracks below ``root``, and the reason if a checkout has none."""
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return [], ""
    # the checkout's setting fsmonitor could start a program
    command = ["git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--recurse-submodules"]
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    names, problem = [], "git tracks no file there"
    try:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": _GIT_SECONDS}
        asked = subprocess.run(command, cwd=root, env=environment, check=True, **options)
        names = [os.fsdecode(name) for name in asked.stdout.split(b"\0") if name]
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").splitlines()[0]
        missing = isinstance(error, FileNotFoundError)
        problem = "git is not installed" if missing else f"git cannot list it ({said})"
    return names, "" if names else f"{root} is in a git checkout, but {problem}: Python sources are sent instead."
