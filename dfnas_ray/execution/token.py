"""The authentication token of a local Ray cluster: a private file that is written before the cluster starts."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dfnas_ray.errors import ClusterError


def token_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with which a local cluster has a token that nobody else can read.

    Ray keeps its token below the home directory and writes it readable by all, so it is written here first. Where that
    is not possible, as in many containers, it goes to a temporary directory, which is removed when the process ends.

    Raises:
        ClusterError: no private file can be written. Without a token everybody on this machine could use the cluster.
    """
    mode = environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH"):
        return {}  # chosen by the user
    home = environ.get("HOME")  # Ray looks nowhere else
    if home and _has_private_token(Path(home) / ".ray" / "auth_token"):
        return {}
    try:
        folder = Path(tempfile.mkdtemp(prefix="dfnas-ray-"))  # mode 0700
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _write_token(folder / "auth_token")
    except OSError as error:
        raise ClusterError(
            f"Ray's authentication token can be kept neither below HOME ({home or 'not set'}) nor in a temporary directory "
            f"({error.strerror}), and without one everybody on this machine could use the cluster. Set TMPDIR or HOME to a "
            "folder of yours that can be written, or RAY_AUTH_TOKEN; or use --address inline."
        ) from error
    return {"RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")}


def _has_private_token(path: Path) -> bool:
    """Return whether there is a token that only this user can read. If need be, it is written or made private."""
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_token(path)
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        return path.stat().st_uid == os.geteuid() and bool(path.read_text().strip())
    except (OSError, ValueError):
        return False


def _write_token(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
