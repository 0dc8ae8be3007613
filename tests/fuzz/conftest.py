"""The seed of the fuzzers, where it is seen."""

from __future__ import annotations

from tests.fuzz.outcome import CASES, SEED


def pytest_report_header() -> str:
    """Say how to make the same cases again."""
    return f"fuzz: {CASES:,} cases of each family, DFNAS_FUZZ_SEED={SEED}"
