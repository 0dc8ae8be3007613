"""A package of somebody else, installed for one test: its code, and the entry points that make its members known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dfnas_ray.config.code import forget_installed


class OutsidePackages:
    """Installs packages into folders of their own, which are on the path until the test is over."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.modules: list[str] = []

    def install(
        self, package: str, module: str, code: str, entry_points: Mapping[str, str], version: str = "0.1"
    ) -> Path:
        """Install a package of one module.

        Args:
            package: Its name, such as my-package.
            module: Of its code.
            code: Python.
            entry_points: By kind, the class in the module; or module:class.
        """
        site = self.folder / package
        info = site / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{module}\n")
        lines = [f"{kind} = {path if ':' in path else f'{module}:{path}'}" for kind, path in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[dfnas_ray]", *lines, ""]))
        self.monkeypatch.syspath_prepend(str(site))
        self.modules.append(module)
        forget_installed()
        return site

    def module(self, name: str, code: str) -> Path:
        """Put a module on the path that belongs to no package."""
        site = self.folder / f"module-{name}"
        site.mkdir()
        (site / f"{name}.py").write_text(code)
        self.monkeypatch.syspath_prepend(str(site))
        self.modules.append(name)
        return site

    def remove(self) -> None:
        """Forget all of it."""
        for name in self.modules:
            sys.modules.pop(name, None)
        self.monkeypatch.undo()
        forget_installed()
