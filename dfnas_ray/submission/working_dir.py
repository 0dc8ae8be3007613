"""What a submitted job takes along: the working directory's own files and this package, in one archive.

Left out, as git leaves them out: what a .gitignore names, in the working directory, above it up to the repository's
root, or below it, and what the repository's info/exclude or the user's core.excludesFile names. Left out besides: what a
.rayignore names, run directories, virtual environments, git's own folder, files named .env, and symbolic links.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

import dfnas_ray
from dfnas_ray.errors import ClusterError
from dfnas_ray.submission.git_excludes import exclude_files

_MEBI = 2**20
_MAX_BYTES = 95 * _MEBI  # Ray's dashboard refuses a request of more than 100 MiB
_FIRST_LISTED = 3
_NEVER = (".git", "__pycache__/", ".venv/", "venv/", ".env", ".env.*", "runs/")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that ZIP knows: the same files make the same archive, which Ray sends once


@dataclass(frozen=True)
class WorkingDir:
    """The files of a job: name in the job's working directory, and where the file is now."""

    root: Path
    files: dict[str, Path]

    @classmethod
    def collect(cls, root: Path, leave_out: Sequence[Path] = ()) -> WorkingDir:
        """List what is sent of ``root``, and add this package unless ``root`` is a checkout of it.

        Args:
            root: The working directory.
            leave_out: Further folders that are not sent, such as the experiment's run directory.
        """
        root = root.resolve()
        files = {path.relative_to(root).as_posix(): path for path in _walk(root, [p.resolve() for p in leave_out])}
        if "dfnas_ray/__init__.py" not in files:  # the job then runs the very code that checked its settings
            package = Path(dfnas_ray.__file__).resolve().parent
            files |= {path.relative_to(package.parent).as_posix(): path for path in _package_files(package)}
        return cls(root, dict(sorted(files.items())))

    @property
    def num_bytes(self) -> int:
        """Size of all files, before compression."""
        return sum(path.stat().st_size for path in self.files.values())

    def holds(self, path: Path) -> bool:
        """Whether a file, or something in a folder, is sent; ``path`` is relative to the working directory."""
        name = Path(os.path.normpath(path)).as_posix()
        return name in self.files or any(other.startswith(f"{name}/") for other in self.files)

    def write(self, archive: Path) -> Path:
        """Write the archive; the same files make the same bytes.

        Raises:
            ClusterError: it is larger than Ray takes; names the largest files.
        """
        with zipfile.ZipFile(archive, "w") as target:
            for name, path in self.files.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                with path.open("rb") as source, target.open(entry, "w") as sink:
                    while chunk := source.read(_MEBI):
                        sink.write(chunk)
        if (size := archive.stat().st_size) > _MAX_BYTES:
            largest = sorted(self.files, key=lambda name: self.files[name].stat().st_size, reverse=True)
            named = ", ".join(
                f"{name} ({self.files[name].stat().st_size / _MEBI:.0f} MiB)" for name in largest[:_FIRST_LISTED]
            )
            raise ClusterError(
                f"The working directory {self.root} makes an archive of {size / _MEBI:.0f} MiB, and a Ray dashboard "
                f"takes {_MAX_BYTES // _MEBI}. Largest: {named}. Name what the job does not need in .gitignore or "
                ".rayignore, and put large files where the cluster's machines can read them."
            )
        return archive


def _walk(root: Path, leave_out: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of ``root`` that are sent."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    above = [folder for folder in root.parents if folder.is_relative_to(top)]
    rules = {folder: _rules(folder, (".gitignore",), folder == top) for folder in above}
    never = GitIgnoreSpec.from_lines(_NEVER)
    for name, folders, names in os.walk(root):
        here = Path(name)
        rules[here] = _rules(here, (".gitignore", ".rayignore"), here == top or (here / ".git").exists())
        folders[:] = sorted(
            folder
            for folder in folders
            if not never.match_file(f"{folder}/")
            and not (here / folder).is_symlink()
            and here / folder not in leave_out
            and not _is_made(here / folder)
            and not _ignored(here / folder, rules, "/")
        )
        for file in sorted(names):
            path = here / file
            if path.is_file() and not path.is_symlink() and not never.match_file(file) and not _ignored(path, rules):
                yield path


def _rules(folder: Path, names: Sequence[str], is_top: bool) -> GitIgnoreSpec:
    lines: list[str] = []
    for file in [*(exclude_files(folder) if is_top else []), *(folder / name for name in names)]:
        if file.is_file():
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
    return GitIgnoreSpec.from_lines(lines)


def _ignored(path: Path, rules: dict[Path, GitIgnoreSpec], end: str = "") -> bool:
    """Whether the nearest rule that speaks of ``path`` ignores it; a rule deeper down counts more."""
    for folder in path.parents:
        if folder in rules:
            verdict = rules[folder].check_file(path.relative_to(folder).as_posix() + end).include
            if verdict is not None:
                return verdict
    return False


def _is_made(folder: Path) -> bool:
    """Whether this is a virtual environment or a run directory, under whatever name."""
    return (folder / "pyvenv.cfg").exists() or (
        (folder / "latest.json").exists() and (folder / "experiment.yaml").exists()
    )


def _package_files(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
