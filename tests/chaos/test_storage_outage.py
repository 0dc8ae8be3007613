"""The object store is out of order for a while, at every stage of a whole run: it ends as if nothing had happened."""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path

import pytest
from pyarrow import fs
from s3_server import S3Server, s3_server
from undisturbed import assert_undisturbed

from dfnas_ray.library import run as run_experiment
from dfnas_ray.storage.location import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 8.0  # longer than the store's own client tries
BEGINS_WITH = {  # the request after which the store is out of order
    "synthesis": r"PUT .*/synthesis/\w+/shard-\d+\.parquet",
    "search": r"PUT .*/search/\w+/[\w-]+-seed-0/state\.pt",
    "comparison": r"PUT .*/search/\w+/comparison\.json",
    "report": r"PUT .*/evaluation/\w+/done\.json",
    "retraining": r"(PUT|POST) .*/retraining/\w+/train/.*checkpoint",
}


class Weather(threading.Thread):
    """Takes the store out of order once for each stage, and counts what was refused then."""

    def __init__(self, server: S3Server):
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.refused: dict[str, int] = {}

    def run(self) -> None:
        seen, left = 0, dict(BEGINS_WITH)
        while not self.over.wait(0.005) and left:
            requests = self.server.requests[seen:]
            seen += len(requests)
            lines = [f"{method} {path}" for method, path in requests]
            for stage in [stage for stage, pattern in left.items() if any(re.match(pattern, line) for line in lines)]:
                del left[stage]
                before = self.server.refused
                self.server.mode = "overloaded"
                time.sleep(SECONDS)
                self.server.mode = "works"
                self.refused[stage] = self.server.refused - before


def test_a_store_that_fails_at_every_stage_changes_nothing_but_the_log(
    ray_cluster, tiny_experiment, tiny_run, tmp_path, monkeypatch, caplog
):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    caplog.set_level(logging.WARNING)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with s3_server("bucket") as server:
        weather = Weather(server)
        weather.start()
        run_experiment(tiny_experiment(server.uri("bucket/run")))
        weather.over.set()
        weather.join()
        run = Location.parse(server.uri("bucket/run"))
        everything = Path(tmp_path / "run")
        fs.copy_files(run.path, str(everything), source_filesystem=run.filesystem)
    assert set(weather.refused) == set(BEGINS_WITH)
    assert min(weather.refused.values()) > 0, f"an outage that nobody met shows nothing: {weather.refused}"
    assert_undisturbed(everything, tiny_run.folder)
    ours, theirs = ((root / "report.html").read_text() for root in (everything, tiny_run.folder))
    assert "Not readable" not in ours
    assert ours.count("data:image") == theirs.count("data:image")
