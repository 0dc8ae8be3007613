"""Packages of others."""

from __future__ import annotations

import pytest
from outside_package import OutsidePackages


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Installs packages of others for one test."""
    packages = OutsidePackages(tmp_path, monkeypatch)
    yield packages
    packages.remove()
