"""Which files tell git what to ignore, besides each folder's .gitignore: the repository's own and the user's.

Git itself is asked for the user's, because its settings may include others; where it is not installed, its usual files are
read.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_UNSET = 1  # what `git config` exits with
_SECONDS = 10.0
_SETTING = re.compile(r"""^\s*excludesfile\s*=\s*"?([^"#;\n]*)""", re.IGNORECASE | re.MULTILINE)


def exclude_files(top: Path) -> list[Path]:
    """Return the files whose patterns hold in and below ``top``; where two disagree, the later one counts.

    Args:
        top: The top of a repository's working tree, or of a folder that is in none.
    """
    git = _common_dir(top)
    user = _users_file(top, git)
    return [file for file in (user, git and git / "info" / "exclude") if file is not None]


def _common_dir(top: Path) -> Path | None:
    """Return where the repository keeps what all its worktrees share; a worktree or submodule only names its place."""
    git = top / ".git"
    if git.is_file():
        git = top / git.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
        common = git / "commondir"
        if common.is_file():
            git = git / common.read_text(encoding="utf-8", errors="replace").strip()
    return git if git.is_dir() else None


def _users_file(top: Path, git: Path | None) -> Path | None:
    """Return what core.excludesFile names, or its default; None where it is switched off."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git"
    command = ["git", "-C", str(top), "config", "--path", "--get", "core.excludesFile"]
    named: str | None = None
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        asked_well = asked.returncode in (0, _UNSET)
        named = asked.stdout.rstrip("\n") if asked.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        asked_well = False
    if not asked_well:
        files = [
            Path("/etc/gitconfig"),
            settings / "config",
            Path.home() / ".gitconfig",
            *([git / "config"] if git else []),
        ]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
        named = next((found[-1].strip() for text in reversed(texts) if (found := _SETTING.findall(text))), None)
    if named is None:
        return settings / "ignore"
    return top / Path(named).expanduser() if named else None
