"""A search that starts while its images are being made: its trials in this process or on Ray, its shards from elsewhere."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
import torch

from dfnas_ray.errors import ClusterError, DfnasError, SynthesisError
from dfnas_ray.execution.inline import InlineExecutor
from dfnas_ray.library import report
from dfnas_ray.storage.arrivals import ShardsMissing
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.synthesis import Synthesis

pytestmark = pytest.mark.timeout(240)

EPOCHS = "search.algorithm.epochs=3"


class Slowly:
    """Synthesis elsewhere: finished shards are copied, each when it is called for."""

    def __init__(self, source: Path):
        self.source, self.gates = source, [threading.Event() for _ in range(3)]
        self.fails: set[int] = set()
        self.made: list[int] = []

    def make(self, stage, crew, on_made):
        crew.on_started()
        entries = dict(stage.intact)
        for entry in Manifest.read(Location.parse(self.source)).shards:
            if entry.shard in {*stage.intact, *self.fails}:
                continue
            while not self.gates[entry.shard].wait(0.05):
                if crew.should_stop():
                    raise SynthesisError("stopped")
            (stage.location / entry.file).write_bytes((self.source / entry.file).read_bytes())
            self.made.append(entry.shard)
            entries[entry.shard] = entry
            on_made(entry.shard, entry)
        if self.fails:
            raise SynthesisError(f"{len(self.fails)} of 3 shards could not be made (shard {min(self.fails)}: NaN)")
        return stage.describe(entries, len(self.made), crew.size)


class WithRoomForBoth(InlineExecutor):
    """Trials one after the other in this process; the shards come from elsewhere, so there is room for both."""

    def room_beside(self, resources, others, num_others):
        return 1

    def check_beside(self, stage, other, num_others, why):
        pass

    def run_trials(self, job, trials, teacher, images, board):
        for trial in trials:
            with suppress(ShardsMissing):  # it goes on when all are there
                super().run_trials(job, [trial], teacher, images, board)


@pytest.fixture
def make(address, tiny_experiment, monkeypatch):
    """Return a function that makes the experiment in a folder, its trials at an executor's address."""
    if address == "inline":
        monkeypatch.setattr("dfnas_ray.workflow.session.make_executor", WithRoomForBoth)
    return tiny_experiment


@pytest.fixture
def slowly(tiny_inline_run, monkeypatch):
    made = Slowly(Path(tiny_inline_run.outcomes["synthesis"].location.path))
    monkeypatch.setattr(Synthesis, "work", lambda stage, crew, on_made: made.make(stage, crew, on_made))
    return made


def open_when(gate: threading.Event, folder: Path, pattern: str) -> None:
    """Let a shard come as soon as an artefact is there."""

    def watch() -> None:
        while not list(folder.glob(pattern)) and not gate.wait(0.02):
            pass
        gate.set()

    threading.Thread(target=watch, daemon=True).start()


def results(folder: Path) -> list[dict]:
    return json.loads(next(folder.glob("search/*/trials.json")).read_text())


def test_a_search_starts_with_the_first_shards_and_compares_on_all(make, tiny_inline_run, tmp_path, slowly):
    slowly.gates[0].set()
    open_when(slowly.gates[1], tmp_path, "search/*/*-seed-0/state.pt")  # the second shard comes after an epoch
    open_when(slowly.gates[2], tmp_path, "search/*/*-seed-1/state.pt")
    with Session(make(tmp_path, EPOCHS, "search.start_after_shards=1")).opened() as session:
        search, synthesis = order.search(session), order.synthesize(session)
        report(session)
    trials = results(tmp_path)
    for trial in trials:
        assert sorted(chain(*trial["arrivals"])) in ([0], [0, 1], [0, 1, 2])
        assert next(entry["images"] for entry in trial["history"]) > 0
        assert len([entry for entry in trial["history"] if entry["phase"] == "sampling"]) == 2
    first = next(trial for trial in trials if trial["seed"] == 0)
    assert first["arrivals"][0] == [0]
    assert first["score"] is not None, "finalists are compared"
    summary = synthesis.summary
    assert summary["made_now"] == 3
    assert summary["quality"] == pytest.approx(tiny_inline_run.outcomes["synthesis"].summary["quality"])
    assert search.summary["finished_at"] > summary["finished_at"]
    assert "arrivals" not in search.summary["trials"][0]
    assert (tmp_path / "report.html").exists()
    with Session(session.config).opened() as again:
        assert order.search(again).reused
        assert order.synthesize(again).reused


def test_with_all_shards_there_the_result_is_that_of_a_search_that_waited(make, tiny_inline_run, tmp_path, recorder):
    shutil.copytree(tiny_inline_run.folder / "synthesis", tmp_path / "synthesis")
    shutil.copytree(tiny_inline_run.folder / "teacher", tmp_path / "teacher")
    with Session(make(tmp_path, "search.start_after_shards=2"), recorder).opened() as session:
        search = order.search(session)
    assert search.location.name != tiny_inline_run.outcomes["search"].location.name
    ours, theirs = results(tmp_path), results(tiny_inline_run.folder)
    for our, their in zip(ours, theirs, strict=True):
        assert our.pop("arrivals") == [[0, 1, 2]]
        for entry in our["history"]:
            assert entry.pop("images", 96) > 60
        assert our == their


def test_shards_that_cannot_be_made_end_in_an_error_and_the_next_command_goes_on(make, tmp_path, slowly, recorder):
    config = make(tmp_path, EPOCHS, "search.start_after_shards=1", "search.seeds=[0]")
    slowly.fails = {2}
    for gate in slowly.gates:
        gate.set()
    with pytest.raises(SynthesisError, match="shard 2"), Session(config).opened() as session:
        order.search(session)
    (state,) = tmp_path.glob("search/*/*-seed-0/state.pt")
    before = json.loads((state.parent / "shards.json").read_text())
    assert sorted(chain(*before)) == [0, 1]
    assert not list(tmp_path.glob("search/*/*-seed-0/result.json")), "it waits for the whole set, in nobody's place"
    kept = torch.load(state, weights_only=True)
    assert [entry["phase"] for entry in kept["history"]] == ["training"] * 3

    slowly.fails, slowly.made = set(), []
    with Session(config, recorder).opened() as session:
        search = order.search(session)
    assert slowly.made == [2]
    (trial,) = results(tmp_path)
    assert trial["arrivals"] == before
    assert trial["history"][:3] == kept["history"]
    assert search.summary["genotype"] == trial["genotype"]
    assert "search: goes on where an earlier command stopped." in recorder.said


def test_nothing_starts_when_too_few_shards_can_be_made(make, tmp_path, slowly):
    slowly.fails = {1, 2}
    for gate in slowly.gates:
        gate.set()
    config = make(tmp_path, "search.start_after_shards=2")
    with pytest.raises(SynthesisError, match="shard 1"), Session(config).opened() as session:
        order.search(session)
    assert not (tmp_path / "search").exists()


def test_a_search_that_fails_stops_the_synthesis(make, tmp_path, slowly, monkeypatch):
    def fail(*arguments):
        raise DfnasError("a trial failed")

    monkeypatch.setattr(Search, "go_ahead", fail)
    slowly.gates[0].set()
    config = make(tmp_path, "search.start_after_shards=1")
    with pytest.raises(DfnasError, match="a trial failed"), Session(config).opened() as session:
        order.search(session)
    assert slowly.made == [0]


def test_a_trial_that_fails_is_named_and_one_that_waits_is_not(ray_cluster, tiny_experiment, tmp_path, slowly):
    config = tiny_experiment(
        tmp_path, "search.start_after_shards=1", "cluster.search.attempts=1", "search.algorithm.epochs=1"
    )
    slowly.gates[0].set()
    session = Session(config)
    folder = Search(session).location
    (folder / "spos-nasbench_macro-seed-1").write_bytes(b"")  # no state can be written below a file
    with pytest.raises(DfnasError, match="failed 1 times") as raised, session.opened():
        order.search(session)
    assert "Search trial(s) spos-nasbench_macro-seed-1 failed" in str(raised.value)
    assert (folder / "spos-nasbench_macro-seed-0" / "state.pt").exists()


@pytest.mark.slow
def test_real_actors_and_trials_share_two_cpus(ray_cluster, tiny_experiment, tiny_run, tmp_path, recorder):
    overrides = ["search.start_after_shards=1", "cluster.synthesis.actors=2"]
    with Session(tiny_experiment(tmp_path, *overrides), recorder).opened() as session:
        order.search(session)
        synthesis = order.synthesize(session)
    assert synthesis.summary["actors"] == 1
    assert any("1 of 2 synthesis actors" in message for message in recorder.said)
    ours, theirs = (
        {path.name: path.read_bytes() for path in root.glob("synthesis/*/shard-*.parquet")}
        for root in (tmp_path, tiny_run.folder)
    )
    assert ours == theirs
    assert all(len(trial["history"]) == 4 for trial in results(tmp_path))


def test_a_cluster_without_room_for_both_is_refused(ray_cluster, tiny_experiment, tmp_path):
    overrides = ["search.start_after_shards=1", "cluster.search.cpus=2"]
    words = r"1 synthesis worker.*cluster\.search\.cpus=2.*has 2 CPUs.*search\.start_after_shards \(1\) to null"
    with pytest.raises(ClusterError, match=words), Session(tiny_experiment(tmp_path, *overrides)).opened() as session:
        order.search(session)
    assert not {"experiment.yaml", "latest.json", "synthesis", "search"} & {path.name for path in tmp_path.iterdir()}
