"""What "as if nothing had happened" means."""

from __future__ import annotations

import json
from pathlib import Path

WEIGHTS = ("retraining", "baseline")
EVERY_STAGE = ("synthesis", "search", *WEIGHTS)


def assert_undisturbed(run: Path, undisturbed: Path, stages: tuple[str, ...] = EVERY_STAGE) -> None:
    """The same shards, the same genotype with the same trials, the same weights; nothing twice, nothing half-written."""
    patterns = ["synthesis/*/shard-*.parquet", *(f"{name}/*/weights.safetensors" for name in WEIGHTS if name in stages)]
    for pattern in patterns:
        ours, theirs = (_contents(root, pattern) for root in (run, undisturbed))
        assert ours == theirs, pattern
        assert ours
    if "search" in stages:
        ours, theirs = (_contents(root, "search/*/*/result.json") for root in (run, undisturbed))
        assert ours == theirs
        trials, expected = (
            [json.loads(data)["trials"] for data in _contents(root, "search/*/done.json").values()]
            for root in (run, undisturbed)
        )
        assert trials == expected
    if stages == EVERY_STAGE:
        assert (run / "report.html").exists()
    assert not list(run.rglob("*.tmp"))


def _contents(root: Path, pattern: str) -> dict[str, bytes]:
    """Files by their names below the stage: the folder in between is named after a key, which is compared as well."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob(pattern)}
